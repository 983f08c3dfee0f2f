"""int8 with the target's types, in bounded memory, with the rest of the graph untouched."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace

from syncline.cloud.models.builder import GraphBuilder
from syncline.cloud.models.fold import fold, fold_input
from syncline.cloud.models.frames import FrameSource
from syncline.cloud.models.graph import serialise, validate
from syncline.cloud.models.nncf_body import quantise_with_nncf
from syncline.cloud.models.partition import partition
from syncline.cloud.models.probe import Probe, feeds, synthetic_frame
from syncline.cloud.models.quantize import (
    activation_types,
    check_types,
    optimised,
    quantise_graph,
    quantised_weight_range,
)
from syncline.cloud.models.reference import edgeseg, hard_swish, mobseg, reference_manifest, relu
from syncline.cloud.models.runtime import Array, GraphSession
from syncline.cloud.models.targets import (
    TARGETS,
    golden_runtime,
    has_vnni,
    sums_overflow_here,
    target_named,
    this_machine,
)
from syncline.edge.decode import LabelMap
from syncline.edge.machine import machine_kind
from syncline.errors import ModelError, UsageError

W, H = 160, 96


def calibration(model: onnx.ModelProto, frames: FrameSource) -> Iterator[dict[str, Array]]:
    manifest = reference_manifest(model, "net")
    for feed in feeds(manifest.input, frames.read()):
        yield dict(feed)


INT8_TARGETS = {name: target for name, target in TARGETS.items() if target.quantised}


@pytest.mark.parametrize("name", INT8_TARGETS)
def test_each_target_gets_its_types(
    small_net: onnx.ModelProto, frames: FrameSource, name: str
) -> None:
    """edge-8: x86 packages hold no int8-typed activation, the arm64 package does."""
    target = TARGETS[name]
    model = quantise_graph(small_net, calibration(small_net, frames), target)
    wanted = {
        "x86-64-vnni": "uint8",
        "x86-64": "uint8",
        "arm64": "int8",
        "tensorrt": "int8",
        "openvino": "uint8",
    }
    assert activation_types(model) == {wanted[name]}
    for other in INT8_TARGETS.values():
        if other.activation == target.activation:
            check_types(model, other)
        else:
            with pytest.raises(ModelError, match="Quantise the fp32 model again"):
                check_types(model, other)


def test_seven_bit_weights_for_x86_without_vnni(
    small_net: onnx.ModelProto, frames: FrameSource
) -> None:
    """u8s7: products of two neighbours fit the 16-bit sums of AVX2."""
    seven = quantise_graph(small_net, calibration(small_net, frames), TARGETS["x86-64"])
    eight = quantise_graph(small_net, calibration(small_net, frames), TARGETS["x86-64-vnni"])
    assert quantised_weight_range(seven) == (-64, 64)
    assert quantised_weight_range(eight) == (-127, 127)


def bright_net() -> onnx.ModelProto:
    """All weights equal and positive: every product is as large as products get."""
    builder = GraphBuilder("net")
    x = builder.node("Relu", [builder.conv("images", np.full((64, 3, 1, 1), 0.3, np.float32))])
    for outputs in (64, 64, 4):
        x = builder.node("Relu", [builder.conv(x, np.full((outputs, 64, 1, 1), 0.02, np.float32))])
    shape = [1, 3, H, W]
    return builder.model(
        [("images", onnx.TensorProto.FLOAT, shape)], [(x, onnx.TensorProto.FLOAT, [1, 4, H, W])]
    )


def test_seven_bits_never_saturate_and_eight_do_without_vnni() -> None:
    """edge-8: the brightest frame through u8s7 is right on any x86; u8s8 is right with VNNI."""
    net = bright_net()
    feed: dict[str, Array] = {"images": np.ones((1, 3, H, W), np.float32)}
    wanted = np.asarray(GraphSession(serialise(net)).run(feed)[0], np.float64)
    off = {}
    for name in ("x86-64", "x86-64-vnni"):
        model = quantise_graph(net, iter([feed]), TARGETS[name])
        found = np.asarray(GraphSession(serialise(model)).run(feed)[0], np.float64)
        off[name] = float(np.abs(found / wanted - 1.0).max())
    assert off["x86-64"] < 0.02
    if platform.machine() == "x86_64":
        assert off["x86-64-vnni"] < 0.02 if has_vnni() else off["x86-64-vnni"] > 0.2


@pytest.mark.parametrize("name", ["x86-64-vnni", "arm64", "tensorrt"])
def test_a_build_is_judged_with_the_sums_of_its_target(name: str) -> None:
    """edge-8: 8-bit sums that overflow here alone reach neither the gate nor the golden output."""
    net = bright_net()
    feed: dict[str, Array] = {"images": np.ones((1, 3, H, W), np.float32)}
    target = TARGETS[name]
    model = quantise_graph(net, iter([dict(feed)]), target)
    wanted = np.asarray(GraphSession(serialise(net)).run(feed)[0], np.float64)
    exact = sums_overflow_here(target.precision)
    assert exact == (platform.machine() == "x86_64" and not has_vnni())
    found = GraphSession(serialise(model), exact=exact).run(feed)[0]
    assert np.abs(np.asarray(found, np.float64) / wanted - 1.0).max() < 0.02
    named = golden_runtime("onnxruntime 1", target.precision)
    assert named == f"onnxruntime 1 {'in float ' if exact else ''}on {machine_kind()}"
    assert golden_runtime("onnxruntime 1", "u8s7") == f"onnxruntime 1 on {machine_kind()}"


def test_symmetric_zero_points_for_tensorrt(
    small_net: onnx.ModelProto, frames: FrameSource
) -> None:
    model = quantise_graph(small_net, calibration(small_net, frames), TARGETS["tensorrt"])
    values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    points = [values[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert points
    assert all(not np.any(p) for p in points)


def test_stem_and_tail_stay_float(small_net: onnx.ModelProto, frames: FrameSource) -> None:
    manifest = reference_manifest(small_net, "net")
    folded, manifest = fold(small_net, manifest)
    parts = partition(optimised(folded))
    nodes = parts.model.graph.node
    assert [nodes[i].op_type for i in parts.head] == ["Transpose", "Cast", "Div", "Conv", "Relu"]
    assert {nodes[i].op_type for i in parts.tail} == {"Conv", "ArgMax", "Cast"}
    model = quantise_graph(folded, feeds(manifest.input, frames.read()), TARGETS["x86-64"])
    kinds = [node.op_type for node in model.graph.node]
    assert kinds[:5] == ["Transpose", "Cast", "Div", "Conv", "Relu"]
    assert kinds[-2:] == ["ArgMax", "Cast"]
    with_stem = partition(optimised(folded), keep_stem=False)
    assert len(with_stem.body) == len(parts.body) + 2


def test_parts_put_together_are_the_whole(small_net: onnx.ModelProto) -> None:
    """Cutting the body out and putting it back changes no output bit."""
    whole = optimised(small_net)
    parts = partition(whole)
    again = parts.with_body(parts.body_model())
    validate(again)
    feed = {"images": np.random.default_rng(0).random((1, 3, H, W), dtype=np.float32)}
    one, other = (GraphSession(serialise(m), optimise=False).run(feed)[0] for m in (whole, again))
    np.testing.assert_array_equal(one, other)


def test_int8_says_nearly_what_fp32_says(small_net: onnx.ModelProto, frames: FrameSource) -> None:
    manifest = reference_manifest(small_net, "net")
    model = quantise_graph(small_net, calibration(small_net, frames), TARGETS["x86-64"])
    one, other = Probe(small_net, manifest), Probe(model, manifest)
    frame = synthetic_frame(W, H, 99)
    a, b = (np.asarray(p.outputs(frame)[0], dtype=np.float64) for p in (one, other))
    assert np.sqrt(np.mean((a - b) ** 2)) / a.std() < 0.1


def test_uint8_path_gives_the_labels_of_the_float_path(frames: FrameSource) -> None:
    """edge-12: uint8 frame and ArgMax in the graph against float tensor and ArgMax outside."""
    net = edgeseg(16, width=W, height=H, seed=3)
    manifest = reference_manifest(net, "net")
    folded, inside = fold(net, manifest)
    assert inside.input.dtype == "uint8"
    one, other = Probe(net, manifest), Probe(folded, inside)
    for frame in frames.read():
        a, b = one(frame.bgr), other(frame.bgr)
        assert isinstance(a, LabelMap)
        assert isinstance(b, LabelMap)
        np.testing.assert_array_equal(a.labels, b.labels)


@pytest.mark.parametrize("color", ["BGR", "RGB"])
@pytest.mark.parametrize("mean", [(0.0, 0.0, 0.0), (123.7, 116.3, 103.5)])
def test_folded_input_is_bit_identical(
    small_net: onnx.ModelProto, color: str, mean: tuple[float, float, float]
) -> None:
    """edge-12: the normalisation inside is the very arithmetic of the preprocessor."""
    manifest = reference_manifest(small_net, "net")
    spec = replace(manifest.input, color=color, mean=mean, std=(58.4, 57.1, 57.4))
    model, inner = fold_input(small_net, spec)
    frame = synthetic_frame(W, H, 5)
    one = Probe(small_net, replace(manifest, input=spec)).outputs(frame)[0]
    other = Probe(model, replace(manifest, input=inner)).outputs(frame)[0]
    np.testing.assert_array_equal(one, other)


def test_only_lazy_calibration(small_net: onnx.ModelProto) -> None:
    """Frames are asked for one at a time, never collected."""
    alive = most = 0

    def source() -> Iterator[dict[str, Array]]:
        nonlocal alive, most
        for i in range(6):
            alive += 1
            most = max(most, alive)
            yield {"images": np.full((1, 3, H, W), i / 6, np.float32)}
            alive -= 1

    quantise_graph(small_net, source(), TARGETS["x86-64"])
    assert most == 1


_MEMORY = """
import sys
import numpy as np
from syncline.cloud.models.quantize import quantise_graph
from syncline.cloud.models.reference import edgeseg
from syncline.cloud.models.targets import TARGETS
net = edgeseg(32, width=640, height=352)
rng = np.random.default_rng(0)
frames = ({"images": rng.random((1, 3, 352, 640), dtype=np.float32)} for _ in range(48))
quantise_graph(net, frames, TARGETS["x86-64"])
print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024)
"""


def test_calibrating_48_frames_stays_below_2_gib() -> None:
    """edge-11: 48 frames of 640x352 (the multiple of 32 below 640x360), peak RSS of the process."""
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY], capture_output=True, text=True, check=True, timeout=110
    )
    assert int(done.stdout) <= 2048


def test_no_calibration_frame_is_an_error(small_net: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match="no calibration frame"):
        quantise_graph(small_net, iter(()), TARGETS["x86-64"])


def test_nothing_to_quantise_is_an_error() -> None:
    b = GraphBuilder("t")
    b.node("Relu", ["x"], out="y")
    shape = [1, 3, 8, 8]
    model = b.model([("x", 1, shape)], [("y", 1, shape)])
    with pytest.raises(ModelError, match="no inner convolution"):
        quantise_graph(model, iter(()), TARGETS["x86-64"])


def test_the_argument_is_left_alone(small_net: onnx.ModelProto, frames: FrameSource) -> None:
    before = serialise(small_net)
    quantise_graph(small_net, calibration(small_net, frames), TARGETS["x86-64"])
    fold(small_net, reference_manifest(small_net, "net"))
    assert serialise(small_net) == before


@pytest.mark.parametrize("activation", [relu, hard_swish])
def test_mobile_networks_can_be_quantised_too(activation: object, frames: FrameSource) -> None:
    net = mobseg(width=W, height=H, activation=activation)  # type: ignore[arg-type]
    model = quantise_graph(net, calibration(net, frames), TARGETS["x86-64"])
    assert activation_types(model) == {"uint8"}


def test_targets_by_name(tmp_path: Path) -> None:
    assert target_named("auto") == this_machine()
    with pytest.raises(UsageError, match="arm64"):
        target_named("amiga")
    info = tmp_path / "cpuinfo"
    info.write_text("flags : fpu avx2\n")
    assert not has_vnni(info)
    info.write_text("flags : fpu avx2 avx512_vnni\n")
    assert has_vnni(info)
    assert not has_vnni(tmp_path / "none")


def test_nncf_is_asked_for_by_name(
    small_net: onnx.ModelProto, frames: FrameSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UsageError, match=r"pip install 'syncline\[openvino\]'"):
        quantise_with_nncf(small_net, lambda: calibration(small_net, frames), frames=1)


def test_nncf_quantises_the_body(small_net: onnx.ModelProto, frames: FrameSource) -> None:
    pytest.importorskip("nncf", reason="needs the openvino extra")
    model = quantise_with_nncf(small_net, lambda: calibration(small_net, frames), frames=8)
    assert activation_types(model)
    assert [node.op_type for node in model.graph.node][:2] == ["Conv", "Relu"]
    low, high = quantised_weight_range(model)
    assert -64 <= low < high <= 64, "8 bits saturate on x86 without VNNI"
