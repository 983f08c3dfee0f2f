"""A time service out of the `[time]` section."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from syncline.errors import ConfigError, InputError
from syncline.sync.conductor import Conductor
from syncline.sync.config import Gnss, NtpServer, Pulse, TimeConfig
from syncline.sync.daemon import Outlets, TimeService, open_page
from syncline.sync.discipline import Discipline, Mode, SystemClock
from syncline.sync.floor import load_floor
from syncline.sync.jumps import system_watch
from syncline.sync.leap import LeapTable, built_in, read_list
from syncline.sync.learned import load_oscillator
from syncline.sync.sources.chrony import ChronySocket, ChronyTracking
from syncline.sync.sources.gnss_gate import GnssGate, InBand
from syncline.sync.sources.gnss_serial import GnssSerial
from syncline.sync.sources.gnss_stream import GnssStream
from syncline.sync.sources.gpsd import Gpsd
from syncline.sync.sources.ntp import NtpSource
from syncline.sync.sources.ntp_pool import NtpPool
from syncline.sync.sources.ntp_session import NtpOptions
from syncline.sync.sources.phc import Phc, PhcDevice, PhcOptions
from syncline.sync.sources.pps import (
    LABEL_BOUND_NS,
    Label,
    Pps,
    PpsDevice,
    PulsePairing,
    epoch_label,
)
from syncline.sync.sources.source import Source
from syncline.sync.sources.ubx import TimeMark
from syncline.sync.steps import CoreOptions
from syncline.timebase import RawClock

MS = 1_000_000


def build_service(
    config: TimeConfig,
    clock: RawClock,
    *,
    outlets: Outlets | None = None,
    wheel_speed_mps: Callable[[], float | None] = lambda: None,
) -> TimeService:
    """Everything that `[time]` asks for. What is missing on the machine becomes a line of trouble.

    Args:
        config: The section.
        clock: Raw clock.
        outlets: Callbacks for segments, notices, rows; the rest comes from `config`.
        wheel_speed_mps: The vehicle's speed.

    Raises:
        ConfigError: Keys that contradict each other.
    """
    check(config)
    trouble: list[str] = []
    folder = Path(config.state_dir) if config.state_dir else None
    floor, why = load_floor(folder / "floor.json") if folder else load_floor(Path("/nonexistent"))
    trouble.append(why)
    learned, why = load_oscillator(folder / "oscillator.json") if folder else (None, "")
    trouble.append(why)
    leaps, why = _leaps(config)
    trouble.append(why)
    options = CoreOptions(
        expiry_bound_ns=round(config.expiry_ms * MS),
        accept_after_ns=round(config.accept_after_s * 1e9),
    )
    conductor = Conductor(clock.boot_id, floor, leaps, options, learned)
    watch, why = system_watch()
    trouble.append(why)
    page, why = open_page(config.page)
    trouble.append(why)
    mode = Mode(config.discipline)
    return TimeService(
        build_sources(config, clock, conductor, outlets.mark if outlets else None),
        conductor,
        clock,
        watch=watch,
        outlets=replace(
            outlets or Outlets(),
            page=page,
            status=Path(config.status) if config.status else None,
            state_dir=folder,
            chrony=ChronySocket(Path(config.chrony.socket)) if config.chrony.socket else None,
        ),
        discipline=Discipline(mode),
        settable=None if mode is Mode.OBSERVE else SystemClock(),
        wheel_speed_mps=wheel_speed_mps,
        trouble=[line for line in trouble if line],
    )


def check(config: TimeConfig) -> None:
    """Refuse keys that contradict each other.

    Raises:
        ConfigError: Two sources of one name, chrony in a circle, a gnss entry without an input.
    """
    names = [g.name for g in config.gnss] + [p.name for p in config.pps]
    names += [p.name for p in config.ptp] + [f"ntp:{n.host}:{n.port}" for n in config.ntp]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"time: two sources are named {name!r}", remedy="Rename one")
    if config.chrony.tracking and config.chrony.socket:
        raise ConfigError(
            "time.chrony: tracking and socket together make chrony listen to itself",
            remedy="Keep one of them",
        )
    for gnss in config.gnss:
        if not gnss.device and not gnss.gpsd:
            raise ConfigError(
                f"time.gnss {gnss.name!r}: neither device nor gpsd is set", remedy="Set one"
            )
        _address(gnss)


def _leaps(config: TimeConfig) -> tuple[LeapTable, str]:
    if not config.leap_list:
        return built_in(), ""
    try:
        table, _ = read_list(Path(config.leap_list))
    except InputError as error:
        return built_in(), f"{error}; the built-in table is used"
    return table, ""


def build_sources(
    config: TimeConfig,
    clock: RawClock,
    conductor: Conductor,
    on_mark: Callable[[str, TimeMark], None] | None = None,
) -> list[Source]:
    """A driver for every entry."""
    sources: list[Source] = [_ntp(entry, clock, conductor) for entry in config.ntp]
    sources += [_gnss(entry, clock, conductor, on_mark) for entry in config.gnss]
    gates = [s.gate for s in sources if isinstance(s, Gpsd)]
    gates += [s.stream.gate for s in sources if isinstance(s, GnssSerial)]
    sources += [_pps(entry, clock, conductor, gates) for entry in config.pps]
    for ptp in config.ptp:
        options = PhcOptions(ptp.name, ptp.utc, ptp.tai_utc_s, ptp.bound_ns)
        path = Path(ptp.device)
        leaps = conductor.timeline.leaps
        sources.append(Phc(options, lambda p=path: PhcDevice(p), clock, leaps))  # type: ignore[misc]
    if config.chrony.tracking:
        sources.append(ChronyTracking(clock))
    return sources


def _ntp(entry: NtpServer, clock: RawClock, conductor: Conductor) -> Source:
    low, high = min(entry.min_poll, entry.max_poll), max(entry.min_poll, entry.max_poll)
    options = NtpOptions(entry.host, entry.port, low, high, entry.iburst, entry.interleaved)
    if entry.pool:
        return NtpPool(options, clock, conductor.floor, size=entry.size)
    return NtpSource(options, clock, conductor.floor)


def _address(entry: Gnss) -> tuple[str, int]:
    host, _, port = entry.gpsd.rpartition(":")
    if not entry.gpsd:
        return "", 0
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(
            f'time.gnss {entry.name!r}: gpsd = {entry.gpsd!r} is not "host:port"',
            remedy='Write for example "127.0.0.1:2947"',
        )
    return host.strip("[]"), int(port)


def _gnss(
    entry: Gnss,
    clock: RawClock,
    conductor: Conductor,
    on_mark: Callable[[str, TimeMark], None] | None,
) -> Source:
    latency, bound = round(entry.latency_ms * MS), round(entry.latency_bound_ms * MS)
    band = InBand(latency, max(bound // 4, 1000), bound)
    if entry.gpsd:
        gate = GnssGate(
            entry.name, conductor.floor, band,
            trust_leap=entry.trust_leap, reference=conductor.utc,
        )  # fmt: skip
        return Gpsd(_address(entry), gate, clock, entry.device)
    stream = GnssStream(
        entry.name, conductor.floor, baud=entry.baud, in_band=band,
        trust_leap=entry.trust_leap, reference=conductor.utc,
    )  # fmt: skip
    return GnssSerial(Path(entry.device), stream, clock, entry.baud, on_mark)


def _pps(entry: Pulse, clock: RawClock, conductor: Conductor, gates: list[GnssGate]) -> Source:
    def label(raw_ns: int) -> Label | None:
        known = conductor.utc(raw_ns)
        if known is not None and known.bound_ns < LABEL_BOUND_NS:
            return Label(raw_ns, known.utc_ns, known.bound_ns)
        found = (epoch_label(gate.last, raw_ns) for gate in gates)
        return next((one for one in found if one is not None), None)

    pairing = PulsePairing(entry.name, bound_ns=entry.bound_ns, cable_ns=entry.cable_ns)
    path = Path(entry.device)
    return Pps(pairing, lambda: PpsDevice(path, entry.clear), clock, label)
