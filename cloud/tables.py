"""Tables of the catalog: what the collector knows, as SQLAlchemy Core."""

from __future__ import annotations

import sqlalchemy as sa

SCHEMA_VERSION = 1
META = sa.MetaData()

SETTINGS = sa.Table(
    "catalog_settings",
    META,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

DEVICES = sa.Table(
    "devices",
    META,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("public", sa.String(40), nullable=False, unique=True),
    sa.Column("revoked", sa.Boolean, nullable=False),
)

STREAMS = sa.Table(
    "streams",
    META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("device", sa.String(64), nullable=False),
    sa.Column("boot", sa.String(64), nullable=False),
    sa.Column("stream", sa.String(255), nullable=False),
    sa.Column("link_class", sa.Integer, nullable=False),
    sa.Column("tail_seq", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("device", "boot", "stream"),
)

STORED = sa.Table(
    "stored_files",
    META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(128), nullable=False, unique=True),
    sa.Column("sha256", sa.String(64)),
)

# Ranges never overlap within a stream: this table is both the index and the memory of duplicates.
EXTENTS = sa.Table(
    "extents",
    META,
    sa.Column("stream_id", sa.Integer, sa.ForeignKey("streams.id"), primary_key=True),
    sa.Column("first_seq", sa.BigInteger, primary_key=True),
    sa.Column("last_seq", sa.BigInteger, nullable=False),
    sa.Column("stored_id", sa.Integer, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("length", sa.Integer, nullable=False),
    sa.Column("frame_seq", sa.BigInteger, nullable=False),
    sa.Column("frame_n", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)

QUARANTINE = sa.Table(
    "quarantine",
    META,
    sa.Column("stream_id", sa.Integer, sa.ForeignKey("streams.id"), primary_key=True),
    sa.Column("first_seq", sa.BigInteger, primary_key=True),
    sa.Column("last_seq", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.String(255), nullable=False),
)

UPLOADS = sa.Table(
    "uploads",
    META,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("device", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("meta", sa.JSON, nullable=False),
)
