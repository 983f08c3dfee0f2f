"""How segments lie in a recording folder: names, order, and which files belong to one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from syncline.errors import LogError, UsageError
from syncline.log.wire import MAGIC

RING, PINNED, PINS = "ring", "pinned", "pins"
TEL, CAM, TAIL = "tel.mcap", "cam.mcap", "tel.tail"
_NAME = re.compile(r"^(\d{8,})-([0-9a-zA-Z]{1,8})$")


@dataclass(frozen=True, slots=True)
class Segment:
    """One folder of a segment; `name` is the same in ring and pinned."""

    name: str
    path: Path

    @property
    def number(self) -> int:
        """Counter over all boots."""
        return int(self.name.partition("-")[0])

    @property
    def files(self) -> tuple[Path, ...]:
        """Its MCAP files; one that is just being opened or was killed then is none yet."""
        paths = (self.path / TEL, self.path / CAM)
        return tuple(p for p in paths if p.is_file() and p.stat().st_size >= len(MAGIC))


def segment_name(number: int, boot_id: str) -> str:
    """Name of a segment; sorts in order of recording."""
    short = re.sub(r"[^0-9a-zA-Z]", "", boot_id)[:8] or "0"
    return f"{number:08d}-{short}"


def list_segments(folder: Path) -> list[Segment]:
    """Segments directly in `folder`, in order of recording."""
    if not folder.is_dir():
        return []
    found = [Segment(p.name, p) for p in folder.iterdir() if _NAME.match(p.name) and p.is_dir()]
    return sorted(found, key=lambda s: s.number)


def log_groups(path: Path) -> list[tuple[Path, ...]]:
    """Files to read, in groups that follow each other in time.

    A recording gives one group per segment (ring and pinned together, each segment once), a segment
    one group, any other folder its MCAP files in order of name, a file itself.

    Raises:
        LogError: Nothing lies there.
        UsageError: It is a folder without logs.
    """
    if path.is_file():
        return [(path,)]
    if not path.exists():
        raise LogError(f"{path} does not exist", remedy="Give an MCAP file or a recording folder")
    segments = {s.name: s for s in list_segments(path / PINNED)}
    segments.update({s.name: s for s in list_segments(path / RING)})
    segments.update({s.name: s for s in list_segments(path)})
    ordered = sorted(segments.values(), key=lambda s: s.number)
    groups = [s.files for s in ordered if s.files]
    if not groups:
        groups = [(p,) for p in sorted(path.glob("*.mcap"))]
        if {p.name for (p,) in groups} <= {TEL, CAM} and groups:
            groups = [tuple(p for (p,) in groups)]
    if not groups:
        raise UsageError(
            f"no MCAP file in {path}", remedy="Give an MCAP file or a recording folder"
        )
    return groups
