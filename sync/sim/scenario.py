"""A scenario: oscillator, servers, GNSS, outages and lies, read from TOML or built in code."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path as FilePath
from typing import Any, TypeVar

import numpy as np

from syncline.errors import ConfigError
from syncline.sync.sim.oscillator import OscillatorSpec, Ramp
from syncline.sync.sim.path import PathSpec

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lie:
    """A server or a receiver that goes wrong.

    Attributes:
        at_s: When it begins.
        until_s: When it ends.
        step_s: Error at once.
        rate_ppm: Error that grows.
    """

    at_s: float
    until_s: float = 1e18
    step_s: float = 0.0
    rate_ppm: float = 0.0

    def error(self, t: float) -> float:
        """Error of the source's clock at true time `t`, s."""
        if not self.at_s <= t < self.until_s:
            return 0.0
        return self.step_s + self.rate_ppm * 1e-6 * (t - self.at_s)


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """One NTP server.

    Attributes:
        path: Its route.
        asymmetry_ms: One sigma of the static difference between the ways.
        lies: What is wrong with its clock.
        root_ms: Root delay / 2 + root dispersion that it states.
    """

    path: PathSpec = field(default_factory=PathSpec)
    asymmetry_ms: float = 0.0
    lies: tuple[Lie, ...] = ()
    root_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class GnssSpec:
    """A receiver: one sample each `interval_s`.

    Attributes:
        sigma_ns: Noise of a sample.
        interval_s: Between samples.
        outages: Dark spells (begin, end), s.
        availability: Share of samples that arrive otherwise (half occlusion).
        lies: Spoofing.
    """

    sigma_ns: float = 200.0
    interval_s: float = 1.0
    outages: tuple[tuple[float, float], ...] = ()
    availability: float = 1.0
    lies: tuple[Lie, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything a run needs but the seed.

    Attributes:
        name: For reports.
        duration_s: Length.
        poll: "std" (64..1024 s), "fast" (16..64 s) or "tuned" (16 s).
        oscillator: The crystal.
        servers: NTP servers.
        gnss: Receiver, or None.
        outages: Spells without any network (begin, end), s.
        window_s: From when errors count.
        honest: No source lies: bounds must always hold.
        bad_first_s: Error of the very first reply (a misplaced stamp).
        spike_first_s: Extra delay of the very first reply.
        text: One line for people.
    """

    name: str = "scenario"
    duration_s: float = 14400.0
    poll: str = "fast"
    oscillator: OscillatorSpec = field(default_factory=OscillatorSpec)
    servers: tuple[ServerSpec, ...] = (ServerSpec(),)
    gnss: GnssSpec | None = None
    outages: tuple[tuple[float, float], ...] = ()
    window_s: float = 1800.0
    honest: bool = True
    bad_first_s: float = 0.0
    spike_first_s: float = 0.0
    text: str = ""


def load(path: FilePath | str) -> Scenario:
    """Read a scenario file.

    Raises:
        ConfigError: The file is missing, no TOML, or a key is unknown or of the wrong kind.
    """
    file = FilePath(path)
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"scenario {file}: {error.strerror}", remedy="Name a file of scenarios/*.toml"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"scenario {file}: {error}") from error
    data.setdefault("name", file.stem)
    return parse(data, file.parent)


def parse(data: dict[str, Any], folder: FilePath | None = None) -> Scenario:
    """A scenario from plain tables.

    Args:
        data: Tables as TOML gives them.
        folder: Where a relative `oscillator.record` lies.

    Raises:
        ConfigError: A key is unknown or of the wrong kind.
    """
    tables = dict(data)
    path_default = tables.pop("path", {})
    tables["oscillator"] = _oscillator(dict(tables.get("oscillator", {})), folder)
    servers = [
        s
        for table in tables.pop("server", [{}])
        for s in [_server(dict(table), path_default)] * int(table.get("count", 1))
    ]
    tables["servers"] = tuple(servers)
    if "gnss" in tables:
        gnss = dict(tables["gnss"])
        gnss["lies"] = _lies(gnss.pop("lie", []))
        gnss["outages"] = _spells(gnss.get("outages", []))
        tables["gnss"] = _build(GnssSpec, gnss, "gnss")
    tables["outages"] = _spells(tables.get("outages", []))
    scenario = _build(Scenario, tables, "scenario")
    if scenario.poll not in ("std", "fast", "tuned"):
        raise ConfigError(
            f"scenario.poll = {scenario.poll!r} is not known", remedy="Use std, fast or tuned"
        )
    return scenario


def _oscillator(table: dict[str, Any], folder: FilePath | None) -> OscillatorSpec:
    table["ramps"] = tuple(Ramp(*map(float, r)) for r in table.pop("ramps", []))
    record = table.pop("record", None)
    scale = float(table.pop("record_scale", 1.0))
    if record is not None:
        file = (folder or FilePath()) / record
        try:
            values = np.loadtxt(file, usecols=0, comments="#")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"oscillator.record = {record!r}: {error}",
                remedy="Give a text file of fractional frequencies, one a second",
            ) from error
        table["record"] = (values - values.mean()) * scale
    return _build(OscillatorSpec, table, "oscillator")


def _server(table: dict[str, Any], default: dict[str, Any]) -> ServerSpec:
    table.pop("count", None)
    path = {**default, **table.pop("path", {})}
    for key in ("burst_ms", "burst_s"):
        if key in path:
            path[key] = tuple(path[key])
    table["path"] = _build(PathSpec, path, "server.path")
    table["lies"] = _lies(table.pop("lie", []))
    return _build(ServerSpec, table, "server")


def _lies(tables: list[dict[str, Any]]) -> tuple[Lie, ...]:
    return tuple(_build(Lie, dict(t), "lie") for t in tables)


def _spells(value: list[list[float]]) -> tuple[tuple[float, float], ...]:
    return tuple((float(a), float(b)) for a, b in value)


def _build(cls: type[T], table: dict[str, Any], where: str) -> T:
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigError(
            f"{where}.{unknown[0]} is not a key", remedy=f"Known keys: {', '.join(sorted(known))}"
        )
    try:
        return cls(**table)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error
