"""A model slot: what is configured, the engine that serves it, and its books."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass, field

from syncline.edge.backend import BackendOptions
from syncline.edge.engine import Engine
from syncline.edge.health import Histogram, Ledger, SlotHealth
from syncline.edge.job import DropReason, Frame, Result
from syncline.edge.model.bundle import Bundle
from syncline.edge.outputs import StuckDetector
from syncline.edge.queue import FrameQueue, Lane, QueuePolicy
from syncline.edge.recovery import Recovery
from syncline.edge.starvation import Starvation
from syncline.edge.swap import SwapPolicy
from syncline.errors import UsageError
from syncline.timebase import NS_PER_S

_DEFAULT_HANG_NS = 10 * NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSlot:
    """One model of a runner, as configured.

    Attributes:
        name: Name of the slot, in results and health.
        bundle: The model that it starts with.
        fallbacks: What it starts with where that cannot be loaded any more, best first: the runtime
            may be another one since, or an accelerator gone.
        cameras: Cameras that it sees; empty = all.
        priority: Higher goes first.
        max_rate_hz: Frames per second and camera that it is asked for; None = all.
        policy: What happens to frames that come too fast.
        queue: Frames held per camera under FIFO and BLOCK.
        deadline_ns: From a frame's `raw_ns`: past it, it is not run, and a run is ended.
        hang_ns: From the moment that a worker takes a frame: past it the worker counts as hung.
            None = twice the deadline from the frame's `raw_ns`, or 10 s without a deadline.
        shadow_of: Slot whose frames this shadow model sees in slack; empty = a primary model.
        backend: How it is run.
        swap_policy: What a new model must be to take over here; None = the runner's.
    """

    name: str
    bundle: Bundle
    fallbacks: tuple[Bundle, ...] = ()
    cameras: tuple[str, ...] = ()
    priority: int = 0
    max_rate_hz: float | None = None
    policy: QueuePolicy = QueuePolicy.LATEST
    queue: int = 8
    deadline_ns: int | None = None
    hang_ns: int | None = None
    shadow_of: str = ""
    backend: BackendOptions = field(default_factory=BackendOptions)
    swap_policy: SwapPolicy | None = None

    def __post_init__(self) -> None:
        if self.max_rate_hz is not None and not self.max_rate_hz > 0:
            raise UsageError(f"slot {self.name!r}: max_rate_hz={self.max_rate_hz} must be above 0")
        if self.deadline_ns is not None and self.deadline_ns <= 0:
            raise UsageError(f"slot {self.name!r}: deadline_ns={self.deadline_ns} must be above 0")
        if self.queue < 1:
            raise UsageError(f"slot {self.name!r}: queue={self.queue} must be at least 1")

    def sees(self, camera: str) -> bool:
        """Whether the slot takes a camera's frames."""
        return not self.cameras or camera in self.cameras

    def lane(self, camera: str) -> Lane:
        """A new lane for a camera."""
        policy = QueuePolicy.LATEST if self.shadow_of else self.policy
        interval = 0 if self.max_rate_hz is None else round(NS_PER_S / self.max_rate_hz)
        return Lane(
            slot=self.name,
            camera=camera,
            queue=FrameQueue(policy, self.queue, self.deadline_ns),
            priority=self.priority,
            min_interval_ns=interval,
            shadow=bool(self.shadow_of),
        )

    def stop_at_ns(self, raw_ns: int) -> int | None:
        """When the run of a frame of `raw_ns` is to be ended."""
        return None if self.deadline_ns is None else raw_ns + self.deadline_ns

    @property
    def patience_ns(self) -> int:
        """How long frames of a camera may come with none processed: as long as a run may hang."""
        if self.hang_ns is not None:
            return self.hang_ns
        return _DEFAULT_HANG_NS if self.deadline_ns is None else 2 * self.deadline_ns

    def hang_at_ns(self, raw_ns: int, taken_ns: int) -> int:
        """When the worker that took a frame at `taken_ns` counts as hung."""
        if self.hang_ns is not None:
            return taken_ns + self.hang_ns
        if self.deadline_ns is not None:
            return raw_ns + 2 * self.deadline_ns
        return taken_ns + _DEFAULT_HANG_NS


