"""Records as the tests of the link put them in, and find them at the collector."""

from __future__ import annotations

from syncline.cloud.catalog import Catalog
from syncline.messages.syncline_pb2 import Detections
from syncline.spool import Spool
from syncline.topics import LinkClass

STREAM = "/camera/a/detections"
PAYLOAD = Detections(camera="a").SerializeToString()


def put(spool: Spool, n: int, start: int = 0) -> None:
    for i in range(start, start + n):
        spool.put(LinkClass.RESULTS, STREAM, i, PAYLOAD)


def stored(catalog: Catalog, device: str = "car", stream: str = STREAM) -> list[int]:
    return [
        r.raw_ns for boot in catalog.boots(device) for r in catalog.records(device, boot, stream)
    ]
