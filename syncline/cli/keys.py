"""`syncline keys`: make, enrol, revoke and list keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from syncline.errors import UsageError
from syncline.link.keys import holds_secret, load_public, new_keypair, save_keypair
from syncline.link.signing import new_signing_key

Out = Annotated[Path, Parameter(name=["--out", "-o"])]
Data = Annotated[Path, Parameter(name=["--data", "-d"])]


def new(name: str, *, out: Out = Path("keys")) -> int:
    """Make a CURVE key pair for a device or collector: NAME.key (secret, 0600) and NAME.pub.

    Args:
        name: 1 to 64 of a-z 0-9 . _ -
        out: Folder to write to.
    """
    secret, public = save_keypair(new_keypair(name), out)
    print(f"secret key (keep it on this machine): {secret}")
    print(f"public key (enrol it): {public}")
    return 0


def signing(name: str, *, out: Out = Path("keys")) -> int:
    """Make an Ed25519 pair that signs models: NAME.sign.key (secret, 0600) and NAME.sign.pub.

    Args:
        name: 1 to 64 of a-z 0-9 . _ -
        out: Folder to write to.
    """
    secret, public = new_signing_key(name, out)
    print(f"secret key (keep it offline): {secret}")
    print(f"public key (goes on the devices): {public}")
    return 0


def enrol(file: Path, *, data: Data) -> int:
    """Let a device in: a running collector takes it within two seconds.

    Args:
        file: The device's NAME.pub.
        data: Data folder of the collector.
    """
    from syncline.cloud.catalog import Catalog
    from syncline.cloud.devices import Devices

    key = load_public(file)
    if holds_secret(file):
        raise UsageError(
            f"{file} holds the secret key, which must never leave the device",
            remedy=f"Give the public half: {file.with_suffix('.pub')}",
        )
    with Catalog.open(data) as catalog:
        Devices(catalog).enrol(key)
    print(f"enrolled {key.name}")
    return 0


def revoke(name: str, *, data: Data) -> int:
    """Shut a device out, also where it is connected, within two seconds.

    Args:
        name: Name it was enrolled under.
        data: Data folder of the collector.
    """
    from syncline.cloud.catalog import Catalog
    from syncline.cloud.devices import Devices

    with Catalog.open(data) as catalog:
        Devices(catalog).revoke(name)
    print(f"revoked {name}")
    return 0


def list_keys(*, data: Data, as_json: Annotated[bool, Parameter(name="--json")] = False) -> int:
    """Show the enrolled devices.

    Args:
        data: Data folder of the collector.
        as_json: One JSON array instead of lines.
    """
    from syncline.cloud.catalog import Catalog
    from syncline.cloud.devices import Devices

    with Catalog.open(data) as catalog:
        devices = Devices(catalog).all()
    if as_json:
        rows = [{"name": d.name, "public": d.public, "revoked": d.revoked} for d in devices]
        print(json.dumps(rows))
        return 0
    for device in devices:
        print(f"{device.name:24} {'revoked' if device.revoked else 'enrolled':9} {device.public}")
    return 0
