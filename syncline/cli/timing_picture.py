"""The picture of `syncline log view`: when each line was exposed, jitter, losses, bound of UTC."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from syncline.figure import new_figure, save_figure
from syncline.sensors.frame import Quality
from syncline.timebase import NO_BOUND_NS, Timebase, UtcTimes

if TYPE_CHECKING:
    from syncline.messages import syncline_pb2 as pb
    from syncline.sensors.report import TimingReport

    Cameras = Mapping[str, list[pb.FrameTiming]]

PERIODS_SHOWN = 5
"""So few that the exposure of a frame can still be seen."""
MOST_SHOWN = 60
SAMPLES = 1000
BINS = 41
LOST_AT = 1.5
UNITS = ((1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s"))
COLOURS = ("#2563eb", "#c2410c", "#0d9488", "#9333ea", "#be123c", "#4d7c0f")
LEGEND_COLUMNS = 3
HEADROOM = 1.25
LANE = 0.4
"""Half the height of a camera's lane."""


def unit_of(largest_ns: float) -> tuple[float, str]:
    """(nanoseconds, name) of the unit in which a size is a number from about 1 to 1000."""
    fitting = [unit for unit in UNITS if largest_ns >= 2.0 * unit[0]]
    return fitting[-1] if fitting else UNITS[0]


def draw(
    title: str,
    cameras: Cameras,
    reports: Mapping[str, TimingReport],
    timebase: Timebase,
    out: Path,
) -> None:
    """Draw the timing of one boot into `out`.

    Args:
        title: What was recorded.
        cameras: Frame times of each camera, in order; at least one.
        reports: Statistics of those with three frames and more.
        timebase: Mapping to UTC; may be empty.
        out: Picture to write; its ending tells the format, see `save_figure`.

    Raises:
        UsageError: matplotlib is not installed, or the ending of `out` means nothing.
        StorageError: The picture cannot be written.
    """
    mids = [t.mid_raw_ns for timings in cameras.values() for t in timings]
    zero_ns = min(mids)
    tall = 2.2 + 0.5 * len(cameras)
    figure = new_figure(13, 10)
    low = 3.0 if sample_bounds(timebase, zero_ns, max(mids)) else 0.6
    figure.set_figheight(tall + 3.5 + low)
    rows = figure.add_gridspec(3, 2, height_ratios=(tall, 3.2, low))
    _exposures(figure.add_subplot(rows[0, :]), cameras, zero_ns, tall)
    _intervals(figure.add_subplot(rows[1, 0]), cameras, zero_ns)
    _jitter(figure.add_subplot(rows[1, 1]), cameras, reports)
    _bounds(figure.add_subplot(rows[2, :]), timebase, zero_ns, max(mids))
    figure.suptitle(title, fontsize=11)
    save_figure(figure, out, title)


def _colours(cameras: Cameras) -> list[tuple[str, list[pb.FrameTiming], str]]:
    return [
        (name, timings, COLOURS[at % len(COLOURS)])
        for at, (name, timings) in enumerate(cameras.items())
    ]


def _window_ns(cameras: Cameras) -> float:
    """Long enough for some frames of the slowest camera, or for all when there are few."""
    steps = [
        float(np.median(np.diff([t.mid_raw_ns for t in timings])))
        for timings in cameras.values()
        if len(timings) > 1
    ]
    return PERIODS_SHOWN * max(steps) if steps else math.inf


def frame_outline(timing: pb.FrameTiming) -> tuple[list[tuple[float, float]], float]:
    """When the lines of a frame were exposed, in nanoseconds from the middle of the first line's.

    Line 0 is the one that is read first, 1 the last. A rolling shutter leans; a global one is
    upright; under global reset only the end leans. Where the exposure is not known, the shape is as
    wide as the middle is unsure (two sigma either way).

    Returns:
        (corners as (time, line), how far the middle leans).

    Raises:
        LogError: The frame was recorded without its mode.
    """
    from syncline.edge.recorded_time import timing_of_message
    from syncline.sensors.mode import Shutter

    mode = timing_of_message(timing).mode
    known = exposure_known(timing)
    half = 0.5 * timing.exposure_ns if known else 2.0 * timing.sigma_ns
    readout = float(mode.readout_time())
    begins = readout if mode.shutter is Shutter.ROLLING else 0.0
    ends = 0.0 if mode.shutter is Shutter.GLOBAL else readout
    corners = [(-half, 0.0), (half, 0.0), (half + ends, 1.0), (begins - half, 1.0)]
    return corners, 0.5 * (begins + ends)


def exposure_known(timing: pb.FrameTiming) -> bool:
    """False where the frame's time rests on an assumed exposure, or says nothing of it."""
    return timing.exposure_ns > 0 and not timing.quality & Quality.NO_EXPOSURE.value


