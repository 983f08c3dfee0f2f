"""What devices may fetch of the registry: where a channel stands, and the files it points at.

Resources:

* `model/NAME/CHANNEL`: JSON with version, digest, revision and the sha256 and size of each file.
* `object/SHA256`: a file of a version that some channel points at, or pointed at before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from syncline.cloud.registry import ObjectStore, Registry
from syncline.errors import InputError
from syncline.link.provider import Resource
from syncline.link.wire import Notice

_KNOWN_OBJECTS = 4096


class ModelProvider:
    """Serves channels and bundle files to devices.

    Memory: one piece at a time, and the sizes of the last `_KNOWN_OBJECTS` objects asked for.

    Args:
        registry: Versions and channels.
        objects: Where the files lie.
    """

    def __init__(self, registry: Registry, objects: ObjectStore) -> None:
        self._registry = registry
        self._objects = objects
        self._sizes: dict[str, int | None] = {}  # as of `_sizes_revision`; None: not promoted
        self._sizes_revision = -1
        self._notices: list[Notice] = []
        self._notices_revision = -1

    def list_resource(self, device: str, name: str) -> Resource:
        """Size and digest of a resource; see `syncline.link.provider.Provider`."""
        kind, rest = _split(name)
        if kind == "object":
            return Resource(self._size(rest), rest)
        data = self._channel_document(rest)
        return Resource(len(data), hashlib.sha256(data).hexdigest())

    def read(self, device: str, name: str, offset: int, length: int) -> bytes:
        """A piece of a resource."""
        kind, rest = _split(name)
        if kind == "object":
            self._size(rest)
            return self._objects.get_range(rest, offset, length)
        return self._channel_document(rest)[offset : offset + length]

    def revision(self) -> int:
        """Sum of all channel revisions: any move changes it."""
        return self._registry.total_revision()

    def notices(self, device: str) -> Sequence[Notice]:
        """One notice per channel: where it stands. Read again when one has moved."""
        revision = self.revision()
        if revision != self._notices_revision:
            self._notices = [
                Notice(f"model/{move.name}/{move.channel}", move.revision, move.version)
                for move in self._registry.channels()
            ]
            self._notices_revision = revision
        return self._notices

    def _channel_document(self, rest: str) -> bytes:
        name, _, channel = rest.partition("/")
        move = self._registry.channel(name, channel)
        if move is None:
            raise InputError(
                f"channel {name}/{channel} was never promoted to",
                remedy="Promote a version with: syncline model promote",
            )
        version = self._registry.version(name, move.version)
        body = {
            "name": name,
            "channel": channel,
            "revision": move.revision,
            "version": version.version,
            "digest": version.digest,
            "files": version.files,
        }
        return json.dumps(body, sort_keys=True).encode()

    def _size(self, sha256: str) -> int:
        """Size of an object that devices may have; asked for every piece, hence remembered."""
        revision = self.revision()
        if revision != self._sizes_revision or len(self._sizes) >= _KNOWN_OBJECTS:
            self._sizes.clear()
            self._sizes_revision = revision
        if sha256 not in self._sizes:
            self._sizes[sha256] = self._registry.promoted_size(sha256)
        size = self._sizes[sha256]
        if size is None:
            raise InputError(f"object {sha256[:16]!r} is of no promoted model")
        return size


def _split(name: str) -> tuple[str, str]:
    kind, _, rest = name.partition("/")
    if kind not in ("model", "object"):
        raise InputError(f"there is no resource {name!r}", remedy="Ask for model/ or object/")
    return kind, rest
