"""Side by side: bundles on the same frame, or what int8 gains on this very machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from syncline.cloud.models.fold import fold
from syncline.cloud.models.frames import Frame
from syncline.cloud.models.graph import parse_model, serialise
from syncline.cloud.models.probe import Probe, feeds, synthetic_frame
from syncline.cloud.models.quantize import quantise_graph
from syncline.cloud.models.reference import edgeseg, mobseg, reference_manifest
from syncline.cloud.models.runtime import RUNTIME, Array, GraphSession
from syncline.cloud.models.speed import compare_models, measure
from syncline.cloud.models.targets import this_machine
from syncline.edge.model.bundle import Bundle

CALIBRATION = 4


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One variant: CPU milliseconds of one thread, best of N.

    Attributes:
        name: Of the variant.
        run_ms: The bare run of the graph.
        frame_ms: From the frame to decoded results; None when only graphs were compared.
    """

    name: str
    run_ms: float
    frame_ms: float | None = None


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Variants that took turns; the first is the base of the ratios."""

    rows: tuple[BenchRow, ...]
    machine: str
    runs: int

    def ratio(self, row: BenchRow) -> float:
        """How many times faster than the first row; of whole frames where measured."""
        first = self.rows[0]
        if row.frame_ms is None or first.frame_ms is None:
            return first.run_ms / row.run_ms
        return first.frame_ms / row.frame_ms

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        rows = [{**asdict(row), "ratio": self.ratio(row)} for row in self.rows]
        return {"rows": rows, "machine": self.machine, "runs": self.runs}


def bench_bundles(
    bundles: Sequence[Bundle],
    cpu_ns: Callable[[], int],
    *,
    image: NDArray[np.uint8] | None = None,
    runs: int = 15,
) -> BenchReport:
    """Time bundles on one frame.

    Args:
        bundles: Verified; the first is the base.
        cpu_ns: CPU time of this thread, nanoseconds.
        image: uint8 (H, W, 3) BGR; None = the first bundle's golden frame.
        runs: Rounds.
    """
    frame = bundles[0].golden().frame if image is None else image
    jobs: dict[str, Callable[[], object]] = {}
    names = [_name(bundle, i) for i, bundle in enumerate(bundles)]
    for name, bundle in zip(names, bundles, strict=True):
        model = parse_model(bundle.model_bytes())
        spec = bundle.manifest.input
        feed = dict(next(iter(feeds(spec, [Frame("", "", frame)]))))
        jobs[f"run {name}"] = _run(GraphSession(serialise(model)), feed)
        jobs[f"frame {name}"] = _whole(Probe(model, bundle.manifest, as_target=False), frame)
    times = measure(jobs, cpu_ns, runs=runs)
    rows = (
        BenchRow(name, times[f"run {name}"].best_ms, times[f"frame {name}"].best_ms)
        for name in names
    )
    return BenchReport(tuple(rows), _machine(), runs)


def bench_reference(cpu_ns: Callable[[], int], *, runs: int = 15) -> BenchReport:
    """What int8 gains here: EdgeSeg in two widths and MobSeg, fp32 and int8 in turns."""
    target = this_machine()
    rows: list[BenchRow] = []
    nets = {"edgeseg-w32": edgeseg(32), "edgeseg-w56": edgeseg(56), "mobseg-hardswish": mobseg()}
    for name, net in nets.items():
        model, manifest = fold(net, reference_manifest(net, name))
        size = (manifest.input.width, manifest.input.height)
        frames = (Frame("", "", synthetic_frame(*size, seed=i)) for i in range(CALIBRATION))
        int8 = quantise_graph(model, feeds(manifest.input, frames), target)
        times = compare_models({"fp32": model, "int8": int8}, cpu_ns, runs=runs)
        rows += [BenchRow(f"{name} {key}", value.best_ms) for key, value in times.items()]
    return BenchReport(tuple(rows), _machine(), runs)


def _name(bundle: Bundle, index: int) -> str:
    manifest = bundle.manifest
    target = manifest.target
    return f"{index + 1}:{manifest.name} {target.precision} {target.device_class}"


def _run(session: GraphSession, feed: dict[str, Array]) -> Callable[[], object]:
    return lambda: session.run(feed)


def _whole(probe: Probe, frame: NDArray[np.uint8]) -> Callable[[], object]:
    return lambda: probe(frame)


def _machine() -> str:
    return f"{this_machine().name}, {RUNTIME}"
