"""COCO export: one folder per split with the pictures and `annotations.json`.

Boxes are written as float, exactly as they are; COCO has no place for the time of a frame, so it
goes into extra keys of `images` that readers ignore.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from syncline.cloud.dataset import SPLITS, DatasetVersion, FrameRef, Item
from syncline.errors import StorageError, UsageError

ReadFrame = Callable[[FrameRef], bytes]


def export_coco(version: DatasetVersion, read: ReadFrame, folder: Path) -> dict[str, int]:
    """Write a dataset version as COCO.

    Args:
        version: What to write.
        read: Gives the encoded picture of a frame, verified against its sha256.
        folder: New or empty folder.

    Returns:
        Frames written per split.

    Raises:
        UsageError: The folder holds something already.
        StorageError: It cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", remedy="Export into a new folder")
    labels = sorted({box.label for item in version.items for box in item.boxes})
    category = {label: at for at, label in enumerate(labels, start=1)}
    try:
        return {
            split: _export_split(version, split, category, read, folder / split) for split in SPLITS
        }
    except OSError as error:
        raise StorageError(
            f"cannot write {folder}: {error.strerror}", remedy="Free space or choose another folder"
        ) from error


def _export_split(
    version: DatasetVersion,
    split: str,
    category: dict[str, int],
    read: ReadFrame,
    folder: Path,
) -> int:
    items = [item for item in version.items if version.splits[item.drive] == split]
    folder.mkdir(parents=True)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for at, item in enumerate(items, start=1):
        name = f"{item.device}_{item.boot_id}_{item.camera}_{item.mid_raw_ns:019d}.jpg"
        (folder / name).write_bytes(read(item.image))
        images.append(_image(item, at, name))
        for box in item.boxes:
            width, height = box.x1_px - box.x0_px, box.y1_px - box.y0_px
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": at,
                    "category_id": category[box.label],
                    "bbox": [box.x0_px, box.y0_px, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": box.score,
                    "syncline_origin": box.origin,
                }
            )
    body = {
        "info": {"description": version.name, "version": version.id},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": at, "name": label} for label, at in category.items()],
    }
    (folder / "annotations.json").write_text(json.dumps(body), encoding="utf-8")
    return len(items)


def _image(item: Item, at: int, name: str) -> dict[str, object]:
    return {
        "id": at,
        "file_name": name,
        "width": item.width,
        "height": item.height,
        "syncline_device": item.device,
        "syncline_boot_id": item.boot_id,
        "syncline_camera": item.camera,
        "syncline_frame_index": item.frame_index,
        "syncline_mid_raw_ns": item.mid_raw_ns,
        "syncline_utc_ns": item.utc_ns,
        "syncline_utc_bound_ns": item.utc_bound_ns,
    }
