"""The ground: a tiling road texture, warped row by row.

A row of the picture is one line across the ground at one time, so each row gets its own pose: the
rolling shutter is exact here. The texture exists in several blurs along the road; a row takes the
one that fits the ground it covers, or the way the vehicle goes during the exposure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.sensors.synthetic.optics import View
from syncline.sensors.synthetic.road import LANE_M, Route
from syncline.sensors.synthetic.surfaces import Map, Surface

TILE_M = 48.0
_ROWS = 1200
_COLS = 1024
_HALF_M = 16.4
_BLURS_M = (0.04, 0.2, 0.8, 3.2, 12.8)
_AHEAD_M = 320.0
_KERB_M, _PATH_M = 6.2, 9.2
_KERB_PX = 4
_MARKED = 0.3
"""Share of paint, in what a pixel covers, from where on it shows a marking."""

Floats = NDArray[np.float64]
Image = NDArray[np.uint8]
Maps = tuple[NDArray[np.float32], NDArray[np.float32]]


class Band(NamedTuple):
    """Rows of one blur: the first in the picture, and (begin, end) among those with ground."""

    first: int
    begin: int
    end: int
    level: int


def _noise(
    rng: np.random.Generator, cell: tuple[int, int], amplitude: float
) -> NDArray[np.float32]:
    """Tiling noise with features of `cell` texture pixels (along, across)."""
    small = rng.normal(0.0, 1.0, (max(_ROWS // cell[0], 2), max(_COLS // cell[1], 2)))
    wrapped = np.vstack([small, small[:1]]).astype(np.float32)
    big = cv2.resize(wrapped, (_COLS, _ROWS + _ROWS // len(small)), interpolation=cv2.INTER_CUBIC)
    return np.asarray(big[:_ROWS] * amplitude, dtype=np.float32)


def _column(d_m: float) -> int:
    """Texture column of lateral position `d_m`; left is column 0."""
    return round((_HALF_M - d_m) / (2 * _HALF_M) * (_COLS - 1))


def _paint_marks(texture: NDArray[np.float32], wear: NDArray[np.float32]) -> None:
    white = np.array([218.0, 222.0, 222.0], np.float32)

    for rows, columns in _stripes():
        area, share = texture[rows, columns], wear[rows, columns, None]
        area[:] = area * (1 - share) + white * share


def _stripes() -> Iterator[tuple[slice, slice]]:
    """Rows and columns of every stripe of paint."""

    def across(d_m: float, width_m: float) -> slice:
        return slice(_column(d_m + width_m / 2), _column(d_m - width_m / 2) + 1)

    per_m = _ROWS / TILE_M
    for begin in np.arange(0.0, TILE_M, 12.0):
        yield slice(int(begin * per_m), int((begin + 5.0) * per_m)), across(0.0, 0.14)
    for edge in (-LANE_M, LANE_M):
        yield slice(0, _ROWS), across(edge, 0.15)


def paint_texture(rng: np.random.Generator) -> Image:
    """One tile of road, kerb, pavement and verge, (1200, 1024, 3), rows along the road."""
    base = np.zeros((_ROWS, _COLS, 3), np.float32)
    tone = float(rng.uniform(78, 112))
    tint = rng.uniform(-4, 4, 3)
    base[:] = (np.array([tone + 3, tone, tone]) + tint).astype(np.float32)
    base += (_noise(rng, (2, 2), 7.0) + _noise(rng, (150, 40), 2.5))[..., None]
    for lane in (-LANE_M / 2, LANE_M / 2):
        for wheel in (-0.8, 0.8):
            centre, half = _column(lane + wheel), 14
            track = np.hanning(2 * half)[None, :, None] * 8.0
            base[:, centre - half : centre + half] -= track.astype(np.float32)
    wear = np.clip(0.86 + _noise(rng, (8, 6), 0.12), 0.25, 1.0)
    _paint_marks(base, wear)
    _paint_sides(rng, base)
    return np.clip(base, 0, 255).astype(np.uint8)


def _paint_sides(rng: np.random.Generator, base: NDArray[np.float32]) -> None:
    grass = np.array([62.0, 112.0, 96.0]) * rng.uniform(0.85, 1.1)
    paved = np.array([142.0, 146.0, 150.0]) * rng.uniform(0.85, 1.08)
    grain = (_noise(rng, (4, 4), 9.0) + _noise(rng, (60, 40), 9.0))[..., None]
    joints = (np.arange(_ROWS) % 50 < 2)[:, None, None] * 22.0
    left_kerb, right_kerb = _column(_KERB_M), _column(-_KERB_M)
    left_path, right_path = _column(_PATH_M), _column(-_PATH_M)
    for side in (slice(0, left_path), slice(right_path, _COLS)):
        base[:, side] = (grass + grain[:, side] * [0.7, 1.0, 0.9]).astype(np.float32)
    for side in (slice(left_path, left_kerb), slice(right_kerb, right_path)):
        base[:, side] = (paved + grain[:, side] * 0.5 - joints).astype(np.float32)
    for kerb in (left_kerb, right_kerb):
        edge = slice(kerb - _KERB_PX, kerb + _KERB_PX)
        base[:, edge] = 168.0 + grain[:, edge] * 0.4


def _sides() -> Map:
    """What each column of the texture shows, paint left out, (1024,)."""
    shown = np.full(_COLS, Surface.ROAD, np.uint8)
    shown[: _column(_KERB_M) + _KERB_PX] = Surface.PAVEMENT
    shown[_column(-_KERB_M) - _KERB_PX :] = Surface.PAVEMENT
    shown[: _column(_PATH_M)] = shown[_column(-_PATH_M) :] = Surface.VERGE
    return shown


class Ground:
    """Draws the ground of any view of a route.

    Memory: five textures of 3.7 MB and a few maps of the picture's size; where surfaces are asked
    for, five masks of 1.2 MB.

    Args:
        rng: Source of the texture.
        route: Road it lies on.
    """

    def __init__(self, rng: np.random.Generator, route: Route) -> None:
        self._route = route
        tile = paint_texture(rng)
        self._tiles = _blurred(tile)
        self._paint: list[Image] = []

    def draw(self, view: View, out: Image, surfaces: Map | None = None) -> tuple[int, Floats]:
        """Warp the ground into `out` (colours in full daylight).

        Args:
            view: Camera and pose.
            out: Picture, changed.
            surfaces: The same rows are filled with what is seen.

        Returns:
            (first row of ground, s of each row from there on), for lighting.
        """
        rows, reach, dt_s = _reach(view)
        if rows.size == 0:
            return view.camera.height, np.zeros(0)
        s_row, along, across = self._row_lines(view, reach, dt_s)
        columns = np.arange(view.camera.width, dtype=np.float64)
        u = np.asarray((columns - view.camera.centre_px[0]) / view.camera.focal_px, np.float64)
        per_d, per_s = (_COLS - 1) / (2 * _HALF_M), _ROWS / TILE_M
        map_x = _affine((_HALF_M - across[0]) * per_d, -across[1] * per_d, u)
        np.clip(map_x, 1.0, _COLS - 2.0, out=map_x)
        map_y = _affine(np.mod(along[0], TILE_M) * per_s, along[1] * per_s, u)
        bands = _bands(view, rows, reach)
        _remap_bands(self._tiles, bands, (map_x, map_y), out)
        if surfaces is not None:
            self._show(bands, (map_x, map_y), surfaces)
        return int(rows[0]), s_row

    def _show(self, bands: list[Band], maps: Maps, surfaces: Map) -> None:
        if not self._paint:
            mask = np.zeros((_ROWS, _COLS), np.uint8)
            for stripe in _stripes():
                mask[stripe] = 255
            self._paint = _blurred(mask)
        paint = np.zeros_like(surfaces)
        _remap_bands(self._paint, bands, maps, paint)
        first = bands[0].first
        surfaces[first:] = _sides()[np.rint(maps[0]).astype(np.int64)]
        surfaces[paint > _MARKED * 255] = Surface.MARKING

    def _row_lines(
        self, view: View, reach: Floats, dt_s: Floats
    ) -> tuple[Floats, tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Each row as a line across the road: s and d as (at the axis, per unit of x/f)."""
        pose = view.pose
        s_line = np.arange(max(pose.s_m - 12.0, self._route.s_m[0]), pose.s_m + _AHEAD_M, 2.0)
        rel = self._route.place(s_line, 0.0) - pose.position_m[:2]
        cos_yaw, sin_yaw = np.cos(pose.yaw_rad), np.sin(pose.yaw_rad)
        ahead = rel[:, 0] * cos_yaw + rel[:, 1] * sin_yaw
        right = rel[:, 0] * sin_yaw - rel[:, 1] * cos_yaw
        turn = self._route.heading(s_line) - pose.yaw_rad
        forward = reach + pose.speed_mps * dt_s
        s_row = np.interp(forward, ahead, s_line)
        right_row = np.interp(forward, ahead, right) + reach * pose.yaw_rate_radps * dt_s
        turn_row = np.interp(forward, ahead, turn) - pose.yaw_rate_radps * dt_s
        cos_turn, sin_turn = np.cos(turn_row), np.sin(turn_row)
        across = (right_row * cos_turn, -reach * cos_turn)
        along = (s_row + right_row * sin_turn, -reach * sin_turn)
        return s_row, along, across


