"""The only importer of onnxruntime at run time.

Spinning is off: a 20 ms gap between frames would burn 20 ms of CPU. Denormals are never flushed by
a session switch, which does not reach the calling thread; `model check` flushes them in the file.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from syncline.edge.cache import ModelCache, cache_key
from syncline.edge.model.bundle import Bundle
from syncline.edge.model.manifest import Manifest
from syncline.edge.providers import (
    CPU,
    Host,
    check_assignment,
    check_device_class,
    plan,
    provider_options,
)
from syncline.errors import DeadlineError, InferenceError, ManifestError, ProviderError

# The wheels from 1.29 on resolve a vendor's host unless this stands before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

RUNTIME_VERSION: Final[str] = str(ort.__version__)
RUNTIME: Final[str] = f"onnxruntime {RUNTIME_VERSION}"
"""What a golden output computed here names in `target.runtime`."""

_ERROR_SEVERITY = 3
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
    """

    intra_op_threads: int = 1
    spinning: bool = False
    providers: tuple[str, ...] | None = None
    strict_provider: bool | None = None
    cache_dir: Path | None = None
    any_device_class: bool = False
    plugins: tuple[tuple[str, Path], ...] = ()


class StopSwitch:
    """Stops one run from another thread."""

    def __init__(self) -> None:
        self._options = ort.RunOptions()
        self._options.log_severity_level = 4  # a stopped run is no error of the runtime
        self.stopped = False

    def stop(self) -> None:
        """Make the run that holds this switch end within milliseconds."""
        self.stopped = True
        self._options.terminate = True


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
    """

    manifest: Manifest
    digest: str
    ep_requested: str
    ep_actual: str
    node_share: float
    from_cache: bool
    output_shapes: tuple[tuple[int | str | None, ...], ...]
    _session: Any = field(repr=False)

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
        chosen = plan(options.providers or manifest.target.providers, available, strict=strict)
        session, from_cache = _open_cached(bundle, chosen.providers, options)
        counts = _nodes_by_provider(session)
        _check_input(session, manifest)
        return cls(
            manifest=manifest,
            digest=bundle.digest,
            ep_requested=chosen.requested,
            ep_actual=max(counts, key=lambda name: counts[name], default=CPU),
            node_share=check_assignment(counts, chosen, strict=strict),
            from_cache=from_cache,
            output_shapes=_output_shapes(session, manifest),
            _session=session,
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
        run_options = None if stop is None else stop._options
        try:
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


class KernelSession:
    """A tiny graph of our own, run on the CPU as a kernel.

    Args:
        graph: ONNX bytes.
    """

    def __init__(self, graph: bytes) -> None:
        self._session = ort.InferenceSession(
            graph, _session_options(BackendOptions()), providers=[CPU]
        )

    def run(self, feed: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        """All outputs of the graph."""
        outputs: list[NDArray[np.generic]] = self._session.run(None, dict(feed))
        return outputs


def available_providers() -> tuple[str, ...]:
    """Providers of this runtime, plug-ins included."""
    built_in = [str(name) for name in ort.get_available_providers()]
    plugged = [str(device.ep_name) for device in ort.get_ep_devices()]
    return tuple(dict.fromkeys(name for name in built_in + plugged if not name.startswith("Azure")))


_PLUGIN_LOCK = threading.Lock()
_REGISTERED: set[str] = set()
"""Mirrors the runtime's own list, which is one per process and cannot be asked."""


def register_plugin(name: str, path: Path) -> None:
    """Load an execution provider library into the process; a second time does nothing.

    Warns when it loads and finds no device here: providers look for their vendor's hardware.

    Raises:
        ProviderError: The library cannot be loaded.
    """
    with _PLUGIN_LOCK:
        if name in _REGISTERED or name in available_providers():
            return
        try:
            ort.register_execution_provider_library(name, str(path))
        except Exception as error:
            raise ProviderError(
                f"the provider library {path} cannot be loaded: {_first_line(error)}",
                remedy="Check the path, and that it was built for this runtime's version",
            ) from error
        _REGISTERED.add(name)
        if name not in available_providers():
            _log.warning("the provider library %s finds no device for %s here", path, name)


def _session_options(options: BackendOptions) -> Any:
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = options.intra_op_threads
    session_options.inter_op_num_threads = 1
    session_options.log_severity_level = _ERROR_SEVERITY
    spinning = "1" if options.spinning else "0"
    session_options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    session_options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    session_options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return session_options


def _open_cached(
    bundle: Bundle, providers: Sequence[str], options: BackendOptions
) -> tuple[Any, bool]:
    """(session, whether its optimised graph came from the cache).

    Only CPU graphs are written out; accelerators keep their own compiled form in the same folder.
    """
    model = bundle.model_bytes()
    if options.cache_dir is None:
        return _open(model, providers, options, None), False
    key = cache_key(bundle.manifest.files["model.onnx"], RUNTIME_VERSION, Host.this(), providers)
    cache = ModelCache(options.cache_dir, key)
    if tuple(providers) != (CPU,):
        return _open(model, providers, options, cache.folder()), False
    stored = cache.read()
    if stored is not None:
        try:
            return _open(stored, providers, options, None, optimise=False), True
        except ManifestError:
            cache.forget()
    with cache.writing() as target:
        session = _open(model, providers, options, None, save_to=target)
    return session, False


def _open(
    model: bytes,
    providers: Sequence[str],
    options: BackendOptions,
    cache: Path | None,
    *,
    save_to: Path | None = None,
    optimise: bool = True,
) -> Any:
    session_options = _session_options(options)
    if save_to is not None:
        session_options.optimized_model_filepath = str(save_to)
    if not optimise:
        session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        built_in = set(ort.get_available_providers())
        plugged = [name for name in providers if name not in built_in]
        if plugged:
            devices = [d for d in ort.get_ep_devices() if d.ep_name in plugged]
            session_options.add_provider_for_devices(devices, {})
            return ort.InferenceSession(model, session_options)
        configured = [(name, provider_options(name, cache)) for name in providers]
        return ort.InferenceSession(model, session_options, providers=configured)
    except Exception as error:
        raise ManifestError(
            f"the runtime refuses the model: {_first_line(error)}",
            remedy="Run `syncline model check` on it",
        ) from error


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


def _nodes_by_provider(session: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        name = str(subgraph.ep_name)
        counts[name] = counts.get(name, 0) + len(subgraph.get_nodes())
    return counts


def _typed(error: Exception, manifest: Manifest) -> InferenceError:
    return InferenceError(
        f"the run of {manifest.name!r} failed: {_first_line(error)}",
        remedy="Run `syncline model check` on the bundle",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
