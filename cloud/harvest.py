"""From what the collector stored to the items of a dataset.

A frame is a byte range of an uploaded camera segment. Its boxes are the detections that the device
sent for it (pre-labels, named by the model's digest); its UTC is what the newest mapping segments
say of its raw time.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from syncline.cloud.catalog import Catalog
from syncline.cloud.dataset import Box, FrameRef, Item, Key, reconcile
from syncline.cloud.objects import Objects
from syncline.cloud.validate import require_columns
from syncline.errors import LogError, MessageError
from syncline.log.mapping import mapping_from_message
from syncline.log.reader import LogReader
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import Timebase

NO_TIME = -1
MAX_REASONS = 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which frames go in.

    Attributes:
        device: Only this device; empty for all.
        camera: Only this camera; empty for all.
        min_score: Boxes below it are left out.
        max_bound_ns: Frames whose UTC is known less well are left out; None takes all.
    """

    device: str = ""
    camera: str = ""
    min_score: float = 0.3
    max_bound_ns: int | None = None


@dataclass
class Harvest:
    """What was found, and what was left out and why.

    Attributes:
        items: Frames.
        without_timing: Pictures whose frame timing never came.
        time_too_vague: Frames left out by `max_bound_ns`.
        bad_boxes: Frames left out because their detections cannot be read; without boxes they would
            pass for pictures with nothing in them.
        conflicts: Frames left out because what was sent of them contradicts itself.
        reasons: Why, of the first `MAX_REASONS` of the frames counted in the two above.
        damaged: Segments that could not be read, with the reason.
    """

    items: list[Item] = field(default_factory=list)
    without_timing: int = 0
    time_too_vague: int = 0
    bad_boxes: int = 0
    conflicts: int = 0
    reasons: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)

    def _explain(self, key: Key, reason: str) -> None:
        if len(self.reasons) < MAX_REASONS:
            self.reasons.append(f"{'/'.join(str(part) for part in key)}: {reason}")

    def leave_bad(self, key: Key, reason: str) -> None:
        """Count a frame whose boxes cannot be used."""
        self.bad_boxes += 1
        self._explain(key, reason)

    def settle(self) -> None:
        """One item per frame, sorted; frames that contradict themselves are counted and go."""
        self.items, contradicting = reconcile(self.items)
        self.conflicts = len(contradicting)
        for key in contradicting:
            self._explain(key, "was sent with different contents")


def harvest(
    catalog: Catalog,
    objects: Objects,
    labels: Mapping[str, tuple[str, ...]],
    wanted: Wanted | None = None,
) -> Harvest:
    """Collect every frame that has a picture.

    Memory: one camera segment, and the timing and boxes of one boot.

    Args:
        catalog: What is stored.
        objects: Where camera segments lie.
        labels: Class names by model digest.
        wanted: Which frames go in.

    Raises:
        StorageError: The store cannot be read.
    """
    wanted = wanted or Wanted()
    found = Harvest()
    boots: dict[tuple[str, str], _Boot] = {}
    for upload in catalog.uploads(wanted.device or None):
        if upload.meta.get("kind") != "camera-segment":
            continue
        try:
            for picture in _pictures(objects, upload.sha256):
                key = (upload.device, picture.boot_id)
                if key not in boots:
                    boots.clear()
                    boots[key] = _Boot(catalog, *key)
                _take(found, picture, boots[key], upload.device, labels, wanted)
        except LogError as error:
            found.damaged[upload.name] = str(error)
    found.settle()
    return found


@dataclass(frozen=True, slots=True)
class _Picture:
    boot_id: str
    camera: str
    mid_raw_ns: int
    ref: FrameRef


def _pictures(objects: Objects, sha256: str) -> Iterator[_Picture]:
    with tempfile.NamedTemporaryFile(suffix=".mcap") as file:
        whole = objects.get(sha256)
        file.write(whole)
        file.flush()
        searched: dict[str, int] = {}  # a camera's pictures lie in the order they were written
        with LogReader(Path(file.name)) as reader:
            for record in reader:
                if not record.topic.endswith("/image"):
                    continue
                data = bytes(reader.decode(record).data)
                offset = _find(whole, data, searched.get(record.topic, 0))
                if offset < 0:  # a compressed segment: no byte range to point at
                    raise LogError(f"segment {sha256[:12]} is compressed")
                searched[record.topic] = offset + len(data)
                ref = FrameRef(sha256, offset, len(data), hashlib.sha256(data).hexdigest())
                camera = record.topic.split("/")[2]
                yield _Picture(record.boot_id, camera, record.raw_ns, ref)


