"""Optimised and compiled models on disk, keyed by everything that made them.

A graph that was optimised for another CPU, runtime version or model is never loaded: its key
differs. A damaged file is not loaded either: its digest stands beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from syncline.edge.providers import Host

MAX_CACHED_BYTES = 1 << 30
_FORMAT = "2"


def cache_key(
    model_sha256: str,
    runtime: str,
    host: Host,
    providers: Sequence[str],
    identities: Sequence[str] = (),
) -> str:
    """Key of an optimised model: its digest, the runtime, the CPU and its flags, the providers.

    Args:
        model_sha256: Digest of the graph.
        runtime: Version of the runtime.
        host: The CPU.
        providers: Their names, in order.
        identities: Of plug-ins: version, library, hardware and options.
    """
    parts = [_FORMAT, model_sha256, runtime, host.machine, *sorted(host.flags), "|", *providers]
    parts += [f"|{identity}" for identity in identities]
    return hashlib.sha256("\n".join(parts).encode("utf-8")).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """What the cache holds of a model.

    Attributes:
        data: The graph.
        note: What whoever made it wrote beside it.
    """

    data: bytes
    note: str


@dataclass(slots=True)
class Draft:
    """An entry in the making.

    Attributes:
        path: Where to write the graph, which is not there yet; None = there is no room for one.
        note: To be kept with it.
    """

    path: Path | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class ModelCache:
    """The cached form of one model.

    Attributes:
        root: Folder of all cached models.
        key: See `cache_key`.
    """

    root: Path
    key: str

    @property
    def path(self) -> Path:
        """The optimised graph."""
        return self.root / f"{self.key}.onnx"

    @property
    def _digest_path(self) -> Path:
        return self.root / f"{self.key}.sha256"

    def folder(self) -> Path | None:
        """A folder for an accelerator's own compiled form; None = there is no room for one."""
        folder = self.root / self.key
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return None
        return folder

    @property
    def holds_compiled(self) -> bool:
        """Whether an accelerator left something in its folder."""
        try:
            return any((self.root / self.key).iterdir())
        except OSError:
            return False

    def read(self) -> Entry | None:
        """The entry, or None when there is none or it is damaged."""
        try:
            if self.path.stat().st_size > MAX_CACHED_BYTES:
                return None
            data = self.path.read_bytes()
            wanted, _, note = self._digest_path.read_text(encoding="utf-8").partition("\n")
        except (OSError, UnicodeDecodeError):
            return None
        if _digest(data, note) != wanted:
            self.forget()
            return None
        return Entry(data, note)

    def forget(self) -> None:
        """Remove the entry, and what an accelerator keeps under its key."""
        for path in (self._digest_path, self.path):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        shutil.rmtree(self.root / self.key, ignore_errors=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Draft]:
        """Where to write the graph; it becomes the entry when the block ends without an error.

        The draft has no path when the folder cannot be written: a full disk costs the cache, not
        the model. A block that writes nothing leaves no entry.
        """
        partial = self.root / f"{self.key}.{os.getpid()}.part"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            partial.touch()
            partial.unlink()  # the runtime refuses to compile into a file that is there
        except OSError:
            yield Draft(None)
            return
        draft = Draft(partial)
        try:
            yield draft
            with contextlib.suppress(OSError):
                self._publish(partial, draft.note)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def _publish(self, partial: Path, note: str) -> None:
        digest = _digest(partial.read_bytes(), note)
        partial.replace(self.path)
        part = self._digest_path.with_suffix(f".{os.getpid()}.part")
        part.write_text(f"{digest}\n{note}", encoding="utf-8")
        part.replace(self._digest_path)


def _digest(data: bytes, note: str) -> str:
    digest = hashlib.sha256(data)
    digest.update(note.encode("utf-8"))
    return digest.hexdigest()
