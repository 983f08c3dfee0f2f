"""Models of what stands beside the road: buildings, lamps, traffic lights, the tunnel."""

from __future__ import annotations

import numpy as np

from syncline.sensors.synthetic.mesh import Colour, Mesh, MeshBuilder
from syncline.sensors.synthetic.surfaces import Surface

FACADES: tuple[Colour, ...] = (
    (150, 172, 190), (128, 140, 176), (176, 186, 194), (120, 132, 148), (104, 116, 160),
    (170, 170, 164), (132, 150, 158), (96, 104, 124), (190, 200, 206),
)  # fmt: skip
RED, AMBER, GREEN = "red", "amber", "green"
_LAMPS: dict[str, tuple[int, Colour, Colour]] = {
    RED: (2, (40, 36, 250), (24, 20, 70)),
    AMBER: (1, (40, 190, 255), (18, 52, 70)),
    GREEN: (0, (150, 240, 60), (34, 60, 20)),
}
TUNNEL_HALF_M = 6.6
TUNNEL_TOP_M = 5.4
SEGMENT_M = 6.0


def building(rng: np.random.Generator, length_m: float, height_m: float) -> Mesh:
    """A block along x with its front at y = 0, facing +y; windows lit at random."""
    build = MeshBuilder(Surface.STRUCTURE)
    colour = FACADES[int(rng.integers(len(FACADES)))]
    half = length_m / 2
    build.box((-half, -9.0, 0.0), (half, 0.0, height_m), colour)
    trim = (colour[0] * 0.7, colour[1] * 0.7, colour[2] * 0.7)
    build.box((-half - 0.15, -9.1, height_m - 0.4), (half + 0.15, 0.2, height_m), trim, layer=2)
    columns = max(int(length_m / 2.6), 2)
    floors = max(int((height_m - 3.6) / 3.0), 1)
    step = length_m / columns
    wide = step * float(rng.uniform(0.42, 0.66))
    for floor in range(floors):
        low = 4.0 + 3.0 * floor
        for column in range(columns):
            x = -half + (column + 0.5) * step
            _window(build, rng, (x - wide / 2, x + wide / 2), (low, low + 1.6))
    _shop(build, rng, half)
    return build.build()


def _window(
    build: MeshBuilder, rng: np.random.Generator, x: tuple[float, float], z: tuple[float, float]
) -> None:
    lit = bool(rng.random() < 0.3)
    pane = [(x[0], 0.03, z[0]), (x[1], 0.03, z[0]), (x[1], 0.03, z[1]), (x[0], 0.03, z[1])]
    tone = float(rng.uniform(0.75, 1.25))
    colour = (96 * tone, 84 * tone, 70 * tone)
    glow = float(rng.uniform(0.02, 0.14)) if lit else 0.0
    if lit:
        colour = (78.0, 118.0, 136.0)
    build.face(pane, colour, inside=(0, -1, z[0]), emission=glow, layer=1)


def _shop(build: MeshBuilder, rng: np.random.Generator, half: float) -> None:
    pane = [
        (-half + 0.6, 0.03, 0.5),
        (half - 0.6, 0.03, 0.5),
        (half - 0.6, 0.03, 2.7),
        (-half + 0.6, 0.03, 2.7),
    ]
    build.face(pane, (70, 62, 54), inside=(0, -1, 1), emission=float(rng.uniform(0, 0.06)), layer=1)
    hue = rng.uniform(50, 200, 3)
    sign = [
        (-half + 0.4, 0.05, 2.8),
        (half - 0.4, 0.05, 2.8),
        (half - 0.4, 0.05, 3.4),
        (-half + 0.4, 0.05, 3.4),
    ]
    shade = (float(hue[0]), float(hue[1]), float(hue[2]))
    build.face(sign, shade, inside=(0, -1, 3), emission=0.03, layer=1)


def street_lamp() -> Mesh:
    """A lamp post whose arm reaches to +y."""
    build = MeshBuilder(Surface.POST)
    grey = (108.0, 106.0, 104.0)
    build.box((-0.07, -0.07, 0.0), (0.07, 0.07, 7.0), grey)
    build.box((-0.05, 0.0, 6.85), (0.05, 1.8, 7.0), grey)
    build.box((-0.14, 1.3, 6.72), (0.14, 2.1, 6.86), (190, 226, 240), emission=1.5, layer=1)
    return build.build()


def light_head(state: str) -> Mesh:
    """The signal head alone, facing -x, its lowest point at z = 0."""
    build = MeshBuilder(Surface.POST)
    build.box((-0.16, -0.22, 0.0), (0.16, 0.22, 1.1), (40, 40, 38))
    board = [(0.02, -0.34, -0.12), (0.02, 0.34, -0.12), (0.02, 0.34, 1.22), (0.02, -0.34, 1.22)]
    build.face(board, (30, 30, 30), inside=None, layer=-1)
    for name, (row, bright, dim) in _LAMPS.items():
        lit = name == state
        build.disc(
            (-0.17, 0.0, 0.2 + 0.35 * row), 0.145, 0, bright if lit else dim,
            inside=(0, 0, 0.5), emission=2.2 if lit else 0.0, layer=2,
        )  # fmt: skip
    return build.build()


