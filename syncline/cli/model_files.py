"""What `syncline model` commands are given: a bundle, by folder or by the name it ships under."""

from __future__ import annotations

from pathlib import Path

from syncline.edge.model.bundle import Bundle
from syncline.edge.shipped import resolve_bundle
from syncline.errors import UsageError


def open_bundle(path: Path) -> Bundle:
    """A verified bundle; its signature is not asked for.

    Raises:
        UsageError: It is no bundle; an ONNX file is none yet.
        ModelError: It was changed, or its manifest is wrong.
    """
    return Bundle.open(resolve_bundle(str(path)), trusted_keys=None)


def check_runs(runs: int) -> None:
    """Refuse a measurement of no rounds.

    Raises:
        UsageError: It has none.
    """
    if runs < 1:
        raise UsageError(f"--runs {runs} is too few", remedy="Give 1 or more")
