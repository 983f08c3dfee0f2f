"""GoPro telemetry: every frame gets its exposure; hostile bytes get a typed error."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import MediaError
from syncline.sensors.adapters.gopro import (
    Stream,
    Telemetry,
    bind_exposures,
    parse_gpsu,
    read_telemetry,
)
from syncline.sensors.adapters.gpmf import parse_payload
from syncline.sensors.adapters.video import VideoFile
from syncline.sensors.frame import Quality


def klv(key: bytes, kind: bytes, size: int, repeat: int, data: bytes) -> bytes:
    return key + kind + struct.pack(">BH", size, repeat) + data + b"\0" * (-len(data) % 4)


def nest(key: bytes, *children: bytes) -> bytes:
    data = b"".join(children)
    return klv(key, b"\0", 4, len(data) // 4, data)


def payload(shutters: list[float], scale: int = 10) -> bytes:
    count = len(shutters)
    accel = struct.pack(">6h", 10, 20, 30, -10, -20, -30)
    return nest(
        b"DEVC",
        klv(b"DVID", b"L", 4, 1, b"\0\0\0\1"),
        nest(
            b"STRM",
            klv(b"STMP", b"J", 8, 1, struct.pack(">Q", 85608)),
            klv(b"TSMP", b"L", 4, 1, struct.pack(">L", count)),
            klv(b"STNM", b"c", 1, 8, b"Exposure"),
            klv(b"SHUT", b"f", 4, count, struct.pack(f">{count}f", *shutters)),
        ),
        nest(
            b"STRM",
            klv(b"SCAL", b"s", 2, 1, struct.pack(">h", scale)),
            klv(b"ACCL", b"s", 6, 2, accel),
        ),
    )


def test_a_payload_is_scaled_and_named() -> None:
    shutter, accel = parse_payload(payload([0.001, 0.002]))
    assert (shutter.key, shutter.name, shutter.stamp_us, shutter.total) == (
        "SHUT",
        "Exposure",
        85608,
        2,
    )
    np.testing.assert_allclose(shutter.values[:, 0], [0.001, 0.002], rtol=1e-6)
    np.testing.assert_array_equal(accel.values, [[1, 2, 3], [-1, -2, -3]])


def test_nested_past_the_limit_is_refused() -> None:
    deep = klv(b"SHUT", b"f", 4, 1, struct.pack(">f", 0.1))
    with pytest.raises(MediaError, match="begins with 'STRM'"):
        parse_payload(nest(b"STRM", deep))
    many = nest(b"DEVC", nest(b"STRM", *[klv(b"DVID", b"c", 0, 0, b"")] * 8000))
    with pytest.raises(MediaError, match="more than 20000 items"):
        parse_payload(many * 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (payload([0.001])[:-6], "are left"),
        (b"DEVC\0\xff\xff\xff", "are left"),
        (b"DEVC\0", "no item header"),
        (payload([0.001], scale=0), "SCAL"),
        (nest(b"DEVC", nest(b"STRM", klv(b"SHUT", b"f", 3, 1, b"abc"))), "no multiple of 4"),
    ],
)
def test_damage_is_a_typed_error(data: bytes, message: str) -> None:
    with pytest.raises(MediaError, match=message):
        parse_payload(data)


@given(st.data())
def test_no_bytes_crash_the_parser(data: st.DataObject) -> None:
    """Flipped, cut and random bytes either parse or raise MediaError (sensors-36)."""
    good = bytearray(payload([0.001] * 5))
    for _ in range(data.draw(st.integers(0, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    raw = data.draw(st.one_of(st.just(bytes(good)), st.binary(max_size=200)))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    with contextlib.suppress(MediaError):
        for block in parse_payload(raw):
            assert block.values.ndim == 2


def telemetry(sample_ns: np.ndarray, seconds: list[float]) -> Telemetry:
    values = np.array(seconds)[:, None]
    return Telemetry({"SHUT": Stream("SHUT", "", sample_ns, values, 33_366_666)}, (), 1)


def test_a_missing_sample_moves_no_other_frame() -> None:
    frame_ns = np.arange(10, dtype=np.int64) * 33_366_666
    seconds = [0.001 * (k + 1) for k in range(10)]
    kept = [k for k in range(10) if k != 4]
    bound = bind_exposures(telemetry(frame_ns[kept], [seconds[k] for k in kept]), frame_ns)
    assert not bound.by_count
    assert bound.missing == 1
    assert bound.of_frame[4] is None
    for k in kept:
        exposure = bound.of_frame[k]
        assert exposure is not None
        assert exposure.duration_ns == (k + 1) * 1_000_000


def test_impossible_exposures_are_left_out() -> None:
    """NaN, negative and absurd exposures leave the frame without one (sensors-36)."""
    frame_ns = np.arange(5, dtype=np.int64) * 33_366_666
    bound = bind_exposures(telemetry(frame_ns, [0.01, float("nan"), -1.0, 1e9, 0.02]), frame_ns)
    assert [e is None for e in bound.of_frame] == [False, True, True, True, False]
    assert bound.missing == 3


def test_gps_time_text() -> None:
    assert parse_gpsu("191118234514.000") == 1_574_120_714_000_000_000
    assert parse_gpsu("191118234514.250") - parse_gpsu("191118234514.000") == 250_000_000
    with pytest.raises(MediaError, match="GPSU"):
        parse_gpsu("19111823xx14.000")


def test_gopro_video_has_the_exposure_of_every_frame(shared_data: Path) -> None:
    """315 frames, each with its exposure and gain, no frame further than 1 ms from its sample."""
    path = shared_data / "video" / "max-heromode.mp4"
    found = read_telemetry(path)
    assert found is not None
    assert found.payloads == 11
    assert len(found.streams["SHUT"].t_ns) == 316  # one more than there are pictures
    for key, hz in (("ACCL", 197.5), ("GYRO", 197.5), ("GPS5", 18.2)):
        stream = found.streams[key]
        span_s = float(stream.t_ns[-1] - stream.t_ns[0]) / 1e9
        assert (len(stream.t_ns) - 1) / span_s == pytest.approx(hz, rel=0.02)
    gravity = np.linalg.norm(found.streams["ACCL"].values, axis=1)
    assert 8.5 < gravity.mean() < 11.0
    utc = [epoch.utc_ns for epoch in found.epochs]
    assert all(np.diff(utc) > 0)

    video = VideoFile(path, "gopro")
    video.open()
    assert video.quality is Quality.OK
    frames = []
    for frame in video.frames():
        assert len(frame.exposures) == 1
        frames.append((frame.sequence, frame.exposures[0].duration_ns, frame.exposures[0].gain))
    video.close()
    assert [row[0] for row in frames] == list(range(315))
    duration = np.array([row[1] for row in frames])
    assert (duration.min(), duration.max()) == (599_243, 1_007_813)
    assert duration.mean() == pytest.approx(775_119, abs=1)
    assert {round(row[2], 2) for row in frames} == {1.0, 1.01}
    assert "exposure of 315 of 315 frames" in video.health().detail


def test_the_binding_of_the_gopro_video_is_unambiguous(shared_data: Path) -> None:
    from syncline.sensors.adapters.video import presentation_offsets

    path = shared_data / "video" / "max-heromode.mp4"
    found = read_telemetry(path)
    assert found is not None
    bound = bind_exposures(found, presentation_offsets(path))
    assert bound.missing == 0
    assert bound.worst_ns < 1_000_000  # the frame period is 33.4 ms


def test_a_video_without_telemetry_stays_without_exposures(shared_data: Path) -> None:
    path = shared_data / "video" / "solidWhiteRight.mp4"
    assert read_telemetry(path) is None
    video = VideoFile(path)
    frame = next(iter(video.frames()))
    video.close()
    assert frame.exposures == ()
    assert video.quality is Quality.NO_EXPOSURE
