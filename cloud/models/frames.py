"""Frames for calibration and for the gate: a folder of pictures, a video, or a recorded log.

Frames are read one at a time and picked evenly over the whole source; memory is one picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.errors import MediaError
from syncline.log.decode import Decoder
from syncline.log.reader import LogReader
from syncline.log.records import Record
from syncline.sensors.adapters.video import VideoFile

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
VIDEOS = frozenset({".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v"})
LOGS = frozenset({".mcap"})
MAX_PICTURE_BYTES = 64 << 20
IMAGE_SCHEMA = "foxglove.CompressedImage"


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture.

    Attributes:
        name: Unique within its source.
        group: Slice it belongs to: the sub-folder or the topic; "" for the rest.
        bgr: uint8 (H, W, 3), blue first.
    """

    name: str
    group: str
    bgr: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FrameSource:
    """A source whose frames can be read again and again.

    Attributes:
        path: Where it came from.
        count: Number of frames picked.
        read: Starts a new pass over them; a picture that cannot be decoded is left out.
        folders: Sub-folders that pictures were picked from; "" is the folder itself.
        left_out: Sub-folders that hold label masks, not pictures.
        damaged: Names of the pictures that could not be decoded, once they were read.
    """

    path: Path
    count: int
    read: Callable[[], Iterator[Frame]]
    folders: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    damaged: set[str] = field(default_factory=set)

    def told(self) -> str:
        """What was taken, for people."""
        text = f"{self.count} frames of {self.path}"
        if self.folders not in ((), ("",)):
            text += f" ({', '.join(name or '.' for name in self.folders)})"
        if self.left_out:
            text += f"; left out as label masks: {', '.join(self.left_out)}"
        return text


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source holds, before frames are picked.

    Attributes:
        path: Where it is.
        groups: Slice of every frame, in order.
        pick: The source of the frames of given indices, ascending.
    """

    path: Path
    groups: Sequence[str]
    pick: Callable[[Sequence[int]], FrameSource]


def open_frames(path: Path, limit: int, *, phase: float = 0.0) -> FrameSource:
    """Pick up to `limit` frames of a source, spread evenly.

    Args:
        path: See `list_frames`.
        limit: How many at most.
        phase: 0 takes the first frame of each of the `limit` parts of the source, 0.5 the middle
            one.

    Raises:
        MediaError: Nothing there, or nothing that can be read.
    """
    listing = list_frames(path)
    return listing.pick(spread(len(listing.groups), limit, phase))


def list_frames(path: Path) -> Listing:
    """What a folder of pictures, video file, MCAP log or log folder holds.

    Sub-folders are slices; those that hold nothing but grey or palette PNG, beside others in
    colour, are label masks and left out.

    Raises:
        MediaError: Nothing there, or nothing that can be read.
    """
    if path.is_dir() and not any(path.rglob("*.mcap")):
        return _folder(path)
    if path.suffix.lower() in VIDEOS:
        return _video(path)
    if path.is_dir() or (path.suffix.lower() in LOGS and path.is_file()):
        return _log(path)
    raise MediaError(
        f"{path} is neither a folder of pictures, a video nor a log",
        remedy=f"Give a folder, or a file ending in {', '.join(sorted(VIDEOS | LOGS))}",
    )


def spread(count: int, limit: int, phase: float = 0.0) -> list[int]:
    """Indices of at most `limit` of `count` frames, evenly spread, ascending."""
    if limit < 1:
        return []
    if count <= limit:
        return list(range(count))
    step = count / limit
    return [int((i + phase) * step) for i in range(limit)]


def _folder(path: Path) -> Listing:
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
    if not files:
        raise MediaError(
            f"{path} holds no pictures ({', '.join(sorted(PICTURES))})",
            remedy="Give the folder that holds the frames",
        )
    files, left_out = _without_labels(files, path)
    groups = [_group(file, path) for file in files]

    def pick(indices: Sequence[int]) -> FrameSource:
        chosen = [files[i] for i in indices]
        folders = tuple(sorted({groups[i] for i in indices}))
        damaged: set[str] = set()
        return FrameSource(
            path, len(chosen), lambda: _pictures(path, chosen, damaged), folders, left_out, damaged
        )

    return Listing(path, groups, pick)


def _pictures(root: Path, files: Sequence[Path], damaged: set[str]) -> Iterator[Frame]:
    """Those that can be decoded; the names of the others go to `damaged`.

    Raises:
        MediaError: None can.
    """
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            image = read_picture(file)
        except MediaError:
            damaged.add(name)
            if len(damaged) == len(files):
                raise
            continue
        yield Frame(name, _group(file, root), image)


def _without_labels(files: Sequence[Path], root: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Pictures without the folders of label masks; where all are grey, the camera is."""
    has_colour: dict[str, bool] = {}
    for file in files:
        group = _group(file, root)
        has_colour[group] = has_colour.get(group, False) or not _has_one_channel(file)
    if not any(has_colour.values()):
        return list(files), ()
    kept = [file for file in files if has_colour[_group(file, root)]]
    return kept, tuple(sorted(group for group, colour in has_colour.items() if not colour))


