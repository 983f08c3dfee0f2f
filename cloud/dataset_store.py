"""Where dataset versions are kept: manifests as objects, names and ids in the truth store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import sqlalchemy as sa

from syncline.cloud.dataset import DatasetVersion, FrameRef, from_manifest, to_manifest
from syncline.cloud.objects import Objects
from syncline.cloud.truth import make_tables
from syncline.errors import ConflictError, InputError, IntegrityError

_META = sa.MetaData()
_VERSIONS = sa.Table(
    "dataset_version",
    _META,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("id", sa.String(64), nullable=False),
    sa.Column("manifest_sha256", sa.String(64), nullable=False),
    sa.Column("frames", sa.Integer, nullable=False),
    sa.Column("created_utc_ns", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One published version."""

    name: str
    id: str
    frames: int
    created_utc_ns: int


class DatasetStore:
    """Published dataset versions; a name is given once.

    Args:
        engine: Truth store.
        objects: Where manifests and pictures lie.
    """

    def __init__(self, engine: sa.Engine, objects: Objects) -> None:
        self._engine = engine
        self._objects = objects
        make_tables(engine, _META)

    def publish(self, version: DatasetVersion, utc_ns: int) -> DatasetRow:
        """Keep a version: its manifest first, the row that names it last.

        Raises:
            ConflictError: The name is taken by another version.
            StorageError: The store refused.
        """
        sha256 = self._objects.put(to_manifest(version))
        row = DatasetRow(version.name, version.id, len(version.items), utc_ns)
        try:
            with self._engine.begin() as db:
                db.execute(
                    _VERSIONS.insert().values(
                        name=row.name,
                        id=row.id,
                        manifest_sha256=sha256,
                        frames=row.frames,
                        created_utc_ns=utc_ns,
                    )
                )
        except sa.exc.IntegrityError:
            known = next(r for r in self.list() if r.name == version.name)
            if known.id == version.id:
                return known
            raise ConflictError(
                f"dataset {version.name!r} is {known.id[:12]}, not {version.id[:12]}",
                remedy="Versions never change; give the new one its own name",
            ) from None
        return row

    def list(self) -> list[DatasetRow]:
        """All versions, oldest first."""
        query = sa.select(
            _VERSIONS.c.name, _VERSIONS.c.id, _VERSIONS.c.frames, _VERSIONS.c.created_utc_ns
        ).order_by(_VERSIONS.c.created_utc_ns, _VERSIONS.c.name)
        with self._engine.connect() as db:
            return [DatasetRow(*row) for row in db.execute(query)]

    def load(self, name: str) -> DatasetVersion:
        """A version by name, its manifest verified.

        Raises:
            InputError: There is none of that name.
            IntegrityError: The manifest does not hash to its id.
        """
        query = sa.select(_VERSIONS.c.id, _VERSIONS.c.manifest_sha256).where(
            _VERSIONS.c.name == name
        )
        with self._engine.connect() as db:
            row = db.execute(query).one_or_none()
        if row is None:
            known = ", ".join(r.name for r in self.list()) or "none"
            raise InputError(
                f"there is no dataset {name!r} (known: {known})",
                remedy="Make it with: syncline dataset create",
            )
        return from_manifest(name, row.id, self._objects.get(row.manifest_sha256))

    def read_frame(self, ref: FrameRef) -> bytes:
        """The encoded picture of a frame, verified.

        Raises:
            IntegrityError: The bytes do not have the recorded digest.
        """
        data = self._objects.get_range(ref.object_sha256, ref.offset, ref.length)
        found = hashlib.sha256(data).hexdigest()
        if found != ref.content_sha256:
            raise IntegrityError(
                f"picture at {ref.offset} of object {ref.object_sha256[:12]} is damaged",
                remedy="Restore that object from a backup",
            )
        return data
