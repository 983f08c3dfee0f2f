"""NTP exchanges by kernel stamps while the clock that stamps them is set in the middle."""

from __future__ import annotations

import random
import select
import time
from typing import Any

from syncline.sync.sources.kernel_socket import KernelSocket, Received
from syncline.sync.sources.ntp_session import NtpOptions, NtpSession
from syncline.timebase import OsClock
from tests.sync_os.ntp_fakes import FLOOR
from tests.vm.inside.setter import S, raw_ns, step_by
from tests.vm.inside.time_server import PORT, UTC_MINUS_RAW_NS, TimeServer

SIZES_NS = (3600 * S, S, 20_000_000, 1_000_000, 200_000)
ROUNDS = 150
PLACES = ("nothing", "before the reply", "after the reply", "there and back", "around the reply")


def exchange(
    line: KernelSocket, session: NtpSession, server: TimeServer, place: str, size_ns: int
) -> dict[str, Any]:
    """One exchange with the clock set at `place`."""
    server.hold(still=True)
    line.send(session.request())
    if place in ("before the reply", "around the reply"):
        step_by(size_ns)
    server.hold(still=False)
    time.sleep(0.03)  # the reply is there, but for a machine that is very busy
    if place == "there and back":
        step_by(size_ns)
        step_by(-size_ns)
    if place == "after the reply":
        step_by(size_ns)
    if place == "around the reply":  # the reply was stamped by a clock that is no more
        step_by(-size_ns)
    got: list[Received] = []
    end = raw_ns() + 2 * S
    while not got and raw_ns() < end:
        got = line.receive()
        if not got:
            select.select([line], [], [], 0.1)
    measured = [m for m in map(session.handle, got) if m is not None]
    row: dict[str, Any] = {"place": place, "size_ns": size_ns, "measured": len(measured)}
    for m in measured:
        row |= {
            "error_ns": m.utc_ns - m.raw_ns - UTC_MINUS_RAW_NS,
            "delay_ns": m.delay_ns,
            "uncertainty_ns": m.uncertainty_ns,
        }
    if place in ("before the reply", "after the reply"):
        step_by(-size_ns)
    return row


def main(arguments: list[str]) -> dict[str, Any]:
    server = TimeServer()
    rng = random.Random(4)
    session = NtpSession("ntp:test", NtpOptions("127.0.0.1", PORT, 0, 0), FLOOR)
    line = KernelSocket(("127.0.0.1", PORT), OsClock())
    rows = []
    try:
        for number in range(ROUNDS):
            place = PLACES[number % len(PLACES)]
            size_ns = rng.choice(SIZES_NS) * rng.choice((1, -1))
            rows.append(exchange(line, session, server, place, size_ns))
    finally:
        line.close()
        server.close()
    return {"stamped": line.stamped, "rows": rows, "refused": dict(session.tally.counts)}
