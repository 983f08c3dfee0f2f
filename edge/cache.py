"""Optimised models on disk, keyed by everything that made them.

A graph that was optimised for another CPU, runtime version or model is never loaded: its key
differs. A damaged file is not loaded either: its digest stands beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from syncline.edge.providers import Host

MAX_CACHED_BYTES = 1 << 30
_FORMAT = "1"


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

    def folder(self) -> Path:
        """A folder for an accelerator's own compiled form."""
        folder = self.root / self.key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def read(self) -> bytes | None:
        """The optimised graph, or None when there is none or it is damaged."""
        try:
            if self.path.stat().st_size > MAX_CACHED_BYTES:
                return None
            data = self.path.read_bytes()
            wanted = self._digest_path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return None
        if hashlib.sha256(data).hexdigest() != wanted:
            self.forget()
            return None
        return data

    def forget(self) -> None:
        """Remove the entry."""
        for path in (self._digest_path, self.path):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Path | None]:
        """Where to write the graph; it becomes the entry when the block ends without an error.

        Yields None when the folder cannot be written: a full disk costs the cache, not the model.
        """
        partial = self.root / f"{self.key}.{os.getpid()}.part"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            partial.touch()
        except OSError:
            yield None
            return
        try:
            yield partial
            with contextlib.suppress(OSError):
                self._publish(partial)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def _publish(self, partial: Path) -> None:
        digest = hashlib.sha256(partial.read_bytes()).hexdigest()
        partial.replace(self.path)
        part = self._digest_path.with_suffix(f".{os.getpid()}.part")
        part.write_text(digest, encoding="ascii")
        part.replace(self._digest_path)