def _blurred(tile: Image) -> list[Image]:
    """The tile in every blur along the road."""
    tiles = [tile]
    for blur_m in _BLURS_M[1:]:
        size = max(round(blur_m / TILE_M * _ROWS), 1)
        wrapped = np.concatenate([tile[-size:], tile, tile[:size]])
        across = max(size // 8, 1)
        blurred = np.asarray(cv2.blur(wrapped, (across, size)), np.uint8)
        tiles.append(blurred[size:-size].copy())
    return tiles


def _bands(view: View, rows: NDArray[np.int64], reach: Floats) -> list[Band]:
    """Rows next to each other that take the same blur."""
    per_row = reach**2 / (view.camera.focal_px * view.pose.position_m[2])
    cover = np.maximum(per_row * 0.8, view.pose.speed_mps * view.exposure_s)
    level = np.searchsorted(np.array(_BLURS_M[1:]) * 0.75, cover)
    edges = (np.flatnonzero(np.diff(level)) + 1).tolist()
    return [
        Band(int(rows[begin]), begin, end, int(level[begin]))
        for begin, end in zip([0, *edges], [*edges, len(rows)], strict=True)
    ]


def _remap_bands(tiles: list[Image], bands: list[Band], maps: Maps, out: Image) -> None:
    for band in bands:
        part = slice(band.begin, band.end)
        out[band.first : band.first + band.end - band.begin] = cv2.remap(
            tiles[band.level],
            maps[0][part],
            maps[1][part],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_WRAP,
        )


def _affine(start: Floats, step: Floats, u: Floats) -> NDArray[np.float32]:
    """Start + step u for every row, (rows, len(u))."""
    out = np.multiply.outer(step.astype(np.float32), u.astype(np.float32))
    out += start.astype(np.float32)[:, None]
    return np.asarray(out, dtype=np.float32)


def _reach(view: View) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Rows that show ground, their forward distance on the axis, and their times."""
    pose = view.pose
    all_rows = np.arange(view.camera.height)
    dt_s = view.row_dt_s(all_rows.astype(np.float64))
    slope = (all_rows - view.camera.centre_px[1]) / view.camera.focal_px
    pitch = pose.pitch_rad + pose.pitch_rate_radps * dt_s
    falling = slope * np.cos(pitch) - np.sin(pitch)
    height = float(pose.position_m[2])
    below = np.flatnonzero(falling > height / _AHEAD_M * 1.02)
    if below.size == 0:
        return below, np.zeros(0), np.zeros(0)
    rows = np.arange(below[0], view.camera.height)
    rows = rows[falling[rows] > 1e-4]
    scale = height / falling[rows]
    reach = scale * (np.cos(pitch[rows]) + slope[rows] * np.sin(pitch[rows]))
    return rows, reach, dt_s[rows]
