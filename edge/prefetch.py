"""Two stages, never four: one thread makes the next item while this one uses the last."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")

_DEPTH = 1


@dataclass(frozen=True, slots=True)
class _Done(Generic[U]):
    item: U


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None = None


def ahead(items: Iterable[T], make: Callable[[T], U]) -> Iterator[U]:
    """`map(make, items)` with the next item made in a thread while the last is used.

    At most three made items exist at a time: in use, waiting, being made. An error in `items` or
    `make` is raised here, after the items before it. Closing the iterator ends the thread.
    """
    box: queue.Queue[_Done[U] | _End] = queue.Queue(_DEPTH)
    closing = threading.Event()

    def put(value: _Done[U] | _End) -> bool:
        while not closing.is_set():
            try:
                box.put(value, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        end = _End()
        try:
            for item in items:
                if not put(_Done(make(item))):
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the other thread as it is
            end = _End(error)
        put(end)

    thread = threading.Thread(target=work, name="edge-prefetch", daemon=True)
    thread.start()
    try:
        while isinstance(value := box.get(), _Done):
            yield value.item
        if value.error is not None:
            raise value.error
    finally:
        closing.set()
        thread.join()
