"""Which model bundles were refused, remembered over restarts in one small file."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from syncline.files import replace_durably

_log = logging.getLogger(__name__)

MAX_REFUSALS = 64
MAX_REASON = 500


class Refusal(msgspec.Struct, frozen=True):
    """Why a bundle is not tried again.

    Attributes:
        digest: Digest of its manifest, or of all that was offered with it.
        reason: For people.
        policy: What it was judged by; empty when it proved bad in service, which no policy mends.
        lasting: Whether a restart keeps it; a damaged download is none of the bundle's fault.
    """

    digest: str
    reason: str
    policy: str = ""
    lasting: bool = True


class Refusals:
    """Refused bundles by digest; at most `MAX_REFUSALS`, the oldest goes first.

    Args:
        path: Where they are kept; a damaged file counts as empty.
        policy: Fingerprint of keys and floor in force; what was judged by another is forgotten.
    """

    def __init__(self, path: Path, policy: str) -> None:
        self._path = path
        self._policy = policy
        self._by_digest = {row.digest: row for row in self._load()}
        self._owed = False

    def _load(self) -> list[Refusal]:
        try:
            rows = msgspec.json.decode(self._path.read_bytes(), type=list[Refusal])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("%s is not used: %s", self._path, error)
            return []
        return [row for row in rows[-MAX_REFUSALS:] if row.policy in ("", self._policy)]

    def __contains__(self, digest: str) -> bool:
        return digest in self._by_digest

    def add(
        self, digest: str, reason: str, *, lasting: bool = True, in_service: bool = False
    ) -> None:
        """Refuse a bundle from now on; `save` makes that last."""
        policy = "" if in_service else self._policy
        self._by_digest.pop(digest, None)
        self._by_digest[digest] = Refusal(digest, reason[:MAX_REASON], policy, lasting)
        while len(self._by_digest) > MAX_REFUSALS:
            del self._by_digest[next(iter(self._by_digest))]
        self._owed = True

    def keep_only(self, *digests: str) -> None:
        """The channel points at these now: what it points at later gets a new chance."""
        if self._by_digest.keys() - set(digests):
            self._by_digest = {d: row for d, row in self._by_digest.items() if d in digests}
            self._owed = True

    def save(self) -> None:
        """Write what changed.

        Raises:
            OSError: The disk refuses; call again later.
        """
        if not self._owed:
            return
        rows = [row for row in self._by_digest.values() if row.lasting]
        replace_durably(self._path, msgspec.json.encode(rows))
        self._owed = False
