"""Lays a drive out: city with a red light, tunnel, green suburb, then a city by night."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import numpy as np

from syncline.sensors.synthetic import street
from syncline.sensors.synthetic.light import Light
from syncline.sensors.synthetic.mesh import Mesh
from syncline.sensors.synthetic.people import Person
from syncline.sensors.synthetic.road import EGO_D_M, Ego, Route
from syncline.sensors.synthetic.scene import (
    Item,
    Label,
    Mover,
    Scene,
    Signal,
    Walker,
    crossing_mesh,
    random_vehicle,
)

STOP_AT, STOP_FOR_S = 0.2, 4.5
TUNNEL_AT = (0.45, 0.57)
DUSK_AT = (0.70, 0.80)
_BUILDING_D_M = 10.2


@dataclass(frozen=True, slots=True)
class Style:
    """How dense and how bright a drive is.

    Attributes:
        traffic_gap_s: Mean time between oncoming vehicles.
        people_per_100m: Pedestrians on the pavements of the city.
        truck_share: Trucks and buses among the vehicles.
        parked_share: Filled share of the parking places.
        day: Light by day.
        night: Light at the end of the drive.
        jaywalkers: People who cross ahead of the moving vehicle.
    """

    traffic_gap_s: float = 3.2
    people_per_100m: float = 9.0
    truck_share: float = 0.18
    parked_share: float = 0.42
    day: float = 1.0
    night: float = 0.008
    jaywalkers: int = 0

    @classmethod
    def random(cls, rng: np.random.Generator) -> Style:
        """Any style: for training scenes."""
        return cls(
            float(rng.uniform(1.6, 5.0)),
            float(rng.uniform(3.0, 22.0)),
            float(rng.uniform(0.05, 0.4)),
            float(rng.uniform(0.1, 0.75)),
            float(np.exp(rng.uniform(np.log(0.25), np.log(1.5)))),
            float(np.exp(rng.uniform(np.log(0.006), np.log(0.3)))),
            int(rng.integers(4, 18)),
        )


@dataclass
class Planner:
    """Builds a scene step by step; one use.

    Args:
        seed: Decides everything.
        duration_s: Length of the drive.
        style: See `Style`.
    """

    seed: int
    duration_s: float
    style: Style
    scene: Scene = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng([self.seed, 1])
        self._ids = count(1)
        begin = STOP_AT * self.duration_s
        self._stop = (begin, begin + STOP_FOR_S) if self.duration_s >= 20.0 else None
        ego = Ego(self._rng, self.duration_s, float(self._rng.uniform(11.5, 14.5)), self._stop)
        route = Route(self._rng, float(ego.distance(self.duration_s)))
        self.scene = Scene(route, ego, self._light(ego), self.duration_s)

    def build(self) -> Scene:
        """Everything placed."""
        self._tunnel()
        self._signals()
        self._roadside()
        self._traffic()
        self._pedestrians()
        self.scene.seal()
        return self.scene

    def _light(self, ego: Ego) -> Light:
        day, night, total = self.style.day, self.style.night, self.duration_s
        knots = np.array([-10.0, DUSK_AT[0] * total, DUSK_AT[1] * total, total + 60.0])
        begin, end = (float(ego.distance(share * total)) for share in TUNNEL_AT)
        bearing, rise = self._rng.uniform(0, 2 * np.pi), self._rng.uniform(0.4, 1.0)
        sun = np.array(
            [np.cos(rise) * np.cos(bearing), np.cos(rise) * np.sin(bearing), np.sin(rise)]
        )
        return Light(knots, np.array([day, day, night, night]), ((begin, end),), sun)

    def _stand(
        self,
        mesh: Mesh,
        s_m: float,
        d_m: float,
        turn: float = 0.0,
        *,
        label: Label | None = None,
        z_m: float = 0.0,
        solid: bool = True,
    ) -> None:
        heading = float(self.scene.route.heading(s_m)) + turn
        x, y = self.scene.route.place(s_m, d_m)
        placed = mesh.placed(float(x), float(y), heading, z_m)
        centre = np.array([x, y, 0.8])
        self.scene.fixed.append(Item(next(self._ids), label, s_m, centre, mesh=placed, solid=solid))

    def _tree(self, s_m: float, d_m: float) -> None:
        x, y = self.scene.route.place(s_m, d_m)
        kind, height = int(self._rng.integers(5)), float(self._rng.uniform(4.5, 9.0))
        centre = np.array([x, y, 0.0])
        self.scene.fixed.append(Item(next(self._ids), None, s_m, centre, tree=(kind, height)))

    def _tunnel(self) -> None:
        begin, end = self.scene.light.tunnels[0]
        parts = [street.tunnel_segment(lamps=True), street.tunnel_segment(lamps=False)]
        count_m = int((end - begin) / street.SEGMENT_M)
        for k in range(count_m):
            self._stand(parts[k % 2], begin + k * street.SEGMENT_M, 0.0, solid=False)
        for side in (-1.0, 1.0):
            for k in range(7):
                self._tree(begin - float(self._rng.uniform(1.0, 16.0)), side * (12.0 + 5.0 * k))
        self._stand(street.portal(-1.0), begin, 0.0, solid=False)
        self._stand(street.portal(1.0), begin + count_m * street.SEGMENT_M, 0.0, solid=False)

    def _in_tunnel(self, s_m: float, margin_m: float = 8.0) -> bool:
        begin, end = self.scene.light.tunnels[0]
        return begin - margin_m < s_m < end + margin_m

    def _city(self, s_m: float) -> bool:
        begin, end = self.scene.light.tunnels[0]
        night_m = float(self.scene.ego.distance(DUSK_AT[0] * self.duration_s))
        return s_m < begin - 30.0 or s_m > max(night_m, end + 30.0)

    def _signals(self) -> None:
        ego, rng = self.scene.ego, self._rng
        places: list[tuple[float, float, float]] = []
        if self._stop is not None:
            line_m = float(ego.distance(self._stop[0])) + 13.0
            places.append((line_m, self._stop[0] - 4.5, self._stop[1] - 0.8))
        at_m = 70.0
        while at_m < float(ego.distance(self.duration_s)) + 80.0:
            free = all(abs(at_m - place[0]) > 70.0 for place in places)
            if free and self._city(at_m) and not self._in_tunnel(at_m, 40.0):
                red_s = float(rng.uniform(0, self.duration_s)) if self.style.jaywalkers else 1e9
                places.append((at_m, red_s, red_s + 9.0))
            at_m += float(rng.uniform(90.0, 150.0))
        for line_m, red_s, green_s in places:
            heads = (
                (next(self._ids), -6.9, 2.5),
                (next(self._ids), -1.6, 5.0),
                *(((next(self._ids), 6.9, 2.5),) if rng.random() < 0.6 else ()),
            )
            stop_m = line_m + 5.2
            self.scene.signals.append(Signal(stop_m, red_s, green_s, heads))
            self._stand(street.light_pole(5.5), stop_m + 0.3, -7.1, solid=False)
            if len(heads) == 3:
                self._stand(street.light_pole(0.0, 3.6), stop_m + 0.3, 6.9, solid=False)
            self._stand(crossing_mesh(), line_m, 0.0, solid=False)

    def _roadside(self) -> None:
        rng, end_m = self._rng, float(self.scene.ego.distance(self.duration_s)) + 230.0
        for side in (-1.0, 1.0):
            at_m = -30.0
            while at_m < end_m:
                if self._in_tunnel(at_m, 12.0):
                    at_m += 10.0
                elif self._city(at_m):
                    at_m += self._block(at_m, side)
                else:
                    self._tree(at_m, side * float(rng.uniform(8.6, 22.0)))
                    at_m += float(rng.uniform(3.0, 9.0))
        for at_m in np.arange(-20.0, end_m, 28.0):
            if not self._in_tunnel(float(at_m)):
                self._stand(street.street_lamp(), float(at_m), -6.9, solid=False)
                self._stand(street.street_lamp(), float(at_m) + 14.0, 6.9, np.pi, solid=False)
        for at_m in np.arange(15.0, end_m, 47.0):
            if not self._in_tunnel(float(at_m)):
                self._stand(street.sign_post(rng), float(at_m), -6.7, solid=False)
        self._parked(end_m)

    def _block(self, at_m: float, side: float) -> float:
        rng = self._rng
        if rng.random() < 0.12:
            self._tree(at_m + 3.0, side * 10.5)
            return 7.0
        length, height = float(rng.uniform(9.0, 17.0)), float(rng.choice([7.0, 9.8, 12.8, 15.8]))
        if not self._in_tunnel(at_m + length, 4.0):
            mesh = street.building(rng, length, height)
            turn = 0.0 if side < 0 else np.pi
            d_m = side * (_BUILDING_D_M + float(rng.uniform(0.0, 1.6)))
            self._stand(mesh, at_m + length / 2, d_m, turn)
        if rng.random() < 0.35:
            self._tree(at_m + float(rng.uniform(1.0, length)), side * 7.4)
        return length + float(rng.choice([0.3, 0.3, 2.5]))

    def _parked(self, end_m: float) -> None:
        rng = self._rng
        lines = [signal.s_m for signal in self.scene.signals]
        for side, turn in ((-1.0, 0.0), (1.0, np.pi)):
            for at_m in np.arange(5.0, end_m, 6.8):
                near = min((abs(at_m - line) for line in lines), default=99.0)
                if near < 13.0 or self._in_tunnel(float(at_m), 20.0) or not self._city(float(at_m)):
                    continue
                if rng.random() < self.style.parked_share:
                    label, mesh, _ = random_vehicle(rng, self.style.truck_share * 0.3)
                    self._stand(mesh, float(at_m), side * 4.85, turn, label=label)

    def _traffic(self) -> None:
        rng, ego = self._rng, self.scene.ego
        label, mesh, braking = random_vehicle(rng, 0.1)
        gap_m = 8.0 if label is Label.CAR else 11.0
        lead = (0.9, gap_m)
        if self.style.jaywalkers:
            lead = (float(rng.uniform(0.5, 4.0)), gap_m + float(rng.exponential(6.0)))
        self.scene.movers.append(Mover(next(self._ids), label, (mesh, braking), EGO_D_M, lead=lead))
        label, mesh, braking = random_vehicle(rng, 0.3)
        self.scene.movers.append(
            Mover(
                next(self._ids),
                label,
                (mesh, braking),
                EGO_D_M,
                lead=(lead[0] + 2.3, lead[1] + 11.0),
            )
        )
        at_s = 0.0
        while at_s < self.duration_s + 12.0:
            at_s += 0.9 + float(rng.exponential(self.style.traffic_gap_s))
            speed, meets_m = -float(rng.uniform(11.0, 13.0)), float(ego.distance(at_s))
            if not self._blocked(at_s, meets_m, speed):
                label, mesh, braking = random_vehicle(rng, self.style.truck_share)
                self.scene.movers.append(
                    Mover(
                        next(self._ids),
                        label,
                        (mesh, braking),
                        -EGO_D_M + 0.1,
                        at_s,
                        meets_m,
                        speed,
                    )
                )

    def _blocked(self, at_s: float, meets_m: float, speed: float) -> bool:
        """True for a car that would run the red light, or drive through another one."""
        if self._stop is not None and self.scene.signals:
            passes_s = at_s + (self.scene.signals[0].s_m - meets_m) / speed
            if self._stop[0] - 4.5 < passes_s < self._stop[1] + 2.0:
                return True
        for other in self.scene.movers:
            if other.lead is None:
                gaps = [
                    self.scene.mover_distance(other, t)[0] - (meets_m + speed * (t - at_s))
                    for t in (at_s - 9.0, at_s, at_s + 1.0)
                ]
                if min(abs(gap) for gap in gaps) < 11.0 or min(gaps) * max(gaps) < 0:
                    return True
        return False

    def _pedestrians(self) -> None:
        rng = self._rng
        end_m = float(self.scene.ego.distance(self.duration_s)) + 120.0
        for _ in range(int(end_m / 100.0 * self.style.people_per_100m)):
            s_m = float(rng.uniform(0.0, end_m))
            if self._city(s_m) and not self._in_tunnel(s_m, 15.0):
                side, pace = (
                    float(rng.choice([-1, 1])),
                    float(rng.choice([-1, 1]) * rng.uniform(1, 1.6)),
                )
                meets_s = float(np.interp(s_m, [0, end_m], [0, self.duration_s]))
                start = 1e9 if rng.random() < 0.15 else meets_s - 14.0
                self._walk(start, s_m - pace * 12, side * float(rng.uniform(6.7, 9.3)), (pace, 0.0))
        if self._stop is not None and self.scene.signals:
            self._crossing(self.scene.signals[0].s_m - 2.1, self._stop[0])
        for _ in range(self.style.jaywalkers):
            at_s = float(rng.uniform(0.0, self.duration_s))
            s_m = float(self.scene.ego.distance(at_s)) + float(rng.uniform(10.0, 45.0))
            side, pace = float(rng.choice([-1, 1])), float(rng.uniform(1.0, 2.2))
            self._walk(at_s - 3.5, s_m, side * 6.5, (0.0, -side * pace), at_s + 4.0)

    def _crossing(self, s_m: float, stop_s: float) -> None:
        for k in range(5):
            side = -1.0 if k % 2 else 1.0
            pace = float(self._rng.uniform(1.4, 1.8))
            start = stop_s - 4.5 + float(self._rng.uniform(0.0, 2.5))
            s_at = s_m + float(self._rng.uniform(-1.3, 1.3))
            self._walk(start, s_at, side * 7.0, (0.0, -side * pace), start + 14.0 / pace)

    def _walk(
        self, start_s: float, s_m: float, d_m: float, pace: tuple[float, float], end_s: float = 1e9
    ) -> None:
        person = Person.random(self._rng)
        self.scene.walkers.append(
            Walker(next(self._ids), person, start_s, s_m, d_m, pace[0], pace[1], end_s)
        )


def plan_scene(seed: int, duration_s: float = 40.0, style: Style | None = None) -> Scene:
    """The scene of a drive.

    Args:
        seed: Decides everything; the same seed gives the same drive.
        duration_s: Length; from 20 s on there is a stop at a red light.
        style: None = the demo's.
    """
    return Planner(seed, duration_s, style or Style()).build()
