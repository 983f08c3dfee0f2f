"""What of a configuration shows before it runs: files, keys, models, readout, endpoint.

Devices are not looked for: a camera may be plugged in later. `syncline doctor` looks for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from syncline.edge.config import CameraSection, EdgeConfig
from syncline.edge.engine import Engine
from syncline.edge.model.bundle import Bundle
from syncline.edge.model_config import ModelSection
from syncline.edge.model_slots import backend_options, configured_bundle, trusted_keys
from syncline.edge.plugins import register_plugin
from syncline.edge.prometheus import host_and_port
from syncline.edge.shadow import check_comparable
from syncline.errors import ConfigError, SynclineError
from syncline.link import check_endpoint, load_keypair, load_public

LONGEST_US = 1e6
"""No camera whose own rate is not known here reads longer than a second."""


def check_possible(config: EdgeConfig, where: Path, *, load: bool = True) -> None:
    """Refuse what cannot run.

    Args:
        config: As it was read.
        where: Its file, for the message.
        load: Load each model and prove it on its golden frame; not where the configuration is
            checked on another machine than the one that it is for.

    Raises:
        ConfigError: A readout is longer than the camera's period, the endpoint is none, or a file
            is absent or not what it should be; the message holds the key.
    """
    check_values(config, where)
    for key, path in _files(config):
        if not Path(path).exists():
            raise ConfigError(f"{where}: {key}: {path} does not exist", remedy="Correct the path")
    _check_data(Path(config.device.data), where)
    for at, section in enumerate(config.models):
        _check_model(section, where, config.model_key(at), load=load)
    if config.link.endpoint:
        with _Key(where, "$.link.endpoint"):
            check_endpoint(config.link.endpoint)
        with _Key(where, "$.link.server_key"):
            load_public(Path(config.link.server_key))
        with _Key(where, "$.link.key"):
            load_keypair(Path(config.link.key))


def _check_model(section: ModelSection, where: Path, key: str, *, load: bool) -> None:
    with _Key(where, f"{key}.trusted_keys"):
        trusted_keys(section)
    if load:
        for name, library in section.plugins.items():
            with _Key(where, f"{key}.plugins.{name}"):
                register_plugin(name, Path(library))
    with _Key(where, f"{key}.bundle"):
        bundle = _usable(section, section.bundle, load=load)
    if section.shadow:
        with _Key(where, f"{key}.shadow"):
            shadow = _usable(section, section.shadow, load=load)
            check_comparable(bundle.manifest, shadow.manifest)


def _usable(section: ModelSection, name: str, *, load: bool) -> Bundle:
    bundle = configured_bundle(section, name)
    if load:
        Engine.load(bundle, backend_options(section, cache=None))
    return bundle


def check_values(config: EdgeConfig, where: Path) -> None:
    """Refuse values that contradict each other or cannot be, before any model is loaded.

    Raises:
        ConfigError: The message holds the key.
    """
    check_readouts(config, where)
    if config.health.prometheus:
        with _Key(where, "$.health.prometheus"):
            host_and_port(config.health.prometheus)


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
    for at, model in enumerate(config.models):
        for name, path in model.plugins.items():
            yield f"{config.model_key(at)}.plugins.{name}", path


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
            remedy = error.remedy or "Correct what it names, or name another"
            raise ConfigError(f"{self._at}: {error.message}", remedy=remedy) from error
        if isinstance(error, OSError):
            raise ConfigError(f"{self._at}: {error.strerror}", remedy="Correct the path") from error
