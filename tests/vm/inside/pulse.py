"""The kernel's own pulse source, whose period is not a second, through the PPS driver."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from syncline.sync.sources.pps import Label, Pps, PpsDevice, Pulse, PulsePairing
from syncline.timebase import OsClock
from tests.vm.guest import load_module
from tests.vm.inside.setter import S, raw_ns
from tests.vm.inside.time_server import UTC_MINUS_RAW_NS

DEVICE = Path("/dev/pps0")


def main(arguments: list[str]) -> dict[str, Any]:
    load_module("pps-ktimer")
    seconds = float(arguments[0])
    kept: list[dict[str, int]] = []

    class Heard(PpsDevice):
        """The driver's device; keeps what it fetched."""

        def fetch(self) -> Pulse | None:
            pulse = super().fetch()
            if pulse and (not kept or kept[-1]["sequence"] != pulse.sequence):
                real_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
                kept.append({**asdict(pulse), "age_ns": real_ns - pulse.real_ns})
            return pulse

    clock = OsClock()
    source = Pps(
        PulsePairing("pps0"), lambda: Heard(DEVICE), clock,
        label=lambda raw: Label(raw, UTC_MINUS_RAW_NS + raw, 1_000_000),
    )  # fmt: skip
    measured, said_after = [], 0
    end = raw_ns() + round(seconds * S)
    while raw_ns() < end:
        measured += source.poll(raw_ns())
        if source.pairing.trouble and not said_after:
            said_after = len(kept)
        clock.sleep_until(source.due_raw_ns())
    health = source.health()
    source.close()
    return {
        "pulses": kept,
        "measured": [(m.raw_ns, m.utc_ns - m.raw_ns - UTC_MINUS_RAW_NS) for m in measured],
        "health": health.health.name,
        "message": health.message,
        "refused": dict(health.refused),
        "said_after": said_after,
        "name": Path("/sys/class/pps/pps0/name").read_text(encoding="ascii").strip(),
    }
