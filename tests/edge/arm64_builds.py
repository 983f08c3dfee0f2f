"""On x86: what scripts/arm64-check takes into the arm64 system, and what must come out there.

The shipped networks are taken out of int8 (weights as they were rounded) and quantised again for
each target, on pictures of a rendered drive. Run as: python -m tests.edge.arm64_builds FOLDER
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
from msgspec.structs import replace
from numpy.typing import NDArray
from onnx import numpy_helper

from syncline.cloud.models.build import QuantizeOptions, quantize_bundle
from syncline.cloud.models.frames import Frame, FrameSource
from syncline.cloud.models.gate import GateLimits
from syncline.cloud.models.golden_frame import choose_golden
from syncline.cloud.models.graph import parse_model, serialise
from syncline.cloud.models.runtime import GraphSession
from syncline.cloud.models.targets import TARGETS, golden_runtime, sums_overflow_here
from syncline.cloud.train.rendered import frames_of
from syncline.edge.model.bundle import Bundle, write_bundle
from syncline.edge.model.golden import pack_golden
from syncline.edge.preprocess import Preprocessor
from syncline.edge.session import RUNTIME
from syncline.edge.shipped import resolve_bundle

SHIPPED = ("road-detector", "road-segmenter")
MADE = ("arm64", "x86-64", "x86-64-vnni")
DRIVE_SEED = 4242
FRAMES, CALIBRATION = 12, 6
CLIP_FPS = 20


def main() -> None:
    """Make the folder anew."""
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shots = list(frames_of(DRIVE_SEED, FRAMES))
    pictures = [np.ascontiguousarray(shot.rendered.image) for shot in shots]
    np.savez(folder / "frames.npz", frames=np.stack(pictures))
    write_clip(folder / "clip.mkv", pictures)
    wanted: dict[str, NDArray[np.generic]] = {}
    for name in SHIPPED:
        source = Bundle.open(resolve_bundle(name), trusted_keys=None)
        bundles = {name: source, f"{name}-fp32": taken_out(source, pictures, folder)}
        for target in MADE:
            bundles[f"{name}-{target}"] = quantised(bundles[f"{name}-fp32"], target, pictures)
        for key, bundle in bundles.items():
            wanted |= outputs(key, bundle, pictures)
    np.savez(folder / "wanted.npz", allow_pickle=False, **wanted)


def taken_out(source: Bundle, pictures: list[NDArray[np.uint8]], folder: Path) -> Bundle:
    """A shipped int8 bundle as fp32, in `folder/NAME-fp32`."""
    manifest = source.manifest
    target = replace(manifest.target, precision="fp32", runtime=golden_runtime(RUNTIME, "fp32"))
    manifest = replace(manifest, files={}, metrics={}, target=target)
    model = unquantised(parse_model(source.model_bytes()))
    golden = choose_golden(model, manifest, frames(pictures).read()).golden
    files = {"model.onnx": serialise(model), "golden.npz": pack_golden(golden)}
    return write_bundle(folder / f"{manifest.name}-fp32", manifest, files)


def quantised(fp32: Bundle, name: str, pictures: list[NDArray[np.uint8]]) -> Bundle:
    """The build for a target beside the fp32 one; it must be as good as fp32, at any speed."""
    limits = GateLimits(unmeasured_speed=True, min_speedup=0.01, min_f1=0.9)
    options = QuantizeOptions(target=TARGETS[name], limits=limits, runs=1)
    out = fp32.folder.with_name(f"{fp32.manifest.name}-{name}")
    calibration, judged = frames(pictures[:CALIBRATION]), frames(pictures[CALIBRATION:])
    report = quantize_bundle(
        fp32, out, calibration, judged, options, cpu_ns=time.thread_time_ns
    )  # fmt: skip
    return report.bundle


def frames(pictures: list[NDArray[np.uint8]]) -> FrameSource:
    """Pictures as a source."""

    def read() -> Iterator[Frame]:
        for i, picture in enumerate(pictures):
            yield Frame(str(i), "", picture)

    return FrameSource(Path("drive"), len(pictures), read)


def outputs(
    key: str, bundle: Bundle, pictures: list[NDArray[np.uint8]]
) -> dict[str, NDArray[np.generic]]:
    """Input tensors and raw outputs here, with the sums of the target, by `KEY|FRAME|in` or `out`.

    Frames of more rows than one (boxes) keep their number of rows.
    """
    manifest = bundle.manifest
    exact = sums_overflow_here(manifest.target.precision)
    session = GraphSession(bundle.model_bytes(), exact=exact)
    prepare = Preprocessor(manifest.input)
    found: dict[str, NDArray[np.generic]] = {}
    for i, picture in enumerate(pictures):
        tensor = prepare(picture)[0].copy()
        found[f"{key}|{i}|in"] = tensor
        found[f"{key}|{i}|out"] = np.asarray(session.run({manifest.input.name: tensor})[0])
    return found


def unquantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """An int8 QDQ graph in float: weights as rounded, activations without steps.

    A quantiser drops a ReLU before a step whose zero point is zero, so there one stands again.
    """
    graph = model.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    renamed: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        source, result = node.input[0], node.output[0]
        if node.op_type == "DequantizeLinear" and source in constants:
            graph.initializer.append(numpy_helper.from_array(_float(node, constants), result))
        elif node.op_type == "QuantizeLinear" and not constants[node.input[2]].any():
            nodes.append(onnx.helper.make_node("Relu", [source], [result]))
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            renamed[result] = source
        else:
            nodes.append(node)
    for node in nodes:
        for i, name in enumerate(node.input):
            while name in renamed:
                name = renamed[name]
            node.input[i] = name
    used = {name for node in nodes for name in node.input}
    kept = [t for t in graph.initializer if t.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    return model


def _float(node: onnx.NodeProto, constants: dict[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    """The value of a constant that stands as integers, a scale and a zero point per channel."""
    value, scale, zero = (constants[name].astype(np.float64) for name in node.input)
    if scale.size > 1:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1) % value.ndim
        shape = [scale.size if k == axis else 1 for k in range(value.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return ((value - zero) * scale).astype(np.float32)


def write_clip(path: Path, pictures: list[NDArray[np.uint8]]) -> None:
    """The pictures as a JPEG video."""
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter.fourcc(*"MJPG"), CLIP_FPS, (width, height)
    )  # fmt: skip
    for picture in pictures:
        writer.write(picture)
    writer.release()


if __name__ == "__main__":
    main()