def _find(whole: bytes, data: bytes, start: int) -> int:
    """Where `data` lies, looked for from `start` on first: else long segments cost a square."""
    offset = whole.find(data, start)
    return offset if offset >= 0 or start == 0 else whole.find(data, 0, start + len(data))


class _Boot:
    """Timing, boxes and time of one boot of a device."""

    def __init__(self, catalog: Catalog, device: str, boot_id: str) -> None:
        self.timebase = Timebase(boot_id)
        self.timing: dict[tuple[str, int], pb.FrameTiming] = {}
        self.boxes: dict[tuple[str, int], pb.Detections] = {}
        for stream in catalog.streams(device, boot_id):
            records = catalog.records(device, boot_id, stream)
            if stream == "/time/mapping":
                for _, _, payload in records:
                    self.timebase.add(mapping_from_message(pb.MappingSegment.FromString(payload)))
            elif stream.endswith("/timing"):
                for _, _, payload in records:
                    timing = pb.FrameTiming.FromString(payload)
                    self.timing[timing.camera, timing.mid_raw_ns] = timing
            elif stream.endswith("/detections"):
                for _, _, payload in records:
                    boxes = pb.Detections.FromString(payload)
                    self.boxes[boxes.camera, boxes.mid_raw_ns] = boxes

    def utc(self, raw_ns: int) -> tuple[int, int]:
        """(UTC, bound) of a raw time; `NO_TIME` where nothing is known."""
        if not self.timebase.segments:
            return NO_TIME, NO_TIME
        time = self.timebase.utc(raw_ns)
        return time.utc_ns, time.bound_ns


def _take(
    found: Harvest,
    picture: _Picture,
    boot: _Boot,
    device: str,
    labels: Mapping[str, tuple[str, ...]],
    wanted: Wanted,
) -> None:
    if wanted.camera and picture.camera != wanted.camera:
        return
    timing = boot.timing.get((picture.camera, picture.mid_raw_ns))
    if timing is None:
        found.without_timing += 1
        return
    utc_ns, bound_ns = boot.utc(picture.mid_raw_ns)
    vague = bound_ns == NO_TIME or (
        wanted.max_bound_ns is not None and bound_ns > wanted.max_bound_ns
    )
    if wanted.max_bound_ns is not None and vague:
        found.time_too_vague += 1
        return
    detections = boot.boxes.get((picture.camera, picture.mid_raw_ns))
    try:
        boxes = () if detections is None else _boxes(detections, labels, wanted.min_score)
    except MessageError as error:
        found.leave_bad((device, picture.boot_id, picture.camera, picture.mid_raw_ns), str(error))
        return
    found.items.append(
        Item(
            device,
            picture.boot_id,
            picture.camera,
            timing.index,
            picture.mid_raw_ns,
            utc_ns,
            bound_ns,
            timing.mode.width,
            timing.mode.height,
            picture.ref,
            boxes,
        )
    )


def _boxes(
    detections: pb.Detections, labels: Mapping[str, tuple[str, ...]], min_score: float
) -> tuple[Box, ...]:
    require_columns(detections)
    if not detections.valid:
        return ()
    names = labels.get(detections.model_sha256, ())
    origin = f"model:{detections.model_sha256}"
    corners = (detections.x0_px, detections.y0_px, detections.x1_px, detections.y1_px)
    if not all(math.isfinite(value) for column in (*corners, detections.score) for value in column):
        raise MessageError("a box is not finite")
    columns = zip(
        *corners,
        detections.score,
        detections.class_id,
        strict=True,
    )
    return tuple(
        Box(x0, y0, x1, y1, names[c] if c < len(names) else f"class-{c}", score, origin)
        for x0, y0, x1, y1, score, c in columns
        if score >= min_score
    )
