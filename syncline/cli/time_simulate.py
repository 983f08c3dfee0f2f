"""`syncline time simulate`: play a scenario and show the error with both bounds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from syncline.sync.sim.run import RunResult

_LIBRARY = Path(__file__).resolve().parents[2] / "scenarios"


def simulate(
    scenario: str,
    *,
    seed: int = 1,
    smooth: bool = False,
    plot: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Play a scenario and say how well the clock did.

    Args:
        scenario: A TOML file, or the name of one in scenarios/.
        seed: Of every random draw.
        smooth: Re-time the drive afterwards and show that too.
        plot: Write a picture of the error and both bounds (PNG, SVG, PDF or HTML).
        json_: Print one JSON object instead.
    """
    import msgspec

    from syncline.sync.sim.run import run_scenario

    if plot is not None:
        from syncline.figure import check_picture

        check_picture(plot)
    result = run_scenario(find(scenario), seed, smooth=smooth)
    if plot is not None:
        draw(result, plot)
    if json_:
        print(msgspec.json.encode(result.summary()).decode())
    else:
        print("\n".join(screen(result)))
    return 0


def find(scenario: str) -> Path:
    """The scenario's file: a path, or a name in the library.

    Raises:
        UsageError: There is no such file.
    """
    from syncline.errors import UsageError

    direct = Path(scenario)
    library = _LIBRARY / f"{scenario}.toml"
    for file in (direct, library):
        if file.is_file():
            return file
    known = ", ".join(sorted(p.stem for p in _LIBRARY.glob("*.toml"))) or "none here"
    raise UsageError(
        f"scenario {scenario!r}: no such file, nor in the library",
        remedy=f"Give a TOML file or one of: {known}",
    )


def human(seconds: float) -> str:
    """A duration with three digits and a unit that fits."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(seconds) >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def screen(result: RunResult) -> list[str]:
    """The summary on one screen."""
    s = result.summary()
    lines = [
        f"{result.scenario.name}: {result.scenario.text}",
        f"seed {s['seed']}, {s['duration_s']:g} s, {s['measurements']} measurements, "
        f"{s['segments']} segments",
        "",
        f"error        rms {human(float(s['rms_s']))}   median {human(float(s['median_s']))}   "
        f"95 % {human(float(s['p95_s']))}   max {human(float(s['max_s']))}",
        f"hard bound   median {human(float(s['hard_median_s']))}   "
        f"coverage {float(s['hard_coverage']):.4f}",
        f"statistical  median {human(float(s['statistical_median_s']))}   "
        f"coverage {float(s['statistical_coverage']):.4f}",
    ]
    if "smoothed_rms_s" in s:
        rms, top = float(s["smoothed_rms_s"]), float(s["smoothed_max_s"])
        lines.append(f"re-timed     rms {human(rms)}   max {human(top)}")
    lines += ["", "events:"]
    told = result.events[:14]
    lines += [f"  {t:9.0f} s  {_tell(event)}" for t, event in told]
    if len(result.events) > len(told):
        lines.append(f"  ... and {len(result.events) - len(told)} more")
    return lines


def _tell(event: object) -> str:
    from syncline.sync.events import SourceVerdict, StateChange, Step

    if isinstance(event, SourceVerdict):
        return f"{event.source} {event.verdict.name.lower()}  {event.reason}"
    if isinstance(event, StateChange):
        return f"{event.old.name} -> {event.new.name}  {event.reason}"
    if isinstance(event, Step):
        return f"new timescale, {human(event.size_ns * 1e-9)}  {event.reason}"
    return str(event)


def draw(result: RunResult, file: Path) -> None:
    """Draw the error with both bounds.

    Raises:
        UsageError: matplotlib is not installed, or the ending of the file means nothing.
        StorageError: The file cannot be written.
    """
    from syncline.figure import new_figure, save_figure

    figure = new_figure(10, 5)
    axes = figure.add_subplot()
    t = result.t / 60.0
    worst_s = float(abs(result.error[result.counted()]).max())
    unit, scale = ("ms", 1e3) if worst_s > 1e-3 else ("us", 1e6)
    hard, statistical = result.hard * scale, result.statistical * scale
    axes.fill_between(t, -hard, hard, color="#e8eef7", label="hard bound")
    axes.fill_between(t, -statistical, statistical, color="#b9cfe8", label="statistical bound")
    axes.plot(t, result.error * scale, color="#c0392b", lw=1.0, label="error")
    if result.smoothed is not None:
        axes.plot(t, result.smoothed * scale, color="#27714a", lw=1.0, label="re-timed")
    axes.set_yscale("symlog", linthresh=max(worst_s * scale / 10.0, 1e-6))
    axes.set(xlabel="true time, min", ylabel=f"UTC error, {unit}", title=result.scenario.name)
    axes.legend(loc="upper right")
    save_figure(figure, file, result.scenario.name)
