"""A short clip of our own and a site to send it to."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.system.rig import Site


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds, 20 fps, 320x192: a square that moves over noise."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    rng = np.random.default_rng(5)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 320, 192, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        stream.time_base = Fraction(1, 20)
        for index in range(40):
            image = rng.integers(90, 130, (192, 320, 3), dtype=np.uint8)
            image[60:120, 5 * index : 5 * index + 60] = (30, 40, 200)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)
