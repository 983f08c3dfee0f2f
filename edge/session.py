"""The only importer of onnxruntime at run time: sessions, devices and plug-in libraries.

Spinning is off: a 20 ms gap between frames would burn 20 ms of CPU. Denormals are never flushed by
a session switch, which does not reach the calling thread; `model check` flushes them in the file.

The runtime's own fallback is off. Left on, a provider that fails, when a session is made or in the
middle of a drive, is replaced by the CPU with two lines on standard output and no error.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from syncline.edge.providers import CPU
from syncline.errors import ManifestError

# The wheels from 1.29 on resolve a vendor's host unless this stands before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

RUNTIME_VERSION: Final[str] = str(ort.__version__)
RUNTIME: Final[str] = f"onnxruntime {RUNTIME_VERSION}"
"""What a golden output computed here on the CPU names in `target.runtime`."""

_ERROR_SEVERITY = 3
_FATAL_ONLY = 4
_STATUS = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_PLACE = re.compile(r"^/\S+:\d+ .*? was false\. ")
_LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class Device:
    """A device that an execution provider offers to run on.

    Attributes:
        provider: Name of the provider.
        kind: `cpu`, `gpu` or `npu`.
        vendor: Who made the device.
        hardware: Vendor and device number, hexadecimal.
        version: Of the provider, as it says itself.
        library: Path of the plug-in; empty for a provider that the runtime brings.
        label: The provider's own name of the device, such as OpenVINO's `GPU.0`; empty: none.
        is_virtual: It stands for hardware that is not here: good to compile for, not to run on.
    """

    provider: str
    kind: str
    vendor: str
    hardware: str
    version: str
    library: str
    label: str
    is_virtual: bool
    _handle: Any = field(repr=False, compare=False, default=None)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A provider as a session is given it.

    Attributes:
        name: Its name.
        options: Its options.
        device: The device of a plug-in; None for a provider that the runtime brings.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    device: Device | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSpec:
    """How a session is made.

    Attributes:
        threads: Threads of one run.
        spinning: Let idle threads burn CPU for a lower latency of the next run.
        save_to: Where to write the optimised graph; None = nowhere. Where it cannot be written
            there is a session all the same, and no file.
        optimise: False for a graph that is optimised already.
        compile_to: Where to write the graph as the providers compiled it; a provider that compiles
            nothing writes nothing. The file must not be there. None = nowhere.
    """

    threads: int = 1
    spinning: bool = False
    save_to: Path | None = None
    optimise: bool = True
    compile_to: Path | None = None


class Turns:
    """Lets one thread in at a time, in about the order of their coming."""

    def __init__(self) -> None:
        self._next = threading.Lock()
        self._inside = threading.Lock()

    def __enter__(self) -> None:
        """Wait for the turn; whoever was just inside stands behind whoever waits."""
        with self._next:
            self._inside.acquire()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Let the next one in."""
        self._inside.release()


_TURNS = {"WebGpuExecutionProvider": Turns()}
"""Providers whose sessions share one device context of the process and do not guard it: of runs in
two threads one waits for as long as the other goes on, or fails (onnxruntime-ep-webgpu 0.4.0)."""


def turn_on(providers: Iterable[str]) -> AbstractContextManager[None]:
    """What a run on these providers must hold; nothing for providers that guard themselves."""
    return next((_TURNS[name] for name in providers if name in _TURNS), nullcontext())


class StopSwitch:
    """Stops a run from another thread; one run at a time."""

    def __init__(self) -> None:
        self._options = ort.RunOptions()
        self._options.log_severity_level = _FATAL_ONLY  # a stopped run is no error of the runtime
        self.stopped = False

    @property
    def run_options(self) -> Any:
        """What the runtime takes."""
        return self._options

    def stop(self) -> None:
        """Make the run that holds this switch end within milliseconds."""
        self.stopped = True
        self._options.terminate = True

    def renew(self) -> None:
        """Make ready for another run; nobody may stop the one before any more."""
        if self.stopped:
            self.stopped = False
            self._options.terminate = False


