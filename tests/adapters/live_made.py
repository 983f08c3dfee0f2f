"""Devices that can be plugged in and out, one for every live adapter."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import queue
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import pytest

from syncline.errors import DeviceError
from syncline.sensors.adapters.can import CanFrame
from syncline.sensors.adapters.gnss_epochs import GnssReading
from syncline.sensors.adapters.gnss_receiver import GnssReceiver
from syncline.sensors.adapters.gpsd_receiver import GpsdReceiver
from syncline.sensors.adapters.iio import IioImu
from syncline.sensors.adapters.imu import ImuReading
from syncline.sensors.adapters.python_can import PythonCan, open_python_can
from syncline.sensors.adapters.socket_can import SocketCan
from syncline.sensors.adapters.stream import StreamCamera
from syncline.sensors.adapters.v4l2 import V4l2Camera
from syncline.sensors.adapters.v4l2_layer import FLAG_STAMP_MONOTONIC, Captured, Layout, Wanted
from syncline.timebase import NS_PER_S, Clock, OsClock, paired_read
from tests.adapters.iio_fakes import FakeDevice
from tests.adapters.iio_fakes import sample as scan
from tests.adapters.recordings_made import rmc
from tests.adapters.test_stream import FakePacket


class Device(Protocol):
    """A device of the tests; not there until it is plugged in."""

    payload: type
    adapter: Any

    def plug(self) -> None:
        """It is there (again)."""

    def unplug(self) -> None:
        """It is gone."""

    def give(self, k: int) -> None:
        """Its k-th sample; the device is there, and the adapter reads it."""


class _Queued:
    """A device whose driver is a queue: what it gives, and an error once it is gone."""

    def __init__(self) -> None:
        self._items: queue.Queue[Any] = queue.Queue()
        self._there = False

    def plug(self) -> None:
        self._items = queue.Queue()
        self._there = True

    def unplug(self) -> None:
        self._there = False
        self._items.put(OSError(errno.ENODEV, "No such device"))

    def take(self, timeout_s: float) -> Any:
        """The next item; None after a silence."""
        try:
            item = self._items.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, OSError):
            raise item
        return item


class Webcam(_Queued):
    """A V4L2 node."""

    payload = np.ndarray

    def __init__(self, _folder: Path) -> None:
        super().__init__()
        self.adapter = V4l2Camera(Wanted("/dev/video9"), open_device=self._open)

    def _open(self, wanted: Wanted) -> Any:
        if not self._there:
            raise DeviceError(f"{wanted.path}: No such device", remedy="Plug it in")
        return SimpleNamespace(
            layout=lambda: Layout(4, 2, "GREY"), controls=dict, read=self.take, close=lambda: None
        )

    def give(self, k: int) -> None:
        seconds, rest = divmod(paired_read(Clock.MONOTONIC).other_ns, NS_PER_S)
        self._items.put(Captured(seconds, rest // 1000, k, FLAG_STAMP_MONOTONIC, bytes(8)))


class NetworkCamera(_Queued):
    """A stream."""

    payload = np.ndarray

    def __init__(self, _folder: Path) -> None:
        super().__init__()
        self.adapter = StreamCamera("rtsp://camera/live", connect=self._connect)

    def _connect(self, url: str, options: object) -> Any:
        if not self._there:
            raise OSError(errno.ECONNREFUSED, "Connection refused")
        context = SimpleNamespace(width=6, height=4, name="h264")
        video = SimpleNamespace(codec_context=context, time_base=Fraction(1, 90_000))
        return SimpleNamespace(
            streams=SimpleNamespace(video=[video]), demux=self._demux, close=lambda: None
        )

    def _demux(self, _stream: object) -> Iterator[Any]:
        while True:
            # What an RTSP server without pictures sends: packets that hold none.
            yield self.take(0.05) or SimpleNamespace(pts=None, decode=list)

    def give(self, k: int) -> None:
        self._items.put(FakePacket(3600 * k))


class Bus(_Queued):
    """A SocketCAN interface."""

    payload = CanFrame

    def __init__(self, _folder: Path) -> None:
        super().__init__()
        self._wait_s = 0.0
        self.adapter = SocketCan("can9", connect=self._connect)

    def _connect(self, interface: str) -> Any:
        if not self._there:
            raise DeviceError(f"CAN interface {interface}: No such device", remedy="Bring it up")
        return self

    def settimeout(self, value: float) -> None:
        self._wait_s = value

    def recvmsg(self, _size: int, _control: int) -> tuple[bytes, list[Any], int, None]:
        item = self.take(self._wait_s)
        if item is None:
            raise TimeoutError
        return item, [], 0, None

    def close(self) -> None:
        """Nothing is held."""

    def give(self, k: int) -> None:
        self._items.put(struct.pack("=IB3x8s", k, 1, b"\1"))


class OtherBus(_Queued):
    """An interface of python-can: its own virtual bus, which here may be absent."""

    payload = CanFrame

    def __init__(self, _folder: Path) -> None:
        super().__init__()
        self._can = pytest.importorskip("can")
        self._name = uuid.uuid4().hex
        self.adapter = PythonCan("virtual", self._name, "body", connect=self._connect)
        self._sender: Any = None
        self._held: list[Any] = []

    def _connect(self, driver: str, channel: str, bitrate: int) -> Any:
        if not self._there:
            raise OSError(errno.ENODEV, "No such device")
        self._held.append(open_python_can(driver, channel, bitrate))
        return self._held[-1]

    def plug(self) -> None:
        super().plug()
        self._sender = open_python_can("virtual", self._name, 0)

    def unplug(self) -> None:
        super().unplug()
        for bus in (self._sender, *self._held):
            bus.shutdown()  # reading it fails from now on
        self._held.clear()

    def give(self, k: int) -> None:
        self._sender.send(self._can.Message(arbitration_id=k, data=b"\1", is_extended_id=False))


class Inertial:
    """An IIO device of files and a pipe, under another number each time."""

    payload = ImuReading

    def __init__(self, folder: Path) -> None:
        self._folder, self._root, self._number, self._pipe = folder, folder / "root", 0, -1
        self._devices = self._root / "sys/bus/iio/devices"
        self._devices.mkdir(parents=True)
        (self._root / "dev").mkdir()
        self.adapter = IioImu("icm42605", root=self._root)

    def plug(self) -> None:
        made = FakeDevice(self._folder / f"made{self._number}", self._number, clock="monotonic_raw")
        self._number += 1
        # Open for both, so that it is there before anybody reads and blocks nobody.
        self._pipe = os.open(made.node, os.O_RDWR)
        # As the kernel does it: with all its settings, or not at all.
        self._node, self._settings = self._root / "dev" / made.name, self._devices / made.name
        made.node.rename(self._node)
        made.folder.rename(self._settings)

    def unplug(self) -> None:
        self._settings.rename(self._folder / f"gone{self._number}")
        self._node.unlink()
        os.close(self._pipe)

    def give(self, k: int) -> None:
        os.write(self._pipe, scan(k, OsClock().raw_ns()))


class Receiver:
    """A GNSS receiver on a line."""

    payload = GnssReading

    def __init__(self, folder: Path) -> None:
        self._link, self._ends = folder / "receiver", (-1, -1)
        self.adapter = GnssReceiver(self._link, baud=9600)

    def plug(self) -> None:
        self._ends = pty.openpty()
        self._link.symlink_to(os.ttyname(self._ends[1]))

    def unplug(self) -> None:
        self._link.unlink()
        for end in self._ends:
            os.close(end)

    def give(self, k: int) -> None:
        os.write(self._ends[0], rmc(k))


class GpsDaemon:
    """gpsd with a receiver."""

    payload = GnssReading

    def __init__(self, _folder: Path) -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self._address = ("127.0.0.1", int(one.getsockname()[1]))
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None
        self.adapter = GpsdReceiver(self._address)

    def plug(self) -> None:
        self._listener = socket.create_server(self._address)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._client, _ = listener.accept()

    def unplug(self) -> None:
        assert self._listener is not None
        self._listener.close()
        if self._client is not None:
            self._client.close()
            self._client = None

    def give(self, k: int) -> None:
        until(lambda: self._client is not None)
        assert self._client is not None
        report = {"class": "TPV", "mode": 3, "time": f"2026-03-01T12:00:{k:02d}.000Z", "lat": 48.1}
        self._client.sendall(json.dumps(report).encode() + b"\n")


DEVICES: list[type[Any]] = [Webcam, NetworkCamera, Bus, OtherBus, Inertial, Receiver, GpsDaemon]


def until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    """Wait for something that another thread brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
