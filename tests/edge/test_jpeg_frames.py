"""JPEG frames: decoded no larger than the model needs, boxes in whole pixels, shared, in order."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from syncline.edge.decode.match import match, pairwise_iou
from syncline.edge.decode.types import Boxes
from syncline.edge.engine import Engine
from syncline.edge.job import DropReason, Frame
from syncline.edge.model.manifest import InputSpec
from syncline.edge.preprocess import Preprocessor, geometry_of, reduction_of
from syncline.edge.runner import ModelSlot, Runner
from syncline.sensors.jpeg import JpegPicture

from . import real, tiny
from .harness import CLOCK, Told

RESIZE = ("stretch", "letterbox-topleft", "letterbox-center")
HD = (1920, 1080)


def scene(width: int, height: int) -> NDArray[np.uint8]:
    """A bright rectangle with soft edges in the middle third."""
    image = np.full((height, width, 3), 40, np.uint8)
    image[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = 220
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 8), np.uint8)


def picture(image: NDArray[np.uint8], *, reducible: bool = True) -> JpegPicture:
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    return JpegPicture(data.tobytes(), reducible=reducible)


def spec(resize: str, width: int = 416, height: int = 320) -> InputSpec:
    return InputSpec(name="x", width=width, height=height, resize=resize)  # type: ignore[arg-type]


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from(RESIZE))
def test_a_reduced_picture_is_never_smaller_than_the_input_nor_hangs_over(
    width: int, height: int, resize: str
) -> None:
    given_spec = spec(resize)
    n, at = reduction_of(given_spec, width, height), geometry_of(given_spec, width, height)
    assert n == 1 or (width % n == 0 and height % n == 0)
    assert n == 1 or (width // n >= at.content_width and height // n >= at.content_height)
    if n < 8 and width % (2 * n) == 0 and height % (2 * n) == 0:
        smaller = width // (2 * n), height // (2 * n)
        assert smaller[0] < at.content_width or smaller[1] < at.content_height


@pytest.mark.parametrize(
    ("size", "input_px", "n"),
    [
        (HD, (640, 384), 2),
        (HD, (416, 416), 4),
        ((1280, 720), (640, 360), 2),
        ((3840, 2160), (416, 416), 8),
        ((1242, 375), (416, 416), 1),  # an odd height: its last row would hang over
        ((640, 480), (640, 384), 1),
    ],
)
def test_usual_cameras(size: tuple[int, int], input_px: tuple[int, int], n: int) -> None:
    resize = "letterbox-center" if input_px[0] == input_px[1] else "stretch"
    assert reduction_of(spec(resize, *input_px), *size) == n


@pytest.mark.parametrize("resize", RESIZE)
def test_geometry_stays_that_of_the_whole_picture(resize: str) -> None:
    """edge-3: boxes come out in whole pixels: same geometry, the scene at the same place."""
    image = scene(*HD)
    jpeg, pre = picture(image), Preprocessor(spec(resize), buffers=2)
    n = reduction_of(pre.spec, *HD)
    assert n >= 2
    whole, want = pre(jpeg.decode())
    reduced, got = pre(jpeg.decode(n), HD)
    assert got == want
    assert np.abs(reduced.astype(float) - whole.astype(float)).max() <= 6.0


def test_only_what_may_be_reduced_is(tmp_path: Path) -> None:
    """Opt-in: without it the model sees the very pixels of a whole decode."""
    engine = Engine.load(tiny.bundle(tmp_path / "b"))
    image = scene(tiny.WIDTH * 4, tiny.HEIGHT * 4)
    pre = engine.preprocessor(3)
    for reducible in (False, True):
        jpeg = picture(image, reducible=reducible)
        prepared = engine.prepare(Frame("front", 0, jpeg, None, 0), pre, CLOCK)
        n = 4 if reducible else 1
        assert prepared.frame.bgr is jpeg
        assert prepared.frame.size_px == (tiny.WIDTH * 4, tiny.HEIGHT * 4)
        assert (prepared.geometry.source_width, prepared.geometry.source_height) == (128, 96)
        np.testing.assert_array_equal(prepared.tensor, pre(jpeg.decode(n), (128, 96))[0])


def test_the_camera_decodes_once_for_all_models_while_workers_infer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """edge-3: live, decoding is the first stage: in the submitting thread, once for all models."""
    threads: list[str] = []
    decode = JpegPicture._decode

    def seen(self: JpegPicture, n: int) -> NDArray[np.uint8]:
        threads.append(threading.current_thread().name)
        return decode(self, n)

    monkeypatch.setattr(JpegPicture, "_decode", seen)
    told, bundle = Told(), tiny.bundle(tmp_path / "b")
    slots = [ModelSlot(name=name, bundle=bundle) for name in ("one", "two")]
    runner = Runner(slots, clock=CLOCK, callbacks=told.callbacks())
    runner.start()
    jpeg = picture(scene(tiny.WIDTH * 2, tiny.HEIGHT * 2))
    runner.submit(Frame("front", 0, jpeg, None, CLOCK.raw_ns()))
    told.wait(lambda: len(told.results) == 2)
    runner.submit(Frame("front", 1, JpegPicture(_headed(jpeg.data)), None, CLOCK.raw_ns()))
    told.wait(lambda: len(told.results) + len(told.drops) == 4)
    runner.stop()
    assert threads[0] == threading.current_thread().name
    assert len([name for name in threads if name == threads[0]]) == 3  # the broken one: per model
    assert told.dropped(DropReason.BAD_FRAME) == [1, 1]


def _headed(data: bytes) -> bytes:
    """A sound header, and quantisation tables that are none."""
    at = data.index(b"\xff\xdb")
    return data[: at + 4] + b"\xff" * 65 + data[at + 69 :]


def test_boxes_of_a_reduced_decode_lie_where_those_of_a_whole_one_do(
    shared_data: Path, tmp_path: Path
) -> None:
    """edge-3: YOLOX-nano on real JPEGs: the same objects, none moved; figures: docs/acceptance."""
    engine = Engine.load(real.bundle("yolox", shared_data, tmp_path / "b"))
    pre = engine.preprocessor()

    def boxes(data: bytes, *, reducible: bool) -> Boxes:
        jpeg = JpegPicture(data, reducible=reducible)
        prepared = engine.prepare(Frame("front", 0, jpeg, None, 0), pre, CLOCK)
        found, _ = engine.conclude(prepared, engine.backend.run(prepared.tensor))
        assert isinstance(found, Boxes)
        return found

    moved, count, matched = [], 0, 0
    for path in sorted((shared_data / "images/bdd100k").glob("*.jpg")):
        data = path.read_bytes()
        whole, reduced = boxes(data, reducible=False), boxes(data, reducible=True)
        count += len(whole) + len(reduced)
        matched += int(match(whole, reduced)[0].sum())
        if not (len(whole) and len(reduced)):
            continue
        overlap = pairwise_iou(whole.xyxy_px, reduced.xyxy_px)
        best = overlap.argmax(1)
        near = overlap.max(1) > 0.8
        moved += [*(whole.xyxy_px - reduced.xyxy_px[best])[near].mean(1)]
    assert count > 50
    assert 2 * matched / count >= 0.85
    assert abs(float(np.mean(moved))) < 1.0  # of 1280: an input pixel is 3


@pytest.mark.parametrize("rate_hz", [None, 5.0])
def test_only_frames_that_will_run_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate_hz: float | None
) -> None:
    """A frame that the rate or the next frame turns away is not worth its decoding."""
    decoded: list[int] = []
    decode = JpegPicture._decode

    def seen(self: JpegPicture, n: int) -> NDArray[np.uint8]:
        decoded.append(n)
        return decode(self, n)

    monkeypatch.setattr(JpegPicture, "_decode", seen)
    told = Told()
    model = tiny.scorer() if rate_hz else tiny.slow(rounds=150, side=256)
    bundle = tiny.bundle(tmp_path / "b", model, tiny.scores_manifest())
    runner = Runner(
        [ModelSlot(name="one", bundle=bundle, max_rate_hz=rate_hz)],
        clock=CLOCK,
        callbacks=told.callbacks(),
    )
    runner.start()
    image = np.full((tiny.HEIGHT, tiny.WIDTH, 3), 255, np.uint8)
    for index in range(60):
        runner.submit(Frame("front", index, picture(image), None, CLOCK.raw_ns()))
        time.sleep(0.02)
    runner.stop()
    processed = runner.health().slots[0].processed
    assert processed < 45, "overload, or a rate, is what this is about"
    # What the estimates learn from, and a turn that came earlier or later than expected.
    assert processed <= len(decoded) <= 1.5 * processed + 5
