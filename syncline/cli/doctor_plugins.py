"""Packages that bring an execution provider as a library, and what it finds on this machine.

Each is tried in a process of its own (`python -m syncline.cli.doctor_plugins PACKAGE`): what a
vendor's library does when it meets another runtime or no device is not known before.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from syncline.edge.session import Device

_LIBRARY = re.compile(
    r"^(?P<package>onnxruntime_\w+)/(lib)?onnxruntime_providers_\w+\.(so|dll|dylib)$"
)
_LIMIT_S = 60.0


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What a package's provider library said of itself.

    Attributes:
        provider: Name of the provider.
        library: Path of the library.
        devices: Devices to run on, `gpu NVIDIA` for example.
        problem: Why it cannot run anything here; empty: it can.
        remedy: What to do about it.
    """

    provider: str = ""
    library: str = ""
    devices: tuple[str, ...] = ()
    problem: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Plugin:
    """An installed package with a provider library.

    Attributes:
        name: Of the distribution.
        version: Of the distribution.
        tried: What became of loading it.
    """

    name: str
    version: str
    tried: Tried


def installed_plugins() -> list[Plugin]:
    """Packages with a provider library, each tried."""
    return [
        Plugin(name, version, _in_a_process_of_its_own(package))
        for name, version, package in sorted(_packages())
    ]


def _packages() -> Iterator[tuple[str, str, str]]:
    """(distribution, version, importable package) of all that bring a provider library."""
    for distribution in importlib.metadata.distributions():
        if not str(distribution.name).lower().startswith("onnxruntime"):
            continue
        for file in distribution.files or ():
            if match := _LIBRARY.match(file.as_posix()):
                yield distribution.name, distribution.version, match["package"]
                break


def _in_a_process_of_its_own(package: str) -> Tried:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "syncline.cli.doctor_plugins", package],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Tried(problem=f"cannot be tried: {error}")
    try:
        # The libraries write on standard output, too: ours is the last line.
        return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Tried)
    except (msgspec.MsgspecError, IndexError):
        return Tried(
            problem=f"crashes when it is loaded (exit code {done.returncode})",
            remedy="Install the version that was built for this onnxruntime",
        )


def try_package(package: str) -> Tried:
    """Load the library of a package and list what it can run on.

    The packages have two functions by agreement: `get_ep_names` and `get_library_path`.
    """
    from syncline.edge.plugins import absences, plugin_devices, register_plugin
    from syncline.errors import ProviderError

    try:
        module = importlib.import_module(package)
        provider, library = str(module.get_ep_names()[0]), str(module.get_library_path())
    except (ImportError, AttributeError, IndexError, OSError, RuntimeError) as error:
        return Tried(problem=f"does not name its library: {error}")
    try:
        register_plugin(provider, Path(library))
    except ProviderError as error:
        return Tried(provider=provider, library=library, problem=error.message, remedy=error.remedy)
    usable = [device for device in plugin_devices(provider) if not device.is_virtual]
    return Tried(
        provider=provider,
        library=library,
        devices=tuple(_described(device) for device in usable),
        problem=absences([provider]).get(provider, ""),
        remedy="Check the device and its driver",
    )


def _described(device: Device) -> str:
    from syncline.edge.providers import is_emulated

    text = f"{device.label or device.kind} {device.vendor}"
    emulated = is_emulated(device.provider, device.kind)
    return f"{text} (in software: for tests, not to serve with)" if emulated else text


if __name__ == "__main__":
    sys.stdout.write("\n" + msgspec.json.encode(try_package(sys.argv[1])).decode() + "\n")