def _exposures(axis: Any, cameras: Cameras, zero_ns: int, tall: float) -> None:
    """One shape per frame: its upper edge is the line read first, its lower edge the last."""
    window_ns = _window_ns(cameras)
    said: set[str] = set()
    for row, (_, timings, colour) in enumerate(_colours(cameras)):
        near = [t for t in timings if t.mid_raw_ns - zero_ns <= window_ns][:MOST_SHOWN]
        for timing in near:
            said |= _frame(axis, timing, row, colour, zero_ns)
    axis.set_yticks(range(len(cameras)), list(cameras))
    axis.set_ylim(len(cameras) - 0.4, -0.6)
    axis.set_xlabel("time from the first middle of exposure [ms]")
    shown = "all frames" if math.isinf(window_ns) else f"the first {PERIODS_SHOWN} frame periods"
    axis.set_title(
        f"When was each line exposed? {shown}; top: line read first, bottom: line read last",
        fontsize=10,
    )
    _legend_of_exposures(axis, said, tall)
    axis.grid(axis="x", alpha=0.25)


def _frame(axis: Any, timing: pb.FrameTiming, row: int, colour: str, zero_ns: int) -> set[str]:
    """Draw one frame; returns what of the legend it needs."""
    said = {"middle"}
    middle = (timing.mid_raw_ns - zero_ns) / 1e6
    corners, lean = frame_outline(timing)
    if all(math.isfinite(at) for at, _ in corners):
        x = [middle + at / 1e6 for at, _ in corners]
        y = [row - LANE + 2 * LANE * line for _, line in corners]
        known = exposure_known(timing)
        how = {"alpha": 0.55} if known else {"fill": False, "hatch": "///"}
        axis.fill(x, y, facecolor=colour, edgecolor=colour, lw=1.0, **how)
        said.add("exposed" if known else "unsure")
    axis.plot([middle, middle + lean / 1e6], [row - LANE, row + LANE], color="black", lw=0.8)
    if timing.trigger_id >= 0:
        begin = (timing.soe_raw_ns - zero_ns) / 1e6
        axis.plot(begin, row - LANE - 0.06, "v", color="black", ms=5)
        said.add("trigger")
    if timing.arrival_raw_ns > timing.eof_raw_ns:
        arrived = (timing.arrival_raw_ns - zero_ns) / 1e6
        axis.plot(arrived, row + LANE, ".", color=colour, ms=5)
        said.add("arrived")
    return said


def _legend_of_exposures(axis: Any, said: set[str], tall: float) -> None:
    """What the signs mean, below an axis that is `tall` inches high."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries = {
        "exposed": Patch(color=COLOURS[0], alpha=0.55, label="lines exposed"),
        "unsure": Patch(
            facecolor="none", edgecolor=COLOURS[0], hatch="///",
            label="exposure not known: middle ± 2 sigma",
        ),
        "middle": Line2D([], [], color="black", lw=0.8, label="middle of exposure"),
        "trigger": Line2D([], [], color="black", marker="v", ls="", label="trigger edge"),
        "arrived": Line2D([], [], color=COLOURS[0], marker=".", ls="", label="arrived"),
    }  # fmt: skip
    shown = [entry for name, entry in entries.items() if name in said]
    axis.legend(
        handles=shown, fontsize=8, ncols=len(shown), loc="upper center",
        bbox_to_anchor=(0.5, -0.6 / tall), frameon=False,
    )  # fmt: skip


def deviations(timings: list[pb.FrameTiming]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Intervals less their median, nanoseconds (N-1,), and which of them hide lost frames."""
    steps = np.diff(np.array([t.mid_raw_ns for t in timings], np.int64)).astype(np.float64)
    usual = float(np.median(steps))
    return steps - usual, steps > LOST_AT * usual


def _spread_ns(cameras: Cameras) -> float:
    """Largest deviation of an ordinary interval."""
    largest = 1.0
    for timings in cameras.values():
        if len(timings) > 1:
            off, lost = deviations(timings)
            largest = max(largest, float(np.abs(off[~lost]).max(initial=0.0)))
    return largest


def _intervals(axis: Any, cameras: Cameras, zero_ns: int) -> None:
    scale, unit = unit_of(_spread_ns(cameras))
    any_lost = False
    for name, timings, colour in _colours(cameras):
        if len(timings) < 2:
            continue
        off, lost = deviations(timings)
        t_s = (np.array([t.mid_raw_ns for t in timings[1:]], np.int64) - zero_ns) / 1e9
        usual = np.median(np.diff([t.mid_raw_ns for t in timings])) / 1e6
        axis.plot(t_s[~lost], off[~lost] / scale, ".", ms=3, color=colour,
                  label=f"{name}: {usual:.3f} ms")  # fmt: skip
        for at in t_s[lost]:
            axis.axvline(at, color="#dc2626", lw=1.2, alpha=0.7,
                         label=None if any_lost else "frames missing before")  # fmt: skip
            any_lost = True
    axis.set_xlabel("time [s]")
    axis.set_ylabel(f"interval minus its median [{unit}]")
    axis.set_title("Intervals between frames", fontsize=10)
    _finish(axis, "no camera has two frames")
    _light(axis, cameras, zero_ns)


