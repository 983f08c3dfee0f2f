"""One loaded model: which provider runs it, where its compiled form is kept, and its runs."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syncline.edge.cache import ModelCache
from syncline.edge.model.bundle import Bundle
from syncline.edge.model.manifest import Manifest
from syncline.edge.opener import BackendOptions, Opener, check_input, output_shapes
from syncline.edge.plugins import absences, register_plugin
from syncline.edge.providers import CPU, Host, check_assignment, check_device_class, plan
from syncline.edge.session import (
    RUNTIME,
    Chosen,
    StopSwitch,
    available_providers,
    reason,
    turn_on,
)
from syncline.errors import DeadlineError, InferenceError

__all__ = ["Backend", "BackendOptions"]

RELEASE_LIMIT_S = 5.0
"""Longest that the end of a dead session is waited for."""


class _Gone:
    """In the place of a session that was let go of."""

    def __init__(self, why: str) -> None:
        self._why = why

    def run(self, *_: object) -> None:
        raise InferenceError(self._why, remedy="It is loaded anew: see /health")


@dataclass
class Backend:
    """One loaded model.

    Attributes:
        manifest: Of the bundle that was loaded.
        digest: Of the bundle that was loaded.
        ep_requested: Provider asked for first.
        ep_actual: Provider that runs most of the graph.
        node_share: Share of the graph's nodes on the requested provider.
        providers: Those that it was given, in order; the CPU is always last.
        provider: The first of them that took a node: without it the model does not run.
        from_cache: Whether the optimised model came from the cache; of a provider that keeps what
            it compiles itself: whether it had kept something.
        rebuilt: Whether it was built anew because what the cache held was no good.
        is_strict: Whether no other provider may stand in for the one asked for.
        output_shapes: Declared shapes, in the order of `decoder.outputs`.
        runtime: What computes: the runtime, and the provider where it is not the CPU's.
    """

    manifest: Manifest
    digest: str
    ep_requested: str
    ep_actual: str
    node_share: float
    providers: tuple[str, ...]
    provider: str
    from_cache: bool
    rebuilt: bool
    is_strict: bool
    output_shapes: tuple[tuple[int | str | None, ...], ...]
    runtime: str
    _session: Any = field(repr=False)
    _cache: ModelCache | None = field(repr=False, default=None)
    _turn: AbstractContextManager[None] = field(repr=False, default_factory=nullcontext)

    @classmethod
    def load(
        cls, bundle: Bundle, options: BackendOptions | None = None, *, fresh: bool = False
    ) -> Backend:
        """Load a verified bundle.

        Args:
            bundle: The bundle.
            options: How it is run.
            fresh: Forget what the cache holds of it and build it anew.

        Raises:
            IntegrityError: The model's bytes changed since the bundle was opened.
            ManifestError: The runtime refuses the graph, or graph and manifest disagree.
            ProviderError: The provider or the hardware asked for is not here, or took nothing.
        """
        options = options or BackendOptions()
        manifest = bundle.manifest
        for name, path in options.plugins:
            register_plugin(name, path)
        available = available_providers()
        if not options.any_device_class:
            check_device_class(manifest.target.device_class, Host.this(), available)
        given = options.strict_provider
        strict = manifest.target.strict_provider if given is None else given
        chosen = plan(
            options.providers or manifest.target.providers,
            available,
            strict=strict,
            absent=absences(name for name, _ in options.plugins),
        )
        opener = Opener(bundle, options, strict=strict, fresh=fresh)
        opened = opener.open(chosen.without(options.lost))
        counts, providers = opened.counts, opened.plan.providers
        check_input(opened.session, manifest)
        return cls(
            manifest=manifest,
            digest=bundle.digest,
            ep_requested=opened.plan.requested,
            ep_actual=max(counts, key=lambda name: counts[name], default=CPU),
            node_share=check_assignment(counts, opened.plan, strict=strict),
            providers=providers,
            provider=next((name for name in providers if counts.get(name)), CPU),
            from_cache=opened.from_cache,
            rebuilt=fresh,
            is_strict=strict,
            output_shapes=output_shapes(opened.session, manifest),
            runtime=_runtime_name(counts, opened.picked),
            _session=opened.session,
            _cache=opened.cache,
            _turn=turn_on(providers),
        )

    @property
    def is_released(self) -> bool:
        """Whether its session was let go of."""
        return isinstance(self._session, _Gone)

    def release(self, why: str) -> None:
        """Let go of the session of a provider that died; every run fails from now on.

        Sessions may share what died (those on WebGPU share one device) or fill its memory: as long
        as one is there, no new one works. A driver that does not even end is not waited for.
        """
        held, self._session = [self._session], _Gone(why)

        def let_go() -> None:
            with self._turn:
                held.clear()

        thread = threading.Thread(target=let_go, name="edge-release", daemon=True)
        thread.start()
        thread.join(RELEASE_LIMIT_S)

    def forget(self) -> None:
        """Remove from the cache what this model was loaded from, or left there."""
        if self._cache is not None:
            self._cache.forget()

    def run(
        self, tensor: NDArray[np.generic], stop: StopSwitch | None = None
    ) -> list[NDArray[np.generic]]:
        """Run the model on one input tensor.

        Args:
            tensor: Of the manifest's shape and type.
            stop: Switch by which another thread may end the run.

        Returns:
            The outputs that the decoder names, in its order.

        Raises:
            DeadlineError: The run was stopped.
            InferenceError: The runtime refused the tensor or failed.
        """
        manifest = self.manifest
        run_options = None if stop is None else stop.run_options
        try:
            with self._turn:
                outputs: list[NDArray[np.generic]] = self._session.run(
                    manifest.decoder.outputs, {manifest.input.name: tensor}, run_options
                )
        except InferenceError:
            raise
        except Exception as error:
            if stop is not None and stop.stopped:
                raise DeadlineError(
                    f"the run of {manifest.name!r} was stopped at its deadline",
                    remedy="Use a smaller model, a longer deadline or a lower rate",
                ) from None
            raise _typed(error, manifest) from error
        return outputs


def _runtime_name(counts: Mapping[str, int], picked: Sequence[Chosen]) -> str:
    """The runtime, with the providers other than the CPU's that took nodes, and their versions."""
    versions = {one.name: one.device.version for one in picked if one.device is not None}
    names = [f"{n} {versions.get(n, '')}".strip() for n in sorted(counts) if n != CPU]
    return ", ".join([RUNTIME, *names])


def _typed(error: Exception, manifest: Manifest) -> InferenceError:
    return InferenceError(
        f"the run of {manifest.name!r} failed: {reason(error).rstrip('.')}",
        remedy="Run `syncline model check` on the bundle",
    )
