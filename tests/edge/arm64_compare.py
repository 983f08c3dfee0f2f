"""What came out in the arm64 system, against x86: one line per finding, exit code 1 on a failure.

Run as: python -m tests.edge.arm64_compare FOLDER NAME...; NAMEs are those of `arm64_facts`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syncline.edge.decode import Boxes
from syncline.edge.decode.match import match

AGREEMENT = 0.985
"""edge-35: of results on another runtime."""
IOU, SURE = 0.75, 0.55
"""Boxes below the second (threshold 0.5) may be there or not."""

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    text: str


def main() -> None:
    """Print and keep what is found."""
    folder = Path(sys.argv[1])
    found = [one for name in sys.argv[2:] for one in findings(folder, name)]
    for one in found:
        print(f"{'ok  ' if one.ok else 'FAIL'} {one.name}: {one.text}")
    report = json.dumps([asdict(one) for one in found], indent=1)
    (folder / "report.json").write_text(report, encoding="utf-8")
    sys.exit(0 if found and all(one.ok for one in found) else 1)


def findings(folder: Path, name: str) -> Iterator[Finding]:
    """All of one emulated processor."""
    facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    x86 = json.loads((folder / "x86.json").read_text(encoding="utf-8"))
    yield device(name, facts)
    yield from loads(name, facts["loads"], x86["loads"])
    yield cache(name, facts["cache"], x86["cache"])
    yield replay(name, folder)
    with (
        np.load(folder / "wanted.npz") as wanted,
        np.load(folder / "x86.npz") as there,
        np.load(folder / f"{name}.npz") as here,
    ):
        for key in facts["loads"]:
            if f"{key}|0|out" in here:
                yield same_tensors(name, key, wanted, here)
            if f"{key}|0|whole" in here:
                yield whole_path(name, key, there, here)
        yield resized(name, there, here)


def device(name: str, facts: dict[str, object]) -> Finding:
    """edge-8: it knows what it is."""
    told = (facts["machine"], facts["classes"], facts["target"])
    return Finding(
        f"{name} device", told == ("aarch64", ["any", "arm64"], "arm64"), f"{told[0]}, {told[1]}"
    )


def loads(
    name: str, here: dict[str, dict[str, object]], there: dict[str, dict[str, object]]
) -> Iterator[Finding]:
    """Builds for arm64 and for any machine prove themselves; those for x86 are refused."""
    for key, found in here.items():
        if "x86-64" in key:
            ok = found.get("error") == "ProviderError" and "any, arm64" in str(found.get("text"))
            yield Finding(f"{name} {key}", ok, f"refused: {found.get('text', 'no, it loaded')}")
            continue
        ok = "error" not in found
        text = f"golden of {found.get('runtime')}: agreement {found.get('agreement')}"
        yield Finding(f"{name} {key}", ok, text if ok else str(found["text"]))
    refused = [key for key, found in there.items() if key.endswith("arm64") and "error" in found]
    yield Finding("x86 refuses arm64 builds", len(refused) == 2, ", ".join(refused))


def cache(name: str, here: dict[str, list[object]], there: dict[str, list[object]]) -> Finding:
    """edge-31: what x86 compiled lies there and is not taken; what was compiled here is."""
    foreign = set(there["made"]) <= set(here["before"]) and not set(there["made"]) & set(
        here["made"]
    )
    ok = foreign and here["cached"] == [False, True] and bool(here["same"]) and bool(here["made"])
    return Finding(
        f"{name} cache of compiled models",
        ok,
        f"{len(here['before'])} foreign entries ignored, own one made and taken: {here['cached']}",
    )


def replay(name: str, folder: Path) -> Finding:
    """A clip through `syncline replay`: every frame, no invalid result, the same boxes.

    Frames are resized by each machine, so a box at the threshold may be there or not.
    """
    files = (folder / f"{who}.replay.json" for who in (name, "x86"))
    here, there = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    near = abs(here["boxes"] - there["boxes"]) <= max(1, round(0.05 * there["boxes"]))
    whole = here["frames"] == there["frames"] > 0 and here["invalid"] == there["invalid"] == 0
    text = f"{here['frames']} frames, {here['boxes']} boxes; x86 {there['boxes']}"
    return Finding(f"{name} replay", bool(near and whole and there["boxes"] > 0), text)


def same_tensors(name: str, key: str, wanted: Any, here: Any) -> Finding:
    """edge-35: from the same input tensors, raw outputs."""
    names = [n for n in here.files if n.startswith(f"{key}|") and n.endswith("|out")]
    return agreement(f"{name} {key}, same tensors", [(wanted[n], here[n]) for n in names])


def whole_path(name: str, key: str, there: Any, here: Any) -> Finding:
    """edge-35: from the same pictures, resized by each machine itself."""
    names = [n for n in here.files if n.startswith(f"{key}|") and n.endswith("|whole")]
    return agreement(f"{name} {key}, whole path", [(there[n], here[n]) for n in names])


def agreement(name: str, pairs: list[tuple[Array, Array]]) -> Finding:
    """Of label maps the share of equal pixels, of boxes that of sure ones that have a match."""
    equal = sum(np.array_equal(want, got) for want, got in pairs)
    if pairs[0][0].dtype == np.uint8:
        share = float(np.mean([np.mean(want == got) for want, got in pairs]))
        text = f"{share:.3%} of the pixels agree"
    else:
        total, alone, moved = 0, 0, 0.0
        for want, got in pairs:
            one, other = boxes(want), boxes(got)
            mine, theirs = match(one, other, IOU)
            sure = one.score >= SURE, other.score >= SURE
            total += int(sure[0].sum() + sure[1].sum())
            alone += int((sure[0] & ~mine).sum() + (sure[1] & ~theirs).sum())
            if want.shape == got.shape and np.array_equal(want[:, 5], got[:, 5]):
                moved = max(moved, float(np.abs(one.score - other.score).max(initial=0.0)))
        share = 1.0 - alone / total if total else 0.0
        text = f"{share:.3%} of {total} sure boxes agree, scores within {moved:.4f}"
    return Finding(
        name, share >= AGREEMENT, f"{text}; {equal} of {len(pairs)} frames equal in every bit"
    )


def boxes(rows: Array) -> Boxes:
    """Rows of x0, y0, x1, y1, score, class."""
    found = rows.astype(np.float32)
    return Boxes(found[:, :4], found[:, 4], found[:, 5].astype(np.int64))


def resized(name: str, there: Any, here: Any) -> Finding:
    """How far the two machines' OpenCV resize alike: a level at most."""
    names = [n for n in here.files if n.endswith("|tensor")]
    worst, share = 0, 0.0
    for n in names:
        apart = np.abs(there[n].astype(np.int16) - here[n].astype(np.int16))
        worst, share = max(worst, int(apart.max())), max(share, float(np.mean(apart > 0)))
    return Finding(
        f"{name} resized pictures", worst <= 1, f"at most {worst} of 255 apart, in {share:.0%}"
    )


if __name__ == "__main__":
    main()
