"""Whether a bundle would serve: it is loaded and proven as the runner does it, on this machine."""

from __future__ import annotations

from collections.abc import Iterator

from syncline.cloud.models.doctor_providers import all_providers
from syncline.cloud.models.finding import Finding
from syncline.cloud.models.targets import TARGETS, sums_overflow_here
from syncline.edge.backend import BackendOptions
from syncline.edge.engine import Engine
from syncline.edge.model.bundle import Bundle
from syncline.edge.providers import CPU, Host
from syncline.edge.session import available_providers
from syncline.errors import HealthProofError, ModelError, ProviderError


def bundle_findings(bundle: Bundle) -> Iterator[Finding]:
    """What keeps a bundle from serving: graph, manifest, decoder and golden output held together.

    A build for other hardware is loaded on the CPU, for all but its speed and its provider.

    Args:
        bundle: Verified.
    """
    target = bundle.manifest.target
    for name in target.providers:
        if name not in all_providers():
            yield Finding(
                "unknown-provider",
                "warning",
                f"target.providers names {name!r}, which the runtime does not know",
                "Correct it, unless a plug-in library of that name is on the device",
            )
    is_ours = target.device_class in Host.this().device_classes(available_providers())
    if not is_ours:
        yield _for_others(target.device_class)
    options = BackendOptions() if is_ours else BackendOptions(
        providers=(CPU,), strict_provider=False, any_device_class=True
    )  # fmt: skip
    try:
        engine = Engine.load(bundle, options)
    except ProviderError as error:
        yield Finding("provider-absent", "error", error.message, error.remedy)
    except HealthProofError as error:
        yield _unproven(error, overflows=not is_ours and sums_overflow_here(target.precision))
    except ModelError as error:
        yield Finding("does-not-load", "error", error.message, error.remedy)
    else:
        yield from _fallback(engine)


def _for_others(device_class: str) -> Finding:
    if device_class in TARGETS:
        return Finding(
            "other-device",
            "info",
            f"a build for {device_class}, which this machine is not: loaded on the CPU alone",
            "Run `syncline model check` on the device, too",
        )
    return Finding(
        "unknown-device",
        "warning",
        f"target.device_class={device_class!r} is no device that is built for here",
        f"Known ones are any, {', '.join(TARGETS)}",
    )


def _unproven(error: HealthProofError, *, overflows: bool) -> Finding:
    if not overflows:
        return Finding("golden-differs", "error", error.message, error.remedy)
    return Finding(
        "golden-not-checked",
        "info",
        "8-bit sums overflow on this CPU and not on the build's: its golden output cannot be "
        "reproduced here",
        "Run `syncline model check` on the device",
    )


def _fallback(engine: Engine) -> Iterator[Finding]:
    backend = engine.backend
    if backend.ep_actual != backend.ep_requested:
        yield Finding(
            "provider-fallback",
            "warning",
            f"{backend.ep_requested} is not used here: it runs on {backend.ep_actual}",
            "Set target.strict_provider = true to refuse that, or install the runtime for it",
        )
