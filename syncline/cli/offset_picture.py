"""The picture of `syncline sensors calibrate`: two sensors' turning laid over each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from syncline.cli.timing_picture import COLOURS
from syncline.figure import new_figure, save_figure

if TYPE_CHECKING:
    from syncline.sensors.calibrate import OffsetEstimate
    from syncline.sensors.fit import FitSeries

AXES = ("x (pitch)", "y (yaw)", "z (roll)")
"""Of a camera that looks along z with y down."""


def draw_offset(
    camera: str, other: str, found: OffsetEstimate, series: FitSeries, out: Path
) -> None:
    """Draw a calibration into `out`.

    Raises:
        UsageError: matplotlib is not installed, or the ending of `out` means nothing.
        StorageError: The picture cannot be written.
    """
    figure = new_figure(13, 8)
    rows = figure.add_gridspec(2, 2, height_ratios=(1.2, 1.0))
    _turning(figure.add_subplot(rows[0, :]), camera, other, series)
    _misfit(figure.add_subplot(rows[1, 0]), camera, other, found, series)
    _residuals(figure.add_subplot(rows[1, 1]), series)
    figure.suptitle(
        f"t_{other} = t_{camera} {found.offset_ns / 1e6:+.3f} ms ± {found.sigma_ns / 1e6:.3f} ms "
        f"(1 sigma); {100 * found.explained:.1f} % of the turning explained",
        fontsize=11,
    )
    save_figure(figure, out, f"{camera} and {other}")


def _turning(axis: Any, camera: str, other: str, series: FitSeries) -> None:
    """The axis that turned most: the two curves must lie on each other."""
    power = np.var(series.camera_rad_s, axis=0)
    which = int(np.argmax(power))
    seen, felt = (np.degrees(r[:, which]) for r in (series.camera_rad_s, series.other_rad_s))
    axis.plot(series.t_s, seen, color=COLOURS[0], lw=1.2, label=f"{camera}, from its pictures")
    axis.plot(series.t_s, felt, color=COLOURS[1], lw=1.0, ls="--",
              label=f"{other}, in the camera's axes, shifted by the offset")  # fmt: skip
    room = max(float(np.ptp(felt)), float(np.ptp(np.percentile(seen, (1, 99)))), 1e-3)
    axis.set_ylim(felt.min() - 0.4 * room, felt.max() + 0.4 * room)
    axis.set_xlabel("time from the first frame [s]")
    axis.set_ylabel("rate [°/s]")
    axis.set_title(
        f"Turning about the camera's {AXES[which]} axis: both curves must agree", fontsize=10
    )
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)


def _misfit(axis: Any, camera: str, other: str, found: OffsetEstimate, series: FitSeries) -> None:
    answer, sigma = found.offset_ns / 1e6, found.sigma_ns / 1e6
    axis.plot(series.offset_s * 1e3, np.degrees(series.misfit_rad_s), color=COLOURS[0])
    axis.axvline(answer, color="black", lw=0.8, label="answer")
    axis.axvspan(answer - 2 * sigma, answer + 2 * sigma, color=COLOURS[2], alpha=0.25,
                 label="± 2 sigma")  # fmt: skip
    axis.set_xlabel(f"offset tried, t_{other} - t_{camera} [ms]")
    axis.set_ylabel("difference of the rates, rms [°/s]")
    axis.set_title("Whole-frame rotations at each offset: a rough check of the answer", fontsize=10)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)


def _residuals(axis: Any, series: FitSeries) -> None:
    left = np.degrees(series.camera_rad_s - series.other_rad_s)
    for column, name in enumerate(AXES):
        axis.plot(series.t_s, left[:, column], ".", ms=3, color=COLOURS[column], label=name)
    most = 2.0 * float(np.percentile(np.abs(left), 98)) + 1e-6
    beyond = int((np.abs(left) > most).any(axis=1).sum())
    axis.set_ylim(-most, most)
    axis.set_xlabel("time from the first frame [s]")
    axis.set_ylabel("difference of the rates [°/s]")
    cut = f" ({beyond} outliers beyond, of little weight)" if beyond else ""
    axis.set_title(f"What is left: no pattern should be seen{cut}", fontsize=10)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, ncols=3)
