"""`syncline model sign|add|promote|rollback|channel`: versions and the channels they run on."""

from __future__ import annotations

import getpass
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from syncline.cli.dataset import now_utc_ns, open_store
from syncline.errors import InputError

if TYPE_CHECKING:
    from syncline.cloud.channel_history import ChannelMove
    from syncline.cloud.registry import ModelVersion

Json = Annotated[bool, Parameter(name="--json")]


def sign(bundle: Path, *, key: Path) -> int:
    """Sign a bundle with an Ed25519 key, so that devices take it.

    Args:
        bundle: Folder of the bundle.
        key: Secret key file, from: syncline keys signing NAME.
    """
    from syncline.edge.model.bundle import Bundle
    from syncline.edge.model.signature import sign as sign_bundle
    from syncline.link.signing import load_signing_key

    opened = Bundle.open(bundle, trusted_keys=None)
    sign_bundle(bundle, load_signing_key(key))
    print(f"signed {opened.manifest.name} {opened.manifest.version} ({opened.digest[:16]})")
    return 0


def add(bundle: Path, *, data: Path, json_: Json = False) -> int:
    """Take a bundle into the registry as an immutable version.

    Args:
        bundle: Folder of the bundle.
        data: Data folder of the collector.
        json_: Print one JSON object.
    """
    from syncline.cloud.registry import Registry
    from syncline.edge.model.bundle import Bundle
    from syncline.edge.shipped import resolve_bundle

    folder = resolve_bundle(str(bundle))
    opened = Bundle.open(folder, trusted_keys=None)
    with open_store(data) as (catalog, objects):
        row = Registry(catalog.engine, objects).add(opened, folder, now_utc_ns())
    _warn_unsigned(row)
    if json_:
        print(json.dumps(asdict(row)))
    else:
        print(f"added {row.name} {row.version} ({row.digest[:16]})")
    return 0


def promote(
    name: str,
    version: str,
    *,
    channel: str,
    data: Path,
    reason: str = "",
    actor: str = "",
    expect: int | None = None,
    json_: Json = False,
) -> int:
    """Move a channel to a version, unless somebody moved it since you looked.

    Args:
        name: Model name.
        version: Version to point at.
        channel: For example production.
        data: Data folder of the collector.
        reason: For the history.
        actor: Who; by default the user.
        expect: Revision that you saw; by default the present one.
        json_: Print one JSON object.
    """
    from syncline.cloud.registry import Registry

    with open_store(data) as (catalog, objects):
        registry = Registry(catalog.engine, objects)
        move = registry.promote(
            name,
            version,
            channel,
            actor=actor or getpass.getuser(),
            reason=reason,
            utc_ns=now_utc_ns(),
            expected_revision=expect,
        )
        _warn_unsigned(registry.version(name, version))
    _print(move, as_json=json_)
    return 0


def rollback(name: str, *, channel: str, data: Path, actor: str = "", json_: Json = False) -> int:
    """Move a channel back to the version before.

    Args:
        name: Model name.
        channel: For example production.
        data: Data folder of the collector.
        actor: Who; by default the user.
        json_: Print one JSON object.
    """
    from syncline.cloud.registry import Registry

    with open_store(data) as (catalog, objects):
        move = Registry(catalog.engine, objects).rollback(
            name, channel, actor=actor or getpass.getuser(), utc_ns=now_utc_ns()
        )
    _print(move, as_json=json_)
    return 0


def channel(name: str, *, channel: str = "production", data: Path, json_: Json = False) -> int:
    """Show where a channel stands and how it came there; the history's hash chain is verified.

    Args:
        name: Model name.
        channel: For example production.
        data: Data folder of the collector.
        json_: Print JSON.
    """
    from syncline.cloud.registry import Registry

    with open_store(data) as (catalog, objects):
        registry = Registry(catalog.engine, objects)
        registry.verify_history(name, channel)
        history = registry.history(name, channel)
    if not history:
        raise InputError(
            f"channel {name}/{channel} was never promoted to",
            remedy="Promote a version with: syncline model promote",
        )
    if json_:
        print(json.dumps([asdict(move) for move in history]))
        return 0
    for move in history:
        _print(move, as_json=False)
    return 0


def _warn_unsigned(row: ModelVersion) -> None:
    from syncline.edge.model.signature import SIGNATURE_NAME

    if SIGNATURE_NAME not in row.files:
        print(
            f"warning: {row.name} {row.version} is not signed: "
            "devices refuse it until signed: syncline model sign, then add and promote it again",
            file=sys.stderr,
        )


def _print(move: ChannelMove, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(move)))
        return
    why = f": {move.reason}" if move.reason else ""
    print(f"{move.name}/{move.channel} r{move.revision} -> {move.version} by {move.actor}{why}")
