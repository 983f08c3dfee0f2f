"""What there is to see: the plan of a drive, and everything that stands or moves in it."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from syncline.sensors.synthetic import street, vehicles
from syncline.sensors.synthetic.light import Light
from syncline.sensors.synthetic.mesh import Colour, Mesh, MeshBuilder, rotation
from syncline.sensors.synthetic.people import Person
from syncline.sensors.synthetic.road import EGO_D_M, LANE_M, Ego, Route
from syncline.sensors.synthetic.surfaces import Surface

Floats = NDArray[np.float64]
VIEW_M = 210.0
"""Nothing farther away is drawn, but the ground and the sky."""


class Label(enum.IntEnum):
    """Classes of the ground truth; values are class ids of the shipped detector."""

    CAR = 0
    PERSON = 1
    TRAFFIC_LIGHT = 2
    TRUCK = 3


LABEL_NAMES = ("car", "person", "traffic light", "truck")


@dataclass(frozen=True, slots=True)
class Item:
    """One thing at one instant.

    Attributes:
        id: Stays the same for the same thing.
        label: Its class, or None.
        s_m: Where it is along the road.
        centre_m: World position that orders the drawing.
        velocity_mps: World velocity.
        mesh: Faces in the world frame; None for people and trees.
        joints_m: Skeleton in the world frame, for people.
        person: Looks, for people.
        tree: (kind, height in metres), for trees.
        solid: False when only its faces hide what is behind, not its outline.
    """

    id: int
    label: Label | None
    s_m: float
    centre_m: Floats
    velocity_mps: Floats = field(default_factory=lambda: np.zeros(3))
    mesh: Mesh | None = None
    joints_m: Floats | None = None
    person: Person | None = None
    tree: tuple[int, float] | None = None
    solid: bool = True


@dataclass(frozen=True, slots=True)
class Mover:
    """A vehicle on a schedule: d and heading fixed to the road, s a function of time.

    Attributes:
        id: See `Item`.
        label: See `Item`.
        meshes: Model, and the model when braking.
        d_m: Lateral position.
        meets_s: Time and place where it is met; None follows the ego vehicle instead.
        meets_m: See `meets_s`.
        speed_mps: Speed along s, negative = towards us.
        lead: (seconds ahead, metres ahead) when it follows the ego's own profile.
    """

    id: int
    label: Label
    meshes: tuple[Mesh, Mesh]
    d_m: float
    meets_s: float = 0.0
    meets_m: float = 0.0
    speed_mps: float = 0.0
    lead: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Walker:
    """A pedestrian.

    Attributes:
        id: See `Item`.
        person: Looks.
        start_s: When the walk begins; before, it stands and waits.
        s_m: Where it starts, along the road.
        d_m: Where it starts, to the left.
        ds_mps: Speed along the road.
        dd_mps: Speed across it.
        end_s: When it stops walking.
    """

    id: int
    person: Person
    start_s: float
    s_m: float
    d_m: float
    ds_mps: float
    dd_mps: float
    end_s: float = 1e9


@dataclass(frozen=True, slots=True)
class Signal:
    """A traffic light: red until `green_s`, from `red_s` on.

    Attributes:
        s_m: Stop line.
        red_s: When it turns red.
        green_s: When it turns green again.
        heads: Item ids, (d, z) of the heads.
    """

    s_m: float
    red_s: float
    green_s: float
    heads: tuple[tuple[int, float, float], ...]

    def state(self, t_s: float) -> str:
        """Colour shown at `t_s`."""
        if self.red_s - 2.0 <= t_s < self.red_s:
            return street.AMBER
        return street.RED if self.red_s <= t_s < self.green_s else street.GREEN


@dataclass
class Scene:
    """Everything of one drive; built by `syncline.sensors.synthetic.plan.plan_scene`.

    Memory: about 5 kB per thing, some 2 MB for a drive of a minute.
    """

    route: Route
    ego: Ego
    light: Light
    duration_s: float
    fixed: list[Item] = field(default_factory=list)
    movers: list[Mover] = field(default_factory=list)
    walkers: list[Walker] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    _heads: dict[str, Mesh] = field(default_factory=dict)
    _starts: Floats = field(default_factory=lambda: np.zeros(0))

    def seal(self) -> None:
        """Order the fixed things for look-up; call once after building."""
        self.fixed.sort(key=lambda item: item.s_m)
        self._starts = np.array([item.s_m for item in self.fixed])
        self._heads = {
            state: street.light_head(state) for state in (street.RED, street.AMBER, street.GREEN)
        }

    def visible(self, t_s: float, s_m: float) -> Iterator[Item]:
        """Things within sight of `s_m` at `t_s`, in no order."""
        low, high = np.searchsorted(self._starts, [s_m - 16.0, s_m + VIEW_M])
        yield from self.fixed[int(low) : int(high)]
        for mover in self.movers:
            yield from self._mover(mover, t_s, s_m)
        for walker in self.walkers:
            if s_m - 5.0 < walker.s_m < s_m + 120.0:
                yield self._walker(walker, t_s)
        for signal in self.signals:
            if s_m - 2.0 < signal.s_m < s_m + 130.0:
                yield from self._signal(signal, t_s)

    def mover_distance(self, mover: Mover, t_s: float) -> tuple[float, float]:
        """(s, speed along s) of a mover."""
        if mover.lead is None:
            return mover.meets_m + mover.speed_mps * (t_s - mover.meets_s), mover.speed_mps
        ahead_s, ahead_m = mover.lead
        s_m = float(self.ego.distance(t_s + ahead_s)) + ahead_m
        return s_m, float(self.ego.speed(t_s + ahead_s))

    def _mover(self, mover: Mover, t_s: float, s_m: float) -> Iterator[Item]:
        at_m, speed = self.mover_distance(mover, t_s)
        if not s_m - 14.0 < at_m < s_m + VIEW_M:
            return
        braking = False
        if mover.lead is not None:
            later = float(self.ego.speed(t_s + mover.lead[0] + 0.2))
            braking = later < speed - 0.15 or speed < 0.3
        away = speed >= 0.0 and mover.speed_mps >= 0.0
        heading = float(self.route.heading(at_m)) + (0.0 if away else np.pi)
        x, y = self.route.place(at_m, mover.d_m)
        mesh = mover.meshes[int(braking)].placed(float(x), float(y), heading)
        direction = np.array([np.cos(heading), np.sin(heading), 0.0])
        yield Item(
            mover.id, mover.label, at_m, np.array([x, y, 0.7]), direction * abs(speed), mesh=mesh
        )

    def _walker(self, walker: Walker, t_s: float) -> Item:
        moved_s = float(np.clip(t_s - walker.start_s, 0.0, walker.end_s - walker.start_s))
        walking = walker.start_s < t_s < walker.end_s
        s_m = walker.s_m + walker.ds_mps * moved_s
        d_m = walker.d_m + walker.dd_mps * moved_s
        x, y = self.route.place(s_m, d_m)
        along = float(self.route.heading(s_m))
        heading = along + float(np.arctan2(walker.dd_mps, walker.ds_mps))
        speed = float(np.hypot(walker.ds_mps, walker.dd_mps))
        joints = walker.person.joints(speed * moved_s, walking)
        world = joints @ rotation(heading).T + np.array([x, y, 0.0])
        step = np.array([np.cos(heading), np.sin(heading), 0.0]) * (speed if walking else 0.0)
        centre = np.array([x, y, 0.9])
        return Item(
            walker.id, Label.PERSON, s_m, centre, step, joints_m=world, person=walker.person
        )

    def _signal(self, signal: Signal, t_s: float) -> Iterator[Item]:
        mesh = self._heads[signal.state(t_s)]
        heading = float(self.route.heading(signal.s_m))
        for item_id, d_m, z_m in signal.heads:
            x, y = self.route.place(signal.s_m, d_m)
            placed = mesh.placed(float(x), float(y), heading, z_m)
            centre = np.array([x, y, z_m + 0.5])
            yield Item(item_id, Label.TRAFFIC_LIGHT, signal.s_m, centre, mesh=placed)


def crossing_mesh(half_m: float = 6.2) -> Mesh:
    """Zebra crossing and stop line on the ground, flat, at the stop line's origin."""
    build = MeshBuilder(Surface.MARKING)
    white: Colour = (206.0, 210.0, 210.0)
    for y in np.arange(-half_m + 0.4, half_m - 0.3, 1.0):
        bar = [(1.5, y, 0), (4.7, y, 0), (4.7, y + 0.5, 0), (1.5, y + 0.5, 0)]
        build.face(bar, white, inside=None)
    stop = [(0.0, -LANE_M, 0), (0.45, -LANE_M, 0), (0.45, -0.1, 0), (0.0, -0.1, 0)]
    build.face(stop, white, inside=None)
    return build.build()


def random_vehicle(rng: np.random.Generator, truck_share: float) -> tuple[Label, Mesh, Mesh]:
    """A vehicle to meet: its class, its model, and its model when braking."""
    paint = vehicles.PAINTS[int(rng.integers(len(vehicles.PAINTS)))]
    if rng.random() < truck_share:
        if rng.random() < 0.35:
            mesh = vehicles.bus(paint)
        else:
            cargo = float(rng.uniform(150, 235))
            mesh = vehicles.truck(paint, (cargo, cargo, cargo), float(rng.uniform(6.2, 9.0)))
        return Label.TRUCK, mesh, mesh
    shape = vehicles.CARS[int(rng.choice(len(vehicles.CARS), p=[0.36, 0.27, 0.27, 0.1]))]
    return Label.CAR, vehicles.car(shape, paint), vehicles.car(shape, paint, braking=True)


def ego_lane(d_m: float) -> bool:
    """True for a lateral position in the ego vehicle's lane."""
    return abs(d_m - EGO_D_M) < LANE_M / 2
