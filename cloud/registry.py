"""Model versions and the channels that point at them.

A version is immutable: its files lie in the object store under their sha256, its manifest's sha256
is its digest. A channel is one row moved by compare-and-swap; every move leaves a history row whose
hash covers the row before it, so an edited past shows (`verify_history`).
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from syncline.cloud.channel_history import ROLLBACK, ChannelMove, promoted, row_hash
from syncline.cloud.truth import make_tables
from syncline.edge.model.bundle import Bundle
from syncline.edge.model.manifest import parse_manifest
from syncline.edge.model.signature import SIGNATURE_NAME
from syncline.errors import ConflictError, InputError, UsageError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_META = sa.MetaData()
_VERSIONS = sa.Table(
    "model_version",
    _META,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("files", sa.Text, nullable=False),
    sa.Column("added_utc_ns", sa.BigInteger, nullable=False),
)
_CHANNELS = sa.Table(
    "model_channel",
    _META,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("head_hash", sa.Text, nullable=False),  # row_hash of the newest row of its history
)
_HISTORY = sa.Table(
    "model_channel_history",
    _META,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("utc_ns", sa.BigInteger, nullable=False),
    sa.Column("row_hash", sa.Text, nullable=False),
)


class ObjectStore(Protocol):
    """What the registry needs of `syncline.cloud.objects`."""

    def put(self, data: bytes) -> str:
        """Store bytes under their sha256, which is returned; repeating it is free."""

    def get(self, sha256: str) -> bytes:
        """The bytes of an object."""

    def get_range(self, sha256: str, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; not checked against the digest."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """An immutable model version: digest of its manifest and sha256 and size of each file."""

    name: str
    version: str
    digest: str
    files: dict[str, tuple[str, int]]


class Registry:
    """Versions and channels in one SQL database.

    Args:
        engine: SQLAlchemy engine of the truth store; the tables are made when absent.
        objects: Where bundle files lie.
    """

    def __init__(self, engine: sa.Engine, objects: ObjectStore) -> None:
        self._engine = engine
        self._objects = objects
        make_tables(engine, _META)

    def add(self, bundle: Bundle, folder: Path, utc_ns: int) -> ModelVersion:
        """Take a verified bundle as a version; adding the same one again changes nothing.

        A signature lies beside what the digest covers: it may be added to a version later.

        Raises:
            ConflictError: The version exists with another digest; versions are never replaced.
        """
        manifest = bundle.manifest
        files = {}
        for path in sorted(p for p in folder.iterdir() if p.is_file()):
            data = path.read_bytes()
            files[path.name] = (self._objects.put(data), len(data))
        row = ModelVersion(manifest.name, manifest.version, bundle.digest, files)
        if self._find(row.name, row.version) is None and self._insert(row, utc_ns):
            return row
        known = self.version(row.name, row.version)
        if known.digest != row.digest:
            raise ConflictError(
                f"{row.name} {row.version} exists with digest {known.digest[:12]}, "
                f"not {row.digest[:12]}",
                remedy="Give the new build its own version in manifest.toml",
            )
        if SIGNATURE_NAME in known.files or SIGNATURE_NAME not in row.files:
            return known
        return self._add_signature(known, row.files[SIGNATURE_NAME])

    def _add_signature(self, known: ModelVersion, signature: tuple[str, int]) -> ModelVersion:
        files = {**known.files, SIGNATURE_NAME: signature}
        with self._engine.begin() as db:
            db.execute(
                _VERSIONS.update()
                .where(_VERSIONS.c.name == known.name, _VERSIONS.c.version == known.version)
                .values(files=json.dumps(files, sort_keys=True))
            )
        return replace(known, files=files)

    def _insert(self, row: ModelVersion, utc_ns: int) -> bool:
        """False when somebody else added this version first."""
        values = {
            "name": row.name,
            "version": row.version,
            "digest": row.digest,
            "files": json.dumps(row.files, sort_keys=True),
            "added_utc_ns": utc_ns,
        }
        try:
            with self._engine.begin() as db:
                db.execute(_VERSIONS.insert().values(**values))
        except sa.exc.IntegrityError:
            return False
        return True

    def version(self, name: str, version: str) -> ModelVersion:
        """A version that must exist.

        Raises:
            InputError: There is none; the message lists those there are.
        """
        row = self._find(name, version)
        if row is None:
            known = ", ".join(v.version for v in self.versions(name)) or "none"
            raise InputError(
                f"model {name} has no version {version} (known: {known})",
                remedy="Add it with: syncline model add BUNDLE",
            )
        return row

    def _find(self, name: str, version: str) -> ModelVersion | None:
        query = sa.select(_VERSIONS).where(_VERSIONS.c.name == name, _VERSIONS.c.version == version)
        with self._engine.connect() as db:
            row = db.execute(query).one_or_none()
        return None if row is None else _as_version(row)

    def versions(self, name: str | None = None) -> list[ModelVersion]:
        """All versions, of one model or of all, in order of their addition."""
        query = sa.select(_VERSIONS).order_by(_VERSIONS.c.added_utc_ns, _VERSIONS.c.version)
        if name is not None:
            query = query.where(_VERSIONS.c.name == name)
        with self._engine.connect() as db:
            return [_as_version(row) for row in db.execute(query)]

    def labels_by_digest(self) -> dict[str, tuple[str, ...]]:
        """Class names of every version, by its digest."""
        found = {}
        for version in self.versions():
            data = self._objects.get(version.files["manifest.toml"][0])
            found[version.digest] = parse_manifest(data).labels
        return found

    def channel(self, name: str, channel: str) -> ChannelMove | None:
        """Where a channel stands, or None when it was never moved."""
        history = self.history(name, channel)
        return history[-1] if history else None

    def history(self, name: str, channel: str) -> list[ChannelMove]:
        """Every move of a channel, oldest first."""
        with self._engine.connect() as db:
            return [ChannelMove(**row._mapping) for row in db.execute(_moves(name, channel))]

    def channels(self) -> list[ChannelMove]:
        """Where every channel stands."""
        newest = (
            sa.select(_HISTORY)
            .join(
                _CHANNELS,
                sa.and_(
                    _CHANNELS.c.name == _HISTORY.c.name,
                    _CHANNELS.c.channel == _HISTORY.c.channel,
                    _CHANNELS.c.revision == _HISTORY.c.revision,
                ),
            )
            .order_by(_HISTORY.c.name, _HISTORY.c.channel)
        )
        with self._engine.connect() as db:
            return [ChannelMove(**row._mapping) for row in db.execute(newest)]

    def total_revision(self) -> int:
        """Sum of the revisions of all channels: any move changes it."""
        with self._engine.connect() as db:
            return int(db.scalar(sa.select(sa.func.sum(_CHANNELS.c.revision))) or 0)

    def promoted_size(self, sha256: str) -> int | None:
        """Size of an object of a version that a channel points or pointed at; None: of no such."""
        if not _SHA256.fullmatch(sha256):
            return None
        query = (
            sa.select(_VERSIONS.c.files)
            .join(
                _HISTORY,
                sa.and_(
                    _HISTORY.c.name == _VERSIONS.c.name, _HISTORY.c.version == _VERSIONS.c.version
                ),
            )
            .where(_VERSIONS.c.files.contains(sha256))
            .limit(1)
        )
        with self._engine.connect() as db:
            files = db.scalar(query)
        sizes = {} if files is None else dict(json.loads(files).values())
        return sizes.get(sha256)

    def promote(
        self,
        name: str,
        version: str,
        channel: str,
        *,
        actor: str,
        reason: str,
        utc_ns: int,
        expected_revision: int | None = None,
    ) -> ChannelMove:
        """Move a channel to a version, only if nobody moved it since it was looked at.

        Args:
            name: Model name.
            version: Version to point at; must exist.
            channel: Channel name, for example `production`.
            actor: Who moves it.
            reason: Why, for the history.
            utc_ns: When, for the history.
            expected_revision: Revision that the caller saw (0: never moved); None: the present one.

        Raises:
            ConflictError: The channel stands at another revision.
            InputError: The version does not exist, or the newest history rows are gone.
        """
        self.version(name, version)
        before = self.channel(name, channel)
        seen = before.revision if before else 0
        expected = seen if expected_revision is None else expected_revision
        previous_hash = before.row_hash if before else ""
        move = ChannelMove(name, channel, expected + 1, version, actor, reason, utc_ns, "")
        values = {**asdict(move), "row_hash": row_hash(move, previous_hash)}
        if expected != seen or not self._swap(values, expected):
            now = self.channel(name, channel)
            if expected == seen == (now.revision if now else 0):
                raise _altered(name, channel, expected + 1)  # the channel is ahead of its history
            raise ConflictError(
                f"channel {name}/{channel} is at revision {now.revision if now else 0}, "
                f"not {expected}",
                remedy="Look at it again with: syncline model channel, then repeat",
            )
        return ChannelMove(**values)

    def _swap(self, values: dict[str, object], expected: int) -> bool:
        key = {"name": values["name"], "channel": values["channel"]}
        row = {
            **key,
            "revision": expected + 1,
            "version": values["version"],
            "head_hash": values["row_hash"],
        }
        try:
            with self._engine.begin() as db:
                if expected == 0:
                    db.execute(_CHANNELS.insert().values(**row))
                else:
                    moved = db.execute(
                        _CHANNELS.update()
                        .where(
                            _CHANNELS.c.name == key["name"],
                            _CHANNELS.c.channel == key["channel"],
                            _CHANNELS.c.revision == expected,
                        )
                        .values(**row)
                    )
                    if moved.rowcount != 1:
                        return False
                db.execute(_HISTORY.insert().values(**values))
        except sa.exc.IntegrityError:
            return False
        return True

    def rollback(self, name: str, channel: str, *, actor: str, utc_ns: int) -> ChannelMove:
        """Move a channel back to the version it pointed at before the present one.

        One more goes back one further: never to a version that was rolled back from, unless it was
        promoted again since.

        Raises:
            UsageError: There is no earlier version.
        """
        history = self.history(name, channel)
        path = promoted(history)
        if len(path) < 2:
            raise UsageError(
                f"channel {name}/{channel} has no earlier version to go back to",
                remedy="Promote a version with: syncline model promote",
            )
        return self.promote(
            name,
            path[-2],
            channel,
            actor=actor,
            reason=f"{ROLLBACK}{path[-1]}",
            utc_ns=utc_ns,
            expected_revision=history[-1].revision,
        )

    def verify_history(self, name: str, channel: str) -> None:
        """Recompute the hash chain of a channel, and compare its end with where the channel stands.

        Raises:
            InputError: A row was edited, removed or inserted; the message names its revision.
        """
        with self._engine.connect() as db:
            at_head = sa.select(_CHANNELS).where(
                _CHANNELS.c.name == name, _CHANNELS.c.channel == channel
            )
            head = db.execute(at_head).one_or_none()
            previous, at, version = "", 0, ""
            for row in db.execute(_moves(name, channel)):
                move = ChannelMove(**row._mapping)
                at += 1
                if move.revision != at or move.row_hash != row_hash(move, previous):
                    raise _altered(name, channel, at)
                previous, version = move.row_hash, move.version
        if head is None:
            if at:
                raise _altered(name, channel, at)
            return
        if (head.revision, head.version, head.head_hash) != (at, version, previous):
            raise _altered(name, channel, min(at + 1, max(head.revision, 1)))


def _moves(name: str, channel: str) -> sa.Select[tuple[Any, ...]]:
    return (
        sa.select(_HISTORY)
        .where(_HISTORY.c.name == name, _HISTORY.c.channel == channel)
        .order_by(_HISTORY.c.revision)
    )


def _altered(name: str, channel: str, revision: int) -> InputError:
    return InputError(
        f"history of {name}/{channel} was altered at revision {revision}",
        remedy="Restore the database from a backup",
    )


def _as_version(row: sa.Row[tuple[object, ...]]) -> ModelVersion:
    files = {name: (sha, size) for name, (sha, size) in json.loads(row.files).items()}
    return ModelVersion(row.name, row.version, row.digest, files)
