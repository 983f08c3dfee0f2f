"""Bundles of the public models, made from the shared data, and frames to run them on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.edge.model.bundle import Bundle, write_bundle
from syncline.edge.model.golden import pack_golden
from syncline.edge.model.manifest import DecoderSpec, InputSpec, Manifest, TargetSpec

from . import tiny

THRESHOLD, IOU = 0.3, 0.45
COCO = tuple(f"coco{i}" for i in range(80))

MANIFESTS: dict[str, tuple[str, Manifest]] = {
    "yolox": (
        "yolox_nano.onnx",
        Manifest(
            name="yolox-nano",
            version="0.1.0",
            task="detection",
            labels=COCO,
            input=InputSpec(name="images", width=416, height=416, resize="letterbox-topleft"),
            decoder=DecoderSpec(
                kind="yolox", outputs=("output",), strides=(8, 16, 32), score_threshold=THRESHOLD
            ),
            target=TargetSpec(opset=11),
        ),
    ),
    "fastestdet": (
        "FastestDet.onnx",
        Manifest(
            name="fastestdet",
            version="1",
            task="detection",
            labels=COCO,
            input=InputSpec(name="input.1", width=352, height=352, std=(255.0,) * 3),
            decoder=DecoderSpec(kind="fastestdet", outputs=("758",), score_threshold=THRESHOLD),
            target=TargetSpec(opset=11),
        ),
    ),
    "ssd": (
        "version-RFB-320.onnx",
        Manifest(
            name="rfb-face",
            version="320",
            task="detection",
            labels=("face",),
            input=InputSpec(
                name="input",
                width=320,
                height=240,
                color="RGB",
                mean=(127.0,) * 3,
                std=(128.0,) * 3,
            ),
            decoder=DecoderSpec(kind="ssd", outputs=("scores", "boxes"), score_threshold=0.1),
            target=TargetSpec(opset=9),
        ),
    ),
    "twinlite": (
        "twinlitenet.onnx",
        Manifest(
            name="twinlitenet",
            version="1",
            task="lanes",
            labels=("background", "drivable", "lane", "lane on drivable"),
            input=InputSpec(name="images", width=640, height=360, color="RGB", std=(255.0,) * 3),
            decoder=DecoderSpec(kind="twinlite", outputs=("da", "ll")),
            target=TargetSpec(opset=11),
        ),
    ),
}


def bundle(name: str, shared: Path, folder: Path) -> Bundle:
    """The bundle of one public model."""
    file, manifest = MANIFESTS[name]
    model = (shared / "models" / file).read_bytes()
    golden = tiny.golden_of(model, manifest, tiny.frame(1, 320, 240))
    return write_bundle(folder, manifest, {"model.onnx": model, "golden.npz": pack_golden(golden)})


def kitti(shared: Path) -> list[NDArray[np.uint8]]:
    return _images(shared / "kitti/object/training/image_2")


def camvid(shared: Path) -> list[NDArray[np.uint8]]:
    return _images(shared / "images/camvid/val")


def _images(folder: Path) -> list[NDArray[np.uint8]]:
    paths = sorted(p for p in folder.iterdir() if p.suffix in (".png", ".jpg"))
    assert paths
    return [np.asarray(cv2.imread(str(path)), dtype=np.uint8) for path in paths]


def video(shared: Path, name: str = "solidWhiteRight.mp4") -> Iterator[NDArray[np.uint8]]:
    with av.open(str(shared / "video" / name)) as container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="bgr24"), dtype=np.uint8)