class KernelSession:
    """A tiny graph of our own, run on the CPU as a kernel.

    Args:
        graph: ONNX bytes.
    """

    def __init__(self, graph: bytes) -> None:
        self._session = open_session(graph, (), SessionSpec())

    def run(self, feed: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        """All outputs of the graph."""
        outputs: list[NDArray[np.generic]] = self._session.run(None, dict(feed))
        return outputs


def built_in_providers() -> tuple[str, ...]:
    """Providers that this build of the runtime brings."""
    names = [str(name) for name in ort.get_available_providers()]
    plugged = {device.provider for device in devices() if device.library}
    return tuple(n for n in names if n not in plugged and not n.startswith("Azure"))


def devices() -> tuple[Device, ...]:
    """Devices of all providers, of plug-ins that are registered too."""
    return tuple(_device(entry) for entry in ort.get_ep_devices())


def available_providers() -> tuple[str, ...]:
    """Providers that can run a model here, plug-ins included."""
    plugged = (device.provider for device in devices() if not device.is_virtual)
    return tuple(dict.fromkeys((*built_in_providers(), *plugged)))


def register_library(name: str, path: Path) -> None:
    """Load a provider's library into the process under a name.

    Raises:
        Exception: Whatever the runtime raises.
    """
    # A path that is not absolute would be looked for in the runtime's own folder.
    ort.register_execution_provider_library(name, str(path.absolute()))


def open_session(model: bytes, providers: Sequence[Chosen], spec: SessionSpec) -> Any:
    """A session on these providers, the CPU behind them.

    Raises:
        ManifestError: The runtime, or one of the providers, refuses the graph; `__cause__` is what
            it raised.
    """
    with turn_on(provider.name for provider in providers):
        try:
            return _made(model, providers, _session_options(spec))
        except ManifestError:
            if spec.save_to is None:
                raise
        # Its disk may have filled up: that costs the file, not the model.
        with suppress(OSError):
            spec.save_to.unlink(missing_ok=True)
        return _made(model, providers, _session_options(replace(spec, save_to=None)))


def _made(model: bytes, providers: Sequence[Chosen], options: Any) -> Any:
    try:
        if not any(provider.device for provider in providers):
            configured = [(p.name, dict(p.options)) for p in providers if p.name != CPU]
            return ort.InferenceSession(
                model, options, providers=[*configured, CPU], enable_fallback=0
            )
        for provider in providers:
            if provider.device is not None:
                # One device: several of one provider are refused by some, used at once by others.
                handles = [provider.device._handle]
                options.add_provider_for_devices(handles, dict(provider.options))
            elif provider.name != CPU:
                options.add_provider(provider.name, dict(provider.options))
        return ort.InferenceSession(model, options, enable_fallback=0)
    except Exception as error:
        raise ManifestError(
            f"the runtime refuses the model: {reason(error)}",
            remedy="Run `syncline model check` on it",
        ) from error


def operators_by_provider(session: Any) -> dict[str, dict[str, int]]:
    """How many nodes of each operator the runtime placed where."""
    counts: dict[str, dict[str, int]] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        there = counts.setdefault(str(subgraph.ep_name), {})
        for node in subgraph.get_nodes():
            there[str(node.op_type)] = there.get(str(node.op_type), 0) + 1
    return counts


def reason(error: BaseException) -> str:
    """What the runtime's error says, without the places in its sources."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return _PLACE.sub("", _STATUS.split(line)[-1])[:_LONGEST_REASON]


def _session_options(spec: SessionSpec) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = spec.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERROR_SEVERITY
    spinning = "1" if spec.spinning else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if spec.save_to is not None:
        options.optimized_model_filepath = str(spec.save_to)
    if spec.compile_to is not None:
        options.add_session_config_entry("ep.context_enable", "1")
        options.add_session_config_entry("ep.context_embed_mode", "1")  # one file, one digest
        options.add_session_config_entry("ep.context_file_path", str(spec.compile_to.absolute()))
    if not spec.optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _device(entry: Any) -> Device:
    hardware, said = entry.device, dict(entry.ep_metadata)
    return Device(
        provider=str(entry.ep_name),
        kind=hardware.type.name.lower(),
        vendor=str(hardware.vendor),
        hardware=f"{hardware.vendor_id:04x}:{hardware.device_id:04x}",
        version=str(said.get("version", "")),
        library=str(said.get("library_path", "")),
        label=str(said.get("ov_device", "")),
        is_virtual=dict(hardware.metadata).get("is_virtual") == "1",
        _handle=entry,
    )
