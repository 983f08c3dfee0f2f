"""Fetching a resource from the collector: pieces asked for one window at a time, resumable."""

from __future__ import annotations

import hashlib
import itertools
import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from syncline.errors import IntegrityError, LinkError, StorageError
from syncline.link.wire import PIECE_BYTES, Chunk, End, Fetch, Refused
from syncline.timebase import NS_PER_S, RawClock

_LOG = logging.getLogger(__name__)
ASK_AGAIN_S = 3.0
WINDOW = 4

Progress = Callable[[int, int], None]
Answer = Chunk | End | Refused


class Fetches:
    """Requests under way and who waits for them; any thread may fetch.

    Args:
        ask: Sends a request; False when too many wait already.
        clock: For time limits.
    """

    def __init__(self, ask: Callable[[Fetch], bool], clock: RawClock) -> None:
        self._ask = ask
        self._clock = clock
        self._numbers = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[Answer]] = {}
        self._lock = threading.Lock()

    def on_answer(self, answer: Answer) -> None:
        """An answer came in; one that nobody waits for is dropped."""
        with self._lock:
            box = self._waiting.get(answer.request)
        if box is not None:
            box.put(answer)

    def fetch(
        self,
        resource: str,
        out_file: Path,
        progress: Progress | None,
        timeout_s: float,
        max_bytes: int | None = None,
    ) -> None:
        """Fetch a resource into `out_file`; see `Uplink.fetch`."""
        deadline_ns = self._clock.raw_ns() + int(timeout_s * NS_PER_S)
        end = self._describe(resource, deadline_ns)
        if max_bytes is not None and end.size > max_bytes:
            raise IntegrityError(
                f"the collector announces {end.size} bytes of {resource!r}, limit {max_bytes}",
                remedy="Check the collector",
            )
        part = out_file.with_name(out_file.name + ".part")
        try:
            out_file.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab") as file:
                if file.tell() > end.size:
                    file.truncate(0)
                self._pieces(resource, file, end.size, progress, deadline_ns)
            _check(part, end)
            part.replace(out_file)
        except OSError as error:
            raise StorageError(
                f"cannot write {out_file}: {error.strerror}", remedy="Free space on that disk"
            ) from error

    def _describe(self, resource: str, deadline_ns: int) -> End:
        answer = self._answers(resource, [(0, 0)], deadline_ns)[0]
        if not isinstance(answer, End):
            raise LinkError(f"the collector answered a question for {resource!r} with bytes")
        return answer

    def _pieces(
        self, resource: str, file: BinaryIO, size: int, progress: Progress | None, deadline_ns: int
    ) -> None:
        at = file.seek(0, 2)
        while at < size:
            ends = range(at, size, PIECE_BYTES)[:WINDOW]
            wants = [(o, min(PIECE_BYTES, size - o)) for o in ends]
            for (offset, length), answer in zip(
                wants, self._answers(resource, wants, deadline_ns), strict=True
            ):
                body = answer.body if isinstance(answer, Chunk) else b""
                if len(body) != length or offset != at:
                    raise LinkError(f"the collector sent {len(body)} of {length} bytes at {offset}")
                file.write(body)
                at += length
            file.flush()
            if progress is not None:
                progress(at, size)

    def _answers(
        self, resource: str, wants: list[tuple[int, int]], deadline_ns: int
    ) -> list[Answer]:
        """Ask for several pieces and wait for all, asking again for what does not come."""
        box: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        numbers = {next(self._numbers) % (1 << 32): want for want in wants}
        got: dict[int, Answer] = {}
        with self._lock:
            self._waiting.update(dict.fromkeys(numbers, box))
        try:
            while len(got) < len(numbers):
                for number in numbers.keys() - got.keys():
                    self._ask(Fetch(number, resource, *numbers[number]))
                self._collect(box, got, len(numbers), resource)
                if self._clock.raw_ns() > deadline_ns and len(got) < len(numbers):
                    raise LinkError(
                        f"no answer for {resource!r} from the collector",
                        remedy="Check that it runs and is reachable; fetching resumes where it was",
                    )
        finally:
            with self._lock:
                for number in numbers:
                    self._waiting.pop(number, None)
        return [got[number] for number in numbers]

    def _collect(
        self, box: queue.SimpleQueue[Answer], got: dict[int, Answer], n: int, resource: str
    ) -> None:
        while len(got) < n:
            try:
                answer = box.get(timeout=ASK_AGAIN_S)
            except queue.Empty:
                return
            if isinstance(answer, Refused):
                raise LinkError(f"the collector refuses {resource!r}: {answer.text}")
            got[answer.request] = answer


def _check(part: Path, end: End) -> None:
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != end.sha256:
        part.unlink()
        raise IntegrityError(
            f"fetched bytes have sha256 {digest}, the collector announced {end.sha256}",
            remedy="Fetch again",
        )
