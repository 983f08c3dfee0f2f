"""Whether the disagreement of two segmenters finds the frames on which the serving one is wrong.

Frames of one drive are alike, so what a figure is worth is told by drawing whole drives anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from syncline.cloud.models.agreement import IGNORE
from syncline.cloud.train.pairs import Images
from syncline.edge.shadow import compare_labels

Floats = NDArray[np.float64]
Statistic = Callable[[Floats, Floats], float]
TENTH = 10
DRAWS = 2000
BOUNDS = (0.05, 0.95)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Per frame of one drive: disagreement, and share of wrong cells of either network.

    Attributes:
        score: Share of cells that the two call differently (`syncline.edge.shadow`).
        worth: The same and the change of the classes' areas: what frames are chosen by.
        wrong: Of the serving network.
        shadow_wrong: Of the shadow.
    """

    score: Floats
    worth: Floats
    wrong: Floats
    shadow_wrong: Floats


@dataclass(frozen=True, slots=True)
class Figure:
    """A statistic and the middle 90 % of those of drives drawn anew."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def judge(serving: Images, shadow: Images, truth: Images) -> Verdicts:
    """Compare two networks' label maps (N, h, w) of one drive with each other and the truth."""
    found = [compare_labels(a, b) for a, b in zip(serving, shadow, strict=True)]
    return Verdicts(
        np.array([d.score for d in found]),
        np.array([d.worth for d in found]),
        wrong_share(truth, serving),
        wrong_share(truth, shadow),
    )


def wrong_share(truth: Sequence[Images] | Images, found: Sequence[Images] | Images) -> Floats:
    """Share of wrong cells of each frame, among those that are labelled."""
    pairs = zip(truth, found, strict=True)
    return np.array([np.mean((a != b)[a != IGNORE]) for a, b in pairs], np.float64)


def lift(score: Floats, wrong: Floats) -> float:
    """Mean error of the tenth that a score picks, over the mean error."""
    picked = np.argsort(score, kind="stable")[-max(len(score) // TENTH, 1) :]
    return float(wrong[picked].mean() / wrong.mean())


def oracle_lift(_score: Floats, wrong: Floats) -> float:
    """The lift of a score that knows the errors: what there is to be had."""
    return lift(wrong, wrong)


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's; ties in the order given."""
    first, second = (np.argsort(np.argsort(x, kind="stable")) for x in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def over_drives(
    statistic: Statistic, drives: Sequence[Verdicts], name: str = "score", draws: int = DRAWS
) -> Figure:
    """A statistic of all frames, with how it varies when drives are drawn with replacement.

    Args:
        statistic: Of a score and the serving network's errors.
        drives: All there are.
        name: Of the score: `score` or `worth`.
        draws: How often drives are drawn anew.
    """
    rng = np.random.default_rng(0)

    def of(chosen: Sequence[int] | NDArray[np.int64]) -> float:
        parts = [drives[int(k)] for k in chosen]
        score = np.concatenate([np.asarray(getattr(p, name), np.float64) for p in parts])
        return statistic(score, np.concatenate([p.wrong for p in parts]))

    drawn = [of(rng.integers(0, len(drives), len(drives))) for _ in range(draws)]
    low, high = np.quantile(drawn, BOUNDS)
    return Figure(of(range(len(drives))), float(low), float(high))


def told(drives: Sequence[Verdicts]) -> str:
    """What disagreement is worth, in words; in brackets the middle 90 % over drives drawn anew."""
    wrong = np.concatenate([drive.wrong for drive in drives])
    shadow = np.concatenate([drive.shadow_wrong for drive in drives])
    parts = [f"oracle lift {over_drives(oracle_lift, drives)}"]
    for name in ("score", "worth"):
        rank, top = (over_drives(s, drives, name) for s in (rank_correlation, lift))
        parts.append(f"{name}: Spearman {rank}, lift of the top tenth {top}")
    return (
        f"{len(wrong)} frames of {len(drives)} drives: wrong cells, serving "
        f"{100 * wrong.mean():.2f} % (standard deviation {100 * wrong.std():.2f}), shadow "
        f"{100 * shadow.mean():.2f} %; " + "; ".join(parts)
    )
