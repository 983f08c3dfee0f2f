"""Our path against plain onnxruntime scripts, on the public models and real frames."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from syncline.edge.backend import Backend
from syncline.edge.decode import Boxes, LabelMap, decoder_for
from syncline.edge.preprocess import Preprocessor

from . import plain, real

Frames = list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def frames(shared_data: Path) -> Frames:
    """KITTI, every 25th CamVid frame, and frames of the test video."""
    camvid = real.camvid(shared_data)[::25]
    video = list(islice(real.video(shared_data), 0, 60, 20))
    return real.kitti(shared_data) + camvid + video


def assert_same(ours: Boxes, theirs: plain.Detections) -> None:
    boxes, scores, classes = theirs
    assert len(ours) == len(scores)
    order = np.argsort(-scores, kind="stable")
    np.testing.assert_allclose(ours.xyxy_px, boxes[order], atol=0.5)
    np.testing.assert_allclose(ours.score, scores[order], atol=1e-3)
    np.testing.assert_array_equal(ours.class_id, classes[order])


@pytest.mark.parametrize(
    ("name", "script", "threshold"),
    [
        ("yolox", plain.yolox, real.THRESHOLD),
        ("fastestdet", plain.fastestdet, real.THRESHOLD),
        ("ssd", plain.rfb, 0.1),
    ],
)
def test_boxes_equal_a_plain_script(
    name: str,
    script: Callable[..., plain.Detections],
    threshold: float,
    shared_data: Path,
    tmp_path: Path,
    frames: Frames,
) -> None:
    bundle = real.bundle(name, shared_data, tmp_path / name)
    backend = Backend.load(bundle)
    pre, decode = Preprocessor(bundle.manifest.input), decoder_for(bundle.manifest)
    decode.check(backend.output_shapes)
    model = plain.session(shared_data / "models" / real.MANIFESTS[name][0])
    found = 0
    for frame in frames:
        tensor, geometry = pre(frame)
        ours = decode(backend.run(tensor), geometry)
        assert isinstance(ours, Boxes)
        assert_same(ours, script(model, frame, threshold, real.IOU))
        found += len(ours)
    assert found > (0 if name == "ssd" else 20)


def test_lane_masks_equal_a_plain_script(shared_data: Path, tmp_path: Path, frames: Frames) -> None:
    bundle = real.bundle("twinlite", shared_data, tmp_path / "twinlite")
    backend = Backend.load(bundle)
    pre, decode = Preprocessor(bundle.manifest.input), decoder_for(bundle.manifest)
    decode.check(backend.output_shapes)
    model = plain.session(shared_data / "models/twinlitenet.onnx")
    for frame in frames[2:6]:
        tensor, geometry = pre(frame)
        ours = decode(backend.run(tensor), geometry)
        assert isinstance(ours, LabelMap)
        drivable, lane = plain.twinlite(model, frame)
        np.testing.assert_array_equal(ours.labels & 1, drivable)
        np.testing.assert_array_equal(ours.labels >> 1, lane)
        assert 0.02 < drivable.mean() < 0.9
        assert ours.upsampled().shape == frame.shape[:2]
