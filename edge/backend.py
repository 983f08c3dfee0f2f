"""One loaded model: which provider runs it, where its compiled form is kept, and its runs."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syncline.edge.cache import ModelCache, cache_key
from syncline.edge.model.bundle import Bundle
from syncline.edge.model.manifest import Manifest
from syncline.edge.plugins import (
    absences,
    configured,
    identity,
    register_plugin,
)
from syncline.edge.providers import (
    CPU,
    Host,
    Plan,
    check_assignment,
    check_device_class,
    is_emulated,
    plan,
)
from syncline.edge.session import (
    RUNTIME,
    RUNTIME_VERSION,
    Chosen,
    SessionSpec,
    StopSwitch,
    available_providers,
    open_session,
    operators_by_provider,
    reason,
    turn_on,
)
from syncline.errors import DeadlineError, InferenceError, ManifestError, ProviderError

_ORT_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """How a model is run.

    Attributes:
        intra_op_threads: Threads of one run; one thread, and two sessions, serve a small device
            best.
        spinning: Let idle threads burn CPU for a lower latency of the next run.
        providers: Instead of the manifest's.
        strict_provider: Instead of the manifest's.
        cache_dir: Where optimised models are kept; None = nowhere. Write access to it is control
            over what runs, as with the program itself.
        any_device_class: Load builds for other hardware too (to inspect them, not to serve).
        plugins: Execution provider libraries to register, name and path.
        provider_options: Options of providers by their names, over ours; `device` names the kind
            of device that a plug-in is to take (`npu`, `gpu`, `cpu`).
    """

    intra_op_threads: int = 1
    spinning: bool = False
    providers: tuple[str, ...] | None = None
    strict_provider: bool | None = None
    cache_dir: Path | None = None
    any_device_class: bool = False
    plugins: tuple[tuple[str, Path], ...] = ()
    provider_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass
class Backend:
    """One loaded model.

    Attributes:
        manifest: Of the bundle that was loaded.
        digest: Of the bundle that was loaded.
        ep_requested: Provider asked for first.
        ep_actual: Provider that runs most of the graph.
        node_share: Share of the graph's nodes on the requested provider.
        from_cache: Whether the optimised model came from the cache.
        output_shapes: Declared shapes, in the order of `decoder.outputs`.
        runtime: What computes: the runtime, and the provider where it is not the CPU's.
    """

    manifest: Manifest
    digest: str
    ep_requested: str
    ep_actual: str
    node_share: float
    from_cache: bool
    output_shapes: tuple[tuple[int | str | None, ...], ...]
    runtime: str
    _session: Any = field(repr=False)
    _turn: AbstractContextManager[None] = field(repr=False, default_factory=nullcontext)

    @classmethod
    def load(cls, bundle: Bundle, options: BackendOptions | None = None) -> Backend:
        """Load a verified bundle.

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
        opened = _Opener(bundle, options, strict=strict).open(chosen)
        counts = opened.counts
        _check_input(opened.session, manifest)
        return cls(
            manifest=manifest,
            digest=bundle.digest,
            ep_requested=opened.plan.requested,
            ep_actual=max(counts, key=lambda name: counts[name], default=CPU),
            node_share=check_assignment(counts, opened.plan, strict=strict),
            from_cache=opened.from_cache,
            output_shapes=_output_shapes(opened.session, manifest),
            runtime=_runtime_name(counts, opened.picked),
            _session=opened.session,
            _turn=turn_on(opened.plan.providers),
        )

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
        except Exception as error:
            if stop is not None and stop.stopped:
                raise DeadlineError(
                    f"the run of {manifest.name!r} was stopped at its deadline",
                    remedy="Use a smaller model, a longer deadline or a lower rate",
                ) from None
            raise _typed(error, manifest) from error
        return outputs


@dataclass(frozen=True, slots=True)
class _Opened:
    session: Any
    counts: Mapping[str, int]
    plan: Plan
    from_cache: bool
    picked: tuple[Chosen, ...] = ()


