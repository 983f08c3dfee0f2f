"""The learned oscillator, kept over reboots."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from syncline.sync.estimator import LearnedOscillator
from syncline.sync.saved import load_saved, save

MAX_RATE = 1e-3


class OscillatorState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file: no instant is kept in it, so raw times of two boots are never joined."""

    rate: float
    rate_sigma: float
    wander: float


def load_oscillator(path: Path) -> tuple[LearnedOscillator | None, str]:
    """The stored oscillator, and what is wrong with the file ("" when nothing is)."""
    s, why = load_saved(path, OscillatorState, "learned oscillator")
    if s is None:
        return None, why
    good = all(math.isfinite(x) for x in (s.rate, s.rate_sigma, s.wander))
    if not good or abs(s.rate) > MAX_RATE or not 0 < s.rate_sigma < MAX_RATE or s.wander < 0:
        return None, f"{path}: rate {s.rate} +- {s.rate_sigma} is not an oscillator's"
    return LearnedOscillator(s.rate, s.rate_sigma, s.wander), ""


def save_oscillator(path: Path, learned: LearnedOscillator) -> None:
    """Store it durably.

    Raises:
        StorageError: The file cannot be written.
    """
    save(path, OscillatorState(learned.rate, learned.rate_sigma, learned.wander))
