"""Which boot of a recording is meant: raw times of two boots are never joined."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from syncline.errors import LogError, UsageError
from syncline.log.reader import LogFile, LogReader
from syncline.timebase import Timebase


def messages_per_boot(path: Path, topics: Collection[str]) -> dict[str, int]:
    """Messages on some topics, per boot in order of recording; boots without any are left out.

    Raises:
        UsageError: Nothing there to read.
        LogError: Not a log, or damaged.
    """
    counts: dict[str, int] = {}
    with LogReader(path) as reader:
        for file in reader.files():
            count = _messages(file, topics)
            if count:
                counts[file.boot_id] = counts.get(file.boot_id, 0) + count
    return counts


def _messages(log: LogFile, topics: Collection[str]) -> int:
    wanted = {c.id for c in log.channels.values() if c.topic in topics}
    if not wanted:
        return 0
    if log.index.statistics is not None:
        counts = log.index.statistics.channel_counts
        return sum(counts.get(channel, 0) for channel in wanted)
    # A file without its end has no statistics: it is at most one segment, so it is read.
    with LogReader(log.file.path, topics=topics) as reader:
        return sum(1 for _ in reader)


def choose_boot(
    path: Path, counts: dict[str, int], wanted: str = "", what: str = "pictures"
) -> str:
    """The boot that is meant.

    Args:
        path: The recording, for messages.
        counts: What each boot holds, see `messages_per_boot`; not empty.
        wanted: Beginning of the boot's id; empty when none was named.
        what: What `counts` counts, for messages.

    Raises:
        UsageError: There are several and none was named, or the name fits none or several.
    """
    found = [boot for boot in counts if boot.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f"{boot or 'unnamed'} ({count} {what})" for boot, count in counts.items())
    if not wanted:
        problem = f"{path} holds {len(counts)} boots: {listed}"
    elif found:
        problem = f"--boot {wanted} fits {len(found)} boots of {path}: {listed}"
    else:
        problem = f"--boot {wanted} fits no boot of {path}: {listed}"
    raise UsageError(problem, remedy="Name one with --boot and the beginning of its id")


@dataclass(frozen=True, slots=True)
class TimedBoot:
    """A boot of a recording that holds frame times.

    Attributes:
        boot_id: Which.
        timing: Topics of frame times, all boots.
        others: The recording's other topics.
        timebase: The boot's mapping, newest revisions.
    """

    boot_id: str
    timing: frozenset[str]
    others: frozenset[str]
    timebase: Timebase


def timed_boot(path: Path, wanted: str = "") -> TimedBoot:
    """The boot with frame times that is meant; see `choose_boot`.

    Raises:
        LogError: Not a log, or one without frame times.
        UsageError: See `choose_boot`.
    """
    with LogReader(path) as reader:
        names = frozenset(c.topic for c in reader.channels)
        timing = frozenset(n for n in names if n.startswith("/camera/") and n.endswith("/timing"))
        counts = messages_per_boot(path, timing)
        if not counts:
            raise LogError(
                f"{path} holds no frame timing", remedy="Record a camera, or give another recording"
            )
        boot = choose_boot(path, counts, wanted, "frame times")
        return TimedBoot(boot, timing, names - timing, reader.timebase(boot))
