"""What is known of a channel's moves: a chain of rows, and the way that they tell."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

ROLLBACK = "rollback from "
"""How the reason of a rollback begins."""


@dataclass(frozen=True, slots=True)
class ChannelMove:
    """One row of a channel's history."""

    name: str
    channel: str
    revision: int
    version: str
    actor: str
    reason: str
    utc_ns: int
    row_hash: str


def promoted(history: list[ChannelMove]) -> list[str]:
    """The way to where a channel stands, without the ways that were gone back.

    Each promotion goes one further, each rollback cuts off what lies behind its version.
    """
    path: list[str] = []
    for move in history:
        if move.reason.startswith(ROLLBACK) and move.version in path:
            while path[-1] != move.version:
                path.pop()
        elif not path or path[-1] != move.version:
            path.append(move.version)
    return path


def row_hash(move: ChannelMove, previous_hash: str) -> str:
    """sha256 over a row and the hash of the row before it."""
    content = {**asdict(move), "row_hash": previous_hash}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
