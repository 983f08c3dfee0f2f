"""Keys in files and enrolment: private, named, one per device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syncline.cloud.catalog import Catalog
from syncline.cloud.devices import Devices
from syncline.errors import AuthenticationError, ConfigError, ConflictError, InputError
from syncline.link import PublicKey, load_keypair, new_keypair
from syncline.link.keys import save_keypair
from syncline.link.signing import load_signing_key, load_verify_key, new_signing_key


def test_keys_are_private_and_never_overwritten(tmp_path: Path) -> None:
    keys = new_keypair("car")
    secret, public = save_keypair(keys, tmp_path)
    assert secret.stat().st_mode & 0o777 == 0o600
    assert load_keypair(secret) == keys
    assert keys.secret not in repr(keys)
    with pytest.raises(ConflictError, match="exists"):
        save_keypair(new_keypair("car"), tmp_path)
    with pytest.raises(ConfigError, match="no secret"):
        load_keypair(public)
    os.chmod(secret, 0o644)  # noqa: PTH101
    with pytest.raises(AuthenticationError, match="chmod 600"):
        load_keypair(secret)


@pytest.mark.parametrize("name", ["", "A", "a/b", "a b", "-a", "x" * 65, "ü"])
def test_names_that_no_file_or_log_should_hold_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="not a device name"):
        new_keypair(name)


@pytest.mark.parametrize("text", ["", "name = 3", "name = 'a'\npublic = 'short'", "\xff", "x=1"])
def test_files_that_hold_no_key_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.key"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError) as caught:
        load_keypair(path)
    assert "\n" not in str(caught.value).strip()


def test_signing_keys(tmp_path: Path) -> None:
    secret, public = new_signing_key("models", tmp_path)
    assert secret.stat().st_mode & 0o777 == 0o600
    signature = load_signing_key(secret).sign(b"bundle")
    load_verify_key(public).verify(signature, b"bundle")
    with pytest.raises(ConfigError):
        load_verify_key(tmp_path / "none")


def test_enrolment_is_one_key_per_name(tmp_path: Path) -> None:
    one, two = new_keypair("a"), new_keypair("a")
    with Catalog.open(tmp_path) as catalog:
        devices = Devices(catalog)
        devices.enrol(PublicKey("a", one.public))
        devices.enrol(PublicKey("a", one.public))
        with pytest.raises(ConflictError):
            devices.enrol(PublicKey("a", two.public))
        with pytest.raises(ConflictError):
            devices.enrol(PublicKey("b", one.public))
        devices.revoke("a")
        with pytest.raises(ConflictError, match="revoked"):
            devices.enrol(PublicKey("a", one.public))
        with pytest.raises(InputError, match="not enrolled"):
            devices.revoke("nobody")
        assert devices.allowed() == {}
