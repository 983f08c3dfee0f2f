"""A collector with enrolled devices, in this process, for tests with real sockets."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from syncline.cloud.catalog import Catalog
from syncline.cloud.collector import Collector, CollectorOptions
from syncline.cloud.devices import Devices
from syncline.link import KeyPair, Provider, PublicKey, Uplink, UplinkOptions, new_keypair
from syncline.spool import Spool


class Rig:
    """A collector and any number of devices under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = new_keypair("server")
        self.keys: dict[str, KeyPair] = {}
        self.uplinks: list[Uplink] = []
        self.spools: list[Spool] = []
        self.collector: Collector | None = None
        self.listen = "tcp://127.0.0.1:0"

    def start(
        self, provider: Provider | None = None, options: CollectorOptions | None = None
    ) -> Collector:
        with Catalog.open(self.folder / "data") as catalog:  # so that no test waits for the refresh
            for name in ("car", "lorry"):
                keys = self.keys.setdefault(name, new_keypair(name))
                Devices(catalog).enrol(PublicKey(name, keys.public))
        collector = Collector(
            self.folder / "data", self.listen, self.server, provider=provider, options=options
        )
        collector.start()
        self.listen = collector.endpoint
        self.collector = collector
        return collector

    def enrol(self, name: str) -> KeyPair:
        """Keys of a device that the collector lets in."""
        assert self.collector is not None
        keys = self.keys.setdefault(name, new_keypair(name))
        Devices(self.collector.catalog).enrol(PublicKey(name, keys.public))
        wait(lambda: self.collector is not None and name in self.collector.auth.names, 3)
        return keys

    def device(
        self,
        name: str = "car",
        *,
        keys: KeyPair | None = None,
        endpoint: str | None = None,
        options: UplinkOptions | None = None,
        server: str | None = None,
        folder: str | None = None,
        **kwargs: object,
    ) -> tuple[Spool, Uplink]:
        """A started device."""
        keys = keys or self.enrol(name)
        spool = Spool(self.folder / (folder or f"spool-{name}"))
        uplink = Uplink(
            spool,
            endpoint or self.listen,
            server or self.server.public,
            keys,
            options=options,
            **kwargs,  # type: ignore[arg-type]
        )
        uplink.start()
        self.uplinks.append(uplink)
        self.spools.append(spool)
        return spool, uplink

    def close(self) -> None:
        for uplink in self.uplinks:
            uplink.close()
        for spool in self.spools:
            spool.close()
        if self.collector is not None:
            self.collector.close()


def wait(done: Callable[[], bool], seconds: float) -> float:
    """Wait until `done`; returns the seconds it took.

    Raises:
        AssertionError: It did not happen in time.
    """
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < seconds, "did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - began
