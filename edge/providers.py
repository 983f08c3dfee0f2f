"""Which execution provider runs a model, and what this host is. Pure; imports no runtime."""

from __future__ import annotations

import difflib
import json
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from syncline.errors import ProviderError

CPU = "CPUExecutionProvider"
MIN_NODE_SHARE = 0.95
"""An accelerator that takes less of the graph than this is warned about."""
_EMULATED_ON_CPU = frozenset({"WebGpuExecutionProvider", "QNNExecutionProvider"})

_log = logging.getLogger(__name__)
_CPUINFO = Path("/proc/cpuinfo")
_ACCELERATED: Mapping[str, str] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
_SOURCES: Mapping[str, str] = {
    "TensorrtExecutionProvider": "Install onnxruntime-gpu in place of onnxruntime, and TensorRT",
    "CUDAExecutionProvider": "Install onnxruntime-gpu in place of onnxruntime, and CUDA",
    "OpenVINOExecutionProvider": "Install the plug-in onnxruntime-ep-openvino and name its library "
    "in model.plugins, or onnxruntime-openvino in place of onnxruntime",
    "QNNExecutionProvider": "Install the plug-in onnxruntime-qnn and name its library in "
    "model.plugins",
    "WebGpuExecutionProvider": "Install the plug-in onnxruntime-ep-webgpu and name its library in "
    "model.plugins",
    "CoreMLExecutionProvider": "It is part of onnxruntime on macOS alone",
    "MIGraphXExecutionProvider": "Install AMD's onnxruntime-migraphx in place of onnxruntime",
    "ROCMExecutionProvider": "ONNX Runtime has dropped it: use MIGraphXExecutionProvider",
    "XnnpackExecutionProvider": "Build onnxruntime with --use_xnnpack; it is in no wheel for Linux",
}
"""What a user must do to have a provider."""


@dataclass(frozen=True, slots=True)
class Host:
    """The hardware that a build of a model must fit.

    Attributes:
        machine: Instruction set, as `platform.machine()` names it.
        flags: CPU feature flags.
    """

    machine: str
    flags: frozenset[str]

    @staticmethod
    def this(cpuinfo: Path = _CPUINFO) -> Host:
        """The host that runs this process."""
        try:
            text = cpuinfo.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        flags: frozenset[str] = frozenset()
        for line in text.splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features"):
                flags = frozenset(value.split())
                break
        return Host(platform.machine(), flags)

    def device_classes(self, providers: Sequence[str] = ()) -> frozenset[str]:
        """Device classes of builds that run here as they were meant to."""
        classes = {"any"}
        if self.machine in ("x86_64", "AMD64"):
            classes.add("x86-64")
            if self.flags & {"avx512_vnni", "avx_vnni"}:
                classes.add("x86-64-vnni")
        if self.machine in ("aarch64", "arm64"):
            classes.add("arm64")
        classes |= {name for name, provider in _ACCELERATED.items() if provider in providers}
        return frozenset(classes)


@dataclass(frozen=True, slots=True)
class Plan:
    """The providers that a session is given.

    Attributes:
        requested: First provider asked for.
        providers: Those that are there, in order; CPU is always last.
    """

    requested: str
    providers: tuple[str, ...]

    @property
    def is_fallback(self) -> bool:
        """Whether the first provider asked for is missing."""
        return self.providers[0] != self.requested

    def without(self, lost: Sequence[str]) -> Plan:
        """The plan without providers that failed in service; the CPU stays."""
        kept = (name for name in self.providers if name == CPU or name not in lost)
        return Plan(self.requested, tuple(kept))


def plan(
    wanted: Sequence[str],
    available: Sequence[str],
    *,
    strict: bool,
    absent: Mapping[str, str] | None = None,
) -> Plan:
    """Choose among the providers that are there; warns once when the first is not.

    Args:
        wanted: Providers in order of preference.
        available: Those that can run a model here.
        strict: Refuse to do without the first.
        absent: Why plug-ins that are configured cannot run here.

    Raises:
        ProviderError: `strict`, and the first provider is not there.
    """
    requested = wanted[0] if wanted else CPU
    chosen = [name for name in wanted if name in available and name != CPU]
    if requested != CPU and requested not in available:
        why = (absent or {}).get(requested) or f"this runtime has {', '.join(available)}"
        message = f"{requested} was asked for; {why}"
        if strict:
            raise ProviderError(message, remedy=_remedy(requested, absent or {}))
        meant = _meant(requested)
        hint = f" (did you mean {meant}?)" if meant else ""
        _log.warning("%s%s: running on %s instead", message, hint, (chosen or [CPU])[0])
    return Plan(requested, (*chosen, CPU))


def _remedy(name: str, absent: Mapping[str, str]) -> str:
    """What to do about a provider that is not there."""
    instead = "set strict_provider = false"
    if name in absent:
        return f"Check its device and driver, or {instead}"
    if name in _SOURCES:
        return f"{_SOURCES[name]}; or {instead}"
    meant = _meant(name)
    return f"Did you mean {meant}?" if meant else f"Name its library in model.plugins, or {instead}"


