"""One contract for all adapters: cameras, inertial, GNSS, CAN, live or recorded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from syncline.errors import DeviceError, SynclineError
from syncline.sensors.adapter import HealthState, SensorAdapter
from syncline.sensors.adapters import gnss_receiver, reopening, stream
from tests.adapters.live_made import DEVICES, Device, until
from tests.adapters.recordings_made import GOPRO, KINDS, Kind, Made

recordings = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
devices = pytest.mark.parametrize("device", DEVICES, indirect=True)


THERE = (HealthState.OK, HealthState.STALE)
"""Of a device that is there, and perhaps silent."""


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


# -- recordings ----------------------------------------------------------------------------------


@recordings
def test_a_recording_is_read_in_order_and_ends(kind: Kind, tmp_path: Path) -> None:
    read_whole(kind, kind.make(tmp_path))


def test_a_gopro_video_is_an_inertial_sensor(shared_data: Path) -> None:
    """1 g on the axis that points up, on the clock of the pictures, by the axes it declares."""
    made = GOPRO.make(shared_data / "video" / "max-heromode.mp4")
    samples = read_whole(GOPRO, made)
    accel = np.array([sample.payload.accel for sample in samples])
    assert np.linalg.norm(accel, axis=1).mean() == pytest.approx(9.8, abs=0.3)
    assert np.abs(accel.mean(axis=0)).argmax() == 2  # ORIN XzY: the second column is -z
    assert accel[:, 2].mean() > 9.0
    spans = np.diff([sample.driver.t_ns for sample in samples])
    assert np.median(spans) == pytest.approx(5_000_000, rel=0.05)


def read_whole(kind: Kind, made: Made) -> list[Any]:
    adapter = kind.adapter(made.path)
    assert isinstance(adapter, SensorAdapter)
    assert adapter.health().state is HealthState.CLOSED
    adapter.open()
    assert adapter.health().state is HealthState.OK
    samples = list(adapter.frames())
    check_samples(kind.payload, samples)
    assert len(samples) == made.count
    health = adapter.health()
    assert (health.state, health.frames) == (HealthState.ENDED, made.count)
    assert (health.errors, health.duplicates) == (made.errors, made.duplicates)
    assert (health.dropped, health.reconnects) == (made.dropped, 0)
    adapter.close()
    adapter.close()
    assert adapter.health().state is HealthState.ENDED
    return samples


def check_samples(payload: Any, samples: list[Any]) -> None:
    times = [sample.arrival.t_ns for sample in samples]
    assert times == sorted(times)
    for sample in samples:
        assert isinstance(sample.payload, payload)
        for stamp in filter(None, (sample.driver, sample.arrival)):
            assert stamp.t_ns > 0
            assert stamp.bias_ns[0] <= stamp.bias_ns[1]


@recordings
def test_a_recording_can_be_read_again_and_leaves_nothing_open(kind: Kind, tmp_path: Path) -> None:
    made = kind.make(tmp_path)
    first = [sample.arrival.t_ns for sample in kind.adapter(made.path).frames()]  # opens by itself
    held = descriptors()
    adapter = kind.adapter(made.path)
    for _ in range(2):
        assert [sample.arrival.t_ns for sample in adapter.frames()] == first
        assert (adapter.health().frames, adapter.health().errors) == (made.count, made.errors)
    adapter.open()
    adapter.close()
    assert adapter.health().state is HealthState.CLOSED
    assert descriptors() == held


@recordings
def test_an_absent_recording_is_an_error_with_a_remedy(kind: Kind, tmp_path: Path) -> None:
    adapter = kind.adapter(tmp_path / "nothing" / "here")
    for begin in (adapter.open, lambda: list(adapter.frames())):
        with pytest.raises(SynclineError) as caught:
            begin()
        assert caught.value.remedy
        assert "nothing" in str(caught.value)
    assert adapter.health().state is HealthState.CLOSED
    adapter.close()


@recordings
def test_close_from_another_thread_ends_a_recording(kind: Kind, tmp_path: Path) -> None:
    made = kind.make(tmp_path)
    adapter = kind.adapter(made.path)
    frames = adapter.frames()
    next(frames)
    thread = threading.Thread(target=adapter.close)
    thread.start()
    thread.join(5.0)
    assert not thread.is_alive()
    assert list(frames) == []
    assert adapter.health().state is HealthState.CLOSED
    assert list(adapter.frames()) == []  # closed stays closed ...
    adapter.open()  # ... until it is opened again
    assert len(list(adapter.frames())) == made.count


@recordings
def test_a_recording_that_is_left_is_released(kind: Kind, tmp_path: Path) -> None:
    made = kind.make(tmp_path)
    list(kind.adapter(made.path).frames())
    held = descriptors()
    frames = kind.adapter(made.path).frames()
    next(frames)
    frames.close()
    assert descriptors() == held


# -- devices -------------------------------------------------------------------------------------


@pytest.fixture
def device(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(reopening, "RETRY_NS", 20_000_000)
    monkeypatch.setattr(stream, "RETRY_NS", 20_000_000)
    monkeypatch.setattr(gnss_receiver, "QUIET_MS", 30)
    return request.param(tmp_path)


@contextmanager
def reading(device: Device) -> Iterator[list[Any]]:
    """What the adapter delivers, on a thread of its own; closed from here, which ends it."""
    found: list[Any] = []

    def read() -> None:
        for sample in device.adapter.frames():
            found.append(sample)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        device.adapter.close()
        device.adapter.close()
        thread.join(5.0)
    assert not thread.is_alive()
    assert device.adapter.health().state is HealthState.CLOSED


@devices
def test_a_device_that_is_absent_is_an_error_to_open_and_waited_for_to_read(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = device.adapter
    assert isinstance(adapter, SensorAdapter)
    with pytest.raises(DeviceError) as caught:
        adapter.open()
    assert caught.value.remedy
    assert adapter.health().state is HealthState.CLOSED
    with reading(device) as found:
        until(lambda: adapter.health().state is HealthState.ABSENT)
        assert adapter.health().detail.startswith(caught.value.message)
        device.plug()
        until(lambda: adapter.health().state in THERE)
        device.give(0)
        until(lambda: len(found) == 1)
        assert adapter.health().reconnects == 0
        assert adapter.health().last_ns == found[0].arrival.t_ns
    device.unplug()
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert told == [f"absent: {caught.value.message}"]  # once, not at every try


@devices
def test_a_device_is_read_unplugged_and_found_again(device: Device) -> None:
    """sensors-37 for every live adapter: gone while it is away, then on, counted."""
    device.plug()
    adapter = device.adapter
    adapter.open()
    with reading(device) as found:
        for round_ in range(3):
            for k in range(2):
                device.give(2 * round_ + k)
                until(lambda n=2 * round_ + k + 1: len(found) == n)  # type: ignore[misc]
            health = adapter.health()
            assert health.state in THERE
            assert health.frames == 2 * round_ + 2
            assert health.reconnects == round_
            device.unplug()
            until(lambda: adapter.health().state is HealthState.GONE)
            assert adapter.health().detail
            if round_ < 2:
                device.plug()
                until(lambda: adapter.health().state in THERE)
    check_samples(device.payload, found)


@devices
def test_close_ends_a_silent_device_and_open_begins_anew(device: Device) -> None:
    device.plug()
    device.adapter.open()
    with reading(device) as found:
        device.give(0)
        until(lambda: len(found) == 1)
    held = descriptors()
    assert list(device.adapter.frames()) == []  # closed stays closed ...
    device.unplug()
    device.plug()
    device.adapter.open()  # ... until it is opened again
    with reading(device) as found:
        device.give(1)
        until(lambda: len(found) == 1)
    assert descriptors() == held
    device.unplug()
