"""What of a configuration shows before it runs: files, keys, bundles, readout, endpoint.

Devices are not looked for: a camera may be plugged in later. `syncline doctor` looks for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from syncline.edge.config import CameraSection, EdgeConfig
from syncline.edge.model.bundle import Bundle
from syncline.edge.model_service import trusted_keys
from syncline.edge.shipped import resolve_bundle
from syncline.errors import ConfigError, SynclineError
from syncline.link import check_endpoint, load_keypair, load_public

LONGEST_US = 1e6
"""No camera whose own rate is not known here reads longer than a second."""


def check_possible(config: EdgeConfig, where: Path) -> None:
    """Refuse what cannot run.

    Args:
        config: As it was read.
        where: Its file, for the message.

    Raises:
        ConfigError: A readout is longer than the camera's period, the endpoint is none, or a file
            is absent or not what it should be; the message holds the key.
    """
    check_readouts(config, where)
    for key, path in _files(config):
        if not Path(path).exists():
            raise ConfigError(f"{where}: {key}: {path} does not exist", remedy="Correct the path")
    _check_data(Path(config.device.data), where)
    for key, name in (("bundle", config.model.bundle), ("shadow", config.model.shadow)):
        if name:
            with _Key(where, f"$.model.{key}"):
                floor = config.model.security_floor
                Bundle.open(resolve_bundle(name), trusted_keys=None, min_security_version=floor)
    with _Key(where, "$.model.trusted_keys"):
        trusted_keys(config.model)
    if config.link.endpoint:
        with _Key(where, "$.link.endpoint"):
            check_endpoint(config.link.endpoint)
        with _Key(where, "$.link.server_key"):
            load_public(Path(config.link.server_key))
        with _Key(where, "$.link.key"):
            load_keypair(Path(config.link.key))


def check_readouts(config: EdgeConfig, where: Path) -> None:
    """Refuse a readout that is longer than the frame's period.

    Raises:
        ConfigError: The message holds the key.
    """
    for at, camera in enumerate(config.camera):
        most_us, why = _longest_us(camera)
        if camera.readout_us > most_us:
            raise ConfigError(
                f"{where}: $.camera[{at}].readout_us = {camera.readout_us:g}, longer than {why}",
                remedy="Give microseconds from the first to one past the last line, or correct fps",
            )


def _longest_us(camera: CameraSection) -> tuple[float, str]:
    if camera.kind in ("synthetic", "v4l2"):
        return 1e6 / camera.fps, f"the period of {1e6 / camera.fps:g} at fps = {camera.fps:g}"
    return LONGEST_US, "any period"


def _files(config: EdgeConfig) -> Iterator[tuple[str, str]]:
    for at, camera in enumerate(config.camera):
        if camera.kind in ("video", "images"):
            yield f"$.camera[{at}].path", camera.path
    for at, bus in enumerate(config.can):
        if bus.database:
            yield f"$.can[{at}].database", bus.database
    for name, path in config.model.plugins.items():
        yield f"$.model.plugins.{name}", path


def _check_data(data: Path, where: Path) -> None:
    """The folder can be made, or is ours to write."""
    folder = data.resolve()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{where}: $.device.data: {data} cannot be written",
            remedy=f"Choose another folder, or let this user write {folder}",
        )


class _Key:
    """Puts the key before what its value turned out to be."""

    def __init__(self, where: Path, key: str) -> None:
        self._at = f"{where}: {key}"

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise what failed as an error of the configuration."""
        if isinstance(error, SynclineError):
            raise ConfigError(f"{self._at}: {error.message}", remedy=error.remedy) from error
        if isinstance(error, OSError):
            raise ConfigError(f"{self._at}: {error.strerror}", remedy="Correct the path") from error
