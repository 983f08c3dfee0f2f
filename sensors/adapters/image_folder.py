"""A folder of pictures as a camera: EuRoC, KITTI, nuScenes and CamVid names, or any at a rate.

The time of a picture comes from its name or from a `timestamps.txt`; where neither tells, the
caller states a frame rate and the frames say so (`Quality.INFERRED_INDEX`).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from syncline.errors import MediaError
from syncline.sensors.adapters.recorded import Recorded
from syncline.sensors.frame import FrameEvent, Quality, RawFrame, Stamp
from syncline.timebase import NS_PER_S, Clock

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
MAX_FILE_BYTES = 64 << 20
_EUROC = re.compile(r"^\d{18,19}$")
_NUSCENES = re.compile(r"__(?P<camera>[A-Z_]+)__(?P<us>\d{16})$")
_CAMVID = re.compile(r"^(?P<drive>\d{4}[A-Z0-9]{2})_(?:f?)(?P<frame>\d{5})$")
_CAMVID_FPS = 30
_INNER = (
    "mav0/cam0/data",
    "cam0/data",
    "image_02/data",
    "data",
    "image_2",
    "training/image_2",
    "object/training/image_2",
)


@dataclass(frozen=True, slots=True)
class Picture:
    """One file and its time on the recording's clock."""

    path: Path
    t_ns: int
    camera: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Pictures in order of time and what their times are worth."""

    layout: str
    pictures: tuple[Picture, ...]
    sigma_ns: float
    event: FrameEvent
    quality: Quality


def list_pictures(folder: Path, camera: str = "camera", fps: float = 10.0) -> Listing:
    """Find the pictures of a folder and their times.

    Args:
        folder: A folder of pictures, or one that holds `data/` (EuRoC, KITTI raw) or `mav0/cam0`.
        camera: Name for pictures whose own name does not tell the camera.
        fps: Rate used where no time is found.

    Raises:
        MediaError: No folder, or no picture in it.
    """
    folder = _picture_folder(folder)
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise MediaError(
            f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))})",
            remedy="Give the folder that holds the image files",
        )
    for layout in (_euroc, _nuscenes, _kitti_raw, _camvid):
        listing = layout(paths, camera)
        if listing is not None:
            return listing
    period_ns = NS_PER_S / fps
    rows = tuple(Picture(p, NS_PER_S + round(i * period_ns), camera) for i, p in enumerate(paths))
    # A rate is all that is known: the picture was complete at its place in the row.
    event = FrameEvent.EOF
    return Listing("numbered", rows, period_ns / 12**0.5, event, Quality.INFERRED_INDEX)


def _picture_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise MediaError(f"{folder} is not a folder", remedy="Give a folder of pictures")
    for inner in _INNER:
        if (folder / inner).is_dir():
            return folder / inner
    return folder


def _euroc(paths: list[Path], camera: str) -> Listing | None:
    if not all(_EUROC.match(p.stem) for p in paths):
        return None
    rows = tuple(Picture(p, int(p.stem), camera) for p in paths)
    # EuRoC stamps are the middle of exposure, hardware-synchronised to the IMU.
    return Listing("euroc", rows, 1000.0, FrameEvent.MID, Quality.NO_EXPOSURE)


def _nuscenes(paths: list[Path], _camera: str) -> Listing | None:
    found = [_NUSCENES.search(p.stem) for p in paths]
    rows = [
        Picture(p, int(m["us"]) * 1000, m["camera"].lower())
        for p, m in zip(paths, found, strict=True)
        if m is not None
    ]
    if len(rows) != len(paths):
        return None
    rows.sort(key=lambda row: row.t_ns)
    return Listing("nuscenes", tuple(rows), 500.0, FrameEvent.SOE, Quality.NO_EXPOSURE)


def _kitti_raw(paths: list[Path], camera: str) -> Listing | None:
    file = paths[0].parent.parent / "timestamps.txt"
    if paths[0].parent.name != "data" or not file.is_file():
        return None
    stamps = [_parse_stamp(line) for line in file.read_text(encoding="ascii").splitlines() if line]
    if len(stamps) != len(paths):
        raise MediaError(
            f"{file} has {len(stamps)} lines for {len(paths)} pictures",
            remedy="Restore the missing lines or pictures",
        )
    rows = tuple(Picture(p, t, camera) for p, t in zip(paths, stamps, strict=True))
    # The nearest 100 Hz sample of the GPS/IMU unit: uniform within 5 ms either way.
    return Listing("kitti-raw", rows, 10e6 / 12**0.5, FrameEvent.SOE, Quality.NO_EXPOSURE)


def _parse_stamp(line: str) -> int:
    whole, _, fraction = line.strip().partition(".")
    try:
        moment = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.UTC)
        return int(moment.timestamp()) * NS_PER_S + int(fraction.ljust(9, "0")[:9] or 0)
    except ValueError as error:
        raise MediaError(f"timestamps.txt: {line!r} is no time") from error


def _camvid(paths: list[Path], camera: str) -> Listing | None:
    found = [_CAMVID.match(p.stem) for p in paths]
    rows = tuple(
        Picture(p, int(m["frame"]) * NS_PER_S // _CAMVID_FPS, camera)
        for p, m in zip(paths, found, strict=True)
        if m is not None
    )
    if len(rows) != len(paths):
        return None
    tick_ns = NS_PER_S / _CAMVID_FPS
    return Listing("camvid", rows, tick_ns / 12**0.5, FrameEvent.EOF, Quality.NO_EXPOSURE)


class ImageFolder(Recorded[RawFrame]):
    """Pictures of a folder in order of time.

    Memory: one picture.

    Args:
        folder: See `list_pictures`.
        camera: See `list_pictures`.
        fps: See `list_pictures`.
        read: How a file's bytes are read (tests inject damage).
    """

    def __init__(
        self,
        folder: Path,
        camera: str = "camera",
        *,
        fps: float = 10.0,
        read: Callable[[Path], bytes] = Path.read_bytes,
    ) -> None:
        super().__init__()
        self._folder = folder
        self._camera = camera
        self._fps = fps
        self._read_file = read
        self._listing: Listing | None = None

    @property
    def listing(self) -> Listing:
        """The pictures, listed at `open`."""
        if self._listing is None:
            self._listing = list_pictures(self._folder, self._camera, self._fps)
        return self._listing

    def _open(self) -> None:
        """List the pictures.

        Raises:
            MediaError: See `list_pictures`.
        """
        self._listing = list_pictures(self._folder, self._camera, self._fps)

    def _read(self) -> Iterator[RawFrame]:
        """Pictures in order of time; one that is damaged or not readable is skipped, counted.

        Raises:
            MediaError: Not a single picture could be decoded.
        """
        sequences: dict[str, int] = {}
        for picture in self.listing.pictures:
            sequence = sequences.get(picture.camera, 0)
            sequences[picture.camera] = sequence + 1
            image = self._decode(picture.path)
            if image is None:
                self._errors += 1
                continue
            yield self._raw_frame(picture, sequence, image)
        if self._frames == 0:
            raise MediaError(
                f"{self._folder}: none of {len(self.listing.pictures)} pictures can be decoded",
                remedy="The files are damaged or are no images",
            )

    def _decode(self, path: Path) -> NDArray[np.uint8] | None:
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                return None
            data = np.frombuffer(self._read_file(path), dtype=np.uint8)
        except OSError:  # not ours to read, a folder, a link to nowhere, a bad sector
            return None
        if data.size == 0:
            return None
        try:
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        except cv2.error:
            return None
        return None if image is None else np.asarray(image, dtype=np.uint8)

    def _raw_frame(self, picture: Picture, sequence: int, image: NDArray[np.uint8]) -> RawFrame:
        listing = self.listing
        stamp = Stamp(picture.t_ns, Clock.MONOTONIC_RAW, listing.event, listing.sigma_ns)
        arrival = Stamp(picture.t_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL)
        return RawFrame(picture.camera, sequence, None, stamp, arrival, (), image)

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        listing = self._listing
        return Clock.MONOTONIC_RAW, FrameEvent.EOF if listing is None else listing.event

    def _told(self) -> list[str]:
        return [] if self._listing is None else [f"layout {self._listing.layout}"]

    def _release(self) -> None:
        """Nothing is held open."""
