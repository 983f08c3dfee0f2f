"""The satellite receiver: fixes and second pulses, an outage in the tunnel, and one time jump."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from syncline.sensors.synthetic.clocks import Oscillator
from syncline.sensors.synthetic.road import Ego, Route

NS_PER_S = 1_000_000_000
_METRES_PER_DEG = 111_320.0


@dataclass(frozen=True, slots=True)
class GnssSpec:
    """A receiver and what befalls it.

    Attributes:
        rate_hz: Fixes per second.
        origin_deg: Latitude and longitude of the start.
        position_sigma_m: One sigma of a fix, per axis.
        time_sigma_ns: One sigma of the pulse.
        latency_ns: Least delay from the epoch to the message's first byte.
        reacquire_s: Time from the tunnel's end to the first fix.
        jump_at: Share of the drive at which the receiver's time jumps; None = never.
        jump_ns: Size of the jump.
        jump_for_s: How long it lasts.
    """

    rate_hz: float = 10.0
    origin_deg: tuple[float, float] = (47.6, 9.3)
    position_sigma_m: float = 1.2
    time_sigma_ns: float = 25.0
    latency_ns: int = 60_000_000
    reacquire_s: float = 1.5
    jump_at: float | None = 0.75
    jump_ns: int = 1_000_000_000
    jump_for_s: float = 4.0


@dataclass(frozen=True, slots=True)
class GnssFix:
    """One navigation message, as the receiver tells it: `utc_ns` may lie.

    Attributes:
        sensor: Name.
        raw_ns: Arrival of its first byte, CLOCK_MONOTONIC_RAW.
        epoch_raw_ns: Truth: raw time of the epoch itself.
        utc_ns: The receiver's UTC of the epoch.
        latitude_deg: Position.
        longitude_deg: Position.
        altitude_m: Position.
        speed_mps: Over ground.
        heading_deg: Clockwise from north.
        mode: 1 no fix, 3 three-dimensional.
        satellites: Used in the fix.
        time_sigma_ns: The receiver's own claim.
        leap_valid: Whether GPS - UTC is known.
        cn0_dbhz: Mean carrier to noise density.
        jumped: Truth: the receiver's time is off here.
    """

    sensor: str
    raw_ns: int
    epoch_raw_ns: int
    utc_ns: int
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    speed_mps: float
    heading_deg: float
    mode: int
    satellites: int
    time_sigma_ns: float
    leap_valid: bool
    cn0_dbhz: float
    jumped: bool

    @property
    def arrival_raw_ns(self) -> int:
        """Raw time at which the host had it."""
        return self.raw_ns


@dataclass(frozen=True, slots=True)
class PpsPulse:
    """One edge of the pulse, stamped by the kernel.

    Attributes:
        sensor: Name.
        raw_ns: Stamp of the edge, CLOCK_MONOTONIC_RAW, late by the interrupt's delay.
        utc_ns: The whole second of the receiver's UTC that the edge marks.
        sigma_ns: One sigma of the stamp.
        jumped: Truth: the receiver's time is off here.
    """

    sensor: str
    raw_ns: int
    utc_ns: int
    sigma_ns: float
    jumped: bool

    @property
    def arrival_raw_ns(self) -> int:
        """Raw time at which the host had it."""
        return self.raw_ns


@dataclass(frozen=True, slots=True)
class Sky:
    """When the receiver sees the sky and tells the truth; all in true nanoseconds.

    Attributes:
        outages: (begin, end) without signal.
        jump: (begin, end) of the time jump, or None.
        jump_ns: Its size.
    """

    outages: tuple[tuple[int, int], ...]
    jump: tuple[int, int] | None
    jump_ns: int

    def fix(self, true_ns: int) -> bool:
        """True while there is a fix."""
        return not any(begin <= true_ns < end for begin, end in self.outages)

    def error_ns(self, true_ns: int) -> int:
        """Error of the receiver's UTC."""
        inside = self.jump is not None and self.jump[0] <= true_ns < self.jump[1]
        return self.jump_ns if inside else 0


