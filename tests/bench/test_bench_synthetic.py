"""Cost of a rendered frame as a multiple of one full-frame warp, measured in the same run."""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np
import pytest

from syncline.sensors.synthetic.camera import sensor_mode
from syncline.sensors.synthetic.light import Setting
from syncline.sensors.synthetic.optics import Pinhole
from syncline.sensors.synthetic.plan import plan_scene
from syncline.sensors.synthetic.render import Renderer

SIZE = (640, 384)
MOST_WARPS = 25.0
"""A frame of the demo costs at most so many bilinear warps of its size (about 1 ms each)."""


@pytest.mark.bench
def test_frame_cost_in_warps(benchmark: Any) -> None:
    cv2.setNumThreads(1)
    renderer = Renderer(plan_scene(3, 40.0), Pinhole.for_size(*SIZE), sensor_mode(*SIZE, 20.0), 3)
    moments = np.linspace(0.5, 39.5, 20)
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    xs, ys = np.meshgrid(np.arange(SIZE[0]) * 0.99, np.arange(SIZE[1]) * 0.99)
    maps = xs.astype(np.float32), ys.astype(np.float32)

    def render_all() -> float:
        begin = time.process_time()
        for index, t_s in enumerate(moments):
            renderer.draw(float(t_s), Setting.of_total(2.0), index)
        return (time.process_time() - begin) / len(moments)

    def warp_all() -> float:
        begin = time.process_time()
        for _ in range(100):
            cv2.remap(picture, *maps, cv2.INTER_LINEAR)
        return (time.process_time() - begin) / 100

    render_all()
    frame_s = min(render_all() for _ in range(2))
    warp_s = min(warp_all() for _ in range(3))
    benchmark.extra_info.update(frame_ms=frame_s * 1e3, warp_ms=warp_s * 1e3)
    benchmark.pedantic(renderer.draw, (20.0, Setting.of_total(2.0), 0), rounds=3)
    assert frame_s / warp_s < MOST_WARPS, f"{frame_s * 1e3:.1f} ms against {warp_s * 1e3:.2f} ms"
