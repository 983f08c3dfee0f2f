"""The rendered pictures obey the frame-time model, and their truth is where it says."""

from __future__ import annotations

import numpy as np
import pytest

from syncline.sensors.mode import SensorMode, Shutter
from syncline.sensors.synthetic.camera import sensor_mode
from syncline.sensors.synthetic.labels import TruthBox
from syncline.sensors.synthetic.light import EXPOSURE_MS, GAIN, AutoExposure, Setting
from syncline.sensors.synthetic.optics import Pinhole, View
from syncline.sensors.synthetic.plan import plan_scene
from syncline.sensors.synthetic.render import Rendered, Renderer
from syncline.sensors.synthetic.road import Pose
from syncline.sensors.synthetic.scene import Label, Scene

SIZE = (320, 192)
MODE = sensor_mode(*SIZE, fps=20.0)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return plan_scene(3, 40.0)


@pytest.fixture(scope="module")
def renderer(scene: Scene) -> Renderer:
    return Renderer(scene, Pinhole.for_size(*SIZE), MODE, 3)


def moving_pose(**changes: float) -> Pose:
    values: dict[str, float] = {
        "s_m": 0.0, "yaw_rad": 0.1, "pitch_rad": -0.02, "yaw_rate_radps": 0.5,
        "pitch_rate_radps": 0.05, "speed_mps": 14.0, "accel_mps2": 0.0,
    } | changes  # fmt: skip
    heading = values["yaw_rad"]
    velocity = values["speed_mps"] * np.array([np.cos(heading), np.sin(heading), 0.0])
    return Pose(position_m=np.array([0.0, 0.0, 1.4]), velocity_mps=velocity, **values)


def ahead(pose: Pose, forward_m: float, right_m: float, up_m: float) -> np.ndarray:
    cos, sin = np.cos(pose.yaw_rad), np.sin(pose.yaw_rad)
    x, y = forward_m * cos + right_m * sin, forward_m * sin - right_m * cos
    return np.array([[x, y, up_m]])


def at_time(pose: Pose, dt_s: float) -> Pose:
    """The pose a moment later, by its own rates."""
    return Pose(
        pose.s_m, pose.position_m + pose.velocity_mps * dt_s, pose.velocity_mps,
        pose.yaw_rad + pose.yaw_rate_radps * dt_s, pose.pitch_rad + pose.pitch_rate_radps * dt_s,
        pose.yaw_rate_radps, pose.pitch_rate_radps, pose.speed_mps, pose.accel_mps2,
    )  # fmt: skip


@pytest.mark.parametrize("spot", [(8.0, -3.0, 0.0), (20.0, 4.0, 2.0), (60.0, 0.5, 1.0)])
def test_a_point_is_seen_where_a_global_camera_sees_it_at_its_rows_time(
    spot: tuple[float, float, float],
) -> None:
    """The rolling projection is its own fixed point: row -> time -> pose -> the same row."""
    camera, pose = Pinhole.for_size(640, 384), moving_pose()
    rolling = View(camera, sensor_mode(640, 384, 20.0), pose)
    point, still = ahead(pose, *spot), np.zeros((1, 3))
    pixel, _ = rolling.project(point, still)
    dt_s = float(rolling.row_dt_s(pixel[:, 1])[0])
    assert abs(dt_s) > 1e-5
    flash = SensorMode.simple(640, 384, shutter=Shutter.GLOBAL)
    seen, _ = View(camera, flash, at_time(pose, dt_s)).project(point, still)
    np.testing.assert_allclose(pixel, seen, atol=0.02)


def test_row_times_span_the_readout() -> None:
    camera = Pinhole.for_size(640, 384)
    mode = sensor_mode(640, 384, 20.0)
    view = View(camera, mode, moving_pose())
    dt_s = view.row_dt_s(np.array([0.0, 383.0]))
    assert dt_s[1] - dt_s[0] == pytest.approx(383 * mode.line_time_ns * 1e-9)
    assert dt_s.sum() == pytest.approx(0.0, abs=1e-12)


def test_turning_shears_the_picture_by_the_readout(renderer: Renderer, scene: Scene) -> None:
    """Upright poles lean by yaw rate x readout: the sky strip moves with its rows."""
    camera = Pinhole.for_size(640, 384)
    pose = moving_pose(speed_mps=0.0, pitch_rate_radps=0.0, pitch_rad=0.0)
    view = View(camera, sensor_mode(640, 384, 20.0), pose)
    low, high = ahead(pose, 40.0, 0.0, 1.4), ahead(pose, 40.0, 0.0, 9.4)
    foot, _ = view.project(low, np.zeros((1, 3)))
    top, _ = view.project(high, np.zeros((1, 3)))
    rows = float(foot[0, 1] - top[0, 1])
    lean = float(foot[0, 0] - top[0, 0])
    dt_s = rows * view.mode.line_time_ns * 1e-9
    assert lean == pytest.approx(0.5 * dt_s * camera.focal_px, rel=0.03)


def test_the_mode_agrees_with_its_own_period() -> None:
    MODE.check_period(50e6, tol_ppm=1.0)
    assert MODE.shutter is Shutter.ROLLING
    assert MODE.readout_time() == pytest.approx(14e6, rel=1e-3)


