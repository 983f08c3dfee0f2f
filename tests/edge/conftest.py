"""What several of the runner's tests start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncline.edge.runner import ModelSlot

from . import tiny


@pytest.fixture
def segmenter(tmp_path: Path) -> ModelSlot:
    return ModelSlot(name="main", bundle=tiny.bundle(tmp_path / "segmenter"))
