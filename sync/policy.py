"""Which scene the vehicle is in, seen from its time signals, and what follows from it.

Every scene has a row: whether GNSS is used, how much its uncertainty and the bound are inflated,
how often servers are asked, which step may be accepted, and how soon a change must be published.
A worse scene is entered at once, a better one only after it has held for a while. The name of
the scene is written into every segment.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass

from syncline.sync.sources.source import GnssSignals
from syncline.timebase import NS_PER_S

EARTH_M = 6_371_000.0
MS = 1_000_000


class Scene(enum.Enum):
    """What surrounds the receiver; values are written into segments (at most 16 letters)."""

    COLD_START = "cold-start"
    NETWORK_ONLY = "network-only"
    OPEN_SKY = "open-sky"
    HALF_OCCLUSION = "half-occlusion"
    FULL_OCCLUSION = "full-occlusion"
    SPACE_WEATHER = "space-weather"
    INTERFERENCE = "interference"


@dataclass(frozen=True, slots=True)
class Row:
    """What a scene means for the service.

    Attributes:
        use_gnss: GNSS measurements reach the estimator.
        gnss_inflation: Factor on their uncertainty.
        bound_inflation: Factor on the published hard bound.
        ntp_poll_log2: Interval that servers are asked in, log2 seconds.
        step_limit_ns: Largest step that may be accepted without a person, 0 for none.
        leave_after_ns: How long a better scene must hold before this one is left.
        latency_budget_ns: From the signal to the published decision.
    """

    use_gnss: bool
    gnss_inflation: float
    bound_inflation: float
    ntp_poll_log2: int
    step_limit_ns: int
    leave_after_ns: int
    latency_budget_ns: int


YEARS_NS = 2**62
ROWS: dict[Scene, Row] = {
    Scene.COLD_START: Row(True, 1.0, 1.0, 4, YEARS_NS, 0, 100 * MS),
    Scene.NETWORK_ONLY: Row(True, 1.0, 1.0, 5, 0, 0, 1000 * MS),
    Scene.OPEN_SKY: Row(True, 1.0, 1.0, 6, 0, 0, 1000 * MS),
    Scene.HALF_OCCLUSION: Row(True, 3.0, 1.0, 5, 0, 3 * NS_PER_S, 1000 * MS),
    Scene.FULL_OCCLUSION: Row(True, 3.0, 1.0, 4, 0, 3 * NS_PER_S, 1000 * MS),
    Scene.SPACE_WEATHER: Row(True, 10.0, 1.5, 4, 0, 300 * NS_PER_S, 2000 * MS),
    Scene.INTERFERENCE: Row(False, 30.0, 2.0, 4, 0, 30 * NS_PER_S, 500 * MS),
}
"""Order of badness: a scene further down replaces one above at once."""
_RANK = {scene: rank for rank, scene in enumerate(ROWS)}


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds of the signals; each one in docs/time.md.

    Attributes:
        jamming: Indicator (0..1) above which the receiver is jammed.
        alike_cn0_db: Spread of all satellites below which they come from one antenna.
        alike_satellites: Satellites needed for that judgement.
        jump_mps: Apparent speed between two fixes, beyond the reported one.
        wheel_mps: Wheel speed against GNSS speed.
        wheel_ns: How long they must differ.
        few_satellites: Fewer than this is half occlusion.
        weak_cn0_db: Weaker than this is half occlusion.
        no_fix_ns: No fix for this long is full occlusion.
        storm_cn0_db: Slow loss of signal on all satellites, against the last hour.
        storm_accuracy: Growth of the receiver's own time accuracy, against the last hour.
        storm_ns: How long it must last.
        disagreement_ns: GNSS against our own clock.
    """

    jamming: float = 0.6
    alike_cn0_db: float = 0.8
    alike_satellites: int = 7
    jump_mps: float = 60.0
    wheel_mps: float = 4.0
    wheel_ns: int = 3 * NS_PER_S
    few_satellites: int = 6
    weak_cn0_db: float = 28.0
    no_fix_ns: int = 3 * NS_PER_S
    storm_cn0_db: float = 5.0
    storm_accuracy: float = 5.0
    storm_ns: int = 60 * NS_PER_S
    disagreement_ns: int = 1 * MS


