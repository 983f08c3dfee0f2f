"""Frames on a virtual CAN interface: our reader, python-can beside it, and a clock that is set."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from typing import Any

from syncline.errors import DeviceError
from syncline.sensors.adapter import Sample
from syncline.sensors.adapters.can import CanFrame
from syncline.sensors.adapters.socket_can import SocketCan
from syncline.timebase import Clock, paired_read
from tests.vm.guest import load_module, raise_interface
from tests.vm.inside.setter import S, raw_ns, step_by

CLASSIC = struct.Struct("=IB3x8s")
FD = struct.Struct("=IBB2x64s")
SIZES_NS = (3600 * S, -3600 * S, S, -S, 10**7, -(10**7))
EXTENDED, REMOTE = 0x8000_0000, 0x4000_0000


class Pulled(SocketCan):
    """The adapter, one frame at a time: how long one waits in the socket is the test's choice."""

    def read(self, wait_s: float) -> Sample[CanFrame] | None:
        """None for silence and for a loss, which `health` then tells; opens what is not open."""
        if not self._is_open and not self._reopen():
            return None
        assert self._socket is not None
        self._socket.settimeout(wait_s)
        return next(iter(self._some()), None)


def ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True)


def sender() -> socket.socket:
    made = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
    made.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FD_FRAMES, 1)
    made.bind(("vcan0",))
    return made


def wire(number: int, data: bytes, *, fd: bool = False) -> bytes:
    if fd:
        return FD.pack(number, len(data), 0, data.ljust(64, b"\0"))
    return CLASSIC.pack(number, len(data), data.ljust(8, b"\0"))


FRAMES = (
    wire(0x123, b"\x01\x02\x03"),
    wire(0x1ABC_DEF0 | EXTENDED, b"12345678"),
    wire(0x7FF | REMOTE, b""),
    wire(0x100, bytes(range(64)), fd=True),
    wire(0x101, b""),
)


def exchange(reader: Pulled, out: socket.socket, wait_s: float = 0.0) -> list[dict[str, Any]]:
    """Each frame with the RAW instants around its sending."""
    rows = []
    for frame in FRAMES:
        before = raw_ns()
        out.send(frame)
        after = raw_ns()
        time.sleep(wait_s)
        got = reader.read(1.0)
        assert got is not None
        rows.append({
            "before_ns": before, "after_ns": after, "t_ns": got.arrival.t_ns,
            "sigma_ns": got.arrival.sigma_ns, "id": got.payload.id,
            "extended": got.payload.extended, "remote": got.payload.remote,
            "data": got.payload.data.hex(),
        })  # fmt: skip
    return rows


def stepped(reader: Pulled, out: socket.socket, size_ns: int) -> dict[str, Any]:
    """The clock is set while a frame waits to be read."""
    before = raw_ns()
    out.send(FRAMES[0])
    after = raw_ns()
    step_by(size_ns)
    got = reader.read(1.0)
    read = raw_ns()
    assert got is not None
    return {
        "size_ns": size_ns, "before_ns": before, "after_ns": after, "read_ns": read,
        "t_ns": got.arrival.t_ns, "sigma_ns": got.arrival.sigma_ns,
        "unstamped": reader._unstamped,
    }  # fmt: skip


def unplugged(reader: Pulled, out: socket.socket) -> dict[str, Any]:
    """The interface goes down and comes back, then disappears and comes back."""
    told: list[str] = []
    for away, back in (("set vcan0 down", ()), ("del vcan0", ("add vcan0 type vcan",))):
        ip("link", *away.split())
        reader.read(0.2)
        told.append(f"{reader.health().state.value}: {reader.health().detail}")
        for words in (*back, "set vcan0 up mtu 72"):
            ip("link", *words.split())
        reader.read(0.01)  # opens it again
        with sender() as again:
            frames = []
            for _ in range(3):
                again.send(FRAMES[0])
                frames.append(reader.read(0.5) is not None)
            told.append(f"then {sum(frames)} of 3")
    return {"told": told, "reconnects": reader.health().reconnects}


def fault(reader: Pulled, out: socket.socket) -> dict[str, Any]:
    """An error frame, as a controller makes one."""
    out.send(wire(0x2000_0004, bytes(8)))
    got = reader.read(1.0)
    return {"error": bool(got and got.payload.error), "id": got.payload.id if got else -1}


def beside_python_can(reader: Pulled, out: socket.socket) -> list[dict[str, Any]]:
    """The same frames through python-can, which stamps on REALTIME in float seconds."""
    import can

    rows = []
    with can.Bus(interface="socketcan", channel="vcan0", fd=True) as bus:
        for frame in FRAMES:
            out.send(frame)
            ours, theirs = reader.read(1.0), bus.recv(1.0)
            real = paired_read(Clock.REALTIME)
            assert ours is not None
            assert theirs is not None
            rows.append({
                "same": (ours.payload.id, ours.payload.data, ours.payload.extended,
                         ours.payload.remote)
                == (theirs.arbitration_id, bytes(theirs.data), theirs.is_extended_id,
                    theirs.is_remote_frame),
                "apart_ns": ours.arrival.t_ns - real.raw_ns + real.other_ns
                - round(theirs.timestamp * S),
            })  # fmt: skip
    return rows


def absent() -> str:
    try:
        SocketCan("vcan7").open()
    except DeviceError as error:
        return error.message
    return ""


def main(arguments: list[str]) -> dict[str, Any]:
    load_module("vcan")
    load_module("can-raw")
    ip("link", "add", "vcan0", "type", "vcan")
    ip("link", "set", "vcan0", "mtu", "72")
    raise_interface("vcan0")
    reader = Pulled("vcan0")
    reader.open()
    out = sender()
    found: dict[str, Any] = {
        "plain": exchange(reader, out),
        "late": exchange(reader, out, 0.05),
        "stepped": [
            stepped(reader, out, ns) for ns in (3600 * S, -3600 * S, S, -S, 10**7, -(10**7))
        ],
    }
    found["burst"] = burst(reader, out)
    found["error"] = fault(reader, out)
    found["other"] = beside_python_can(reader, out)
    found["unplugged"] = unplugged(reader, out)
    found["absent"] = absent()
    return found


def burst(reader: Pulled, out: socket.socket, count: int = 2000) -> dict[str, int]:
    """More frames than the socket holds, sent before one is read."""
    for n in range(count):
        out.send(wire(n % 0x800, struct.pack("=I", n)))
    got = []
    while (frame := reader.read(0.1)) is not None:
        got.append(struct.unpack("=I", frame.payload.data)[0])
    out.send(wire(1, struct.pack("=I", count)))
    last = reader.read(0.5)
    got += [struct.unpack("=I", last.payload.data)[0]] if last else []
    return {"sent": count + 1, "read": len(got), "in_order": int(got == sorted(got)),
            "lost": reader.health().dropped}  # fmt: skip
