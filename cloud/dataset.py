"""Immutable dataset versions: a canonical manifest whose sha256 is the version's id.

The id depends on the items and the split of each drive (sorted, canonical JSON), not on the order
they came in, the name, the store or the time. A drive (device, boot) lies in exactly one split,
chosen by a hash of the drive, so that adding drives never moves one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

from syncline.errors import InputError, UsageError

_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")
SPLITS = ("train", "val", "test")
DEFAULT_SHARES = (70, 15, 15)
MANIFEST_FORMAT = 1
MAX_MANIFEST_BYTES = 1 << 30

Key = tuple[str, str, str, int]
"""Device, boot, camera and raw time of the middle of exposure of a frame."""


@dataclass(frozen=True, slots=True)
class Box:
    """A labelled box, source image pixels, x to the right, y down."""

    x0_px: float
    y0_px: float
    x1_px: float
    y1_px: float
    label: str
    score: float
    origin: str
    """Who drew it: `model:<sha256>` for a pre-label, `person:<name>` for an accepted label."""


@dataclass(frozen=True, slots=True)
class FrameRef:
    """Where the encoded picture of a frame lies: a byte range of an object."""

    object_sha256: str
    offset: int
    length: int
    content_sha256: str


@dataclass(frozen=True, slots=True)
class Item:
    """One frame of a dataset with its labels and the quality of its time."""

    device: str
    boot_id: str
    camera: str
    frame_index: int
    mid_raw_ns: int
    utc_ns: int
    utc_bound_ns: int
    width: int
    height: int
    image: FrameRef
    boxes: tuple[Box, ...] = ()

    @property
    def key(self) -> Key:
        """What identifies the frame for ever.

        The raw time is in it and the index is not: a daemon that is started again without a boot
        counts its frames from 0 again, while the raw clock of a boot never repeats.
        """
        return (self.device, self.boot_id, self.camera, self.mid_raw_ns)

    @property
    def drive(self) -> str:
        """The drive it belongs to: one boot of one device."""
        return f"{self.device}/{self.boot_id}"


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """A frozen dataset.

    Attributes:
        id: sha256 of the canonical manifest.
        name: What the user calls it; not part of the id.
        items: Sorted by key.
        splits: Split of each drive; part of the id, so shares and seed are too.
    """

    id: str
    name: str
    items: tuple[Item, ...]
    splits: Mapping[str, str] = field(default_factory=dict)

    def count(self) -> dict[str, int]:
        """Frames per split."""
        counts = Counter(self.splits[item.drive] for item in self.items)
        return {split: counts[split] for split in SPLITS}


def split_of(drive: str, shares: tuple[int, int, int] = DEFAULT_SHARES, seed: str = "") -> str:
    """The split of a drive: its hash falls into one of three shares.

    Raises:
        UsageError: The shares are negative or all zero.
    """
    total = sum(shares)
    if total <= 0 or min(shares) < 0:
        raise UsageError(f"split shares {shares} must be non-negative and not all zero")
    digest = hashlib.sha256(f"{seed}\0{drive}".encode()).digest()
    at = int.from_bytes(digest[:8], "big") % total
    for split, share in zip(SPLITS, shares, strict=True):
        if at < share:
            return split
        at -= share
    raise AssertionError("unreachable: at < total")


def reconcile(items: Iterable[Item]) -> tuple[list[Item], list[Key]]:
    """Leave one item per key, whatever order they come in.

    A picture that was uploaded in two segments is one frame: the one that lies first by object and
    offset stays. Items of one key that differ in anything else contradict each other, and none of
    them can be trusted.

    Returns:
        Items with different keys, and the keys that were left out for a contradiction; both sorted.
    """
    by_key: dict[Key, Item] = {}
    contradicting: set[Key] = set()
    for item in items:
        known = by_key.setdefault(item.key, item)
        if _content(known) != _content(item):
            contradicting.add(item.key)
        elif _place(item) < _place(known):
            by_key[item.key] = item
    kept = [by_key[key] for key in sorted(by_key) if key not in contradicting]
    return kept, sorted(contradicting)


def _content(item: Item) -> Item:
    return replace(item, image=FrameRef("", 0, item.image.length, item.image.content_sha256))


def _place(item: Item) -> tuple[str, int]:
    return item.image.object_sha256, item.image.offset


def check_name(name: str) -> str:
    """Return `name` when it can name a dataset: it stands in commands, paths and exports.

    Raises:
        UsageError: It cannot.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name of a dataset",
            remedy="Use 1 to 128 letters, digits and . _ - and begin with a letter or digit",
        )
    return name


def freeze(
    name: str,
    items: Iterable[Item],
    shares: tuple[int, int, int] = DEFAULT_SHARES,
    seed: str = "",
) -> DatasetVersion:
    """Make a version of items in any order.

    Raises:
        InputError: There are no items, or two with the same key and different content; `reconcile`
            leaves such out.
        UsageError: The name cannot name a dataset.
    """
    check_name(name)
    by_key: dict[Key, Item] = {}
    for item in items:
        if by_key.setdefault(item.key, item) != item:
            raise InputError(f"frame {item.key} stands twice with different content")
    if not by_key:
        raise InputError(
            "no frame with a picture was found for the dataset",
            remedy="Let a device upload its camera segments first, or widen the filter",
        )
    ordered = tuple(by_key[key] for key in sorted(by_key))
    splits = {drive: split_of(drive, shares, seed) for drive in {i.drive for i in ordered}}
    digest = hashlib.sha256(_canonical(ordered, splits)).hexdigest()
    return DatasetVersion(digest, name, ordered, splits)


def _canonical(items: tuple[Item, ...], splits: Mapping[str, str]) -> bytes:
    body = {
        "format": MANIFEST_FORMAT,
        "splits": dict(sorted(splits.items())),
        "items": [asdict(item) for item in items],
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def to_manifest(version: DatasetVersion) -> bytes:
    """The bytes whose sha256 is the id."""
    return _canonical(version.items, version.splits)


def from_manifest(name: str, expected_id: str, data: bytes) -> DatasetVersion:
    """Read a manifest back.

    Raises:
        InputError: The bytes are too large, not of this format, or do not hash to the id.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise InputError(f"dataset manifest of {len(data)} bytes, limit {MAX_MANIFEST_BYTES}")
    found = hashlib.sha256(data).hexdigest()
    if found != expected_id:
        raise InputError(
            f"dataset {name} hashes to {found[:12]}, not {expected_id[:12]}",
            remedy="An object was damaged; restore it from a backup",
        )
    body = json.loads(data)
    if body.get("format") != MANIFEST_FORMAT:
        raise InputError(f"dataset manifest format {body.get('format')}, not {MANIFEST_FORMAT}")
    return DatasetVersion(
        expected_id, name, tuple(_item(row) for row in body["items"]), body["splits"]
    )


def _item(row: dict[str, object]) -> Item:
    values = dict(row)
    image = values.pop("image")
    boxes = values.pop("boxes")
    assert isinstance(image, dict)
    assert isinstance(boxes, list)
    return Item(**values, image=FrameRef(**image), boxes=tuple(Box(**b) for b in boxes))  # type: ignore[arg-type]
