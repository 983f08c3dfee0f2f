"""Frames and networks for the model tooling's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from syncline.cloud.models.frames import Frame, FrameSource
from syncline.cloud.models.graph import serialise
from syncline.cloud.models.importer import ImportOptions, import_model
from syncline.cloud.models.probe import synthetic_frame
from syncline.cloud.models.reference import edgeseg
from syncline.edge.model.bundle import Bundle

W, H = 160, 96


def made_frames(count: int, width: int = W, height: int = H, *, first: int = 0) -> FrameSource:
    """A source of synthetic frames."""

    def read() -> Iterator[Frame]:
        for i in range(count):
            yield Frame(f"{i}", "", synthetic_frame(width, height, seed=first + i))

    return FrameSource(Path("synthetic"), count, read)


@pytest.fixture(scope="session")
def frames() -> FrameSource:
    return made_frames(8)


@pytest.fixture(scope="session")
def small_net() -> onnx.ModelProto:
    """EdgeSeg of 16 channels at 160x96."""
    return edgeseg(16, width=W, height=H)


@pytest.fixture(scope="session")
def net_file(small_net: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "edgeseg.onnx"
    path.write_bytes(serialise(small_net))
    return path


@pytest.fixture(scope="session")
def bundle(net_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small net as an fp32 bundle."""
    out = tmp_path_factory.mktemp("bundles") / "fp32"
    return import_model(net_file, out, ImportOptions(preset="edgeseg")).bundle


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, half of them in a sub-folder and dark."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "night").mkdir()
    for i in range(12):
        image = synthetic_frame(W, H, seed=i)
        night = i % 2 == 1
        file = folder / "night" / f"{i}.png" if night else folder / f"{i}.png"
        assert cv2.imwrite(str(file), image // 4 if night else image)
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
