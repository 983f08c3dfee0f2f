"""Enrolled devices: which public key is whose, and which are revoked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from syncline.cloud.catalog import Catalog
from syncline.cloud.tables import DEVICES
from syncline.cloud.truth import refused
from syncline.errors import ConflictError, InputError
from syncline.link.keys import PublicKey, check_name

SERVER = "server"


@dataclass(frozen=True, slots=True)
class Device:
    """One row: name, public key (Z85), whether it may connect."""

    name: str
    public: str
    revoked: bool


class Devices:
    """The enrolment table.

    Args:
        catalog: Truth store that holds it.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._engine = catalog.engine

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as db:
                yield db
        except sa.exc.SQLAlchemyError as error:
            raise refused(error) from error

    def enrol(self, key: PublicKey) -> None:
        """Let a key in under its name; repeating it changes nothing.

        Raises:
            ConflictError: The name has another key, or the key another name, or it was revoked.
            StorageError: The database refused.
        """
        check_name(key.name)
        with self._writing() as db:
            found = db.execute(
                sa.select(DEVICES).where(
                    sa.or_(DEVICES.c.name == key.name, DEVICES.c.public == key.public)
                )
            ).first()
            if found is None:
                db.execute(DEVICES.insert().values(name=key.name, public=key.public, revoked=False))
            elif (found.name, found.public) != (key.name, key.public):
                raise ConflictError(
                    f"device {key.name!r} or its key is enrolled already as {found.name!r}",
                    remedy="Revoke it, and enrol the new key under a new name",
                )
            elif found.revoked:
                raise ConflictError(
                    f"the key of {key.name!r} was revoked", remedy="Make and enrol a new key"
                )

    def revoke(self, name: str) -> None:
        """Shut a device out, within two seconds also where it is connected.

        Raises:
            InputError: There is no such device.
            StorageError: The database refused.
        """
        with self._writing() as db:
            done = db.execute(DEVICES.update().where(DEVICES.c.name == name).values(revoked=True))
            if done.rowcount == 0:
                raise InputError(
                    f"device {name!r} is not enrolled", remedy="See: syncline keys list"
                )

    def all(self) -> list[Device]:
        """All devices by name.

        Raises:
            StorageError: The database refused.
        """
        query = sa.select(DEVICES).order_by(DEVICES.c.name)
        try:
            with self._engine.execution_options(readonly=True).connect() as db:
                return [Device(**row) for row in db.execute(query).mappings()]
        except sa.exc.SQLAlchemyError as error:
            raise refused(error) from error

    def allowed(self) -> dict[str, str]:
        """Public key to name, of the devices that may connect; asked for every second.

        Raises:
            StorageError: The database refused.
        """
        query = sa.select(DEVICES.c.public, DEVICES.c.name).where(sa.not_(DEVICES.c.revoked))
        try:
            with self._engine.execution_options(readonly=True).connect() as db:
                return {row[0]: row[1] for row in db.execute(query).all()}
        except sa.exc.SQLAlchemyError as error:
            raise refused(error) from error
