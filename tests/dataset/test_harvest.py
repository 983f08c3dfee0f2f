"""From stored segments and records to items: what is damaged is left out and told, never fatal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from syncline.cloud.catalog import Catalog, StoredRecord, UploadRow
from syncline.cloud.coco import export_coco
from syncline.cloud.dataset import freeze, reconcile
from syncline.cloud.harvest import Harvest, harvest
from syncline.cloud.objects import Objects
from syncline.cloud.validate import reason_to_quarantine
from syncline.log.picture import image_message
from syncline.log.recorder import Recorder
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import ManualClock

from .test_dataset import make_item

BOOT = "manual"
STEP_NS = 50_000_000


class ShelfCatalog:
    """What harvest asks of a catalog, from memory."""

    def __init__(self) -> None:
        self.rows: dict[str, list[bytes]] = {"/camera/front/timing": []}
        self.rows["/camera/front/detections"] = []
        self.files: list[UploadRow] = []

    def uploads(self, device: str | None = None) -> list[UploadRow]:
        return self.files

    def streams(self, device: str, boot: str) -> list[str]:
        return list(self.rows)

    def records(self, device: str, boot: str, stream: str) -> Iterator[StoredRecord]:
        for seq, payload in enumerate(self.rows[stream]):
            yield StoredRecord(seq, 0, payload)


class Shelf:
    """A collector's data of one boot, written by runs of a device."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog = ShelfCatalog()
        self.objects = Objects(folder / "objects")
        self.clock = ManualClock(5_000_000_000)

    def run(self, name: str, frames: int, shade: int = 0) -> None:
        """One life of the daemon: frame indices count from 0, the raw clock goes on."""
        out = self.folder / name
        with Recorder(out, clock=self.clock, device="car-1") as recorder:
            for index in range(frames):
                now = self.clock.raw_ns()
                data = bytes([index, shade]) * 500
                assert recorder.write(
                    "/camera/front/image", image_message(now, "front", data, "jpeg"), now
                )
                mode = pb.SensorMode(width=64, height=48)
                timing = pb.FrameTiming(camera="front", index=index, mid_raw_ns=now, mode=mode)
                self.catalog.rows["/camera/front/timing"].append(timing.SerializeToString())
                self.clock.advance(STEP_NS)
        self.upload(name)

    def upload(self, name: str) -> None:
        for path in sorted((self.folder / name).rglob("*.mcap")):
            sha256 = self.objects.put(path.read_bytes())
            meta = {"kind": "camera-segment"}
            row = UploadRow(sha256, "car-1", f"{name}/{path.name}", path.stat().st_size, meta)
            self.catalog.files.append(row)

    def detect(self, frame: int, **columns: Any) -> bytes:
        mid = 5_000_000_000 + frame * STEP_NS
        boxes = pb.Detections(camera="front", mid_raw_ns=mid, valid=True, **columns)
        payload: bytes = boxes.SerializeToString()
        self.catalog.rows["/camera/front/detections"].append(payload)
        return payload

    def harvest(self) -> Harvest:
        return harvest(cast(Catalog, self.catalog), self.objects, {})


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def whole_box(x0: float = 1.0) -> Any:
    return {
        "x0_px": [x0], "y0_px": [2.0], "x1_px": [9.0], "y1_px": [8.0],
        "score": [0.5], "class_id": [0],
    }  # fmt: skip


