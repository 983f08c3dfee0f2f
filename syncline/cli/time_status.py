"""`syncline time status`, `watch` and `serve`: the clock's state for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from syncline.errors import DeviceError

if TYPE_CHECKING:
    from syncline.sync.status import SourceRow, StatusReport

DEFAULT_STATUS = Path("/dev/shm/syncline-time.json")  # noqa: S108
STALE_NS = 5_000_000_000
MARKS = {
    "selected": "*",
    "candidate": "+",
    "outlier": "-",
    "falseticker": "x",
    "dragging": "~",
    "unusable": "?",
    "-": " ",
}
LEGEND = "* selected  + candidate  - outlier  x falseticker  ~ dragging  ? unusable"


def status(
    *,
    status_file: Annotated[Path, Parameter(name="--status")] = DEFAULT_STATUS,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Show the clock: state, error bounds, rate, scene, every source, the last events.

    Exit code 7 where no time service runs: there is no status, or an old one, which is still shown.

    Args:
        status_file: Where the service writes its status ([time] status).
        json_: Print one JSON object instead.
    """
    import msgspec

    from syncline.sync.status import read_status

    report = read_status(status_file)
    if json_:
        print(msgspec.json.encode(report).decode())
    else:
        print("\n".join(screen(report, _now(report))), flush=True)
    old = _old(report)
    if old:
        raise DeviceError(
            f"{status_file} is old: {old}",
            remedy="Start one with syncline run or syncline time serve, or look why it hangs",
        )
    return 0


def watch(
    *,
    status_file: Annotated[Path, Parameter(name="--status")] = DEFAULT_STATUS,
    every: float = 1.0,
) -> int:
    """Show the clock again and again until interrupted.

    Args:
        status_file: Where the service writes its status.
        every: Seconds between two pictures.
    """
    import sys

    from syncline.sync.status import read_status
    from syncline.timebase import OsClock

    clock = OsClock()
    live = sys.stdout.isatty()
    while True:
        report = read_status(status_file)
        lines = screen(report, _now(report))
        print(("\x1b[H\x1b[2J" if live else "") + "\n".join(lines), flush=True)
        clock.sleep_until(clock.raw_ns() + round(max(every, 0.1) * 1e9))


def serve(config: Path, *, seconds: float = 0.0) -> int:
    """Run the time service alone, without cameras.

    Args:
        config: TOML file with a [time] section; other sections are not read.
        seconds: Stop after this long; 0 runs until SIGTERM or SIGINT.
    """
    import signal
    import tomllib

    import msgspec

    from syncline.errors import ConfigError
    from syncline.sync.config import TimeConfig
    from syncline.sync.services import build_service
    from syncline.timebase import OsClock

    try:
        table = tomllib.loads(config.read_text(encoding="utf-8")).get("time", {})
        section = msgspec.convert(table, TimeConfig, strict=True)
    except OSError as error:
        raise ConfigError(f"cannot read {config}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"{config}: time: {error}", remedy="docs/time.md lists the keys"
        ) from error
    clock = OsClock()
    service = build_service(section, clock)
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _frame: stop.append(caught))
    end_ns = clock.raw_ns() + round(seconds * 1e9)
    service.run(lambda: bool(stop) or (seconds > 0 and clock.raw_ns() >= end_ns))
    return 0


def _old(report: StatusReport) -> str:
    """Why nobody writes this status any more; empty while somebody does."""
    from syncline.timebase import OsClock

    clock = OsClock()
    if clock.boot_id != report.boot_id:
        return "written in another boot"
    age_ns = clock.raw_ns() - report.raw_ns
    return f"written {age_ns / 1e9:.0f} s ago" if age_ns > STALE_NS else ""


def _now(report: StatusReport) -> int:
    """RAW now, or the report's own when it is of another boot."""
    from syncline.timebase import OsClock

    clock = OsClock()
    return clock.raw_ns() if clock.boot_id == report.boot_id else report.raw_ns


def screen(report: StatusReport, raw_ns: int) -> list[str]:
    """The picture: tracking above, sources below, at most some forty lines."""
    age_ns = raw_ns - report.raw_ns
    lines = _tracking(report)
    if age_ns > STALE_NS:
        lines.insert(0, f"OLD: written {age_ns / 1e9:.0f} s ago; the service has stopped or hangs")
    lines += [f"! {line}" for line in report.trouble]
    lines += ["", "  source               kind    off          sigma       delay     reach last"]
    lines += [_source(row, report.raw_ns) for row in report.sources]
    lines.append(LEGEND if report.sources else "  no sources: add [[time.ntp]] or [[time.gnss]]")
    if report.events:
        lines += ["", *(f"  {event}" for event in report.events[-6:])]
    return lines


def _tracking(r: StatusReport) -> list[str]:
    from syncline.sync.floor import iso

    known = r.state != "COLD" and r.utc_ns
    return [
        f"State       {r.state} (segment {r.segment_id})",
        f"Scene       {r.scene}: {r.reason}",
        f"UTC         {iso(r.utc_ns) if known else 'not known'}",
        f"Error       statistical {_span(3.29 * r.sigma_ns)} (99.9 %), hard {_span(r.bound_ns)}"
        if known
        else "Error       not bounded",
        f"Oscillator  {r.rate_ppm:+.4f} ppm +- {r.rate_sigma_ppm:.4f}",
        _system(r),
        f"Floor       {iso(r.floor_utc_ns)[:19]}Z   Leap second {r.leap}",
    ]


def _system(r: StatusReport) -> str:
    error = _span(r.system_error_ns, signed=True)
    return f"System      {error} from UTC, {r.step_count} steps seen, {r.discipline}"


def _source(row: SourceRow, raw_ns: int) -> str:
    from math import isfinite

    mark = MARKS.get(row.verdict, " ")
    heard = row.last_raw_ns and row.samples
    last = f"{(raw_ns - row.last_raw_ns) / 1e9:.0f} s" if heard else "-"
    known = row.sigma_ns >= 0 and isfinite(row.sigma_ns) and row.samples
    offset = _span(row.offset_ns, signed=True) if known else "-"
    sigma = _span(row.sigma_ns) if known else "-"
    delay = _span(row.delay_ns) if row.delay_ns else "-"
    text = (
        f"{mark} {row.name[:20]:20} {row.kind[:7]:7} {offset:12} {sigma:11} {delay:9} "
        f"{row.reach:>5o} {last:>5}"
    )
    note = "; ".join(x for x in ("" if row.health == "ok" else row.health, row.detail) if x)
    return f"{text}  {note}" if note else text


def _span(ns: float, *, signed: bool = False) -> str:
    """A duration with three digits and a unit."""
    sign = "+" if signed else ""
    for limit, unit, scale in ((1e3, "ns", 1.0), (1e6, "us", 1e3), (1e9, "ms", 1e6)):
        if abs(ns) < limit:
            return f"{ns / scale:{sign}.3g} {unit}"
    if abs(ns) >= 2**62:
        return "unbounded"
    return f"{ns / 1e9:{sign}.6g} s"
