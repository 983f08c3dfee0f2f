"""Fixtures of the collector's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..link.rig import Rig  # noqa: TID252 - tests are no package that could be named


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A collector and devices, closed afterwards."""
    made = Rig(tmp_path)
    yield made
    made.close()
