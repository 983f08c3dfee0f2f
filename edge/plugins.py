"""Execution providers that come as libraries of their own, and the devices that they offer."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from syncline.edge.providers import provider_options
from syncline.edge.session import (
    RUNTIME,
    Chosen,
    Device,
    built_in_providers,
    devices,
    reason,
    register_library,
)
from syncline.errors import ProviderError

_PROBE_LIMIT_S = 60.0
_PROBE = """\
import os, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime
try:
    onnxruntime.register_execution_provider_library("probe", sys.argv[1])
except Exception:
    pass  # told in a sentence when it is registered in earnest
os._exit(0)  # what a library does when it is unloaded is not asked
"""
_BEST_FIRST = ("npu", "gpu", "cpu")
_FIND = "`syncline doctor` lists the plug-ins that are installed, with their libraries"

_log = logging.getLogger(__name__)
_LOCK = threading.Lock()
_REGISTERED: dict[str, Path] = {}
"""Mirrors the runtime's own list, which is one per process and cannot be asked."""


def register_plugin(name: str, path: Path) -> None:
    """Load an execution provider library into the process; a second time does nothing.

    A library that was built against another runtime may take the process down, so a child process
    loads it first.

    Args:
        name: The provider's name; some libraries call their provider by the name given here.
        path: The library.

    Raises:
        ProviderError: The library is absent, is no plug-in, does not fit this runtime, or another
            one is loaded under its name.
    """
    path = path.absolute()
    with _LOCK:
        loaded = _REGISTERED.get(name)
        if loaded == path:
            return
        if loaded is not None:
            raise ProviderError(
                f"{name} is loaded from {loaded} already, not from {path}",
                remedy="Restart the process: a library cannot be replaced while it runs",
            )
        if name in built_in_providers():
            _log.warning("this runtime brings %s itself: %s is not loaded", name, path)
            _REGISTERED[name] = path
            return
        _check_loads(path)
        try:
            register_library(name, path)
        except Exception as error:
            raise _refusal(path, reason(error)) from error
        _REGISTERED[name] = path


def plugin_devices(name: str) -> tuple[Device, ...]:
    """What a registered plug-in offers: devices of its provider, or of its library."""
    path = _REGISTERED.get(name)
    return tuple(
        device
        for device in devices()
        if device.library and (device.provider == name or Path(device.library) == path)
    )


def absences(names: Iterable[str]) -> dict[str, str]:
    """Why plug-ins that are registered cannot run anything here, by name."""
    found: dict[str, str] = {}
    for name in names:
        offered = plugin_devices(name)
        if not offered:
            found[name] = f"its library {_REGISTERED.get(name)} finds no device here"
        elif all(device.is_virtual for device in offered):
            found[name] = f"its library {_REGISTERED.get(name)} offers nothing to run on, only to"
            found[name] += " compile for"
        elif name not in (providers := {device.provider for device in offered}):
            found[name] = f"its library offers {', '.join(sorted(providers))}; name that one"
    return found


def choose_device(provider: str, kind: str = "") -> Device | None:
    """The device that a plug-in provider is to run on; None when the provider is no plug-in.

    One, and without a wish the kind that is made for the work: NPU, then GPU, then CPU.

    Args:
        provider: Name of the provider.
        kind: `npu`, `gpu` or `cpu`, or the provider's own name of a device; empty: the best.

    Raises:
        ProviderError: There is no device of that kind.
    """
    offered = [d for d in devices() if d.library and d.provider == provider and not d.is_virtual]
    if not offered:
        return None
    fitting = [d for d in offered if not kind or kind.lower() in (d.kind, d.label.lower())]
    if not fitting:
        have = ", ".join(sorted({device.label or device.kind for device in offered}))
        raise ProviderError(
            f"{provider} has no device {kind!r} here, it has {have}",
            remedy=f"Correct model.provider_options.{provider}.device, or take it away",
        )
    return min(fitting, key=lambda device: _BEST_FIRST.index(device.kind))


def configured(
    provider: str,
    options: Mapping[str, str] | None = None,
    *,
    cache: Path | None = None,
    precision: str = "fp32",
) -> Chosen:
    """A provider with its device and all its options: those given, over ours.

    Args:
        provider: Its name.
        options: Those given; `device` among them is the kind of device that a plug-in takes.
        cache: Where it keeps what it compiles; None = nowhere.
        precision: `target.precision` of the manifest.

    Raises:
        ProviderError: There is no device of that kind.
    """
    given = dict(options or {})
    wish = given.pop("device", "")
    device = choose_device(provider, wish)
    if wish and device is None:
        raise ProviderError(
            f"{provider} is no plug-in here: it takes no device {wish!r}",
            remedy=f"Give provider_options.{provider} an option of its own, such as device_id",
        )
    place = None if device is None else (device.kind, device.label)
    return Chosen(
        provider, {**provider_options(provider, cache, precision, place), **given}, device
    )


def identity(chosen: Chosen) -> str:
    """All that a compiled model depends on: provider, library, hardware, options.

    The library's digest is in it: a provider's version is what its makers remembered to raise
    (onnxruntime-qnn 2.7.0 says 0.1.0).
    """
    parts, device = [chosen.name], chosen.device
    if device is not None:
        parts += [device.version, _digest(Path(device.library))]
        parts += [device.kind, device.vendor, device.hardware, device.label]
    parts += [f"{key}={chosen.options[key]}" for key in sorted(chosen.options)]
    return "\n".join(parts)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def _check_loads(path: Path) -> None:
    """Refuse a library that is not there, or that takes the process down."""
    if not path.is_file():
        raise ProviderError(f"there is no provider library {path}", remedy=_FIND)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ProviderError(
            f"the provider library {path} does not load within {_PROBE_LIMIT_S:g} s",
            remedy="Check its driver and device",
        ) from error
    except OSError as error:
        _log.info("%s is not tried in a process of its own: %s", path, error)
        return
    if done.returncode < 0:
        raise ProviderError(
            f"the provider library {path} crashes when it is loaded (signal {-done.returncode})",
            remedy=f"It does not fit {RUNTIME}: install the version that was built for it",
        )


def _refusal(path: Path, why: str) -> ProviderError:
    """The runtime's complaint about a library, sorted."""
    if "CreateEpFactories" in why:
        return ProviderError(
            f"{path} is no execution provider plug-in: it has no CreateEpFactories",
            remedy=f"{_FIND}; a provider of the older kind needs a runtime that was built with it",
        )
    if why.startswith("Failed to load library"):
        return ProviderError(
            f"the provider library {path} cannot be loaded: {why.rpartition('error: ')[2]}",
            remedy="Check that it was built for this machine, and with ldd what it lacks",
        )
    return ProviderError(
        f"the provider library {path} refuses {RUNTIME}: {why}",
        remedy="Install a plug-in and a runtime of versions that fit each other",
    )
