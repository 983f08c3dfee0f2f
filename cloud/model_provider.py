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

_CACHE_BYTES = 64 << 20


class ModelProvider:
    """Serves channels and bundle files to devices.

    Memory: one object at a time, up to 64 MiB, kept while a device reads it in pieces.

    Args:
        registry: Versions and channels.
        objects: Where the files lie.
    """

    def __init__(self, registry: Registry, objects: ObjectStore) -> None:
        self._registry = registry
        self._objects = objects
        self._cached: tuple[str, bytes] = ("", b"")

    def list_resource(self, device: str, name: str) -> Resource:
        """Size and digest of a resource; see `syncline.link.provider.Provider`."""
        data = self._bytes(name)
        return Resource(len(data), hashlib.sha256(data).hexdigest())

    def read(self, device: str, name: str, offset: int, length: int) -> bytes:
        """A piece of a resource."""
        return self._bytes(name)[offset : offset + length]

    def revision(self) -> int:
        """Sum of all channel revisions: any move changes it."""
        return self._registry.total_revision()

    def notices(self, device: str) -> Sequence[Notice]:
        """One notice per channel: where it stands."""
        return [
            Notice(f"model/{move.name}/{move.channel}", move.revision, move.version)
            for move in self._registry.channels()
        ]

    def _bytes(self, name: str) -> bytes:
        kind, _, rest = name.partition("/")
        if kind == "model":
            return self._channel_document(rest)
        if kind == "object":
            return self._object(rest)
        raise InputError(f"there is no resource {name!r}", remedy="Ask for model/ or object/")

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

    def _object(self, sha256: str) -> bytes:
        if self._cached[0] == sha256:
            return self._cached[1]
        if not self._registry.was_promoted(sha256):
            raise InputError(f"object {sha256[:16]!r} is of no promoted model")
        data = self._objects.get(sha256)
        if len(data) <= _CACHE_BYTES:
            self._cached = (sha256, data)
        return data
