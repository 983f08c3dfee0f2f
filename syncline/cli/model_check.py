"""`syncline model check`: what is wrong with a model, what it costs, what to do."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from syncline.cli.model_files import check_runs, open_bundle
from syncline.cli.providers import options_of, plugins_of
from syncline.cloud.models.doctor import Diagnosis, diagnose
from syncline.cloud.models.doctor_bundle import bundle_findings
from syncline.cloud.models.doctor_providers import check_providers
from syncline.edge.model.bundle import MODEL_NAME
from syncline.edge.plugins import register_plugin

_SHOWN_OPERATORS = 8


def check(
    model: Path,
    *,
    provider: tuple[str, ...] = (),
    plugin: tuple[str, ...] = (),
    provider_option: tuple[str, ...] = (),
    target: str | None = None,
    measure: bool = True,
    runs: int = 5,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Examine an ONNX file or a bundle and say what to do; a bundle is loaded and proven as well.

    Exit code 0: nothing keeps it off devices. Exit code 4: an error does.

    Args:
        model: ONNX file, the folder of a bundle, or the name of one that ships.
        provider: Execution provider whose operators are to be checked; may be given again.
        plugin: Library of a provider that the runtime does not bring, NAME=LIBRARY; it is checked
            too.
        provider_option: Option of a provider, NAME.KEY=VALUE.
        target: Device class to hold int8 types against; default: the bundle's, or this machine's.
        measure: Run the model to measure its speed.
        runs: Rounds of the measurement.
        as_json: Print one JSON object.
    """
    check_runs(runs)
    path, device_class = model, target
    bundle = None if model.is_file() else open_bundle(model)
    if bundle is not None:
        path = bundle.folder / MODEL_NAME
        device_class = target or bundle.manifest.target.device_class
    for name, library in plugins_of(plugin):
        register_plugin(name, library)
    check_providers(provider)
    found = diagnose(
        path,
        device_class=device_class,
        providers=tuple(dict.fromkeys((*provider, *(name for name, _ in plugins_of(plugin))))),
        provider_options=options_of(provider_option),
        cpu_ns=time.thread_time_ns if measure else None,
        runs=runs,
    )
    if bundle is not None and not found.errors:
        found = found.with_findings(bundle_findings(bundle))
    print(json.dumps(_as_dict(found)) if as_json else _as_text(found))
    return 4 if found.errors else 0


def _as_dict(found: Diagnosis) -> dict[str, object]:
    return {**asdict(found), "operators": dict(found.operators), "usable": not found.errors}


def _as_text(found: Diagnosis) -> str:
    lines = []
    if found.opset:
        shown = ", ".join(f"{n} {name}" for name, n in found.operators[:_SHOWN_OPERATORS])
        lines.append(f"opset {found.opset}, {found.size_bytes / 1e6:.2f} MB, {shown}")
        for kind, tensors in (("input", found.inputs), ("output", found.outputs)):
            lines += [f"{kind} {t.name}: {t.dtype} {list(t.shape)}" for t in tensors]
    if found.macs:
        lines.append(
            f"{found.macs / 1e9:.2f} G multiply-accumulates, about {found.estimated_ms:.1f} ms "
            "CPU as dense fp32 on one core"
        )
    if found.measured is not None:
        lines.append(f"measured {found.measured.best_ms:.2f} ms CPU here, one thread, best of "
                     f"{found.measured.runs}")  # fmt: skip
    for finding in found.findings:
        lines.append(f"{finding.severity} [{finding.code}] {finding.message}")
        if finding.remedy:
            lines.append(f"    -> {finding.remedy}")
    if not found.findings:
        lines.append("nothing to complain about")
    return "\n".join(lines)
