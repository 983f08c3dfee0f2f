"""What is wrong with a model, what it will cost, and what to do about it.

`error` findings keep a model off devices; `warning` ones cost speed or accuracy; `info` ones are
worth knowing. Nothing is changed here: `syncline model import` makes the repairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from syncline.cloud.models.denormals import count_denormals
from syncline.cloud.models.doctor_providers import provider_findings
from syncline.cloud.models.external import external_tensors
from syncline.cloud.models.finding import Finding, in_order
from syncline.cloud.models.graph import (
    MIN_OPSET,
    TensorInfo,
    attribute,
    inputs,
    multiply_accumulates,
    opset,
    outputs,
    parse_model,
    read_model_bytes,
    validate,
)
from syncline.cloud.models.quantize import activation_types, quantised_weight_range
from syncline.cloud.models.runtime import (
    RUNTIME,
    max_ir_version,
    max_opset,
)
from syncline.cloud.models.speed import Timing, compare_models
from syncline.cloud.models.targets import TARGETS, this_machine
from syncline.errors import ModelError

LARGE_BYTES = 64 << 20
# CPU time of one thread, measured on x86 without VNNI (dense 3x3 ReLU networks, 640x384).
FP32_GMAC_PER_S = 42.0
NO_VNNI_GAIN = "1.4 to 1.7x"
"""int8 against fp32, dense 3x3 ReLU networks, AVX2: measured with `make bench`."""
ANY = "any"
"""Device class of builds that must run on every machine."""
_SLOW_ACTIVATIONS = frozenset(
    {"Sigmoid", "HardSwish", "HardSigmoid", "Mish", "Elu", "Gelu", "Erf", "PRelu"}
)
_DEPTHWISE_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the doctor says of one model.

    Attributes:
        findings: Errors first.
        opset: Of the graph; 0 when it could not be parsed.
        size_bytes: Of the file.
        inputs: True inputs.
        outputs: Outputs.
        operators: How many of each.
        macs: Multiply-accumulates of one run.
        estimated_ms: CPU time of one thread guessed from `macs`; for fp32 dense networks.
        measured: CPU time of one thread here; None when it was not or could not be run.
    """

    findings: tuple[Finding, ...]
    opset: int = 0
    size_bytes: int = 0
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    operators: tuple[tuple[str, int], ...] = ()
    macs: int = 0
    estimated_ms: float = 0.0
    measured: Timing | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that keep the model off devices."""
        return tuple(f for f in self.findings if f.severity == "error")

    def with_findings(self, more: Iterable[Finding]) -> Diagnosis:
        """The diagnosis with further findings, errors first."""
        return replace(self, findings=in_order((*self.findings, *more)))

    def require(self) -> None:
        """Raise when there is an error.

        Raises:
            ModelError: The first error, with the number of others.
        """
        if self.errors:
            first, more = self.errors[0], len(self.errors) - 1
            tail = f" (and {more} more)" if more else ""
            raise ModelError(f"{first.message}{tail}", remedy=first.remedy)


def diagnose(
    path: Path,
    *,
    device_class: str | None = None,
    providers: Sequence[str] = (),
    provider_options: Mapping[str, Mapping[str, str]] | None = None,
    cpu_ns: Callable[[], int] | None = None,
    runs: int = 5,
) -> Diagnosis:
    """Examine a model file.

    Args:
        path: ONNX file.
        device_class: Target to hold int8 types against.
        providers: Execution providers to look for unsupported operators of.
        provider_options: Their options, by name.
        cpu_ns: CPU time of this thread, to measure speed; None = do not run the model.
        runs: Rounds of the measurement.

    Raises:
        ModelError: The file cannot be read.
    """
    data = read_model_bytes(path)
    try:
        model = parse_model(data, path.name)
    except ModelError as error:
        return Diagnosis((Finding("unreadable", "error", error.message, error.remedy),))
    findings = [*_file(model, len(data)), *_graph(model)]
    if not any(f.severity == "error" for f in findings):
        findings += [*_numbers(model, device_class), *_shape(model), *_operators(model)]
        for name in providers:
            findings += provider_findings(model, name, (provider_options or {}).get(name, {}))
    macs, measured = _speed(model, findings, cpu_ns, runs)
    counts = Counter(node.op_type for node in model.graph.node)
    return Diagnosis(
        in_order(findings),
        opset(model),
        len(data),
        tuple(inputs(model)),
        tuple(outputs(model)),
        tuple(counts.most_common()),
        macs,
        macs / FP32_GMAC_PER_S / 1e6,
        measured,
    )


def _file(model: onnx.ModelProto, size: int) -> Iterator[Finding]:
    """What can be said before the graph is looked at."""
    if opset(model) > max_opset():
        yield Finding(
            "opset-too-new",
            "error",
            f"opset {opset(model)}, {RUNTIME} loads up to {max_opset()}",
            f"Export the model with opset {max_opset()} or lower",
        )
    if model.ir_version > max_ir_version():
        yield Finding(
            "ir-too-new",
            "error",
            f"IR version {model.ir_version}, {RUNTIME} loads up to {max_ir_version()}",
            "Save the model with ir_version=10",
        )
    if tensors := external_tensors(model):
        location = next((e.value for e in tensors[0].external_data if e.key == "location"), "?")
        yield Finding(
            "external-data",
            "error",
            f"{len(tensors)} tensors lie in a second data file ({location[:80]!r})",
            "Run `syncline model import`, which takes them in, or export with external_data=False",
        )
    if size > LARGE_BYTES:
        text = f"{size / 1e6:.0f} MB is large for a device"
        yield Finding("large", "info", text, "Use a smaller network, or quantise it")


def _graph(model: onnx.ModelProto) -> Iterator[Finding]:
    """Validity; a graph with external data cannot be checked in full."""
    if opset(model) > max_opset() or external_tensors(model):
        return
    try:
        validate(model)
    except ModelError as error:
        yield Finding("invalid-graph", "error", error.message, error.remedy)


def _numbers(model: onnx.ModelProto, device_class: str | None) -> Iterator[Finding]:
    """Opset for int8, denormals, weights as inputs, types of activations."""
    if opset(model) < MIN_OPSET:
        yield Finding(
            "opset-old",
            "warning",
            f"opset {opset(model)}: per-channel int8 needs {MIN_OPSET}",
            "Run `syncline model import`, which raises it and proves that nothing changed",
        )
    count = count_denormals(model)
    if count.denormal:
        yield Finding(
            "denormals",
            "warning",
            f"{count.denormal} of {count.total} weights ({count.share:.1%}) are denormal: "
            "several times slower on Intel cores",
            "Run `syncline model import`, which sets them to zero and proves that nothing changed",
        )
    weights = {tensor.name for tensor in model.graph.initializer}
    listed = sum(value.name in weights for value in model.graph.input)
    if listed:
        yield Finding(
            "weights-as-inputs",
            "warning",
            f"{listed} weights are listed as inputs, so the runtime cannot fold them",
            "Run `syncline model import`, which removes them",
        )
    yield from _types(model, device_class)


def _types(model: onnx.ModelProto, device_class: str | None) -> Iterator[Finding]:
    found = activation_types(model)
    if not found:
        return
    target = TARGETS.get(device_class or "", this_machine())
    if found != {target.activation}:
        yield Finding(
            "activation-type",
            "error" if device_class in TARGETS else "warning",
            f"activations are {', '.join(sorted(found))}, {target.name} runs {target.activation}",
            f"Quantise the fp32 model again with --target {target.name}",
        )
    low, high = quantised_weight_range(model)
    seven = target.reduce_range or device_class == ANY
    if (low < -64 or high > 64) and seven and found == {"uint8"}:
        yield Finding(
            "int8-saturates",
            "error" if device_class in (ANY, *TARGETS) else "warning",
            f"int8 weights from {low} to {high}: x86 without VNNI sums two products in 16 bits, "
            "which overflow beyond -64..64, and gives wrong numbers without an error",
            "Quantise the fp32 model again with --target x86-64: 7-bit weights",
        )


def _shape(model: onnx.ModelProto) -> Iterator[Finding]:
    """Free dimensions, wide outputs."""
    for info in inputs(model):
        if not info.fixed:
            yield Finding(
                "free-shape",
                "warning",
                f"input {info.name!r} has the free shape {list(info.shape)}",
                "Import it with --size WIDTHxHEIGHT",
            )
    for info in inputs(model):
        if info.dtype == "float32" and len(info.shape) == 4:
            yield Finding(
                "float-input",
                "info",
                f"input {info.name!r} is float32: converting frames costs CPU outside the graph",
                "`syncline model quantize`, or import --fold, folds the conversion in",
            )


def _operators(model: onnx.ModelProto) -> Iterator[Finding]:
    """What int8 hurts."""
    counts = Counter(node.op_type for node in model.graph.node)
    slow = {name: n for name, n in counts.items() if name in _SLOW_ACTIVATIONS}
    convolutions = counts["Conv"]
    if convolutions and sum(slow.values()) > convolutions // 4:
        shown = ", ".join(f"{n} {name}" for name, n in slow.items())
        yield Finding(
            "int8-activation",
            "warning",
            f"{shown} on {convolutions} convolutions: int8 loses speed or accuracy on "
            "SiLU, HardSwish and PReLU",
            "Expect the gate to refuse int8; train with ReLU, or use OpenVINO with NNCF",
        )
    depthwise = sum(_is_depthwise(node) for node in model.graph.node)
    if convolutions and depthwise > _DEPTHWISE_SHARE * convolutions:
        yield Finding(
            "int8-depthwise",
            "warning",
            f"{depthwise} of {convolutions} convolutions are depthwise: int8 gains nothing there",
            "Expect the gate to refuse int8; use dense 3x3 convolutions",
        )
    rectified = counts["Relu"] + counts["Clip"] > convolutions // 2 and not counts["PRelu"]
    plain = rectified and not slow and not depthwise and not activation_types(model)
    if plain and this_machine().name == "x86-64":
        yield Finding(
            "int8-no-vnni",
            "info",
            f"this CPU has no VNNI: int8 makes a dense ReLU network {NO_VNNI_GAIN} faster here, "
            "2 to 3x with VNNI",
            "`syncline model quantize` measures it and refuses what does not pay",
        )
    yield from _resizes(model)


def _is_depthwise(node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" and attribute(node, "group", 1) > 1


def _resizes(model: onnx.ModelProto) -> Iterator[Finding]:
    linear = sum(
        node.op_type in ("Resize", "Upsample")
        and any(a.name == "mode" and a.s == b"linear" for a in node.attribute)
        for node in model.graph.node
    )
    if linear:
        yield Finding(
            "linear-resize",
            "warning",
            f"{linear} bilinear resizes: five times slower than nearest on the CPU",
            "Upsample by nearest, and give labels at low resolution",
        )


def _speed(
    model: onnx.ModelProto,
    findings: list[Finding],
    cpu_ns: Callable[[], int] | None,
    runs: int,
) -> tuple[int, Timing | None]:
    """Multiply-accumulates and, when asked for and possible, the measured time."""
    if any(f.severity == "error" for f in findings):
        return 0, None
    macs = multiply_accumulates(model)
    if cpu_ns is None:
        return macs, None
    try:
        # proof that the runtime takes it, too: not every valid graph is loaded
        times = compare_models({"model": model}, cpu_ns, runs=runs, budget_s=20.0)
    except ModelError as error:
        findings.append(Finding("does-not-run", "error", error.message, error.remedy))
        return macs, None
    return macs, times["model"]