class _Opener:
    """Makes the session of a bundle on the best of the providers that can start."""

    def __init__(self, bundle: Bundle, options: BackendOptions, *, strict: bool) -> None:
        self._model = bundle.model_bytes()
        self._manifest = bundle.manifest
        self._options = options
        self._strict = strict
        self._spec = SessionSpec(threads=options.intra_op_threads, spinning=options.spinning)

    def open(self, chosen: Plan) -> _Opened:
        """Try the providers in order; warns once when the first of them cannot run the model.

        Raises:
            ManifestError: The graph is at fault: the CPU refuses it too.
            ProviderError: `strict`, and the first provider cannot run it.
        """
        failed: list[str] = []
        rest = chosen.providers
        while rest != (CPU,):
            try:
                opened = self._accelerated(chosen, rest)
            except ManifestError as error:
                why = reason(error.__cause__ or error)
                failed.append(f"{rest[0]} cannot run {self._manifest.name!r}: {why}")
                rest = (CPU,) if self._strict else rest[1:]
            else:
                return self._told(opened, rest, failed)
        opened = self._on_cpu(chosen)
        if failed and self._strict:
            raise ProviderError(
                failed[0],
                remedy="Check its device, driver and options; `syncline model check --provider` "
                "says which operators it lacks",
            )
        return self._told(opened, rest, failed)

    @staticmethod
    def _told(opened: _Opened, providers: tuple[str, ...], failed: Sequence[str]) -> _Opened:
        if failed:
            _log.warning("%s: running on %s instead", "; ".join(failed), providers[0])
        for one in opened.picked:
            if one.device is not None and is_emulated(one.name, one.device.kind):
                _log.warning("%s runs in software here: for tests, not to serve with", one.name)
        return dataclasses.replace(opened, plan=Plan(opened.plan.requested, providers))

    def _accelerated(self, chosen: Plan, providers: Sequence[str]) -> _Opened:
        """A session on accelerators; what they compile is kept."""
        picked, root = self._pick(providers, None), self._options.cache_dir
        if root is None:
            return self._made(chosen, picked, self._spec)
        cache = ModelCache(root, self._key(providers, [identity(one) for one in picked]))
        if not any(one.device for one in picked):
            # Providers that the runtime brings keep it themselves, in a folder.
            return self._made(chosen, self._pick(providers, cache.folder()), self._spec)
        return self._compiled(chosen, picked, cache)

    def _compiled(self, chosen: Plan, picked: tuple[Chosen, ...], cache: ModelCache) -> _Opened:
        """A session on plug-ins from what they compiled before, or that keeps what they compile.

        The placement of nodes is kept with it: a compiled graph has one node where many were.
        """
        stored = cache.read()
        if stored is not None:
            try:
                session = open_session(stored.data, picked, self._spec)
                return _Opened(session, json.loads(stored.note), chosen, True, picked)
            except (ManifestError, ValueError):
                cache.forget()
        with cache.writing() as draft:
            try:
                compiling = dataclasses.replace(self._spec, compile_to=draft.path)
                opened = self._made(chosen, picked, compiling)
                draft.note = json.dumps(dict(opened.counts))
            except ManifestError:
                opened = self._made(chosen, picked, self._spec)
        return opened

    def _made(self, chosen: Plan, picked: tuple[Chosen, ...], spec: SessionSpec) -> _Opened:
        session = open_session(self._model, picked, spec)
        return _Opened(session, _node_counts(session), chosen, False, picked)

    def _pick(self, providers: Sequence[str], folder: Path | None) -> tuple[Chosen, ...]:
        given, precision = self._options.provider_options, self._manifest.target.precision
        return tuple(
            configured(name, given.get(name), cache=folder, precision=precision)
            for name in providers
        )

    def _on_cpu(self, chosen: Plan) -> _Opened:
        """A session on the CPU, from its optimised graph when the cache has that.

        Raises:
            ManifestError: The runtime refuses the graph.
        """
        if self._options.cache_dir is None:
            return self._made(chosen, (), self._spec)
        cache = ModelCache(self._options.cache_dir, self._key((CPU,), ()))
        stored = cache.read()
        if stored is not None:
            try:
                ready = dataclasses.replace(self._spec, optimise=False)
                session = open_session(stored.data, (), ready)
                return _Opened(session, _node_counts(session), chosen, from_cache=True)
            except ManifestError:
                cache.forget()
        with cache.writing() as draft:
            return self._made(chosen, (), dataclasses.replace(self._spec, save_to=draft.path))

    def _key(self, providers: Sequence[str], identities: Sequence[str]) -> str:
        digest = self._manifest.files["model.onnx"]
        return cache_key(digest, RUNTIME_VERSION, Host.this(), providers, identities)


def _node_counts(session: Any) -> dict[str, int]:
    placed = operators_by_provider(session)
    return {name: sum(operators.values()) for name, operators in placed.items()}


def _runtime_name(counts: Mapping[str, int], picked: Sequence[Chosen]) -> str:
    """The runtime, with the providers other than the CPU's that took nodes, and their versions."""
    versions = {one.name: one.device.version for one in picked if one.device is not None}
    names = [f"{n} {versions.get(n, '')}".strip() for n in sorted(counts) if n != CPU]
    return ", ".join([RUNTIME, *names])


def _check_input(session: Any, manifest: Manifest) -> None:
    """The graph takes exactly the tensor that the manifest describes."""
    spec = manifest.input
    inputs = {value.name: value for value in session.get_inputs()}
    if set(inputs) != {spec.name}:
        raise ManifestError(f"the graph's inputs are {sorted(inputs)}, input.name is {spec.name!r}")
    value = inputs[spec.name]
    if value.type != _ORT_TYPES[spec.dtype]:
        raise ManifestError(f"the graph takes {value.type}, input.dtype is {spec.dtype!r}")
    fits = len(value.shape) == 4 and all(
        not isinstance(have, int) or have == want
        for have, want in zip(value.shape, spec.shape, strict=True)
    )
    if not fits:
        raise ManifestError(
            f"the graph takes shape {list(value.shape)}, the manifest's input makes "
            f"{list(spec.shape)}",
            remedy="Correct input.width, input.height and input.layout",
        )


def _output_shapes(session: Any, manifest: Manifest) -> tuple[tuple[int | str | None, ...], ...]:
    shapes = {value.name: tuple(value.shape) for value in session.get_outputs()}
    missing = [name for name in manifest.decoder.outputs if name not in shapes]
    if missing:
        raise ManifestError(f"decoder.outputs names {missing}, the graph has {sorted(shapes)}")
    return tuple(shapes[name] for name in manifest.decoder.outputs)


def _typed(error: Exception, manifest: Manifest) -> InferenceError:
    return InferenceError(
        f"the run of {manifest.name!r} failed: {reason(error)}",
        remedy="Run `syncline model check` on the bundle",
    )
