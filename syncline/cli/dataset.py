"""`syncline dataset`: make, list and export immutable dataset versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from syncline.errors import UsageError
from syncline.timebase import Clock, paired_read

if TYPE_CHECKING:
    from syncline.cloud.catalog import Catalog
    from syncline.cloud.objects import Objects

FEW_DRIVES = 3
Json = Annotated[bool, Parameter(name="--json")]


@contextmanager
def open_store(data: Path) -> Iterator[tuple[Catalog, Objects]]:
    """Catalog and objects of a data folder that must be there."""
    from syncline.cloud.catalog import Catalog
    from syncline.cloud.objects import Objects

    if not data.is_dir():
        raise UsageError(
            f"{data} is no data folder", remedy="Give the folder of: syncline collect --data"
        )
    with Catalog.open(data) as catalog:
        yield catalog, Objects(data / "objects")


def now_utc_ns() -> int:
    """The server's wall clock, for the histories that people read."""
    return paired_read(Clock.REALTIME).other_ns


def create(
    name: str,
    *,
    data: Path,
    device: str = "",
    camera: str = "",
    min_score: float = 0.3,
    max_time_bound_ms: float | None = None,
    split: str = "70/15/15",
    json_: Json = False,
) -> int:
    """Freeze what the collector has into an immutable version, split by drive.

    Args:
        name: Name of the version, letters, digits and . _ -; given once.
        data: Data folder of the collector.
        device: Only this device.
        camera: Only this camera.
        min_score: Pre-labels below it are left out.
        max_time_bound_ms: Leave out frames whose UTC is known less well.
        split: Shares of train/val/test; a drive lies in one of them.
        json_: Print one JSON object.
    """
    from syncline.cloud.dataset import check_name, freeze
    from syncline.cloud.dataset_store import DatasetStore
    from syncline.cloud.harvest import Wanted, harvest
    from syncline.cloud.registry import Registry

    check_name(name)
    bound_ns = None if max_time_bound_ms is None else round(max_time_bound_ms * 1e6)
    with open_store(data) as (catalog, objects):
        labels = Registry(catalog.engine, objects).labels_by_digest()
        found = harvest(catalog, objects, labels, Wanted(device, camera, min_score, bound_ns))
        version = freeze(name, found.items, _shares(split))
        DatasetStore(catalog.engine, objects).publish(version, now_utc_ns())
    report = {
        "name": name,
        "id": version.id,
        "frames": version.count(),
        "drives": len(version.splits),
        "boxes": sum(len(item.boxes) for item in version.items),
        "without_timing": found.without_timing,
        "time_too_vague": found.time_too_vague,
        "bad_boxes": found.bad_boxes,
        "conflicts": found.conflicts,
        "reasons": found.reasons,
        "damaged_segments": found.damaged,
    }
    if json_:
        print(json.dumps(report))
    else:
        print("\n".join(_plain(report)))
        if len(version.splits) < FEW_DRIVES:
            print(
                f"note: {len(version.splits)} drive(s) cannot fill three splits; "
                "a drive (one boot of one device) lies in one split, so record more drives"
            )
    return 0


def _plain(report: dict[str, Any]) -> Iterator[str]:
    """Lines for a person: one per figure, one per reason."""
    for key, value in report.items():
        if key == "frames":
            yield f"{key:<17} {_counts(value)}"
        elif key == "reasons":
            yield from (f"  left out: {reason}" for reason in value)
        elif key == "damaged_segments":
            yield f"{key:<17} {len(value)}"
            yield from (f"  {name}: {reason}" for name, reason in value.items())
        else:
            yield f"{key:<17} {value}"


def _counts(frames: dict[str, int]) -> str:
    return "  ".join(f"{split} {count}" for split, count in frames.items())


def _shares(text: str) -> tuple[int, int, int]:
    try:
        train, val, test = (int(part) for part in text.split("/"))
    except ValueError:
        raise UsageError(
            f"--split {text!r} is not three numbers", remedy="Give it as 70/15/15"
        ) from None
    return train, val, test


def list_(*, data: Path, json_: Json = False) -> int:
    """List the dataset versions.

    Args:
        data: Data folder of the collector.
        json_: Print JSON.
    """
    from syncline.cloud.dataset_store import DatasetStore

    with open_store(data) as (catalog, objects):
        rows = DatasetStore(catalog.engine, objects).list()
    if json_:
        print(json.dumps([asdict(row) for row in rows]))
    for row in () if json_ else rows:
        print(f"{row.name:<24} {row.id[:16]} {row.frames:>8} frames")
    return 0


def export(
    name: str,
    *,
    data: Path,
    out: Path,
    format_: Annotated[Literal["coco"], Parameter(name="--format")] = "coco",
    json_: Json = False,
) -> int:
    """Write a dataset version as COCO: pictures and annotations.json per split.

    Args:
        name: Name of the version.
        data: Data folder of the collector.
        out: New folder.
        format_: Only coco.
        json_: Print one JSON object.
    """
    from syncline.cloud.coco import export_coco
    from syncline.cloud.dataset_store import DatasetStore

    with open_store(data) as (catalog, objects):
        store = DatasetStore(catalog.engine, objects)
        version = store.load(name)
        counts = export_coco(version, store.read_frame, out)
    if json_:
        print(json.dumps({"name": name, "id": version.id, "frames": counts, "out": str(out)}))
    else:
        print(f"{name} {version.id[:16]}: {_counts(counts)} frames as {format_} in {out}")
    return 0
