"""`syncline collect`: the ingestion service."""

from __future__ import annotations

import json
import logging
import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from syncline.cloud.collector import Collector, CollectorOptions, Health
from syncline.config import Section, load
from syncline.files import replace_whole
from syncline.link.endpoint import check_endpoint
from syncline.link.keys import KeyPair, load_keypair, new_keypair, save_keypair
from syncline.link.provider import Provider
from syncline.systemd import notify

_LOG = logging.getLogger(__name__)
SERVER = "server"
HEALTH_S = 1.0


class CollectConfig(Section, frozen=True, kw_only=True):
    """Keys of the collector's TOML file.

    Attributes:
        listen: Address, `tcp://ADDRESS:PORT`.
        budget_mb: Megabytes received and not stored; above it devices are held back.
        segment_mb: Size at which a stored file is sealed.
        catalog_url: Database URL; by default SQLite in the data folder.
        objects: Object store URL; by default the folder `objects` in the data folder.
    """

    listen: str = "tcp://127.0.0.1:5555"
    budget_mb: int = 64
    segment_mb: int = 64
    catalog_url: str | None = None
    objects: str | None = None


def collect(
    *,
    data: Annotated[Path, Parameter(name=["--data", "-d"])],
    listen: str | None = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    keys: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Receive from devices, store, acknowledge; ends cleanly on SIGTERM or Ctrl-C.

    Args:
        data: Folder for segments, catalog and objects.
        listen: Address; over the configuration's.
        config: TOML file.
        keys: Folder of server.key and server.pub, made on first use; by default DATA/keys.
        as_json: A health line in JSON every second on standard output.
    """
    settings = load(config, CollectConfig) if config is not None else CollectConfig()
    options = CollectorOptions(
        budget_bytes=settings.budget_mb << 20,
        segment_bytes=settings.segment_mb << 20,
        catalog_url=settings.catalog_url,
        objects=settings.objects,
    )
    address = settings.listen if listen is None else listen
    check_endpoint(address, listen=True)  # before keys are made
    pair = server_keys(keys or data / "keys")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    collector = Collector(data, address, pair, options=options)
    collector.serve(_provider(collector))
    collector.start()
    if not as_json:
        print(f"listening on {collector.endpoint}", flush=True)
        print(f"public key {pair.public}", flush=True)
    notify("READY=1")
    _watch(collector, data, stop, as_json=as_json)
    notify("STOPPING=1")
    collector.close()
    return 0


def server_keys(folder: Path) -> KeyPair:
    """The collector's pair in a folder; made when there is none.

    Raises:
        ConfigError: The file is not a key file.
        AuthenticationError: Others may read the secret.
    """
    path = folder / f"{SERVER}.key"
    if not path.exists():
        save_keypair(new_keypair(SERVER), folder)
    return load_keypair(path)


def _provider(collector: Collector) -> Provider:
    """Models of the registry that lies in the same catalog."""
    from syncline.cloud.model_provider import ModelProvider
    from syncline.cloud.registry import Registry

    engine = collector.catalog.engine.execution_options(readonly=True)  # takes no write lock
    registry = Registry(engine, collector.objects)
    return ModelProvider(registry, collector.objects)


def _watch(collector: Collector, data: Path, stop: threading.Event, *, as_json: bool) -> None:
    """Tell health until stopped: a file, the log when it changes, the service manager."""
    last = "green"
    while not stop.wait(HEALTH_S):
        health = collector.health()
        text = json.dumps(asdict(health))
        _write(data / "health.json", text)
        if as_json:
            print(text, flush=True)
        if health.state != last:
            _LOG.error("health %s: %s", health.state, "; ".join(health.reasons) or "all is well")
        last = health.state
        notify(_status(health))


def _status(health: Health) -> str:
    watchdog = "WATCHDOG=1\n" if health.state == "green" else ""
    return f"{watchdog}STATUS={health.state}, {health.sessions} devices"


def _write(path: Path, text: str) -> None:
    """Replace a small file; a full disk must not end the service."""
    try:
        replace_whole(path, text.encode())
    except OSError as error:
        _LOG.warning("%s not written: %s", path, error.strerror)
