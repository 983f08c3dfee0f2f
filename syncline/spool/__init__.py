"""Disk queue of the device: segment log, group commit, quota by class. See docs/wire.md."""

from syncline.spool.commit import Committer
from syncline.spool.disk import Disk, OsDisk
from syncline.spool.lane import Position, SpoolRecord
from syncline.spool.queue import START, Spool
from syncline.spool.stats import ClassStats, SpoolStats

__all__ = [
    "START",
    "ClassStats",
    "Committer",
    "Disk",
    "OsDisk",
    "Position",
    "Spool",
    "SpoolRecord",
    "SpoolStats",
]
