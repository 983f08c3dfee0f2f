"""The demo's time plot: error and both bounds of UTC, error and exposure of the frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from syncline.demo.edge_side import DriveRun, FrameScore
from syncline.figure import new_figure, save_figure

Floats = NDArray[np.float64]


def plot_times(run: DriveRun, raw0_ns: int, path: Path) -> None:
    """Draw the plot.

    Raises:
        UsageError: matplotlib is not installed.
    """
    figure = new_figure(11, 9)
    utc, frame, light = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 1))
    known = [c for c in run.clock if c.error_ns is not None]
    t = np.array([(c.raw_ns - raw0_ns) / 1e9 for c in known])
    error = np.array([c.error_ns or 0 for c in known]) / 1e3
    hard = np.array([c.bound_ns for c in known]) / 1e3
    sigma = np.array([c.sigma_ns for c in known]) / 1e3
    utc.fill_between(t, -hard, hard, color="#94a3b8", alpha=0.35, label="hard bound", lw=0)
    utc.fill_between(
        t, -3.3 * sigma, 3.3 * sigma, color="#0d9488", alpha=0.35, label="99.9 % bound", lw=0
    )
    utc.plot(t, error, color="#0f172a", lw=1.3, label="true error")
    utc.set_yscale("symlog", linthresh=1.0)
    utc.set_ylabel("UTC error [us]")
    for name, colour, on in (
        ("no satellites", "#fde68a", [not c.has_fix for c in run.clock]),
        ("receiver off by 1 s", "#fecaca", [c.lying for c in run.clock]),
    ):
        _spans(utc, run, raw0_ns, on, colour, name)
    utc.legend(loc="upper right", ncols=3, fontsize=8)
    utc.set_title("UTC of the vehicle's clock: claimed and true")
    tf = np.array([(f.timing.mid_ns - raw0_ns) / 1e9 for f in run.frames])
    ef = np.array([f.timing.mid_ns - f.truth.mid_raw_ns for f in run.frames]) / 1e3
    low, high = claimed_error_us(run.frames)
    sf = np.array([f.timing.sigma_ns for f in run.frames]) / 1e3
    frame.fill_between(tf, low, high, color="#93c5fd", alpha=0.45, lw=0, label="claimed interval")
    frame.fill_between(tf, -sf, sf, color="#2563eb", alpha=0.35, lw=0, label="sigma")
    frame.plot(tf, ef, ".", ms=2.5, color="#1e3a8a", label="true error of mid-exposure")
    frame.set_ylabel("frame time error [us]")
    frame.set_yscale("symlog", linthresh=10.0)
    frame.legend(loc="lower right", ncols=3, fontsize=8)
    exposure = np.array([f.truth.exposure_ns for f in run.frames]) / 1e6
    light.plot(tf, exposure, color="#c2410c", lw=1.2)
    light.set_ylabel("exposure [ms]")
    light.set_xlabel("drive time [s]")
    for axis in (utc, frame, light):
        axis.grid(alpha=0.25)
    save_figure(figure, path, "time of the drive")


def claimed_error_us(frames: Sequence[FrameScore]) -> tuple[Floats, Floats]:
    """Where the error of each frame's time is claimed to lie: bias interval and two sigma.

    Truth is claimed in [mid + low - 2 sigma, mid + high + 2 sigma], as the report scores it; the
    error is mid minus truth, so the interval turns over. It leans to positive errors because a
    stamp taken at arrival can only be late.

    Returns:
        Lower and upper limit of mid minus truth, microseconds, (F,) each.
    """
    sigma = np.array([f.timing.sigma_ns for f in frames]) / 1e3
    bias = np.array([f.timing.bias_ns for f in frames], dtype=np.float64).reshape(-1, 2) / 1e3
    return -bias[:, 1] - 2 * sigma, -bias[:, 0] + 2 * sigma


def _spans(axis, run: DriveRun, raw0_ns: int, on: list[bool], colour: str, name: str) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    begin: float | None = None
    label: str | None = name
    for score, flag in [*zip(run.clock, on, strict=True), (run.clock[-1], False)]:
        at = (score.raw_ns - raw0_ns) / 1e9
        if flag and begin is None:
            begin = at
        elif not flag and begin is not None:
            axis.axvspan(begin, at, color=colour, alpha=0.6, lw=0, label=label, zorder=0)
            begin, label = None, None