def light_pole(reach_m: float, height_m: float = 5.9) -> Mesh:
    """Pole at the origin with an arm of `reach_m` towards +y."""
    build = MeshBuilder(Surface.POST)
    grey = (92.0, 92.0, 90.0)
    build.box((-0.09, -0.09, 0.0), (0.09, 0.09, height_m), grey)
    if reach_m > 0.0:
        build.box((-0.06, 0.0, height_m - 0.15), (0.06, reach_m, height_m), grey)
    return build.build()


def sign_post(rng: np.random.Generator) -> Mesh:
    """A round or square road sign facing -x."""
    build = MeshBuilder(Surface.POST)
    build.box((-0.03, -0.03, 0.0), (0.03, 0.03, 2.2), (120, 118, 116))
    kind = int(rng.integers(3))
    inside = (0.1, 0.0, 2.2)
    if kind == 0:
        build.disc((-0.05, 0.0, 2.3), 0.36, 0, (36, 34, 190), inside=inside)
        build.disc((-0.06, 0.0, 2.3), 0.27, 0, (232, 234, 234), inside=inside, layer=2)
    elif kind == 1:
        build.disc((-0.05, 0.0, 2.3), 0.36, 0, (160, 88, 30), inside=inside)
    else:
        plate = [(-0.05, -0.3, 2.0), (-0.05, 0.3, 2.0), (-0.05, 0.3, 2.6), (-0.05, -0.3, 2.6)]
        build.face(plate, (60, 190, 220), inside=inside, layer=1)
    return build.build()


def tunnel_segment(lamps: bool) -> Mesh:
    """Walls and ceiling of a tunnel, 6 m along x from the origin."""
    build = MeshBuilder(Surface.STRUCTURE)
    w, top, end = TUNNEL_HALF_M, TUNNEL_TOP_M, SEGMENT_M + 0.9
    for side in (-1.0, 1.0):
        y = side * w
        wall = [(0, y, 0), (end, y, 0), (end, y, top), (0, y, top)]
        build.face(wall, (128, 134, 136), inside=None)
        band = [
            (0, y * 0.998, 0.5),
            (end, y * 0.998, 0.5),
            (end, y * 0.998, 1.5),
            (0, y * 0.998, 1.5),
        ]
        build.face(band, (152, 158, 162), inside=None, layer=1)
        joint = [
            (0, y * 0.997, 0),
            (0.12, y * 0.997, 0),
            (0.12, y * 0.997, top),
            (0, y * 0.997, top),
        ]
        build.face(joint, (108, 112, 114), inside=None, layer=2)
        kerb = [
            (0, y, 0.02),
            (end, y, 0.02),
            (end, y - side * 1.5, 0.02),
            (0, y - side * 1.5, 0.02),
        ]
        build.face(kerb, (122, 124, 126), inside=None, layer=1, surface=Surface.PAVEMENT)
        if lamps:
            strip = [(1.5, y * 0.55, top - 0.02), (4.5, y * 0.55, top - 0.02),
                     (4.5, y * 0.6, top - 0.02), (1.5, y * 0.6, top - 0.02)]  # fmt: skip
            build.face(strip, (206, 236, 246), inside=None, emission=0.5, layer=2)
    ceiling = [(0, -w, top), (end, -w, top), (end, w, top), (0, w, top)]
    build.face(ceiling, (96, 100, 102), inside=None)
    return build.build()


def portal(facing: float) -> Mesh:
    """The hillside and frame around a tunnel's mouth; `facing` -1 = seen when driving in."""
    build = MeshBuilder(Surface.STRUCTURE)
    w, top = TUNNEL_HALF_M, TUNNEL_TOP_M
    stone, hill = (142.0, 152.0, 158.0), (66.0, 112.0, 96.0)
    inside = (-facing, 0.0, 3.0)
    out = 0.0
    for side in (-1.0, 1.0):
        for k, share in enumerate((1.0, 0.72, 0.45)):
            outline = ((w, 0.0), (40 * share, 0.0), (28 * share, 5 * share),
                       (13 * share, 9.3 * share), (w, 10 * share))  # fmt: skip
            slope = [(out, side * y, z) for y, z in outline]
            tone = 0.82 + 0.12 * k
            shade = (hill[0] * tone, hill[1] * tone, hill[2] * tone)
            build.face(slope, shade, inside=inside, layer=k - 2, surface=Surface.VEGETATION)
        frame = [
            (out, side * w, 0),
            (out, side * (w + 1.2), 0),
            (out, side * (w + 1.2), top + 1.4),
            (out, side * w, top + 1.4),
        ]
        build.face(frame, stone, inside=inside, layer=1)
    bank = [(out, -w, top), (out, w, top), (out, w, 10.0), (out, -w, 10.0)]
    build.face(bank, hill, inside=inside, surface=Surface.VEGETATION)
    build.face(
        [(out, -w, top), (out, w, top), (out, w, top + 1.4), (out, -w, top + 1.4)],
        stone,
        inside=inside,
        layer=1,
    )
    return build.build()