@dataclass(frozen=True, slots=True)
class PolicyInput:
    """What a decision is made of.

    Attributes:
        raw_ns: Now.
        has_gnss: A receiver is configured.
        has_time: The estimator is not cold.
        gnss: The sky as last reported.
        wheel_speed_mps: From the vehicle, if known.
        gnss_offset_ns: GNSS against our own clock, if both are there.
        gnss_bound_ns: Error that this difference may have.
        gnss_dragging: The estimator saw GNSS drag away.
    """

    raw_ns: int
    has_gnss: bool
    has_time: bool
    gnss: GnssSignals | None = None
    wheel_speed_mps: float | None = None
    gnss_offset_ns: int | None = None
    gnss_bound_ns: int = 0
    gnss_dragging: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The scene in force.

    Attributes:
        scene: Which.
        row: What follows.
        reason: In words, with the figure that decided.
        changed: It differs from the last decision.
    """

    scene: Scene
    row: Row
    reason: str
    changed: bool


class PolicyEngine:
    """Signals in, scene out. Pure; keeps a few numbers, nothing that grows.

    Args:
        limits: Thresholds.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._scene = Scene.COLD_START
        self._reason = "start"
        self._better_since_ns: int | None = None
        self._last_fix: GnssSignals | None = None
        self._fix_raw_ns: int | None = None
        self._wheel_since_ns: int | None = None
        self._jump_raw_ns: int | None = None
        self._jump_reason = ""
        self._calm = _Baseline()
        self._storm_since_ns: int | None = None

    @property
    def scene(self) -> Scene:
        """The scene in force."""
        return self._scene

    def step(self, now: PolicyInput) -> Decision:
        """Judge the signals of now."""
        self._follow(now)
        wanted, reason = self._judge(now)
        return self.decision(changed=self._move(wanted, reason, now.raw_ns))

    def decision(self, *, changed: bool) -> Decision:
        """The scene in force as a decision."""
        return Decision(self._scene, ROWS[self._scene], self._reason, changed)

    def _move(self, wanted: Scene, reason: str, raw_ns: int) -> bool:
        if wanted is self._scene:
            self._better_since_ns = None
            self._reason = reason
            return False
        leave_ns = ROWS[self._scene].leave_after_ns
        if _RANK[wanted] < _RANK[self._scene] and leave_ns:
            if self._better_since_ns is None:
                self._better_since_ns = raw_ns
            if raw_ns - self._better_since_ns < leave_ns:
                return False
        self._scene, self._reason, self._better_since_ns = wanted, reason, None
        return True

    def _judge(self, now: PolicyInput) -> tuple[Scene, str]:
        if now.has_gnss:
            for scene, reason in (
                (Scene.INTERFERENCE, self._attacked(now)),
                (Scene.SPACE_WEATHER, self._storm(now)),
            ):
                if reason:
                    return scene, reason
        if not now.has_time:
            return Scene.COLD_START, "no time yet"
        if not now.has_gnss:
            return Scene.NETWORK_ONLY, "no receiver is configured"
        return self._occluded(now)

    def _follow(self, now: PolicyInput) -> None:
        sky = now.gnss
        if sky is None or (sky.fix_mode or 0) < 2:
            return
        if self._last_fix is not None and sky.raw_ns > self._last_fix.raw_ns:
            self._note_jump(self._last_fix, sky)
        if self._last_fix is None or sky.raw_ns > self._last_fix.raw_ns:
            self._last_fix, self._fix_raw_ns = sky, sky.raw_ns
            self._calm.take(sky)
        self._follow_wheel(now, sky)

    def _follow_wheel(self, now: PolicyInput, sky: GnssSignals) -> None:
        wheel = now.wheel_speed_mps
        known = wheel is not None and sky.speed_mps is not None
        if not known or abs((wheel or 0.0) - (sky.speed_mps or 0.0)) <= self._limits.wheel_mps:
            self._wheel_since_ns = None
        elif self._wheel_since_ns is None:
            self._wheel_since_ns = now.raw_ns

    def _note_jump(self, last: GnssSignals, sky: GnssSignals) -> None:
        distance_m = _distance_m(last, sky)
        dt_s = (sky.raw_ns - last.raw_ns) / NS_PER_S
        if distance_m is None or not 0 < dt_s < 30:
            return
        expected = max(last.speed_mps or 0.0, sky.speed_mps or 0.0)
        excess = distance_m / max(dt_s, 0.2) - expected
        if excess > self._limits.jump_mps:
            self._jump_raw_ns = sky.raw_ns
            self._jump_reason = f"position jumped {distance_m:.0f} m in {dt_s:.1f} s"

    def _attacked(self, now: PolicyInput) -> str:
        limits, sky = self._limits, now.gnss
        if now.gnss_dragging:
            return "GNSS time drags away from our own clock"
        if self._jump_raw_ns is not None and now.raw_ns - self._jump_raw_ns < 10 * NS_PER_S:
            return self._jump_reason
        since = self._wheel_since_ns
        if since is not None and now.raw_ns - since >= limits.wheel_ns and sky is not None:
            return f"GNSS speed {sky.speed_mps} m/s against wheels {now.wheel_speed_mps} m/s"
        offset = now.gnss_offset_ns
        if offset is not None and abs(offset) > limits.disagreement_ns + now.gnss_bound_ns:
            return f"GNSS time is {offset / 1e6:.3f} ms from our own clock"
        return "" if sky is None else self._flags(sky)

    def _flags(self, sky: GnssSignals) -> str:
        limits = self._limits
        if (sky.spoofing_state or 0) >= 2:
            return "receiver indicates spoofing"
        if sky.jamming_state == 3:
            return "receiver reports critical jamming"
        if sky.jamming is not None and sky.jamming >= limits.jamming:
            return f"jamming indicator {sky.jamming:.2f}"
        alike = sky.cn0_spread_dbhz is not None and sky.cn0_spread_dbhz < limits.alike_cn0_db
        if alike and (sky.satellites or 0) >= limits.alike_satellites:
            return f"all satellites equally strong (spread {sky.cn0_spread_dbhz:.2f} dB)"
        return ""

    def _storm(self, now: PolicyInput) -> str:
        """A slow loss while as many satellites are seen as ever: the ionosphere, not a roof."""
        reason = self._calm.worse(now.gnss, self._limits) if now.gnss is not None else ""
        if not reason:
            self._storm_since_ns = None
            return ""
        if self._storm_since_ns is None:
            self._storm_since_ns = now.raw_ns
        return reason if now.raw_ns - self._storm_since_ns >= self._limits.storm_ns else ""

    def _occluded(self, now: PolicyInput) -> tuple[Scene, str]:
        limits, sky = self._limits, now.gnss
        heard = self._fix_raw_ns
        if sky is None or heard is None or now.raw_ns - heard > limits.no_fix_ns:
            return Scene.FULL_OCCLUSION, "no fix"
        if sky.satellites is not None and sky.satellites < limits.few_satellites:
            return Scene.HALF_OCCLUSION, f"{sky.satellites} satellites"
        if sky.cn0_dbhz is not None and sky.cn0_dbhz < limits.weak_cn0_db:
            return Scene.HALF_OCCLUSION, f"weak signals, {sky.cn0_dbhz:.0f} dBHz"
        used = "" if sky.satellites is None else f", {sky.satellites} satellites"
        return Scene.OPEN_SKY, f"fix{used}"


