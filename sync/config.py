"""The `[time]` section of the configuration file; docs/time.md lists every key."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from syncline.config import Section

Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:\-]+$")]
Port = Annotated[int, Meta(ge=1, le=65535)]
Poll = Annotated[int, Meta(ge=0, le=17)]
Millis = Annotated[float, Meta(ge=0, le=10_000)]


class NtpServer(Section, frozen=True):
    """One `[[time.ntp]]` entry.

    Attributes:
        host: Name or address.
        port: UDP port.
        pool: The name stands for many servers; keep `size` of them.
        size: Servers of a pool.
        min_poll: Shortest interval, log2 seconds.
        max_poll: Longest interval, log2 seconds.
        iburst: Ask four times, two seconds apart, at the start.
        interleaved: Ask for the true sending time of the last reply (RFC 9769); for a LAN.
    """

    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Port = 123
    pool: bool = False
    size: Annotated[int, Meta(ge=1, le=16)] = 4
    min_poll: Poll = 4
    max_poll: Poll = 6
    iburst: bool = True
    interleaved: bool = False


class Gnss(Section, frozen=True):
    """One `[[time.gnss]]` entry: a receiver on a line, or through gpsd.

    Attributes:
        name: Name of the source.
        device: Serial device, pipe or file; or the device's name within gpsd.
        gpsd: "host:port" of gpsd; empty to read the device ourselves.
        baud: Line speed; 0 leaves the line as it is.
        latency_ms: Usual delay from the epoch to the first byte of its message.
        latency_bound_ms: The delay is within this of `latency_ms`, for certain.
        trust_leap: The receiver keeps leap seconds over power-off.
    """

    name: Name = "gnss0"
    device: str = ""
    gpsd: str = ""
    baud: Annotated[int, Meta(ge=0, le=4_000_000)] = 0
    latency_ms: Millis = 250.0
    latency_bound_ms: Millis = 750.0
    trust_leap: bool = False


class Pulse(Section, frozen=True):
    """One `[[time.pps]]` entry.

    Attributes:
        name: Name of the source.
        device: `/dev/pps*`.
        clear: Use the falling edge.
        cable_ns: Delay of antenna cable and line: the pulse comes this late.
        bound_ns: Hard bound of the edge's stamp.
    """

    device: str
    name: Name = "pps0"
    clear: bool = False
    cable_ns: Annotated[int, Meta(ge=-1_000_000, le=1_000_000)] = 0
    bound_ns: Annotated[int, Meta(ge=100, le=5_000_000)] = 20_000


class Ptp(Section, frozen=True):
    """One `[[time.ptp]]` entry: a hardware clock that ptp4l disciplines.

    Attributes:
        name: Name of the source.
        device: `/dev/ptp*`.
        utc: The clock counts UTC instead of TAI.
        tai_utc_s: TAI - UTC that the grandmaster announces as valid; absent while it does not.
        bound_ns: Error of the grandmaster and the path.
    """

    device: str
    name: Name = "ptp0"
    utc: bool = False
    tai_utc_s: Annotated[int, Meta(ge=30, le=60)] | None = None
    bound_ns: Annotated[int, Meta(ge=10, le=100_000_000)] = 1_000


class Chrony(Section, frozen=True):
    """`[time.chrony]`: chrony as a source, or as a client of ours.

    Attributes:
        tracking: Use chrony's estimate.
        socket: Feed chrony's `refclock SOCK` at this path; empty for not.
    """

    tracking: bool = False
    socket: str = ""


class TimeConfig(Section, frozen=True):
    """`[time]`.

    Attributes:
        page: Shared-memory page for other processes; empty for none.
        status: File that `syncline time status` reads; empty for none.
        state_dir: Where the last time and the learned oscillator are kept; empty for nowhere.
        discipline: What may be done to the system clock.
        leap_list: `leap-seconds.list` to read instead of the built-in table.
        expiry_ms: Hard bound beyond which no time is offered.
        accept_after_s: A refused but steady source is believed after this long; 0 for never.
        ntp: Servers.
        gnss: Receivers.
        pps: Pulses.
        ptp: Hardware clocks.
        chrony: chrony.
    """

    page: str = "/dev/shm/syncline-time"  # noqa: S108
    status: str = "/dev/shm/syncline-time.json"  # noqa: S108
    state_dir: str = ""
    discipline: Literal["observe", "slew", "step"] = "observe"
    leap_list: str = ""
    expiry_ms: Annotated[float, Meta(ge=1, le=1e9)] = 10_000.0
    accept_after_s: Annotated[float, Meta(ge=0, le=1e8)] = 21_600.0
    ntp: tuple[NtpServer, ...] = ()
    gnss: tuple[Gnss, ...] = ()
    pps: tuple[Pulse, ...] = ()
    ptp: tuple[Ptp, ...] = ()
    chrony: Chrony = Chrony()
