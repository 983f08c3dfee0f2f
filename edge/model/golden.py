"""The golden frame and outputs of a bundle, and the comparison that proves a loaded model."""

from __future__ import annotations

import io
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from syncline.edge.model.manifest import GoldenSpec
from syncline.errors import HealthProofError, ManifestError

GOLDEN_NAME = "golden.npz"
SAME_LABELS = 0.999
MAX_GOLDEN_BYTES = 256 << 20
_DAMAGED = (
    ValueError, OSError, EOFError, KeyError, SyntaxError, TypeError,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError,
    RuntimeError, NotImplementedError, MemoryError, OverflowError, RecursionError,
)  # fmt: skip
"""What a damaged zip or array header raises, of all that zipfile and numpy go through."""


@dataclass(frozen=True, slots=True)
class Golden:
    """A frame and what the model makes of it.

    Attributes:
        frame: uint8 (H, W, 3), BGR.
        outputs: The model's raw outputs in the order of `decoder.outputs`.
    """

    frame: NDArray[np.uint8]
    outputs: tuple[NDArray[np.generic], ...]


@dataclass(frozen=True, slots=True)
class GoldenProof:
    """How well the golden outputs were reproduced.

    Attributes:
        max_abs_diff: Largest absolute difference of float outputs; 0 without any.
        agreement: Smallest share of equal labels over the outputs.
    """

    max_abs_diff: float
    agreement: float


def pack_golden(golden: Golden) -> bytes:
    """Bytes of `golden.npz`; equal arrays give equal bytes."""
    arrays = {f"out_{i}": output for i, output in enumerate(golden.outputs)}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, frame=golden.frame, **arrays)
    return buffer.getvalue()


def unpack_golden(data: bytes) -> Golden:
    """Read `golden.npz`; nothing is unpickled and the unpacked size is bounded.

    Raises:
        ManifestError: Not such a file.
    """
    try:
        _check_size(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except _DAMAGED as error:
        raise ManifestError(f"{GOLDEN_NAME} cannot be read: {error}") from error
    frame = arrays.pop("frame", np.empty(0))
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ManifestError(
            f"{GOLDEN_NAME}: frame is {frame.dtype}{frame.shape}, must be uint8 (H, W, 3)"
        )
    names = [f"out_{i}" for i in range(len(arrays))]
    if not names or sorted(names) != sorted(arrays):
        raise ManifestError(f"{GOLDEN_NAME} holds {sorted(arrays)}, must hold out_0, out_1, ...")
    return Golden(frame, tuple(arrays[name] for name in names))


def _check_size(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = sum(info.file_size for info in archive.infolist())
    if size > MAX_GOLDEN_BYTES:
        raise ManifestError(f"{GOLDEN_NAME} unpacks to {size} bytes, over {MAX_GOLDEN_BYTES}")


def compare(
    golden: Golden,
    outputs: Sequence[NDArray[np.generic]],
    spec: GoldenSpec,
) -> GoldenProof:
    """Hold a model's outputs against the golden ones, where the same kernels computed these.

    Integer outputs are label maps: `SAME_LABELS` of them must be equal. Float outputs must lie
    within the tolerances. For other runtimes and machines see `syncline.edge.proof`.

    Raises:
        HealthProofError: Number, shape, type or values of the outputs are wrong.
    """
    check_kind(golden, outputs)
    worst, agreement = 0.0, 1.0
    for index, (want, got) in enumerate(zip(golden.outputs, outputs, strict=True)):
        diff, share = _compare_one(want, got, spec)
        worst, agreement = max(worst, diff), min(agreement, share)
        is_float = np.issubdtype(want.dtype, np.floating)
        needed = 1.0 if is_float else SAME_LABELS
        if share < needed:
            raise HealthProofError(
                f"golden run: output {index} agrees on {share:.4%}, needs {needed:.4%} "
                f"(largest difference {diff:.3g})",
                remedy="The model does not compute what it was released with; keep the old one",
            )
    return GoldenProof(worst, agreement)


def check_kind(
    golden: Golden, outputs: Sequence[NDArray[np.generic]], *, shapes: bool = True
) -> None:
    """Refuse outputs of another number, type or (with `shapes`) shape.

    Raises:
        HealthProofError: Naming the first that differs.
    """
    if len(outputs) != len(golden.outputs):
        raise HealthProofError(f"golden run: {len(outputs)} outputs, not {len(golden.outputs)}")
    for index, (want, got) in enumerate(zip(golden.outputs, outputs, strict=True)):
        if want.dtype != got.dtype or (shapes and want.shape != got.shape):
            raise HealthProofError(
                f"golden run: output {index} is {got.dtype}{got.shape}, "
                f"not {want.dtype}{want.shape}",
                remedy="Build the bundle's golden output from this very model",
            )


def _compare_one(
    want: NDArray[np.generic], got: NDArray[np.generic], spec: GoldenSpec
) -> tuple[float, float]:
    """(largest absolute difference, share of elements that agree)."""
    if want.size == 0:
        return 0.0, 1.0
    if not np.issubdtype(want.dtype, np.floating):
        return 0.0, float(np.mean(want == got))
    wanted, given = want.astype(np.float64), got.astype(np.float64)
    diff = np.abs(wanted - given)
    close = diff <= spec.atol + spec.rtol * np.abs(wanted)
    finite = np.isfinite(given) & np.isfinite(wanted)
    largest = float(diff[finite].max(initial=0.0)) if finite.all() else float("inf")
    return largest, float(np.mean(close & finite))