def test_the_same_seed_gives_the_same_bytes(scene: Scene, renderer: Renderer) -> None:
    again = Renderer(plan_scene(3, 40.0), Pinhole.for_size(*SIZE), MODE, 3)
    setting = Setting.of_total(4.0)
    first, second = renderer.draw(12.0, setting, 5), again.draw(12.0, setting, 5)
    assert np.array_equal(first.image, second.image)
    assert first.boxes == second.boxes
    assert not np.array_equal(first.image, renderer.draw(12.0, setting, 6).image)


def test_more_exposure_is_brighter_and_more_gain_is_noisier(renderer: Renderer) -> None:
    dim = renderer.draw(3.0, Setting(0.6, 1.0), 0)
    lit = renderer.draw(3.0, Setting(2.4, 1.0), 0)
    assert lit.mean_luma > dim.mean_luma * 1.3
    clean = renderer.draw(3.0, Setting(8.0, 1.0), 0).image.astype(float)
    noisy = renderer.draw(3.0, Setting(0.5, 16.0), 0).image.astype(float)

    def grain(picture: np.ndarray) -> float:
        return float(np.median(np.abs(np.diff(picture[5:30], axis=1))))

    assert grain(noisy) > grain(clean)


def test_the_tunnel_is_dark_and_the_night_darker_than_the_day(scene: Scene) -> None:
    begin, end = scene.light.tunnels[0]
    inside = float(scene.light.at((begin + end) / 2, 20.0))
    assert inside == pytest.approx(0.03, rel=0.01)
    assert float(scene.light.at(begin - 5.0, 5.0)) == pytest.approx(1.0)
    assert scene.light.ambient(39.0) < 0.05


def seen(rendered: Rendered, label: Label, least: float = 0.6) -> list[TruthBox]:
    return [b for b in rendered.boxes if b.label is label and b.visible >= least]


def test_truth_holds_every_class_within_the_picture(renderer: Renderer, scene: Scene) -> None:
    found: dict[Label, int] = dict.fromkeys(Label, 0)
    for t_s in np.arange(1.0, 40.0, 3.0):
        rendered = renderer.draw(float(t_s), Setting.of_total(2.0), 0)
        for box in rendered.boxes:
            x0, y0, x1, y1 = box.xyxy_px
            assert 0 <= x0 < x1 <= SIZE[0]
            assert 0 <= y0 < y1 <= SIZE[1]
            assert 0.0 <= box.visible <= 1.0
            assert abs(box.row_dt_ns) <= MODE.readout_time() / 2
        for label in Label:
            found[label] += len(seen(rendered, label))
    assert min(found.values()) >= 3, found


def test_boxes_fit_what_is_painted(scene: Scene) -> None:
    """Taking the cars away changes pixels inside their boxes and hardly any outside."""
    camera = Pinhole.for_size(*SIZE)
    setting = Setting.of_total(1.0)
    whole = Renderer(scene, camera, MODE, 3).draw(2.0, setting, 0)
    bare = plan_scene(3, 40.0)
    bare.movers.clear()
    empty = Renderer(bare, camera, MODE, 3).draw(2.0, setting, 0)
    changed = np.abs(whole.image.astype(int) - empty.image.astype(int)).max(axis=2) > 12
    gone = {b.id for b in whole.boxes} - {b.id for b in empty.boxes}
    inside = np.zeros_like(changed)
    for box in whole.boxes:
        if box.id in gone:
            x0, y0, x1, y1 = (round(v) for v in box.xyxy_px)
            inside[max(y0 - 2, 0) : y1 + 8, max(x0 - 6, 0) : x1 + 6] = True
    assert gone
    assert changed[inside].sum() > 50
    assert changed[~inside].mean() < 0.002


def test_a_hidden_thing_is_less_visible_than_a_free_one(renderer: Renderer) -> None:
    """The car ahead hides part of the traffic before it; itself it is free."""
    rendered = renderer.draw(9.0, Setting.of_total(1.0), 0)
    cars = [b for b in rendered.boxes if b.label in (Label.CAR, Label.TRUCK)]
    nearest = min((b for b in cars if not b.truncated), key=lambda b: b.distance_m)
    assert nearest.visible > 0.9
    assert min(b.visible for b in cars) < 0.5


def test_the_meter_finds_its_target_and_settings_come_two_frames_later() -> None:
    meter = AutoExposure(Setting.of_total(0.6), delay=2)
    assert meter.setting.total == pytest.approx(0.6)
    seen_totals = []
    for _ in range(60):
        luma = min(255.0, 104.0 * (meter.setting.total / 4.0) ** (1 / 2.2))
        seen_totals.append(meter.setting.total)
        meter.step(luma)
    assert seen_totals[:3] == pytest.approx([0.6] * 3)
    assert seen_totals[-1] == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("total", [0.0, 0.1, 3.0, 17.9, 50.0, 1e4])
def test_exposure_comes_before_gain_and_both_stay_in_range(total: float) -> None:
    setting = Setting.of_total(total)
    assert EXPOSURE_MS[0] <= setting.exposure_ms <= EXPOSURE_MS[1]
    assert GAIN[0] <= setting.gain <= GAIN[1]
    assert setting.gain == 1.0 or setting.exposure_ms == EXPOSURE_MS[1]
