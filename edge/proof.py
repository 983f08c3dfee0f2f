"""The golden proof on a runtime or a machine other than the one that computed the golden output.

Two processors round float sums in different order; in an int8 graph such a difference may move an
activation by one step, and two boxes of nearly equal score may change places. Raw outputs then say
little: rows of boxes are compared with others. What the outputs mean is compared instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from syncline.edge.decode import Boxes, Decoded, LabelMap, Scores
from syncline.edge.decode.match import match
from syncline.edge.model.golden import Golden, GoldenProof
from syncline.edge.model.manifest import Manifest
from syncline.errors import HealthProofError

Outputs = Sequence[NDArray[np.generic]]
MATCH_IOU = 0.75
MARGIN = 0.05
"""Boxes that are less above the threshold may be there or not; first places by less may swap."""


def is_same_runtime(named: str, here: str, machine: str) -> bool:
    """Whether golden outputs must come out element by element.

    Args:
        named: `target.runtime`: a runtime, with ` on MACHINE` when it is known where it ran.
        here: The runtime that runs the model here.
        machine: Instruction set here.
    """
    return named in ("", here, f"{here} on {machine}")


def compare_meaning(
    golden: Golden,
    outputs: Outputs,
    manifest: Manifest,
    decode: Callable[[Outputs], Decoded],
) -> GoldenProof:
    """Hold what the outputs mean against what the golden ones mean.

    Label maps: share of equal pixels. Boxes: share of those clearly above the threshold, on either
    side, that the other side has with the same class at IoU 0.75. Scores: the same first place.

    Args:
        golden: As the bundle brings it.
        outputs: Of the golden frame here.
        manifest: Of the bundle.
        decode: Makes sense of outputs of that frame.

    Raises:
        HealthProofError: Number or types of outputs differ, or the agreement is below
            `golden.min_agreement`.
        ManifestError: The outputs do not decode.
    """
    if [one.dtype for one in outputs] != [one.dtype for one in golden.outputs]:
        raise HealthProofError(
            f"golden run: {len(outputs)} outputs are not the {len(golden.outputs)} golden ones",
            remedy="Build the bundle's golden output from this very model",
        )
    sure = manifest.decoder.score_threshold + MARGIN
    agreement = _agreement(decode(golden.outputs), decode(outputs), sure)
    needed = manifest.golden.min_agreement
    if agreement < needed:
        raise HealthProofError(
            f"golden run: results agree on {agreement:.4%} with those of "
            f"{manifest.target.runtime}, needs {needed:.4%}",
            remedy="The model does not compute what it was released with; keep the old one",
        )
    return GoldenProof(_largest_difference(golden.outputs, outputs), agreement)


def _agreement(want: Decoded, got: Decoded, sure: float) -> float:
    if isinstance(want, Boxes) and isinstance(got, Boxes):
        return _box_agreement(want, got, sure)
    if isinstance(want, LabelMap) and isinstance(got, LabelMap):
        same_shape = want.labels.shape == got.labels.shape
        return float(np.mean(want.labels == got.labels)) if same_shape else 0.0
    if isinstance(want, Scores) and isinstance(got, Scores) and len(want.score) == len(got.score):
        first = int(np.argmax(want.score))
        return float(got.score[first] >= got.score.max() - MARGIN)
    return 0.0


def _box_agreement(want: Boxes, got: Boxes, sure: float) -> float:
    found, wanted = match(want, got, MATCH_IOU)
    of_want, of_got = want.score >= sure, got.score >= sure
    total = int(of_want.sum() + of_got.sum())
    alone = int((of_want & ~found).sum() + (of_got & ~wanted).sum())
    return 1.0 - alone / total if total else 1.0


def _largest_difference(want: Outputs, got: Outputs) -> float:
    """Of float outputs of equal shape; rows of boxes may stand in another order."""
    worst = 0.0
    for one, other in zip(want, got, strict=True):
        if one.shape == other.shape and np.issubdtype(one.dtype, np.floating):
            difference = np.abs(one.astype(np.float64) - other.astype(np.float64))
            worst = max(worst, float(difference.max(initial=0.0)))
    return worst