def test_a_daemon_started_again_counts_from_zero_and_every_frame_goes_in(
    shelf: Shelf, tmp_path: Path
) -> None:
    shelf.run("first", 4, shade=1)
    shelf.run("second", 4, shade=2)
    found = shelf.harvest()
    version = freeze("a", found.items)
    assert [item.frame_index for item in version.items] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert found.conflicts == 0
    refs = {item.image: bytes([i % 4, 1 + i // 4]) * 500 for i, item in enumerate(version.items)}

    def read(ref: Any) -> bytes:
        data = shelf.objects.get_range(ref.object_sha256, ref.offset, ref.length)
        assert data == refs[ref]
        return data

    assert sum(export_coco(version, read, tmp_path / "coco").values()) == 8
    assert len(list((tmp_path / "coco").rglob("*.jpg"))) == 8


def test_unequal_columns_are_quarantined_and_cost_one_frame_where_they_are_stored(
    shelf: Shelf,
) -> None:
    shelf.run("one", 3)
    good = shelf.detect(0, **whole_box())
    bad = shelf.detect(1, **{**whole_box(), "score": []})
    shelf.detect(2, **whole_box(float("nan")))
    assert reason_to_quarantine("/camera/front/detections", good) is None
    reason = str(reason_to_quarantine("/camera/front/detections", bad))
    assert "unequal length" in reason
    assert "score 0" in reason
    found = shelf.harvest()
    assert [item.frame_index for item in found.items] == [0]
    assert len(found.items[0].boxes) == 1
    assert found.bad_boxes == 2
    assert "unequal length" in found.reasons[0]
    assert "not finite" in found.reasons[1]


def test_row_offsets_may_be_absent_but_not_too_few() -> None:
    stream = "/camera/front/detections"
    two: Any = {name: column * 2 for name, column in whole_box().items()}
    fits = pb.Detections(**two, row_offset_ns=[1, 2])
    assert reason_to_quarantine(stream, fits.SerializeToString()) is None
    short = pb.Detections(**two, row_offset_ns=[1])
    assert "row_offset_ns 1" in str(reason_to_quarantine(stream, short.SerializeToString()))


def test_contradicting_frames_are_left_out_and_counted_in_any_order(shelf: Shelf) -> None:
    shelf.run("one", 3, shade=1)
    shelf.clock = ManualClock(5_000_000_000)
    shelf.run("two", 1, shade=7)
    found = shelf.harvest()
    assert [item.frame_index for item in found.items] == [1, 2]
    assert found.conflicts == 1
    assert "different contents" in found.reasons[0]
    shelf.catalog.files.reverse()
    assert freeze("a", shelf.harvest().items).id == freeze("b", found.items).id


def test_a_picture_in_two_segments_is_one_frame() -> None:
    item = make_item(0, 0)
    other = replace(item, image=replace(item.image, object_sha256="aa" * 32, offset=7))
    for order in ([item, other], [other, item]):
        kept, contradicting = reconcile(order)
        assert kept == [other]
        assert contradicting == []


def test_pictures_are_looked_for_from_where_the_last_one_ended(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int] = []

    class Watched(bytes):
        def find(self, sub: Any, start: Any = 0, end: Any = None, /) -> int:
            starts.append(start)
            return bytes.find(self, sub, start, end)

    shelf.run("one", 30)
    whole = Objects.get
    monkeypatch.setattr(Objects, "get", lambda self, sha: Watched(whole(self, sha)))
    found = shelf.harvest()
    offsets = [item.image.offset for item in found.items]
    assert len(offsets) == 30
    assert starts == [0, *(at + 1000 for at in offsets[:-1])]


def test_identical_pictures_keep_their_own_place(shelf: Shelf) -> None:
    """A camera that stands still: one content, three places."""
    with Recorder(shelf.folder / "x", clock=shelf.clock, device="car-1") as recorder:
        for index in range(3):
            now = shelf.clock.raw_ns()
            picture = image_message(now, "front", b"same" * 300, "jpeg")
            assert recorder.write("/camera/front/image", picture, now)
            timing = pb.FrameTiming(camera="front", index=index, mid_raw_ns=now)
            shelf.catalog.rows["/camera/front/timing"].append(timing.SerializeToString())
            shelf.clock.advance(STEP_NS)
    shelf.upload("x")
    assert len({item.image.offset for item in shelf.harvest().items}) == 3
