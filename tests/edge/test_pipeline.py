"""What a result is told as: once, on the topic of its kind, under the names of its own model."""

from __future__ import annotations

import numpy as np
import pytest

from syncline import topics
from syncline.edge.decode.types import Boxes, Decoded, LabelMap, Scores
from syncline.edge.job import Frame, Latencies, Result
from syncline.edge.model.manifest import Manifest
from syncline.edge.pipeline import Pipeline
from syncline.edge.records import Output
from syncline.log.schemas import payload_of, schema_name_of
from syncline.sensors.frame import Anchor, FrameTime, Quality
from syncline.sensors.mode import SensorMode
from syncline.timebase import Clock

from . import tiny

MODE = SensorMode.simple(64, 48, readout_ns=48.0)
BOXES = Boxes(np.array([[1, 2, 30, 40]], np.float32), np.array([0.9], np.float32), np.array([1]))
MAP = LabelMap(np.ones((6, 8), np.uint8), 64, 48)
SCORES = Scores(np.array([0.1, 0.9], np.float32))
DETECTOR = tiny.manifest(task="detection", kind="yolox")


def result(
    output: Decoded | None, manifest: Manifest | None, *, valid: bool = True, shadow: bool = False
) -> Result:
    timing = FrameTime(
        "front", 3, 0, 5_000, 10_000, 3.0, Clock.MONOTONIC_RAW, Anchor.READOUT, Quality.OK, MODE
    )
    frame = Frame("front", 3, np.zeros((48, 64, 3), np.uint8), timing, 9_000)
    reason = "" if valid else "said so"
    return Result(frame, "m", "d" * 64, output, valid, reason, Latencies(), shadow, manifest)


def told(given: Result) -> list[Output]:
    outputs = Pipeline("boot").result(given)
    for output in outputs:
        assert topics.topic_of(output.topic).schema == schema_name_of(output.message)
        assert output.raw_ns == 5_000
    return outputs


@pytest.mark.parametrize(
    ("output", "serving", "shadow"),
    [
        (BOXES, ["detections", "annotations"], ["shadow"]),
        (MAP, ["segmentation"], ["shadow_segmentation"]),
        (SCORES, ["classification"], ["shadow_classification"]),
    ],
)
def test_a_shadow_never_speaks_where_a_serving_model_does(
    output: Decoded, serving: list[str], shadow: list[str]
) -> None:
    for is_shadow, want in ((False, serving), (True, shadow)):
        outputs = told(result(output, None, shadow=is_shadow))
        assert [o.topic for o in outputs] == [f"/camera/front/{name}" for name in want]
        assert outputs[0].message.shadow is is_shadow  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("manifest", "topic"),
    [
        (tiny.manifest(), "segmentation"),
        (tiny.manifest(task="lanes", kind="twinlite", outputs=["a", "b"]), "segmentation"),
        (tiny.scores_manifest(), "classification"),
        (DETECTOR, "detections"),
    ],
)
@pytest.mark.parametrize("shadow", [False, True])
def test_edge_21_what_is_not_finite_is_told_on_the_topic_of_its_kind(
    manifest: Manifest, topic: str, shadow: bool
) -> None:
    """edge-21: a result without output stays a result of its model, and not valid."""
    first, *rest = told(result(None, manifest, valid=False, shadow=shadow))
    name = f"shadow_{topic}" if topic != "detections" else "shadow"
    assert first.topic == f"/camera/front/{name if shadow else topic}"
    message = first.message
    assert (message.valid, message.invalid_reason) == (False, "said so")  # type: ignore[union-attr]
    assert message.frame_index == 3  # type: ignore[union-attr]
    assert message.ByteSize() < 120  # type: ignore[union-attr]
    assert [o.topic for o in rest] == (
        ["/camera/front/annotations"] if topic == "detections" and not shadow else []
    )


def test_edge_21_impossible_boxes_are_not_drawn() -> None:
    """edge-21: annotations cannot say that they are not valid."""
    good = told(result(BOXES, DETECTOR))
    bad = told(result(BOXES, DETECTOR, valid=False))
    empty = told(result(Boxes.none(), DETECTOR))
    assert b"car 0.90" in payload_of(good[1].message)
    assert len(bad[0].message.score) == 1, "for whoever asks why"  # type: ignore[union-attr]
    assert payload_of(bad[1].message) == payload_of(empty[1].message)


def test_captions_are_of_the_model_that_made_the_boxes() -> None:
    """After a swap to other labels, and for a result that was still on its way."""
    pipeline = Pipeline("boot")
    faces = tiny.manifest(task="detection", kind="ssd", labels=["background", "face"])
    for manifest, caption in ((DETECTOR, b"car 0.90"), (faces, b"face 0.90"), (DETECTOR, b"car")):
        assert caption in payload_of(pipeline.result(result(BOXES, manifest))[1].message)
    assert b"1 0.90" in payload_of(pipeline.result(result(BOXES, None))[1].message)