def sky_of(
    ego: Ego, tunnels: tuple[tuple[float, float], ...], duration_s: float, spec: GnssSpec
) -> Sky:
    """Outages from where the tunnels are and when the vehicle is in them."""
    grid_s = np.arange(0.0, duration_s + 1.0, 0.01)
    s_m = ego.distance(grid_s)
    outages = []
    for begin_m, end_m in tunnels:
        inside = np.flatnonzero((s_m > begin_m + 4.0) & (s_m < end_m - 4.0))
        if inside.size:
            first, last = grid_s[inside[0]], grid_s[inside[-1]] + spec.reacquire_s
            outages.append((round(first * NS_PER_S), round(last * NS_PER_S)))
    jump = None
    if spec.jump_at is not None:
        begin = round(spec.jump_at * duration_s) * NS_PER_S
        jump = (begin, begin + round(spec.jump_for_s * NS_PER_S))
    return Sky(tuple(outages), jump, spec.jump_ns)


def fix_stream(
    seed: int, ego: Ego, route: Route, raw: Oscillator, utc0_ns: int, duration_ns: int,
    sky: Sky, spec: GnssSpec,
) -> Iterator[GnssFix]:  # fmt: skip
    """Messages in order of arrival, also without a fix (mode 1); constant memory."""
    rng = np.random.default_rng([seed, 12])
    period_ns, last_ns = round(NS_PER_S / spec.rate_hz), 0
    drift = np.zeros(2)
    for true_ns in range(0, duration_ns, period_ns):
        pose = ego.pose(route, true_ns * 1e-9)
        good = sky.fix(true_ns)
        drift = drift * 0.98 + rng.normal(0.0, spec.position_sigma_m * 0.2, 2)
        east, north = pose.position_m[:2] + drift
        latitude = spec.origin_deg[0] + north / _METRES_PER_DEG
        scale = _METRES_PER_DEG * float(np.cos(np.deg2rad(spec.origin_deg[0])))
        late_ns = spec.latency_ns + round(rng.gamma(2.0, 6e6))
        last_ns = max(raw.read(true_ns + late_ns), last_ns + 1)
        error_ns = sky.error_ns(true_ns)
        yield GnssFix(
            sensor="gnss0",
            raw_ns=last_ns,
            epoch_raw_ns=raw.read(true_ns),
            utc_ns=utc0_ns + true_ns + error_ns,
            latitude_deg=latitude if good else 0.0,
            longitude_deg=spec.origin_deg[1] + east / scale if good else 0.0,
            altitude_m=402.0 + float(rng.normal(0.0, 2.0)) if good else 0.0,
            speed_mps=max(pose.speed_mps + float(rng.normal(0.0, 0.05)), 0.0) if good else 0.0,
            heading_deg=float(np.mod(90.0 - np.rad2deg(pose.yaw_rad), 360.0)) if good else 0.0,
            mode=3 if good else 1,
            satellites=int(rng.integers(11, 17)) if good else int(rng.integers(0, 3)),
            time_sigma_ns=spec.time_sigma_ns if good else 1e9,
            leap_valid=True,
            cn0_dbhz=float(rng.normal(43.0, 0.8)) if good else float(rng.uniform(0.0, 14.0)),
            jumped=bool(error_ns),
        )


def pps_stream(
    seed: int, raw: Oscillator, utc0_ns: int, duration_ns: int, sky: Sky, spec: GnssSpec
) -> Iterator[PpsPulse]:
    """Edges in order of time; none without a fix. A jump of whole seconds leaves them in place."""
    rng = np.random.default_rng([seed, 13])
    first_ns = -utc0_ns % NS_PER_S
    for whole_ns in range(first_ns, duration_ns, NS_PER_S):
        if not sky.fix(whole_ns):
            continue
        error_ns = sky.error_ns(whole_ns)
        edge_ns = whole_ns - error_ns % NS_PER_S
        utc_ns = utc0_ns + edge_ns + error_ns
        late_ns = 1_500 + rng.exponential(1_200.0) + rng.normal(0.0, spec.time_sigma_ns)
        yield PpsPulse("gnss0", raw.read(edge_ns) + round(late_ns), utc_ns, 1_300.0, bool(error_ns))
