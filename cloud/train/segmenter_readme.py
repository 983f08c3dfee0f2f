"""The section that tells people what the segmenter is and how good."""

from __future__ import annotations

from syncline.cloud.train.rendered import FRAME_SIZE, TEST_SEEDS
from syncline.cloud.train.rendered_maps import SLICES
from syncline.edge.model.manifest import Manifest

_README = """A small segmenter (EdgeSeg w32,
{width}x{height}, {kilobytes} kB, {precision}): what every 4x4
pixels of its input show. `make train NET=segmenter` makes it from nothing: no weights, no
pictures from elsewhere. Licence of weights and golden picture: {license}.

**It was trained on rendered scenes alone** (`docs/synthetic-drive.md`), to show the system
at work on the synthetic drive. It is not fit for real roads, nor for anything that matters.

Measured on {frames:.0f} frames ({frame}) of {drives} rendered drives whose seeds were used
neither for training nor for calibration; intersection over union at the network's stride. Cells
that nothing fills and pixels without a trace of what is there (clipped) do not count.

| class | IoU int8 | IoU fp32 |
|---|---|---|
{classes}

| light | frames | mean IoU int8 | mean IoU fp32 |
|---|---|---|---|
{lights}

int8 takes {int8_cpu_ms:.1f} ms CPU a frame, fp32 {fp32_cpu_ms:.1f} ({speedup:.2f}x) on one thread
of an x86 without VNNI.
{real}"""

_REAL = """
For information: on {frames:.0f} labelled CamVid frames, real pictures, its road has an IoU of
{iou:.2f} with theirs; one fixed shape for all of them reaches {iou_fixed:.2f}. Bring your own
model there.
"""


def readme(manifest: Manifest, size: int) -> str:
    """What ships, and how good it is, for people."""
    metrics = manifest.metrics
    classes = [
        f"| {label} | {part['iou']:.3f} | {part['iou_fp32']:.3f} |"
        for label in manifest.labels
        for part in [metrics[label.replace(" ", "-")]]
    ]
    whole = metrics["all"]
    classes.append(f"| **mean** | {whole['miou']:.3f} | {whole['miou_fp32']:.3f} |")
    lights = [
        f"| {name} | {part['frames']:.0f} | {part['miou']:.3f} | {part['miou_fp32']:.3f} |"
        for name in SLICES
        for part in [metrics[name]]
    ]
    return _README.format(
        width=manifest.input.width,
        height=manifest.input.height,
        kilobytes=size // 1000,
        precision=manifest.target.precision,
        license=manifest.license,
        frames=sum(metrics[name]["frames"] for name in SLICES),
        frame="x".join(map(str, FRAME_SIZE)),
        drives=len(TEST_SEEDS),
        classes="\n".join(classes),
        lights="\n".join(lights),
        real=_REAL.format(**metrics["camvid-road"]) if "camvid-road" in metrics else "",
        **metrics["speed"],
    )
