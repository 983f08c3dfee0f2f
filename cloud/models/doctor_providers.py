"""What execution providers make of a graph; only a machine that has one can tell."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

import onnx

from syncline.cloud.models.finding import Finding
from syncline.cloud.models.graph import serialise
from syncline.cloud.models.runtime import CPU, known_providers, placement
from syncline.edge.plugins import configured
from syncline.edge.session import available_providers
from syncline.errors import ModelError, UsageError


def all_providers() -> list[str]:
    """Names that the runtime knows, and those of plug-ins that were registered."""
    return list(dict.fromkeys((*known_providers(), *available_providers())))


def check_providers(names: Sequence[str]) -> None:
    """Refuse names that no runtime has, so that a slip is not taken for an absent device.

    Raises:
        UsageError: Naming the first.
    """
    known = all_providers()
    for name in names:
        if name not in known:
            same = [other for other in known if other.lower() == name.lower()]
            near = same or difflib.get_close_matches(name, known, 1)
            raise UsageError(
                f"there is no execution provider {name!r}",
                remedy=f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}",
            )


def provider_findings(
    model: onnx.ModelProto, provider: str, options: Mapping[str, str]
) -> Iterator[Finding]:
    """What a provider leaves to the CPU; only a machine that has it can tell."""
    if provider not in available_providers():
        yield Finding(
            "provider-not-checked",
            "info",
            f"{provider} is not on this machine, so its operators were not checked",
            "Run `syncline model check` on the device; a plug-in's library is named by --plugin",
        )
        return
    try:
        placed = placement(serialise(model), configured(provider, options))
    except ModelError as error:
        yield Finding("provider-refuses", "error", error.message, error.remedy)
        return
    left = placed.get(CPU, {}) if provider != CPU else {}
    total = sum(sum(operators.values()) for operators in placed.values())
    taken = 100.0 * sum(placed.get(provider, {}).values()) / max(total, 1)
    if left:
        shown = ", ".join(f"{n} {name}" for name, n in sorted(left.items()))
        yield Finding(
            "unsupported-operator",
            "warning",
            f"{provider} takes {taken:.0f} % of {total} nodes and leaves {shown} to the CPU",
            "Replace these operators, or use another provider",
        )
    else:
        yield Finding("provider-takes-all", "info", f"{provider} takes all {total} nodes", "")
