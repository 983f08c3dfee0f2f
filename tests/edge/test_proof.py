"""The golden proof where the model was not built: another runtime, another processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from syncline.edge.backend import BackendOptions
from syncline.edge.decode import Boxes, Decoded, LabelMap, Scores
from syncline.edge.engine import Engine
from syncline.edge.machine import machine_kind
from syncline.edge.model.bundle import Bundle, write_bundle
from syncline.edge.model.golden import Golden, GoldenProof, pack_golden
from syncline.edge.proof import compare_meaning, is_same_runtime
from syncline.edge.shipped import resolve_bundle
from syncline.errors import HealthProofError

FRAME = np.zeros((24, 32, 3), np.uint8)
ROWS = np.array([[0, 0, 10, 10, 0.9, 0], [20, 0, 30, 10, 0.89, 1], [5, 5, 9, 9, 0.52, 1]], "f4")


def boxes(rows: np.ndarray) -> Boxes:
    return Boxes(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64))


def proof(want: Decoded, got: Decoded) -> GoldenProof:
    """Hold two decoded results against each other by the rules of the shipped detector."""
    manifest = Bundle.open(resolve_bundle("road-detector"), trusted_keys=None).manifest
    golden, outputs = Golden(FRAME, (np.zeros(2, np.float32),)), (np.ones(2, np.float32),)
    return compare_meaning(golden, outputs, manifest, lambda o: want if o[0][0] == 0 else got)


def test_a_runtime_is_the_same_with_its_machine_alone() -> None:
    """edge-35: golden outputs are kept per runtime, and a machine is part of one."""
    assert not is_same_runtime("", "onnxruntime 1", "aarch64")
    assert not is_same_runtime("onnxruntime 1", "onnxruntime 1", "aarch64")
    assert is_same_runtime("onnxruntime 1 on aarch64", "onnxruntime 1", "aarch64")
    assert not is_same_runtime("onnxruntime 1 on aarch64", "onnxruntime 1", "aarch64 asimddp")
    assert not is_same_runtime("onnxruntime 1 on x86_64", "onnxruntime 1", "aarch64")
    assert not is_same_runtime("onnxruntime 1 in float on x86_64", "onnxruntime 1", "x86_64")
    assert not is_same_runtime("onnxruntime 2", "onnxruntime 1", "aarch64")


def test_rounding_may_swap_rows_and_move_what_is_at_the_threshold() -> None:
    """edge-35: another processor's boxes are the same things, not the same rows."""
    moved = ROWS[[1, 0]] + np.array([0.3, 0, 0.3, 0, 0.005, 0], "f4")
    found = proof(boxes(ROWS), boxes(moved))
    assert found.agreement == 1.0


@pytest.mark.parametrize(
    "got",
    [
        ROWS[:0],
        ROWS[1:],
        np.concatenate([ROWS, [[40, 0, 50, 10, 0.8, 2]]]).astype("f4"),
        ROWS * np.array([1, 1, 1, 1, 1, 0], "f4"),
        ROWS + np.array([4, 0, 4, 0, 0, 0], "f4"),
    ],
    ids=["none", "missing", "extra", "class", "place"],
)
def test_other_boxes_are_refused_elsewhere_too(got: np.ndarray) -> None:
    """edge-18: a model that computes something else is refused on any machine."""
    with pytest.raises(HealthProofError, match="agree on"):
        proof(boxes(ROWS), boxes(got))


def test_label_maps_and_scores_elsewhere() -> None:
    """edge-35: 98.5 % of pixels; the first place, unless two are level."""
    labels = np.zeros((20, 20), np.uint8)
    few, many = labels.copy(), labels.copy()
    few[0, :6], many[0, :7] = 1, 1
    assert proof(LabelMap(labels, 20, 20), LabelMap(few, 20, 20)).agreement == 0.985
    with pytest.raises(HealthProofError, match=r"98\.2500%"):
        proof(LabelMap(labels, 20, 20), LabelMap(many, 20, 20))
    with pytest.raises(HealthProofError):
        proof(LabelMap(labels, 20, 20), LabelMap(labels[:9], 20, 20))
    want = Scores(np.array([0.5, 0.49, 0.0], "f4"))
    assert proof(want, Scores(np.array([0.49, 0.5, 0.0], "f4"))).agreement == 1.0
    with pytest.raises(HealthProofError):
        proof(want, Scores(np.array([0.2, 0.5, 0.0], "f4")))