def _light(axis: Any, cameras: Cameras, zero_ns: int) -> None:
    """Exposures on an axis of their own: where they change, the middle moves, not the clock."""
    changing = [
        (timings, colour)
        for _, timings, colour in _colours(cameras)
        if len({t.exposure_ns for t in timings if t.exposure_ns > 0}) > 1
    ]
    if not changing:
        return
    light = axis.twinx()
    for timings, colour in changing:
        known = [t for t in timings if t.exposure_ns > 0]
        t_s = [(t.mid_raw_ns - zero_ns) / 1e9 for t in known]
        light.plot(t_s, [t.exposure_ns / 1e6 for t in known], color=colour, lw=0.8, alpha=0.6)
    light.set_ylim(0.0, HEADROOM * light.get_ylim()[1])
    light.set_ylabel("exposure [ms] (line)")
    axis.set_title("Intervals between frames (dots); changing exposure (line) moves the middle",
                   fontsize=10)  # fmt: skip


def _jitter(axis: Any, cameras: Cameras, reports: Mapping[str, TimingReport]) -> None:
    largest = _spread_ns(cameras)
    scale, unit = unit_of(largest)
    edges = np.linspace(-1.02 * largest, 1.02 * largest, BINS + 1) / scale
    for name, timings, colour in _colours(cameras):
        if name not in reports:
            continue
        off, lost = deviations(timings)
        jitter = reports[name].jitter_ns
        size, its_unit = unit_of(jitter)
        label = f"{name}: sigma {jitter / size:.3g} {its_unit}"
        axis.hist(off[~lost] / scale, bins=edges, color=colour, alpha=0.3)
        axis.hist(off[~lost] / scale, bins=edges, color=colour, histtype="step", label=label)
    axis.set_xlabel(f"interval minus its median [{unit}]")
    axis.set_ylabel("intervals")
    axis.set_title("Jitter of the middle of exposure (lost frames left out)", fontsize=10)
    _finish(axis, "no camera has three frames")


def _finish(axis: Any, empty: str) -> None:
    """A legend, or the words why there is nothing to see."""
    axis.ticklabel_format(useOffset=False, style="plain")
    axis.grid(alpha=0.25)
    labels = axis.get_legend_handles_labels()[1]
    if labels:
        rows = -(-len(labels) // LEGEND_COLUMNS)
        bottom, top = axis.get_ylim()
        axis.set_ylim(bottom, top + (top - bottom) * 0.1 * rows)
        axis.legend(fontsize=8, loc="upper center", ncols=min(len(labels), LEGEND_COLUMNS))
    else:
        _nothing(axis, empty)


def _nothing(axis: Any, why: str) -> None:
    axis.set(xticks=[], yticks=[], xlabel="", ylabel="")
    axis.text(0.5, 0.5, why, ha="center", va="center", color="#64748b", transform=axis.transAxes)


def sample_bounds(
    timebase: Timebase, begin_raw_ns: int, end_raw_ns: int, count: int = SAMPLES
) -> tuple[NDArray[np.int64], UtcTimes] | None:
    """What is claimed of UTC from the first to the last frame; it grows within each segment.

    Returns:
        Raw times int64 (count,) and UTC at each; None when no segment bounds UTC.
    """
    if not any(s.hard_bound_ns < NO_BOUND_NS for s in timebase.segments):
        return None
    raw_ns = np.linspace(begin_raw_ns, end_raw_ns, count).astype(np.int64)
    return raw_ns, timebase.utc(raw_ns)


def _bounds(axis: Any, timebase: Timebase, begin_raw_ns: int, end_raw_ns: int) -> None:
    axis.set_title("How far may the frames' UTC be wrong?", fontsize=10)
    sampled = sample_bounds(timebase, begin_raw_ns, end_raw_ns)
    if sampled is None:
        _nothing(axis, "this recording has no UTC: its times count from the start of the device")
        return
    from matplotlib.ticker import FuncFormatter

    raw_ns, utc = sampled
    t_s = (raw_ns - begin_raw_ns) / 1e9
    hard = np.where(utc.bound_ns < NO_BOUND_NS, utc.bound_ns, np.nan)
    likely = np.where(np.isnan(hard), np.nan, 3.3 * utc.sigma_ns)
    scale, unit = unit_of(float(np.nanmin(likely)) if np.isfinite(likely).any() else 1e3)
    axis.plot(t_s, hard / scale, color=COLOURS[0], label="never more (hard bound)")
    axis.plot(t_s, likely / scale, color=COLOURS[1], label="99.9 % of the time less")
    starts = [(s.raw0_ns - begin_raw_ns) / 1e9 for s in timebase.segments]
    inside = [start for start in starts if 0 < start < t_s[-1]]
    for number, start in enumerate(inside):
        axis.axvline(start, color="#94a3b8", lw=0.5, alpha=0.6,
                     label=None if number else "a better mapping to UTC begins")  # fmt: skip
    axis.set_xlabel("time [s]")
    axis.set_ylabel(f"UTC ± [{unit}]")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
