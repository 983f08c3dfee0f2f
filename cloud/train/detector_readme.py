"""The page that tells people what ships and how good it is."""

from __future__ import annotations

from syncline.cloud.train.rendered import FRAME_SIZE, SCORED_SIDE_PX, TEST_SEEDS, VISIBLE
from syncline.edge.model.manifest import Manifest

_README = """A small detector (EdgeDet, {width}x{height}, {kilobytes} kB, {precision}) for cars,
people, traffic lights and trucks. {origin}

**It was trained on rendered scenes alone** (`docs/synthetic-drive.md`), to show the system
at work on the synthetic drive. It is not fit for real roads, nor for anything that matters.

Measured on {drives} rendered drives whose seeds were used neither for training nor for choosing
the threshold ({threshold:.2f}); average precision and F1 at IoU 0.5. Boxes with a side below
{min_side:.0f} px of the {frame} frame, or of which less than {visible} % is seen, do not count.

| class | AP50 int8 | AP50 fp32 | F1 int8 | F1 fp32 |
|---|---|---|---|---|
{rows}

On real pictures it fails: in three labelled KITTI frames it found one of the five things that are
at least 25 px high (whatever its class) and drew 13 other boxes. Bring your own model there.
"""


def readme(manifest: Manifest, size: int) -> str:
    """What ships, and how good it is, for people."""
    rows = [
        f"| {label} | {part['ap50']:.3f} | {part['ap50_fp32']:.3f} "
        f"| {part['f1']:.3f} | {part['f1_fp32']:.3f} |"
        for label in manifest.labels
        for part in [manifest.metrics[label.replace(" ", "-")]]
    ]
    start = manifest.lineage.get("start")
    whole = manifest.metrics["all"]
    rows.append(
        f"| **mean** | {whole['map50']:.3f} | {whole['map50_fp32']:.3f} "
        f"| {whole['f1']:.3f} | {whole['f1_fp32']:.3f} |"
    )
    return _README.format(
        rows="\n".join(rows),
        origin=f"It went on from {start}.\n`make train` makes one from nothing; no weights and no "
        "pictures come from elsewhere."
        if start
        else "`make train` makes it from nothing:\nno weights, no pictures from elsewhere.",
        kilobytes=size // 1000,
        threshold=manifest.decoder.score_threshold,
        width=manifest.input.width,
        height=manifest.input.height,
        precision=manifest.target.precision,
        drives=len(TEST_SEEDS),
        min_side=SCORED_SIDE_PX,
        frame="x".join(map(str, FRAME_SIZE)),
        visible=round(100 * VISIBLE[1]),
    )
