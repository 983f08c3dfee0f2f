"""A device with a shadow model, as a user runs it: what its log says of each frame."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from syncline.edge import shadow_service
from syncline.edge.clips import ChosenClips
from syncline.edge.config import EdgeConfig, load_edge_config
from syncline.edge.daemon import EdgeDaemon
from syncline.edge.select import SelectOptions, draw
from syncline.errors import ConfigError, ManifestError
from syncline.log.reader import LogReader
from syncline.timebase import OsClock

from ..edge import tiny  # noqa: TID252

FRAMES = 45


def config_of(tmp: Path, shadow: Path) -> EdgeConfig:
    drive = tmp / "drive"
    drive.mkdir()
    for index in range(FRAMES):
        path = drive / f"{index:04d}.jpg"
        assert cv2.imwrite(str(path), np.full((48, 64, 3), 5 * index, np.uint8))
    raw = {
        "device": {"name": "car-1", "data": str(tmp / "data")},
        "camera": [{"name": "front", "kind": "images", "path": str(drive), "fps": 30.0}],
        "model": {"bundle": str(tmp / "serving"), "shadow": str(shadow)},
        "record": {"segment_s": 60.0, "quota_mb": 50.0},
        "time": {"page": "", "status": ""},
    }
    return msgspec.convert(raw, EdgeConfig)


def recorded(folder: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    with LogReader(folder) as reader:
        for record in reader:
            found.setdefault(record.topic, []).append(reader.decode(record))
    return found


def test_edge_36_a_shadow_is_told_once_apart_and_frames_are_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """edge-36: one result per frame and model; the lot is what anybody can draw again."""
    tiny.bundle(tmp_path / "serving")
    shadow = tiny.bundle(tmp_path / "next", tiny.segmenter(1), tiny.manifest(version="2"))
    options = partial(SelectOptions, random_share=0.5)  # 1 % of 45 frames is most often none
    monkeypatch.setattr(shadow_service, "SelectOptions", options)
    clock = OsClock()
    daemon = EdgeDaemon(config_of(tmp_path, shadow.folder), clock)
    daemon.run(threading.Event())
    said = recorded(tmp_path / "data" / "recording")

    serving, beside = said["/camera/front/segmentation"], said["/camera/front/shadow_segmentation"]
    assert not [
        topic for topic in said if topic in ("/camera/front/shadow", "/camera/front/detections")
    ]
    for rows, is_shadow in ((serving, False), (beside, True)):
        assert {row.shadow for row in rows} == {is_shadow}
        assert set(Counter(row.frame_index for row in rows).values()) == {1}
    assert len({row.model_sha256 for row in [*serving, *beside]}) == 2
    apart = said["/camera/front/disagreement"]
    assert [row.frame_index for row in apart] == [row.frame_index for row in beside]
    assert all(row.worth == pytest.approx(row.score + row.class_area_l1) for row in apart)

    seed = f"car-1\0{clock.boot_id}"
    drawn = {r.mid_raw_ns for r in serving if r.valid and draw(seed, "front", r.mid_raw_ns) < 0.5}
    chosen = said.get("/camera/front/selected", [])
    assert {row.mid_raw_ns for row in chosen if row.choice == "random"} == drawn
    clips = ChosenClips(Path(), tmp_path / "data" / "recording" / "chosen", [], 0).files()
    assert drawn, "half of 45"
    (clip,) = clips
    pictures = recorded(clip)["/camera/front/image"]
    assert len(pictures) >= len(drawn)
    health = said["/health"][-1]
    assert "shadow.low" in health.counters


def test_a_shadow_that_cannot_be_compared_stops_the_start(tmp_path: Path) -> None:
    tiny.bundle(tmp_path / "serving")
    other = tiny.bundle(tmp_path / "next", tiny.scorer(), tiny.scores_manifest())
    with pytest.raises(ManifestError, match="task is 'classification', not 'segmentation'"):
        EdgeDaemon(config_of(tmp_path, other.folder), OsClock())


@pytest.mark.parametrize(
    ("model", "record", "said"),
    [
        ("", "", "no model has a shadow"),
        ('shadow = "road-detector"', "images = false", "records no pictures"),
        ('shadow = "road-detector"', "enabled = false", "records no pictures"),
        ('shadow = "road-detector"', "", ""),
    ],
)
def test_chosen_pictures_need_something_that_chooses(
    tmp_path: Path, model: str, record: str, said: str
) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(
        '[device]\nname = "a"\ndata = "d"\n[[camera]]\nname = "c"\nkind = "synthetic"\n'
        f'[model]\n{model}\n[record]\n{record}\n[link]\nupload_images = "chosen"\n'
    )
    if not said:
        assert load_edge_config(path).link.upload_images == "chosen"
        return
    with pytest.raises(ConfigError, match=f"upload_images is 'chosen' and .*{said}"):
        load_edge_config(path)
