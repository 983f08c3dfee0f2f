"""Preprocessing against the usual arithmetic, bit for bit."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.edge.model.manifest import InputSpec
from syncline.edge.preprocess import Preprocessor, geometry_of
from syncline.errors import SensorDataError

from . import tiny

MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
SPECS = [
    InputSpec(name="x", width=64, height=40, **kind)
    for resize in ("stretch", "letterbox-topleft", "letterbox-center")
    for layout in ("NCHW", "NHWC")
    for color in ("BGR", "RGB")
    for kind in (
        {"resize": resize, "layout": layout, "color": color, "mean": MEAN, "std": STD},
        {"resize": resize, "layout": layout, "color": color, "dtype": "uint8"},
    )
]


def usual(spec: InputSpec, frame: np.ndarray) -> np.ndarray:
    """The arithmetic that every script does."""
    h, w = frame.shape[:2]
    if spec.resize == "stretch":
        image = cv2.resize(frame, (spec.width, spec.height))
    else:
        ratio = min(spec.width / w, spec.height / h)
        if spec.resize == "letterbox-topleft":
            size, left, top = (int(w * ratio), int(h * ratio)), 0, 0
        else:
            size = (round(w * ratio), round(h * ratio))
            left = round((spec.width - size[0]) / 2 - 0.1)
            top = round((spec.height - size[1]) / 2 - 0.1)
        image = np.full((spec.height, spec.width, 3), spec.pad, np.uint8)
        image[top : top + size[1], left : left + size[0]] = cv2.resize(frame, size)
    if spec.color == "RGB":
        image = image[..., ::-1]
    if spec.dtype == "float32":
        mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
        image = (image.astype(np.float32) - mean) / std
    return (image.transpose(2, 0, 1) if spec.layout == "NCHW" else image)[None]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.resize}-{s.layout}-{s.color}-{s.dtype}")
def test_tensor_is_the_usual_one(spec: InputSpec) -> None:
    pre = Preprocessor(spec)
    sizes = [(96, 50), (50, 96), (64, 40), (32, 20), (96, 50), (33, 77)]
    for seed, (width, height) in enumerate(sizes):
        frame = tiny.frame(seed, width, height)
        tensor, geometry = pre(frame)
        assert tensor.shape == spec.shape
        assert tensor.flags.c_contiguous
        np.testing.assert_array_equal(tensor, usual(spec, frame))
        assert (geometry.source_width, geometry.source_height) == (width, height)


def test_a_view_that_is_not_contiguous() -> None:
    spec = SPECS[0]
    frame = tiny.frame(3, 200, 100)[::2, ::2]
    np.testing.assert_array_equal(
        Preprocessor(spec)(frame)[0], usual(spec, np.ascontiguousarray(frame))
    )


def test_ring_keeps_tensors_for_the_stated_number_of_calls() -> None:
    pre = Preprocessor(SPECS[0], buffers=3)
    frames = [tiny.frame(i) for i in range(3)]
    tensors = [pre(frame)[0] for frame in frames]
    for frame, tensor in zip(frames, tensors, strict=True):
        np.testing.assert_array_equal(tensor, usual(SPECS[0], frame))
    assert pre(tiny.frame(9))[0] is tensors[0]


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8), np.uint8), r"\(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
        ("text", "str"),
    ],
)
def test_edge_20_what_is_no_frame_is_refused_by_name(frame: object, named: str) -> None:
    """edge-20: wrong shape or type: a typed error that names it."""
    with pytest.raises(SensorDataError, match=named):
        Preprocessor(SPECS[0])(frame)  # type: ignore[arg-type]


@given(
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.sampled_from(["stretch", "letterbox-topleft", "letterbox-center"]),
)
def test_geometry_maps_the_content_back_onto_the_image(
    width: int, height: int, resize: str
) -> None:
    spec = InputSpec(name="x", width=416, height=320, resize=resize)  # type: ignore[arg-type]
    at = geometry_of(spec, width, height)
    assert 0 <= at.pad_x <= at.pad_x + at.content_width <= 416
    assert 0 <= at.pad_y <= at.pad_y + at.content_height <= 320
    content = np.array(
        [[at.pad_x, at.pad_y, at.pad_x + at.content_width, at.pad_y + at.content_height]],
        np.float32,
    )
    x0, y0, x1, y1 = at.to_source(content)[0]
    assert (x0, y0) == (0.0, 0.0)
    assert x1 == pytest.approx(width, abs=1.01 / at.scale_x)
    assert y1 == pytest.approx(height, abs=1.01 / at.scale_y)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    ratio=st.tuples(st.sampled_from((1, 2, 3, 4, 5, 7)), st.sampled_from((1, 2, 3, 5, 9))),
    seed=st.integers(0, 1000),
)
def test_edge_2_whole_ratios_give_the_bytes_of_linear_interpolation(
    size: tuple[int, int], ratio: tuple[int, int], seed: int
) -> None:
    """edge-2: where the pixel in the middle is taken, it is what interpolation would give."""
    spec = InputSpec(
        name="x", width=size[0], height=size[1], layout="NHWC", dtype="uint8", color="BGR"
    )
    shape = size[1] * ratio[1], size[0] * ratio[0], 3
    image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    tensor, _ = Preprocessor(spec)(image)
    want = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(tensor[0], want)
