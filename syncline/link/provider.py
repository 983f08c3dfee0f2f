"""What a collector serves to devices: resources to fetch and notices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from syncline.link.wire import Notice


@dataclass(frozen=True, slots=True)
class Resource:
    """Size in bytes and SHA-256 (hex) of something that a device may fetch."""

    size: int
    sha256: str


class Provider(Protocol):
    """The collector asks this; a `SynclineError` becomes one line to the device.

    Methods run on the collector's service thread, one at a time.
    """

    def list_resource(self, device: str, name: str) -> Resource:
        """Size and digest of a resource that `device` may have.

        Raises:
            SynclineError: There is none, or it is not for this device.
        """

    def read(self, device: str, name: str, offset: int, length: int) -> bytes:
        """At most `length` bytes of the resource from `offset`.

        Raises:
            SynclineError: There is none, or it is not for this device.
        """

    def revision(self) -> int:
        """A number that changes when what `notices` returns may have changed; asked each second."""

    def notices(self, device: str) -> Sequence[Notice]:
        """All notices in force for `device`."""
