"""Dataset versions: canonical ids, splits by drive, COCO export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.cloud.coco import export_coco
from syncline.cloud.dataset import (
    Box,
    FrameRef,
    Item,
    freeze,
    from_manifest,
    split_of,
    to_manifest,
)
from syncline.errors import InputError, UsageError


def make_item(drive: int, frame: int, boxes: tuple[Box, ...] = ()) -> Item:
    ref = FrameRef("ab" * 32, 100 * frame, 90, "cd" * 32)
    mid = 1_000_000_000 + frame * 50_000_000
    return Item(
        "car-1", f"boot-{drive:04d}", "front", frame, mid, mid + 17, 900, 64, 48, ref, boxes
    )


@given(st.permutations(list(range(12))))
def test_cloud_3_id_does_not_depend_on_order(order: list[int]) -> None:
    items = [make_item(i % 4, i) for i in range(12)]
    assert freeze("a", [items[i] for i in order]).id == freeze("b", items).id


def test_any_change_of_content_changes_the_id() -> None:
    base = freeze("a", [make_item(0, 0), make_item(1, 1)])
    box = Box(1.0, 2.0, 3.0, 4.0, "car", 0.5, "model:00")
    assert freeze("a", [make_item(0, 0, (box,)), make_item(1, 1)]).id != base.id
    assert freeze("a", [make_item(0, 0)]).id != base.id


@given(st.integers(1, 60), st.integers(0, 2**16))
def test_cloud_5_a_drive_lies_in_one_split_and_more_drives_move_none(n: int, seed: int) -> None:
    few = freeze("a", [make_item(d, f) for d in range(n) for f in range(3)], seed=str(seed))
    many = freeze("a", [make_item(d, f) for d in range(n + 20) for f in range(3)], seed=str(seed))
    assert {item.drive for item in few.items} == set(few.splits)
    assert all(many.splits[drive] == split for drive, split in few.splits.items())


def test_split_shares_are_met_over_many_drives() -> None:
    splits = [split_of(f"car/{i}") for i in range(20_000)]
    for split, share in (("train", 0.70), ("val", 0.15), ("test", 0.15)):
        assert abs(splits.count(split) / len(splits) - share) < 0.015


@pytest.mark.parametrize("shares", [(0, 0, 0), (-1, 1, 1)])
def test_impossible_shares_are_refused(shares: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="split shares"):
        split_of("car/1", shares)


def test_a_manifest_round_trips_and_one_flipped_byte_is_named() -> None:
    version = freeze("a", [make_item(d, d) for d in range(5)])
    data = to_manifest(version)
    assert from_manifest("a", version.id, data) == version
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    with pytest.raises(InputError, match="hashes to"):
        from_manifest("a", version.id, bytes(damaged))


def test_no_frames_and_contradicting_frames_are_refused() -> None:
    with pytest.raises(InputError, match="no frame with a picture"):
        freeze("a", [])
    box = Box(1.0, 2.0, 3.0, 4.0, "car", 0.5, "person:x")
    with pytest.raises(InputError, match="stands twice"):
        freeze("a", [make_item(0, 0), make_item(0, 0, (box,))])


def test_coco_export_keeps_boxes_exact_and_splits_apart(tmp_path: Path) -> None:
    box = Box(10.125, 20.5, 30.0625, 44.75, "car", 0.875, "model:ff")
    version = freeze("a", [make_item(d, d, (box,)) for d in range(40)])
    counts = export_coco(version, lambda ref: b"jpeg%d" % ref.offset, tmp_path / "out")
    assert counts == version.count()
    assert sum(counts.values()) == 40
    seen = set()
    for split, count in counts.items():
        body = json.loads((tmp_path / "out" / split / "annotations.json").read_text())
        assert len(body["images"]) == count
        for image in body["images"]:
            seen.add(image["file_name"])
            data = (tmp_path / "out" / split / image["file_name"]).read_bytes()
            assert data == b"jpeg%d" % (100 * image["syncline_frame_index"])
        for row in body["annotations"]:
            assert row["bbox"] == [10.125, 20.5, 19.9375, 24.25]
            assert row["syncline_origin"] == "model:ff"
    assert len(seen) == 40


def test_coco_export_refuses_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    version = freeze("a", [make_item(0, 0)])
    with pytest.raises(UsageError, match="not empty"):
        export_coco(version, lambda _: b"", tmp_path)
    assert (tmp_path / "x").read_text() == "mine"