def _meant(name: str) -> str:
    """The provider that a misspelt name stands for; empty for none."""
    known = {_stem(known): known for known in (*_SOURCES, CPU)}
    close = difflib.get_close_matches(_stem(name), known, n=1)
    return known[close[0]] if close and name not in known.values() else ""


def _stem(name: str) -> str:
    return name.lower().removesuffix("executionprovider")


def is_emulated(name: str, kind: str) -> bool:
    """Whether a provider of GPUs or NPUs runs without one: in software, on the CPU, far slower.

    Args:
        name: The provider.
        kind: Of its device: `npu`, `gpu` or `cpu`.
    """
    return kind == "cpu" and name in _EMULATED_ON_CPU


def check_device_class(device_class: str, host: Host, available: Sequence[str]) -> None:
    """Refuse a build that was made for other hardware.

    An int8 build for VNNI saturates on CPUs without it, and gives wrong answers rather than none.

    Raises:
        ProviderError: The build is for another device class.
    """
    classes = host.device_classes(available)
    if device_class not in classes:
        raise ProviderError(
            f"target.device_class={device_class!r} is not this device "
            f"({', '.join(sorted(classes))})",
            remedy="Roll out the build for this device's class",
        )


def provider_options(
    name: str, cache: Path | None, precision: str = "fp32", device: tuple[str, str] | None = None
) -> dict[str, str]:
    """Options of one provider; compiled models go to `cache`, a folder of this model alone.

    Args:
        name: The provider.
        cache: Folder; None = keep nothing.
        precision: `target.precision` of the manifest.
        device: Of a plug-in: kind of its device, and the provider's own name of it.
    """
    if device is not None:
        return _plugin_options(name, *device)
    options = dict(_FIXED.get(name, {}))
    if name == "TensorrtExecutionProvider":
        # TensorRT makes no int8 or float16 layer, whatever the graph says, until it may.
        options["trt_int8_enable"] = "1" if "8" in precision else "0"
        options["trt_fp16_enable"] = "1" if precision == "fp16" else "0"
    if cache is None:
        return options
    for key in _CACHE_KEYS.get(name, ()):
        options[key] = str(cache)
    if name == "TensorrtExecutionProvider":
        options["trt_engine_cache_enable"] = options["trt_timing_cache_enable"] = "1"
    return options


_FIXED: Mapping[str, Mapping[str, str]] = {
    # The plug-in's own default is bfloat16 on such CPUs: slower here, and another result.
    "OpenVINOExecutionProvider": {"device_type": "CPU", "precision": "ACCURACY"},
    "QNNExecutionProvider": {"backend_type": "htp"},
    # Its default format computes float32 graphs in float16.
    "CoreMLExecutionProvider": {"ModelFormat": "MLProgram"},
}
_CACHE_KEYS: Mapping[str, tuple[str, ...]] = {
    "OpenVINOExecutionProvider": ("cache_dir",),
    "CoreMLExecutionProvider": ("ModelCacheDirectory",),
    "TensorrtExecutionProvider": ("trt_engine_cache_path", "trt_timing_cache_path"),
    "MIGraphXExecutionProvider": ("migraphx_model_cache_dir",),
}


def _plugin_options(name: str, kind: str, label: str) -> dict[str, str]:
    """Options of a plug-in: it knows its device, and what it compiles the runtime keeps for it."""
    if name == "OpenVINOExecutionProvider":
        # What the built-in provider takes as options is ignored by the plug-in, with a warning.
        device = (label or kind.upper()).partition(".")[0]
        return {"load_config": json.dumps({device: {"EXECUTION_MODE_HINT": "ACCURACY"}})}
    if name == "QNNExecutionProvider":
        # On a CPU device it emulates the NPU; it has no default there.
        return {"backend_type": "gpu" if kind == "gpu" else "htp"}
    return {}


def check_assignment(counts: Mapping[str, int], chosen: Plan, *, strict: bool) -> float:
    """Share of the graph's nodes on the requested provider, once the runtime has placed them.

    A runtime lists providers that it was built with; when one cannot start (no driver, no device)
    everything lands on the CPU without an error. Warns when an accelerator took few nodes or none.

    Raises:
        ProviderError: `strict`, and the provider that is there took nothing.
    """
    requested, total = chosen.requested, sum(counts.values())
    share = counts.get(requested, 0) / total if total else 0.0
    if requested == CPU or chosen.is_fallback or share >= MIN_NODE_SHARE:
        return share
    message = f"{requested} runs {100.0 * share:.0f} % of the graph's {total} nodes"
    if strict and share == 0.0:
        raise ProviderError(
            message,
            remedy="Check its driver and device; `syncline model check --provider` says which "
            "operators it lacks",
        )
    _log.warning("%s; the rest is on the CPU", message)
    return share
