"""Which execution provider runs a model, and what this host is. Pure; imports no runtime."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from syncline.errors import ProviderError

CPU = "CPUExecutionProvider"
MIN_NODE_SHARE = 0.95
"""An accelerator that takes less of the graph than this is warned about."""

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
}


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


def plan(wanted: Sequence[str], available: Sequence[str], *, strict: bool) -> Plan:
    """Choose among the providers that are there; warns once when the first is not.

    Raises:
        ProviderError: `strict`, and the first provider is not there.
    """
    requested = wanted[0] if wanted else CPU
    chosen = [name for name in wanted if name in available and name != CPU]
    if requested != CPU and requested not in available:
        message = f"{requested} was asked for; this runtime has {', '.join(available)}"
        if strict:
            raise ProviderError(
                message,
                remedy="Install the runtime for that device, or set target.strict_provider = false",
            )
        _log.warning("%s: running on %s instead", message, (chosen or [CPU])[0])
    return Plan(requested, (*chosen, CPU))


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


def provider_options(name: str, cache: Path | None) -> dict[str, str]:
    """Options of one provider; compiled models go to `cache`, a folder of this model alone."""
    options: dict[str, str] = {}
    if name == "OpenVINOExecutionProvider":
        options["device_type"] = "CPU"
        # The plug-in's own default is bfloat16 on such CPUs: slower here, and another result.
        options["precision"] = "ACCURACY"
    if cache is None:
        return options
    key = {
        "OpenVINOExecutionProvider": "cache_dir",
        "CoreMLExecutionProvider": "ModelCacheDirectory",
        "TensorrtExecutionProvider": "trt_engine_cache_path",
        "MIGraphXExecutionProvider": "migraphx_model_cache_dir",
    }.get(name)
    if key is not None:
        options[key] = str(cache)
    if name == "TensorrtExecutionProvider":
        options["trt_engine_cache_enable"] = "1"
    return options


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
