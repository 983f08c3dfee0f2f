"""Label maps tell what the picture shows, pixel by pixel, and change nothing in it."""

from __future__ import annotations

import numpy as np
import pytest

from syncline.sensors.synthetic.camera import sensor_mode
from syncline.sensors.synthetic.light import Setting
from syncline.sensors.synthetic.optics import Pinhole
from syncline.sensors.synthetic.plan import TUNNEL_AT, plan_scene
from syncline.sensors.synthetic.render import Rendered, Renderer
from syncline.sensors.synthetic.scene import Label, Scene
from syncline.sensors.synthetic.surfaces import SURFACE_NAMES, Map, Surface

SIZE = (320, 192)
MODE = sensor_mode(*SIZE, fps=20.0)
CITY_S, SUBURB_S, NIGHT_S = 4.0, 25.0, 36.0
TUNNEL_S = 20.5


@pytest.fixture(scope="module")
def scene() -> Scene:
    return plan_scene(3, 40.0)


@pytest.fixture(scope="module")
def renderer(scene: Scene) -> Renderer:
    return Renderer(scene, Pinhole.for_size(*SIZE), MODE, 3)


def exposed(scene: Scene, t_s: float) -> Setting:
    light = float(scene.light.at(float(scene.ego.distance(t_s)) + 10.0, t_s))
    return Setting.of_total(1.0 / light)


def shown(renderer: Renderer, scene: Scene, t_s: float) -> tuple[Rendered, Map]:
    rendered = renderer.draw(t_s, exposed(scene, t_s), 0, surfaces=True)
    assert rendered.surfaces is not None
    return rendered, rendered.surfaces


@pytest.mark.parametrize("t_s", [CITY_S, TUNNEL_S, SUBURB_S, NIGHT_S])
def test_the_picture_is_the_same_with_and_without_a_map(
    scene: Scene, renderer: Renderer, t_s: float
) -> None:
    plain = renderer.draw(t_s, exposed(scene, t_s), 0)
    rendered, surfaces = shown(renderer, scene, t_s)
    assert plain.surfaces is None
    assert np.array_equal(plain.image, rendered.image)
    assert plain.boxes == rendered.boxes
    assert surfaces.shape == rendered.image.shape[:2]
    assert int(surfaces.max()) < len(SURFACE_NAMES) == len(Surface)


def test_every_surface_is_seen_on_a_drive(scene: Scene, renderer: Renderer) -> None:
    found = np.zeros(len(Surface), np.int64)
    for t_s in (CITY_S, 9.0, TUNNEL_S, SUBURB_S, NIGHT_S):
        found += np.bincount(shown(renderer, scene, t_s)[1].ravel(), minlength=len(Surface))
    assert (found > 60).all(), dict(zip(SURFACE_NAMES, found.tolist(), strict=True))


def test_taking_cars_and_people_away_changes_the_picture_where_the_map_has_them(
    scene: Scene, renderer: Renderer
) -> None:
    """What the map calls a mover is what disappears; the rest stays, but for its shadow."""
    bare = plan_scene(3, 40.0)
    bare.movers.clear()
    bare.walkers.clear()
    empty = Renderer(bare, Pinhole.for_size(*SIZE), MODE, 3)
    rendered, surfaces = shown(renderer, scene, CITY_S)
    without, under = shown(empty, bare, CITY_S)
    gone = (surfaces != under) & np.isin(surfaces, (Surface.VEHICLE, Surface.PERSON))
    changed = np.abs(rendered.image.astype(int) - without.image.astype(int)).max(axis=2) > 12
    assert gone.sum() > 400
    assert np.mean(changed[gone]) > 0.9
    off_road = changed & ~gone & ~np.isin(surfaces, (Surface.ROAD, Surface.MARKING))
    assert off_road.sum() < 0.2 * gone.sum()  # soft edges
    assert np.array_equal(surfaces[~gone], under[~gone])


def test_paint_is_brighter_than_the_road_and_grass_is_green(
    scene: Scene, renderer: Renderer
) -> None:
    rendered, surfaces = shown(renderer, scene, SUBURB_S)
    image = rendered.image.astype(float)
    near = np.zeros(surfaces.shape, bool)
    near[SIZE[1] * 2 // 3 :] = True
    road, paint = (image[near & (surfaces == k)] for k in (Surface.ROAD, Surface.MARKING))
    assert len(paint) > 60
    assert np.median(paint) > 1.5 * np.median(road)
    grass = image[surfaces == Surface.VERGE]
    assert np.mean(grass[:, 1] > grass[:, 2]) > 0.9


def test_boxes_hold_what_the_map_calls_them(scene: Scene, renderer: Renderer) -> None:
    kinds = {
        Label.CAR: Surface.VEHICLE, Label.TRUCK: Surface.VEHICLE, Label.PERSON: Surface.PERSON,
        Label.TRAFFIC_LIGHT: Surface.POST,
    }  # fmt: skip
    checked = 0
    for t_s in (2.0, CITY_S, 9.0, NIGHT_S):
        rendered, surfaces = shown(renderer, scene, t_s)
        for box in rendered.boxes:
            x0, y0, x1, y1 = (round(v) for v in box.xyxy_px)
            if box.visible > 0.95 and min(x1 - x0, y1 - y0) >= 10:
                inside = surfaces[y0:y1, x0:x1]
                assert np.mean(inside == kinds[box.label]) > 0.25, box
                checked += 1
    assert checked >= 10


def test_inside_the_tunnel_no_sky_is_overhead(scene: Scene, renderer: Renderer) -> None:
    begin, end = (scene.light.tunnels[0][0] + 5.0, scene.light.tunnels[0][1] - 40.0)
    times = np.linspace(TUNNEL_AT[0] * 40.0, TUNNEL_AT[1] * 40.0, 9)
    inside = [t for t in times if begin < float(scene.ego.distance(t)) < end]
    assert inside
    for t_s in inside:
        _, surfaces = shown(renderer, scene, float(t_s))
        top = surfaces[: SIZE[1] // 4]
        assert np.mean(top == Surface.STRUCTURE) > 0.99
        assert np.mean(surfaces == Surface.ROAD) > 0.2