def _has_one_channel(file: Path) -> bool:
    """Whether it is a PNG of grey values or palette indices (PNG specification, 11.2.2 IHDR)."""
    with file.open("rb") as stream:
        head = stream.read(26)
    return head[:4] == b"\x89PNG" and head[25:26] in (b"\x00", b"\x03")


def _group(file: Path, root: Path) -> str:
    parent = file.parent.relative_to(root).as_posix()
    return "" if parent == "." else parent


def read_picture(file: Path) -> NDArray[np.uint8]:
    """A picture as uint8 (H, W, 3), blue first.

    Raises:
        MediaError: Too large, or not a picture.
    """
    if file.stat().st_size > MAX_PICTURE_BYTES:
        raise MediaError(f"{file} is larger than {MAX_PICTURE_BYTES} bytes")
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        raise MediaError(f"{file} cannot be decoded", remedy="Remove it or fetch it again")
    return np.asarray(image, dtype=np.uint8)


def _video(path: Path) -> Listing:
    total = sum(1 for _ in _video_frames(path))

    def pick(indices: Sequence[int]) -> FrameSource:
        return FrameSource(path, len(indices), lambda: _pick(_video_frames(path), indices))

    return Listing(path, [""] * total, pick)


def _video_frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    video = VideoFile(path)
    try:
        for frame in video.frames():
            yield np.asarray(frame.payload, dtype=np.uint8)
    finally:
        video.close()


def _pick(images: Iterator[NDArray[np.uint8]], chosen: Sequence[int]) -> Iterator[Frame]:
    wanted = set(chosen)
    for index, image in enumerate(images):
        if index in wanted:
            yield Frame(f"{index:06d}", "", image)
        if chosen and index >= chosen[-1]:
            return


def _log(path: Path) -> Listing:
    topics = [record.topic for record in _image_records(path)]
    if not topics:
        raise MediaError(f"{path} holds no {IMAGE_SCHEMA} records", remedy="Give another log")

    def pick(indices: Sequence[int]) -> FrameSource:
        damaged: set[str] = set()
        return FrameSource(
            path, len(indices), lambda: _log_frames(path, indices, damaged), damaged=damaged
        )

    return Listing(path, topics, pick)


def _image_records(path: Path) -> Iterator[Record]:
    with LogReader(path) as reader:
        yield from (record for record in reader if record.schema == IMAGE_SCHEMA)


def _log_frames(path: Path, chosen: Sequence[int], damaged: set[str]) -> Iterator[Frame]:
    """Only the chosen pictures are decoded."""
    wanted, decoder = set(chosen), Decoder()
    for index, record in enumerate(_image_records(path)):
        if index in wanted:
            packed = np.frombuffer(bytes(decoder.decode(record).data), np.uint8)
            image = cv2.imdecode(packed, cv2.IMREAD_COLOR) if packed.size else None
            if image is not None:
                yield Frame(f"{index:06d}", record.topic, np.asarray(image, dtype=np.uint8))
            else:
                damaged.add(f"{index:06d}")
                if len(damaged) == len(chosen):
                    raise MediaError(f"{path}: no picture of {record.topic} can be decoded")
        if not chosen or index >= chosen[-1]:
            return
