"""From a bundle to a session: on the best provider that can start, from the cache or anew."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syncline.edge.cache import ModelCache, cache_key
from syncline.edge.model.bundle import Bundle
from syncline.edge.model.manifest import Manifest
from syncline.edge.plugins import configured, identity
from syncline.edge.providers import CPU, Host, Plan, is_emulated
from syncline.edge.session import (
    RUNTIME_VERSION,
    Chosen,
    SessionSpec,
    open_session,
    operators_by_provider,
    reason,
)
from syncline.errors import ManifestError, ProviderError

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
        lost: Providers that failed in service: they are passed over as if they were not there.
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
    lost: tuple[str, ...] = ()
    any_device_class: bool = False
    plugins: tuple[tuple[str, Path], ...] = ()
    provider_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opened:
    """A session, and how it came about.

    Attributes:
        session: The runtime's.
        counts: Nodes by provider.
        plan: Providers that it was given.
        from_cache: See `Backend`.
        picked: The accelerators with their options.
        cache: Where its compiled form is kept; None = nowhere.
    """

    session: Any
    counts: Mapping[str, int]
    plan: Plan
    from_cache: bool
    picked: tuple[Chosen, ...] = ()
    cache: ModelCache | None = None


class Opener:
    """Makes the session of a bundle on the best of the providers that can start."""

    def __init__(
        self, bundle: Bundle, options: BackendOptions, *, strict: bool, fresh: bool
    ) -> None:
        self._model = bundle.model_bytes()
        self._manifest = bundle.manifest
        self._options = options
        self._strict = strict
        self._fresh = fresh
        self._spec = SessionSpec(threads=options.intra_op_threads, spinning=options.spinning)

    def open(self, chosen: Plan) -> Opened:
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
    def _told(opened: Opened, providers: tuple[str, ...], failed: Sequence[str]) -> Opened:
        if failed:
            _log.warning("%s: running on %s instead", "; ".join(failed), providers[0])
        for one in opened.picked:
            if one.device is not None and is_emulated(one.name, one.device.kind):
                _log.warning("%s runs in software here: for tests, not to serve with", one.name)
        return dataclasses.replace(opened, plan=Plan(opened.plan.requested, providers))

    def _accelerated(self, chosen: Plan, providers: Sequence[str]) -> Opened:
        """A session on accelerators; what they compile is kept."""
        picked, root = self._pick(providers, None), self._options.cache_dir
        if root is None:
            return self._made(chosen, picked, self._spec)
        cache = self._cache(root, providers, [identity(one) for one in picked])
        if any(one.device for one in picked):
            return self._compiled(chosen, picked, cache)
        # Providers that the runtime brings keep it themselves, in a folder.
        had = cache.holds_compiled
        opened = self._made(chosen, self._pick(providers, cache.folder()), self._spec)
        return dataclasses.replace(opened, from_cache=had, cache=cache)

    def _compiled(self, chosen: Plan, picked: tuple[Chosen, ...], cache: ModelCache) -> Opened:
        """A session on plug-ins from what they compiled before, or that keeps what they compile.

        The placement of nodes is kept with it: a compiled graph has one node where many were.
        """
        stored = cache.read()
        if stored is not None:
            try:
                session = self._stored(stored.data, picked, self._spec)
                return Opened(session, json.loads(stored.note), chosen, True, picked, cache)
            except (ManifestError, ValueError):
                cache.forget()
        with cache.writing() as draft:
            try:
                compiling = dataclasses.replace(self._spec, compile_to=draft.path)
                opened = self._made(chosen, picked, compiling)
                draft.note = json.dumps(dict(opened.counts))
            except ManifestError:
                opened = self._made(chosen, picked, self._spec)
        return dataclasses.replace(opened, cache=cache)

    def _stored(self, graph: bytes, picked: tuple[Chosen, ...], spec: SessionSpec) -> Any:
        """A session from the cache.

        Raises:
            ManifestError: The runtime refuses the graph, or it is not this manifest's.
        """
        session = open_session(graph, picked, spec)
        check_input(session, self._manifest)
        output_shapes(session, self._manifest)
        return session

    def _made(self, chosen: Plan, picked: tuple[Chosen, ...], spec: SessionSpec) -> Opened:
        session = open_session(self._model, picked, spec)
        return Opened(session, _node_counts(session), chosen, False, picked)

    def _pick(self, providers: Sequence[str], folder: Path | None) -> tuple[Chosen, ...]:
        given, precision = self._options.provider_options, self._manifest.target.precision
        return tuple(
            configured(name, given.get(name), cache=folder, precision=precision)
            for name in providers
        )

    def _on_cpu(self, chosen: Plan) -> Opened:
        """A session on the CPU, from its optimised graph when the cache has that.

        Raises:
            ManifestError: The runtime refuses the graph.
        """
        if self._options.cache_dir is None:
            return self._made(chosen, (), self._spec)
        cache = self._cache(self._options.cache_dir, (CPU,), ())
        stored = cache.read()
        if stored is not None:
            try:
                ready = dataclasses.replace(self._spec, optimise=False)
                session = self._stored(stored.data, (), ready)
                return Opened(session, _node_counts(session), chosen, True, cache=cache)
            except ManifestError:
                cache.forget()
        with cache.writing() as draft:
            opened = self._made(chosen, (), dataclasses.replace(self._spec, save_to=draft.path))
        return dataclasses.replace(opened, cache=cache)

    def _cache(self, root: Path, providers: Sequence[str], identities: Sequence[str]) -> ModelCache:
        """Where this model's form for these providers is kept; emptied for a fresh one."""
        digest = self._manifest.files["model.onnx"]
        key = cache_key(digest, RUNTIME_VERSION, Host.this(), providers, identities)
        cache = ModelCache(root, key)
        if self._fresh:
            cache.forget()
        return cache


def _node_counts(session: Any) -> dict[str, int]:
    placed = operators_by_provider(session)
    return {name: sum(operators.values()) for name, operators in placed.items()}


def check_input(session: Any, manifest: Manifest) -> None:
    """The graph takes exactly the tensor that the manifest describes.

    Raises:
        ManifestError: It does not.
    """
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


def output_shapes(session: Any, manifest: Manifest) -> tuple[tuple[int | str | None, ...], ...]:
    """Declared shapes of the outputs that the decoder names, in its order.

    Raises:
        ManifestError: The graph has no such output.
    """
    shapes = {value.name: tuple(value.shape) for value in session.get_outputs()}
    missing = [name for name in manifest.decoder.outputs if name not in shapes]
    if missing:
        raise ManifestError(f"decoder.outputs names {missing}, the graph has {sorted(shapes)}")
    return tuple(shapes[name] for name in manifest.decoder.outputs)
