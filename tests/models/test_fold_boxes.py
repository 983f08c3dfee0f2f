"""Boxes decoded and suppressed in the graph equal those of the edge's decoders."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from syncline.cloud.models.builder import GraphBuilder
from syncline.cloud.models.fold import fold, fold_argmax, fold_twinlite
from syncline.cloud.models.fold_boxes import fold_edgedet
from syncline.cloud.models.graph import opset, serialise, to_opset, validate
from syncline.cloud.models.probe import Probe
from syncline.cloud.models.runtime import GraphSession
from syncline.edge.decode import Boxes
from syncline.edge.model.manifest import DecoderKind, DecoderSpec, InputSpec, Manifest, TargetSpec
from syncline.errors import ModelError

SIZE = 64
CELLS = 64 + 16 + 4
LABELS = 3
FRAME = np.zeros((SIZE, SIZE, 3), np.uint8)


def constant_model(arrays: dict[str, np.ndarray], version: int = 17) -> onnx.ModelProto:
    """A graph whose outputs are the arrays, whatever the image."""
    b = GraphBuilder("t", version)
    flat = b.node("Reshape", ["images", b.const([-1], np.int64)])
    first = b.node("Gather", [flat, b.const(0, np.int64)])
    zero = b.node("Mul", [first, b.const(0.0)])
    for name, array in arrays.items():
        b.node("Add", [b.const(array), zero], out=name)
    return b.model(
        [("images", 1, [1, 3, SIZE, SIZE])],
        [(name, 1, list(array.shape)) for name, array in arrays.items()],
    )


def heads(kind: str, rng: np.random.Generator, labels: int = LABELS) -> dict[str, np.ndarray]:
    """Outputs of a family with random content; scores are distinct, so that order is defined."""

    def unit(*shape: int) -> np.ndarray:
        return rng.random(shape).astype(np.float32)

    boxes = np.concatenate([unit(CELLS, 2) * SIZE, 4 + unit(CELLS, 2) * 20], axis=1)
    if kind == "yolox":
        offsets = np.concatenate([unit(CELLS, 2), unit(CELLS, 2) * 1.5], axis=1)
        return {"o": np.concatenate([offsets, unit(CELLS, 1 + labels)], axis=1)[None]}
    if kind == "yolov5":
        return {"o": np.concatenate([boxes, unit(CELLS, 1 + labels)], axis=1)[None]}
    if kind == "yolov8":
        return {"o": np.concatenate([boxes, unit(CELLS, labels)], axis=1).T[None].copy()}
    if kind == "fastestdet":
        return {"o": np.concatenate([unit(1, 4, 4), unit(4, 4, 4) - 0.5, unit(labels, 4, 4)])[None]}
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) / SIZE
    return {"s": unit(1, CELLS, 1 + labels), "b": corners[None].astype(np.float32)}


def manifest(kind: DecoderKind, outputs: tuple[str, ...], **decoder: float) -> Manifest:
    return Manifest(
        name="t",
        version="1",
        task="detection",
        labels=tuple("abc"[:LABELS]),
        input=InputSpec(name="images", width=SIZE, height=SIZE),
        decoder=DecoderSpec(
            kind=kind,
            outputs=outputs,
            strides=(8, 16, 32) if kind == "yolox" else (),
            **decoder,  # type: ignore[arg-type]
        ),
        target=TargetSpec(opset=17),
    )


def run(model: onnx.ModelProto, described: Manifest) -> Boxes:
    found = Probe(model, described)(FRAME)
    assert isinstance(found, Boxes)
    return found


@pytest.mark.parametrize("version", [13, 17, 18, 20])
@pytest.mark.parametrize("kind", ["yolox", "yolov5", "yolov8", "fastestdet", "ssd"])
def test_every_family_equals_its_decoder(kind: DecoderKind, version: int) -> None:
    for seed in range(3):
        arrays = heads(kind, np.random.default_rng(seed))
        model = constant_model(arrays, version)
        described = manifest(kind, tuple(arrays), score_threshold=0.4)
        folded, inside = fold(model, described)
        assert opset(folded) == version
        validate(folded)
        one, other = run(model, described), run(folded, inside)
        assert len(one) > 3
        np.testing.assert_allclose(other.xyxy_px, one.xyxy_px, atol=1e-3)
        np.testing.assert_allclose(other.score, one.score, atol=1e-6)
        np.testing.assert_array_equal(other.class_id, one.class_id)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.05, 0.95), st.floats(0.2, 0.8), st.integers(1, 40))
def test_thresholds_and_caps_hold(seed: int, score: float, overlap: float, cap: int) -> None:
    arrays = heads("yolov8", np.random.default_rng(seed))
    described = manifest("yolov8", ("o",), score_threshold=score, nms_iou=overlap, max_boxes=cap)
    one = run(constant_model(arrays), described)
    other = run(*fold(constant_model(arrays), described))
    assert len(other) <= cap
    np.testing.assert_allclose(other.score, one.score, atol=1e-6)


def test_no_box_is_an_empty_table() -> None:
    arrays = {"o": np.zeros((1, 4 + LABELS, CELLS), np.float32)}
    folded, inside = fold(constant_model(arrays), manifest("yolov8", ("o",)))
    assert len(run(folded, inside)) == 0
    session = GraphSession(serialise(folded))
    assert session.run({inside.input.name: FRAME[None]})[0].shape == (0, 6)


def test_suppression_of_5000_candidates_is_bounded() -> None:
    """edge-13 in the graph: every one of 5040 cells a candidate."""
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.random((5040, 2)) * 600, 5 + rng.random((5040, 2)) * 60], axis=1)
    scores = 0.5 + 0.5 * rng.random((5040, LABELS))
    array = np.concatenate([boxes, scores], axis=1).T[None].astype(np.float32).copy()
    folded, inside = fold(constant_model({"o": array}), manifest("yolov8", ("o",)))
    session, feed = GraphSession(serialise(folded)), {inside.input.name: FRAME[None]}
    assert session.run(feed)[0].shape == (300, 6)
    spent = []
    for _ in range(10):
        start = time.thread_time_ns()
        session.run(feed)
        spent.append(time.thread_time_ns() - start)
    assert min(spent) < 10e6, "ten times what it takes; the bench holds the ratio"


def edgedet_maps(rng: np.random.Generator) -> dict[str, np.ndarray]:
    sides = {"p8": 8, "p16": 4, "p32": 2}
    return {
        name: (rng.standard_normal((1, 4 + LABELS, side, side)) * 0.5).astype(np.float32)
        for name, side in sides.items()
    }


def test_edgedet_decodes_as_its_training_does() -> None:
    """Distances from cell centres in strides, exponentiated; sigmoid scores."""
    maps = edgedet_maps(np.random.default_rng(1))
    maps["p16"][0, 4:, 1, 2] = (-9, 3, -9)  # one sure box of class 1 in cell (x=2, y=1)
    maps["p16"][0, :4, 1, 2] = np.log([1.0, 0.5, 0.25, 2.0])
    spec = manifest("boxes-nms", ("x",), score_threshold=0.9).decoder
    given_spec = InputSpec(name="images", width=SIZE, height=SIZE)
    model, decoder = fold_edgedet(
        constant_model(maps), ("p8", "p16", "p32"), replaced(spec), given_spec
    )
    validate(model)
    rows = GraphSession(serialise(model)).run({"images": np.zeros((1, 3, SIZE, SIZE), np.float32)})
    assert decoder.kind == "boxes-nms"
    expected = [40 - 16, 24 - 8, 40 + 4, 24 + 32, 1 / (1 + np.exp(-3)), 1]
    np.testing.assert_allclose(np.asarray(rows[0], np.float64), [expected], rtol=1e-5)


def replaced(spec: DecoderSpec) -> DecoderSpec:
    return replace(spec, strides=(8, 16, 32))


def test_edgedet_of_another_size_is_refused() -> None:
    maps = edgedet_maps(np.random.default_rng(1))
    spec = replaced(manifest("boxes-nms", ("x",)).decoder)
    wrong = InputSpec(name="images", width=SIZE * 2, height=SIZE)
    with pytest.raises(ModelError, match="stride 8 of a 128x64 input needs"):
        fold_edgedet(constant_model(maps), ("p8", "p16", "p32"), spec, wrong)


def test_equal_logits_give_the_first_class() -> None:
    """edge-12: ties in the graph and outside go the same way."""
    logits = np.zeros((1, 4, 3, 5), np.float32)
    logits[0, 2:, 0, 0] = 1.0
    decoder = DecoderSpec(kind="logits", outputs=("o",))
    model, after = fold_argmax(constant_model({"o": logits}), decoder)
    images = {"images": np.zeros((1, 3, SIZE, SIZE), np.float32)}
    found = GraphSession(serialise(model)).run(images)[0]
    np.testing.assert_array_equal(found[0], logits[0].argmax(axis=0).astype(np.uint8))
    assert found.dtype == np.uint8
    assert after.kind == "argmax"


def test_twinlite_labels_are_bits() -> None:
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 3, (1, 2, 5, 6)).astype(np.float32) for name in ("da", "ll")}
    decoder = DecoderSpec(kind="twinlite", outputs=("da", "ll"))
    model, _ = fold_twinlite(constant_model(arrays), decoder)
    images = {"images": np.zeros((1, 3, SIZE, SIZE), np.float32)}
    found = GraphSession(serialise(model)).run(images)[0][0]
    bits = [arrays[name][0].argmax(axis=0) for name in ("da", "ll")]
    np.testing.assert_array_equal(found, bits[0] + 2 * bits[1])


def test_names_that_are_taken_are_avoided() -> None:
    arrays = {"boxes": heads("yolov8", np.random.default_rng(0))["o"]}
    folded, inside = fold(constant_model(arrays), manifest("yolov8", ("boxes",)))
    assert inside.decoder.outputs == ("boxes_folded",)
    validate(to_opset(folded, 18))
