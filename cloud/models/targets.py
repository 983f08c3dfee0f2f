"""Devices that a model is built for, and the number types that each of them runs well.

The types are not a matter of taste: int8 activations on x86 run at 0.7 of float32 speed, uint8
ones at 2.1; 8-bit weights overflow the 16-bit sums of x86 without VNNI, 7-bit ones do not. That
holds for OpenVINO too, whose builds do not say whether the CPU has VNNI.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from syncline.edge.machine import machine_kind
from syncline.edge.model.manifest import Precision
from syncline.edge.providers import Host
from syncline.errors import UsageError

_CPU = ("CPUExecutionProvider",)


@dataclass(frozen=True, slots=True)
class Target:
    """One device class.

    Attributes:
        name: `target.device_class` of the manifest.
        precision: `target.precision` of the manifest.
        unsigned_activations: Of int8 builds: uint8 activations; else int8.
        reduce_range: 7-bit weights.
        symmetric: Zero points of activations are zero.
        providers: Execution providers in order of preference.
        machines: `platform.machine()` values where its speed can be measured; empty = nowhere here.
    """

    name: str
    precision: Precision
    unsigned_activations: bool
    reduce_range: bool
    symmetric: bool
    providers: tuple[str, ...]
    machines: frozenset[str]

    @property
    def quantised(self) -> bool:
        """Whether its builds are int8; else float16."""
        return self.precision != "fp16"

    @property
    def activation(self) -> str:
        """Numpy name of the activation type."""
        return "uint8" if self.unsigned_activations else "int8"


_X86 = frozenset({"x86_64", "AMD64", "i686"})
_ARM = frozenset({"aarch64", "arm64"})

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("x86-64-vnni", "u8s8", True, False, False, _CPU, _X86),
        Target("x86-64", "u8s7", True, True, False, _CPU, _X86),
        Target("arm64", "s8s8", False, False, False, _CPU, _ARM),
        Target(
            "tensorrt",
            "s8s8",
            False,
            False,
            True,
            ("TensorrtExecutionProvider", "CUDAExecutionProvider", *_CPU),
            frozenset(),
        ),
        Target(
            "openvino",
            "u8s7",
            True,
            True,
            False,
            ("OpenVINOExecutionProvider", *_CPU),
            frozenset(),
        ),
        Target(
            "cuda",
            "fp16",
            True,
            False,
            False,
            ("CUDAExecutionProvider", *_CPU),
            frozenset(),
        ),
    )
}


def target_named(name: str) -> Target:
    """A target by its name; `auto` is this machine.

    Raises:
        UsageError: There is no such target.
    """
    if name == "auto":
        return this_machine()
    if name not in TARGETS:
        raise UsageError(
            f"there is no target {name!r}", remedy=f"Use auto or one of {', '.join(TARGETS)}"
        )
    return TARGETS[name]


def this_machine() -> Target:
    """The target that this machine is."""
    if platform.machine() in _ARM:
        return TARGETS["arm64"]
    return TARGETS["x86-64-vnni" if has_vnni() else "x86-64"]


def has_vnni(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU has the 8-bit dot products (AVX512-VNNI or AVX-VNNI)."""
    return "x86-64-vnni" in Host.this(cpuinfo).device_classes()


def sums_overflow_here(precision: Precision) -> bool:
    """Whether 8-bit products of such a build overflow on this machine and not on their target.

    x86 without VNNI adds pairs of products in 16 bits, with signed activations as with unsigned
    ones; VNNI and Arm add in 32 bits.
    """
    return platform.machine() in _X86 and precision in ("u8s8", "s8s8") and not has_vnni()


def golden_runtime(runtime: str, precision: Precision) -> str:
    """`target.runtime` of a golden output computed here: where, and when not as int8, that too."""
    how = "in float on" if sums_overflow_here(precision) else "on"
    return f"{runtime} {how} {machine_kind()}"


def measurable_here(target: Target) -> bool:
    """Whether this machine's instruction set is the target's, so that its speed means something.

    A VNNI build also runs on x86 without VNNI, slower than on its target: a lower bound.
    """
    return platform.machine() in target.machines
