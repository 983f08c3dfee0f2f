"""Fixtures of the link's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A collector and devices, closed afterwards."""
    made = Rig(tmp_path)
    yield made
    made.close()