def other_golden(folder: Path, runtime: str, keep: int) -> Bundle:
    """The shipped detector, its golden boxes shaken as by another processor and cut to `keep`."""
    source = Bundle.open(resolve_bundle("road-detector"), trusted_keys=None)
    golden = source.golden()
    rows = np.asarray(golden.outputs[0][::-1][:keep], np.float32) + np.float32(0.004)
    target = replace(source.manifest.target, runtime=runtime)
    exact = replace(source.manifest.golden, atol=1e-3, rtol=1e-3)
    manifest = replace(source.manifest, files={}, target=target, golden=exact)
    files = {
        "model.onnx": source.model_bytes(),
        "golden.npz": pack_golden(Golden(golden.frame, (rows,))),
    }
    return write_bundle(folder, manifest, files)


def test_a_detector_built_elsewhere_proves_itself_here(tmp_path: Path) -> None:
    """edge-35: its boxes must be there; element by element only where it was built."""
    there = "onnxruntime 1.31.1 on another machine"
    engine = Engine.load(other_golden(tmp_path / "a", there, 99), BackendOptions())
    assert engine.proof.agreement == 1.0
    here = f"{engine.backend.runtime} on {machine_kind()}"
    with pytest.raises(HealthProofError, match="output 0"):
        Engine.load(other_golden(tmp_path / "b", here, 99), BackendOptions())
    with pytest.raises(HealthProofError, match="agree on"):
        Engine.load(other_golden(tmp_path / "c", there, 2), BackendOptions())


def test_a_class_that_is_dead_is_refused_though_it_is_small() -> None:
    """edge-18: lane markings are 1.25 % of the pixels, less than the agreement leaves free."""
    labels = np.zeros((40, 40), np.uint8)
    labels[20:, 20] = 1
    with pytest.raises(HealthProofError, match=r"a class of IoU 0\.000"):
        proof(LabelMap(labels, 40, 40), LabelMap(np.zeros_like(labels), 40, 40))


def test_scores_of_boxes_count_too() -> None:
    """edge-18: the same boxes, surer by a third: something else was computed."""
    surer = ROWS * np.array([1, 1, 1, 1, 0.7, 1], "f4")
    with pytest.raises(HealthProofError, match="agree on"):
        proof(boxes(ROWS), boxes(surer))


def test_raw_outputs_of_a_float_build_are_near_on_any_cpu() -> None:
    """edge-35: float builds round at 1e-5 on a CPU, at 1e-3 on an accelerator; int8 at 0.1."""
    shipped = Bundle.open(resolve_bundle("road-detector"), trusted_keys=None).manifest
    decoder = replace(shipped.decoder, kind="yolox")
    frame = np.zeros((shipped.input.height, shipped.input.width, 3), np.uint8)
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(1, 50, 9)).astype(np.float32)
    want = boxes(ROWS)

    def held(precision: str, share: float, provider: str, frame: NDArray[np.uint8] = frame) -> bool:
        golden = Golden(frame, (raw,))
        target = replace(shipped.target, precision=precision)
        manifest = replace(shipped, decoder=decoder, target=target)
        noise = share * rng.normal(size=raw.shape).astype(np.float32)
        try:
            compare_meaning(golden, (raw + noise,), manifest, lambda _: want, provider)
        except HealthProofError:
            return False
        return True

    cpu, cuda = "CPUExecutionProvider", "CUDAExecutionProvider"
    assert held("fp32", 1e-4, cpu)
    assert not held("fp32", 5e-3, cpu)
    assert held("fp32", 5e-3, cuda)
    assert held("fp16", 5e-3, cuda)
    assert not held("fp32", 0.1, cuda)
    assert held("u8s7", 0.1, cpu)
    assert not held("u8s7", 0.4, cpu)
    assert held("fp32", 0.05, cpu, FRAME[:20]), "resizing rounds otherwise on other processors"