class _Baseline:
    """What the last hour was like, a value every ten seconds: 360 at most."""

    def __init__(self) -> None:
        self._past: deque[tuple[int, float, float, float]] = deque(maxlen=360)

    def take(self, sky: GnssSignals) -> None:
        if sky.cn0_dbhz is None or sky.satellites is None:
            return
        if self._past and sky.raw_ns - self._past[-1][0] < 10 * NS_PER_S:
            return
        accuracy = float(sky.time_accuracy_ns or 0)
        self._past.append((sky.raw_ns, sky.cn0_dbhz, float(sky.satellites), accuracy))

    def worse(self, sky: GnssSignals, limits: Limits) -> str:
        """Why the sky is slowly worse than it was, or ""."""
        past = [row for row in self._past if row[0] < sky.raw_ns - 5 * 60 * NS_PER_S]
        if len(past) < 12 or sky.cn0_dbhz is None or sky.satellites is None:
            return ""
        usual_cn0 = _median([row[1] for row in past])
        usual_satellites = _median([row[2] for row in past])
        if sky.satellites < 0.8 * usual_satellites:
            return ""
        if sky.cn0_dbhz < usual_cn0 - limits.storm_cn0_db and self._slow(sky):
            return f"signals {usual_cn0 - sky.cn0_dbhz:.1f} dB below the last hour"
        usual_accuracy = _median([row[3] for row in past])
        accuracy = float(sky.time_accuracy_ns or 0)
        if usual_accuracy > 0 and accuracy > limits.storm_accuracy * usual_accuracy:
            return f"time accuracy {accuracy:.0f} ns, usually {usual_accuracy:.0f} ns"
        return ""

    def _slow(self, sky: GnssSignals) -> bool:
        """No single fall of 3 dB within 20 s: a tunnel or a jammer falls at once."""
        recent = [r[1] for r in self._past if r[0] >= sky.raw_ns - 15 * 60 * NS_PER_S]
        falls = [a - b for a, b in zip(recent, recent[2:], strict=False)]
        return not falls or max(falls) < 3.0


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _distance_m(a: GnssSignals, b: GnssSignals) -> float | None:
    """Great-circle distance (haversine)."""
    if None in (a.latitude_deg, a.longitude_deg, b.latitude_deg, b.longitude_deg):
        return None
    lat1, lat2 = math.radians(a.latitude_deg or 0.0), math.radians(b.latitude_deg or 0.0)
    dlon = math.radians((b.longitude_deg or 0.0) - (a.longitude_deg or 0.0))
    h = math.sin((lat2 - lat1) / 2) ** 2
    h += math.cos(lat1) * math.cos(lat2) * math.sin(dlon / 2) ** 2
    return 2 * EARTH_M * math.asin(min(math.sqrt(h), 1.0))
