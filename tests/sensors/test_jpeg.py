"""A JPEG as it came: its header, its tables, its size at every fraction, and hostile bytes."""

from __future__ import annotations

import contextlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from syncline.errors import MediaError
from syncline.sensors.jpeg import DENOMINATORS, JpegPicture


def scene(width: int, height: int, seed: int = 1) -> NDArray[np.uint8]:
    """Smooth blobs: what a JPEG keeps."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def jpeg(image: NDArray[np.uint8], *options: int) -> bytes:
    done, data = cv2.imencode(".jpg", image, options)
    assert done
    return data.tobytes()


def without_tables(data: bytes) -> bytes:
    """As a Motion JPEG camera sends it: every DHT segment cut out."""
    out, at = data[:2], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        out += b"" if data[at + 1] == 0xC4 else data[at:end]
        at = end
    return out + data[at:]


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, *DENOMINATORS]), st.booleans())
def test_the_header_tells_every_decoded_size(w: int, h: int, n: int, progressive: bool) -> None:
    data = jpeg(scene(w, h), cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive))
    picture = JpegPicture(data)
    assert picture.data == data
    assert picture.shape == picture.decode().shape == (h, w, 3)
    assert picture.decode(n).shape == (-(-h // n), -(-w // n), 3)


def test_a_size_is_decoded_once_and_equals_opencv() -> None:
    data = jpeg(scene(64, 48))
    picture = JpegPicture(data)
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(picture.decode(), np.asarray(whole))
    assert picture.decode(2) is picture.decode(2)
    assert picture.decode(2) is not picture.decode(4)


@pytest.mark.parametrize("n", DENOMINATORS)
def test_a_fraction_is_the_mean_of_the_pixels_that_it_stands_for(n: int) -> None:
    """No shift and no stretch: each pixel lies where its block of the whole picture lies."""
    image = scene(160, 96)
    picture = JpegPicture(jpeg(image, cv2.IMWRITE_JPEG_QUALITY, 98))
    means = image.reshape(96 // n, n, 160 // n, n, 3).mean((1, 3))
    error = np.abs(picture.decode(n) - means)
    shifted = np.abs(picture.decode(n)[:, 1:] - means[:, :-1])
    assert error.mean() < 2.0
    assert error.mean() < 0.5 * shifted.mean()


def test_missing_huffman_tables_are_put_in() -> None:
    """Motion JPEG leaves the standard tables out; not every viewer knows them."""
    data = jpeg(scene(64, 48))
    picture = JpegPicture(without_tables(data))
    assert len(without_tables(data)) < len(picture.data) == len(data)
    np.testing.assert_array_equal(picture.decode(), JpegPicture(data).decode())
    assert JpegPicture(picture.data).data == picture.data


def test_a_picture_that_is_cut_short_is_none() -> None:
    """Seen without decoding it, so that it is not recorded; padding behind the end is no fault."""
    data = jpeg(scene(64, 48))
    for cut in (data[:-2], data[:-40], data[: len(data) // 2]):
        with pytest.raises(MediaError, match="cut short"):
            JpegPicture(cut)
    padded = JpegPicture(data + bytes(500))
    np.testing.assert_array_equal(padded.decode(), JpegPicture(data).decode())


@given(st.binary(max_size=200))
def test_no_bytes_crash_it(data: bytes) -> None:
    for given_bytes in (data, b"\xff\xd8" + data):
        with pytest.raises(MediaError, match="JPEG"):
            JpegPicture(given_bytes).decode()


def test_a_picture_too_large_to_decode_is_refused_by_its_header() -> None:
    data = bytearray(jpeg(scene(32, 32)))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = (16_000).to_bytes(2, "big") * 2
    with pytest.raises(MediaError, match="pixels"):
        JpegPicture(bytes(data))


@given(st.data())
def test_damage_gives_a_picture_of_the_right_size_or_a_typed_error(data: st.DataObject) -> None:
    damaged = bytearray(jpeg(scene(32, 32)))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(2, len(damaged)))])
    with contextlib.suppress(MediaError):
        picture = JpegPicture(cut)
        if picture.width_px * picture.height_px < 1 << 20:
            assert picture.decode(2).shape[1] == -(-picture.width_px // 2)
