"""The golden frame is steady under other rounding; what its proof refuses, here and elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import onnx
import pytest

from syncline.cloud.models.build import QuantizeOptions, fp32_build, int8_build
from syncline.cloud.models.frames import Frame, FrameSource
from syncline.cloud.models.gate import Build
from syncline.cloud.models.golden_frame import GoldenChoice, at_input_size, choose_golden
from syncline.cloud.models.graph import copy_model, serialise
from syncline.cloud.models.probe import synthetic_frame
from syncline.cloud.models.targets import this_machine
from syncline.edge.engine import Engine
from syncline.edge.machine import machine_kind
from syncline.edge.model.bundle import Bundle, write_bundle
from syncline.edge.model.golden import Golden, pack_golden
from syncline.edge.model.manifest import GoldenSpec
from syncline.edge.preprocess import Preprocessor
from syncline.edge.proof import is_at_input_size
from syncline.errors import HealthProofError

ELSEWHERE = "onnxruntime 1.31.1 on another machine"


@pytest.fixture(scope="module")
def int8(bundle: Bundle, frames: FrameSource) -> Build:
    fp32 = fp32_build(bundle, fold_graph=True)
    return int8_build(fp32, frames, QuantizeOptions(target=this_machine()))


@pytest.fixture(scope="module")
def chosen(int8: Build, frames: FrameSource) -> GoldenChoice:
    return choose_golden(int8.model, int8.manifest, frames.read())


def test_the_steadiest_frame_is_taken(
    int8: Build, frames: FrameSource, chosen: GoldenChoice
) -> None:
    """Each alone is no steadier; the outputs are the chosen frame's own."""
    alone = [choose_golden(int8.model, int8.manifest, [f]) for f in list(frames.read())[:4]]
    assert chosen.steadiness >= max(choice.steadiness for choice in alone)
    assert chosen.kind == "classes"
    again = choose_golden(int8.model, int8.manifest, [Frame("", "", chosen.golden.frame)])
    np.testing.assert_array_equal(again.golden.outputs[0], chosen.golden.outputs[0])


@pytest.mark.parametrize("resize", ["stretch", "letterbox-topleft", "letterbox-center"])
@pytest.mark.parametrize("size", [(640, 480), (97, 331), (1920, 1080)])
def test_a_golden_frame_is_not_resized_on_the_device(
    bundle: Bundle, resize: Literal["stretch", "letterbox-topleft"], size: tuple[int, int]
) -> None:
    """edge-35: it goes into the tensor as it is; it gives the tensor that the picture gave."""
    spec = msgspec.structs.replace(bundle.manifest.input, resize=resize)
    picture = synthetic_frame(*size)
    small = at_input_size(picture, spec)
    assert is_at_input_size(small, spec)
    one, other = (Preprocessor(spec)(image)[0] for image in (picture, small))
    np.testing.assert_array_equal(one, other)


def test_limits_are_those_that_the_frame_keeps() -> None:
    golden = Golden(np.zeros((4, 4, 3), np.uint8), ())
    spec = GoldenSpec()
    assert GoldenChoice(golden, 0.998, 5, "classes").spec(spec) == spec
    assert GoldenChoice(golden, 0.998, 5, "classes").notes() == []
    shaky = GoldenChoice(golden, 0.98, 5, "classes")
    assert shaky.spec(spec).min_agreement == pytest.approx(0.96)
    assert "rounding decides" in shaky.notes()[0]
    assert GoldenChoice(golden, 0.5, 5, "classes").spec(spec).min_agreement == 0.95
    assert GoldenChoice(golden, 0.5, 5, "boxes").spec(spec).min_agreement == 0.8
    assert GoldenChoice(golden, 1.0, 0, "boxes").notes() == [], "raw outputs are held"
    assert "shows no box" in GoldenChoice(golden, 1.0, 0, "boxes", is_list=True).notes()[0]


def written(
    folder: Path, build: Build, model: onnx.ModelProto, choice: GoldenChoice, runtime: str
) -> Bundle:
    target = msgspec.structs.replace(build.manifest.target, runtime=runtime, device_class="any")
    spec = choice.spec(build.manifest.golden)
    manifest = msgspec.structs.replace(build.manifest, files={}, target=target, golden=spec)
    files = {"model.onnx": serialise(model), "golden.npz": pack_golden(choice.golden)}
    return write_bundle(folder, manifest, files)


def damaged(build: Build, how: str) -> onnx.ModelProto:
    """One inner layer of the int8 body: its weights turned about, or its scale changed."""
    model = copy_model(build.model)
    tensors = {t.name: t for t in model.graph.initializer}
    kernels = [t for t in tensors.values() if t.data_type == onnx.TensorProto.INT8 and t.dims]
    kernel = max(kernels, key=lambda t: int(np.prod(t.dims)))
    scale = next(
        node.input[1]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] == kernel.name
    )
    tensor = kernel if how == "weights" else tensors[scale]
    values = onnx.numpy_helper.to_array(tensor)
    changed = values[::-1] if how == "weights" else values * np.float32(3.0)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(changed), tensor.name))
    return model


def test_a_build_proves_itself_elsewhere_by_other_kernels(
    int8: Build, chosen: GoldenChoice, tmp_path: Path
) -> None:
    """edge-35: outputs by other kernels are accepted elsewhere, and named as what they are."""
    bundle = written(tmp_path / "a", int8, int8.model, chosen, ELSEWHERE)
    assert Engine.load(bundle).proof.agreement >= bundle.manifest.golden.min_agreement
    assert int8.manifest.target.runtime.endswith(machine_kind())
    assert int8.manifest.golden.provider == "CPUExecutionProvider"


@pytest.mark.parametrize("how", ["weights", "scale"])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_model_that_computes_something_else_is_refused_everywhere(
    int8: Build, chosen: GoldenChoice, tmp_path: Path, how: str, where: str
) -> None:
    """edge-18: right digests, a layer turned about or scaled: refused here and elsewhere."""
    runtime = int8.manifest.target.runtime if where == "here" else ELSEWHERE
    bundle = written(tmp_path / "a", int8, damaged(int8, how), chosen, runtime)
    with pytest.raises(HealthProofError, match="golden run"):
        Engine.load(bundle)