@dataclass
class SlotState:
    """A slot at work.

    Attributes:
        spec: As configured.
        engine: The model that serves; replaced as a whole, between frames. None = not loaded yet.
        previous: The bundle before, for a rollback.
        ledger: Exact accounting.
        detectors: Of stuck outputs, by camera.
        invalid: Why the last result of a camera was not valid, by camera.
        starvation: Cameras of which nothing is processed.
        judged: Frames by which this model can be judged, by camera: processed, or lost through it.
        recovery: What becomes of it when its provider dies.
    """

    spec: ModelSlot
    engine: Engine | None = None
    previous: Bundle | None = None
    ledger: Ledger = field(default_factory=Ledger)
    detectors: dict[str, StuckDetector] = field(default_factory=dict)
    invalid: dict[str, str] = field(default_factory=dict)
    starvation: Starvation = field(init=False)
    judged: dict[str, int] = field(default_factory=dict)
    recovery: Recovery = field(default_factory=Recovery)
    # Workers ask for detectors outside the runner's lock; a lock of its own keeps runs unhindered.
    _guard: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self.starvation = Starvation(self.spec.patience_ns)

    @property
    def options(self) -> BackendOptions:
        """How a model of this slot is to be run now: without providers that died."""
        return dataclasses.replace(self.spec.backend, lost=self.recovery.lost)

    def install(self, engine: Engine) -> None:
        """Serve with another engine from the next frame on."""
        if self.engine is not None and self.engine.digest != engine.digest:
            self.previous = self.engine.bundle
        with self._guard:
            self.engine = engine
            self.detectors = {}
        self.invalid = {}
        self.starvation = Starvation(self.spec.patience_ns)
        self.judged = {}

    def detector(self, camera: str) -> StuckDetector:
        """The camera's detector of stuck outputs; any thread."""
        with self._guard:
            return self.detectors.setdefault(camera, StuckDetector())

    def note(self, result: Result) -> None:
        """Enter a result into the books."""
        camera = result.frame.camera
        self.ledger.process(result.latencies, valid=result.valid)
        self.invalid[camera] = result.invalid_reason
        self.starvation.served(camera)
        self.judged[camera] = self.judged.get(camera, 0) + 1

    def drop(self, frame: Frame, reason: DropReason) -> None:
        """Enter a drop into the books."""
        self.ledger.drop(reason)
        if self.starvation.unserved(frame.camera, frame.raw_ns, reason):
            self.judged[frame.camera] = self.judged.get(frame.camera, 0) + 1

    def trouble(self) -> str:
        """What is wrong with the slot; empty when nothing is."""
        return self._stuck() or self._bereft() or self.starvation.trouble() or self._invalid()

    def fault(self) -> str:
        """What the model itself is to blame for: no broken camera, and no dead provider."""
        is_bereft = self.recovery.busy or bool(self.recovery.dead)
        starved = "" if is_bereft else self.starvation.fault()
        return self._stuck() or starved or self._invalid()

    def _bereft(self) -> str:
        return "" if self.engine is None else self.recovery.trouble(self.engine.backend.provider)

    def _stuck(self) -> str:
        with self._guard:
            detectors = list(self.detectors.values())
        limits = (d.limit for d in detectors if d.run_length >= d.limit)
        limit = next(limits, None)
        return "" if limit is None else f"output has not changed for {limit} frames"

    def _invalid(self) -> str:
        return next((f"result invalid: {reason}" for reason in self.invalid.values() if reason), "")

    def health(self) -> SlotHealth:
        """What the slot says of itself."""
        manifest = (self.engine.bundle if self.engine else self.spec.bundle).manifest
        backend = self.engine.backend if self.engine else None
        trouble = self.trouble()
        state = "starting" if backend is None else "degraded" if trouble else "ok"
        ledger = self.ledger
        return SlotHealth(
            slot=self.spec.name,
            shadow_of=self.spec.shadow_of,
            state=state,
            detail=trouble or ("golden run not done yet" if backend is None else ""),
            fault=self.fault(),
            judged=max(self.judged.values(), default=0),
            model_name=manifest.name,
            model_version=manifest.version,
            model_digest=self.engine.digest if self.engine else self.spec.bundle.digest,
            ep_requested=backend.ep_requested if backend else "",
            ep_actual=backend.ep_actual if backend else "",
            ep_node_share=backend.node_share if backend else 0.0,
            captured=ledger.captured,
            processed=ledger.processed,
            invalid=ledger.invalid,
            dropped={reason.value: count for reason, count in ledger.dropped.items()},
            latency={
                stage: Histogram(list(h.counts), h.sum_ns, h.count, h.max_ns)
                for stage, h in ledger.latency.items()
            },
        )
