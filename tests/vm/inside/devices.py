"""A PTP clock that stands still, and a machine that wakes up in 1970 or sleeps."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from syncline.sync.jumps import Suspended, system_watch
from syncline.sync.leap import built_in
from syncline.sync.sources.phc import Phc, PhcDevice, PhcOptions
from syncline.timebase import NS_PER_S, OsClock
from tests.vm.guest import load_module
from tests.vm.inside.clock import Service, described
from tests.vm.inside.setter import raw_ns

PTP = Path("/dev/ptp0")
RTC = Path("/sys/class/rtc/rtc0")
SLEEP_S = 8


def frozen_ptp() -> dict[str, Any]:
    """e1000e of QEMU: /dev/ptp0 opens, answers, can be set, and never advances."""
    load_module("e1000e")
    for _ in range(100):
        if PTP.exists():
            break
        time.sleep(0.05)
    device = PhcDevice(PTP)
    reads = [device.read_ns()]
    time.sleep(0.5)
    reads.append(device.read_ns())
    device.close()
    clock = OsClock()
    source = Phc(PhcOptions("ptp0", utc=True), lambda: PhcDevice(PTP), clock, built_in())
    told: list[str] = []
    measured = 0
    for _ in range(5):
        measured += len(source.poll(raw_ns()))
        told.append(source.health().message)
        clock.sleep_until(source.due_raw_ns())
    health = source.health().health.name
    source.close()
    return {"reads": reads, "measured": measured, "told": told, "health": health}


def cold_start() -> dict[str, Any]:
    """The machine's own clock says 1970: the service gets UTC from its server all the same."""
    real_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
    made = Service()
    try:
        made.run(60.0, lambda: bool(made.rows))
        first = made.rows[0]
        made.run(3.0)
    finally:
        made.close()
    return {
        "real_s": real_ns // NS_PER_S,
        "rtc_s": int((RTC / "since_epoch").read_text(encoding="ascii")),
        "measurements": first["measurements"],
        "rows": made.rows,
        "real_moved_ns": time.clock_gettime_ns(time.CLOCK_REALTIME) - real_ns,
        "trouble": list(made.service.trouble.values()),
        "unknown": len(made.found_steps()),
    }


def suspended() -> None:
    """Suspend to memory, woken by the clock's alarm; the answer goes over the serial line, because
    the host's files do not survive it."""
    watch, lacks = system_watch()
    names = ("MONOTONIC_RAW", "MONOTONIC", "BOOTTIME", "REALTIME")
    ids = {name: getattr(time, f"CLOCK_{name}") for name in names}
    line = os.open("/dev/ttyS0", os.O_WRONLY)
    state = os.open("/sys/power/state", os.O_WRONLY)

    def asleep(word: bytes) -> bytes:
        before = {name: time.clock_gettime_ns(number) for name, number in ids.items()}
        if word:
            os.write(state, word)
        jumps = watch.poll()
        time.sleep(0.1)
        jumps += watch.poll()
        after = {name: time.clock_gettime_ns(number) for name, number in ids.items()}
        found = {
            "lacks": lacks,
            "moved_ns": {name: after[name] - before[name] for name in names},
            "slept": [(j.size_ns, j.uncertainty_ns) for j in jumps if isinstance(j, Suspended)],
            "jumps": [described(jump) for jump in jumps],
        }
        return f"\nLAB {json.dumps(found)}\n".encode()

    asleep(b"")  # everything that runs afterwards is in memory now
    alarm = RTC / "wakealarm"
    alarm.write_text("0", encoding="ascii")
    alarm.write_text(f"+{SLEEP_S}", encoding="ascii")
    os.write(line, asleep(b"mem"))


def main(arguments: list[str]) -> dict[str, Any]:
    parts = {"frozen_ptp": frozen_ptp, "cold_start": cold_start, "suspended": suspended}
    return {name: parts[name]() for name in arguments}
