"""A drive on WebGPU whose Vulkan driver loses its device and finds it again; one line of JSON.

Run by `test_real_death.py` with the interpreter of an environment that holds the plug-in:

    PYTHONPATH=ROOT real_death.py {"library": ..., "tiny": ..., "gate": ..., "strict": ..., ...}
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from syncline.edge.backend import BackendOptions
from syncline.edge.job import Drop, Frame, Result
from syncline.edge.model.bundle import Bundle
from syncline.edge.queue import QueuePolicy
from syncline.edge.runner import Callbacks, ModelSlot, Runner
from syncline.edge.swap import SwapEvent
from syncline.timebase import OsClock

GIVEN = json.loads(sys.argv[1])
NAME, CPU = "WebGpuExecutionProvider", "CPUExecutionProvider"
GAP_S = 0.02
CLOCK = OsClock()


class Drive:
    """Frames at about 50 Hz, and all that came of them."""

    def __init__(self) -> None:
        bundle = Bundle.open(Path(GIVEN["tiny"]), trusted_keys=None)
        options = BackendOptions(
            providers=(NAME, CPU),
            strict_provider=GIVEN["strict"],
            plugins=((NAME, Path(GIVEN["library"])),),
        )
        self.image, self.index = bundle.golden().frame, 0
        self.results: list[Result] = []
        self.drops: list[Drop] = []
        self.events: list[SwapEvent] = []
        slots = [ModelSlot(name="main", bundle=bundle, backend=options, policy=QueuePolicy.BLOCK)]
        if GIVEN["shadow"]:
            slots.append(ModelSlot(name="next", bundle=bundle, backend=options, shadow_of="main"))
        self.runner = Runner(
            slots,
            clock=CLOCK,
            callbacks=Callbacks(
                on_result=self.on_result,
                on_drop=self.on_drop,
                on_event=self.events.append,
            ),
        )
        self.runner.start()

    def on_result(self, result: Result) -> None:
        if not result.shadow:
            self.results.append(result)

    def on_drop(self, drop: Drop) -> None:
        if drop.slot == "main":
            self.drops.append(drop)

    def until(self, holds: Callable[[], bool], limit_s: float) -> dict[str, Any]:
        """What health says once it holds, or when the patience is over."""
        begun_s, lost, served = time.monotonic(), len(self.drops), len(self.results)
        while not holds() and time.monotonic() - begun_s < limit_s:
            self.runner.submit(Frame("front", self.index, self.image, None, CLOCK.raw_ns()))
            self.index += 1
            time.sleep(GAP_S)
        main = self.runner.health().slots[0]
        return {
            "held": holds(), "s": time.monotonic() - begun_s, "state": main.state,
            "detail": main.detail, "requested": main.ep_requested, "actual": main.ep_actual,
            "lost": len(self.drops) - lost, "served": len(self.results) - served,
            "counters": dict(self.runner.health().counters),
        }  # fmt: skip

    def served(self, count: int) -> Callable[[], bool]:
        want = len(self.results) + count
        return lambda: len(self.results) >= want

    def shadow_reloaded(self) -> bool:
        """Whether the shadow, too, was loaded anew, and nothing is wrong with either."""
        told = any(e.slot == "next" and e.action == "reloaded" for e in self.events)
        return told and self.runner.health().state == "ok"

    def counted(self, name: str, count: int = 1) -> Callable[[], bool]:
        return lambda: self.runner.health().counters.get(name, 0) >= count

    def told(self, **phases: Any) -> dict[str, Any]:
        self.runner.stop()
        main = self.runner.health().slots[0]
        reloads = [
            (e.action, e.provider_before, e.provider, e.reason)
            for e in self.events
            if e.action.startswith("reload")
        ]
        books = {
            "captured": main.captured, "processed": main.processed,
            "dropped": dict(main.dropped), "results": len(self.results),
            "drops": len(self.drops), "invalid": main.invalid,
        }  # fmt: skip
        return {**phases, "events": reloads, "books": books}


def lasting(drive: Drive, gate: Path) -> dict[str, Any]:
    """The device is lost, stays lost for seconds, and is found again."""
    gate.touch()
    death = "reload-failed" if GIVEN["strict"] else "reloaded"
    dead = drive.until(drive.counted(death), 30.0)
    after = drive.until(drive.served(20), 2.0)
    cpu_s = time.process_time()
    still = drive.until(lambda: False, 6.0)
    still["cpu_share"] = (time.process_time() - cpu_s) / still["s"]
    gate.unlink()
    back = drive.until(lambda: drive.runner.health().state == "ok", 60.0)
    told = {"dead": dead, "after": after, "still": still, "back": back}
    if GIVEN["shadow"]:
        told["shadow"] = drive.until(drive.shadow_reloaded, 60.0)
    return told


def short(drive: Drive, gate: Path) -> dict[str, Any]:
    """The device is lost for the time of one frame: sessions from before stay dead."""
    gate.touch()
    drive.until(lambda: len(drive.drops) > 0, 10.0)
    gate.unlink()
    return {"dead": drive.until(drive.counted("reloaded"), 30.0)}


def main() -> None:
    drive, gate = Drive(), Path(GIVEN["gate"])
    before = drive.until(drive.served(20), 30.0)
    phases = (short if GIVEN["short"] else lasting)(drive, gate)
    end = drive.until(drive.served(20), 30.0)
    print("\n" + json.dumps(drive.told(before=before, **phases, end=end)))


if __name__ == "__main__":
    main()
