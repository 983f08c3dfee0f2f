"""Two threads, never four: one makes the next item while this one uses the last."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
W = TypeVar("W")

_DEPTH = 1


@dataclass(frozen=True, slots=True)
class _Done(Generic[U]):
    item: U


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None = None


def ahead(items: Iterable[T], make: Callable[[T], U]) -> Generator[U]:
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


def around(
    items: Iterable[T], before: Callable[[T], U], work: Callable[[U], V], after: Callable[[V], W]
) -> Iterator[W]:
    """`after(work(before(item)))` for every item in order; all but `work` is done in a thread.

    It is the thread of `ahead`: each time that it begins an item it finishes what has been worked
    on since, so that nobody is woken for it. A result comes out two items after its own went in.
    At most four items exist between `before` and the end of `after`: one that is finished, one in
    work, one that waits, one being made, and that is made after the first is finished. An error
    comes after all results before it. Closing the iterator ends the thread and finishes what was
    worked on.
    """
    worked: deque[V] = deque()
    finished: deque[W] = deque()

    def make(item: T) -> U:
        while worked:
            finished.append(after(worked.popleft()))
        return before(item)

    stream = ahead(items, make)
    failure: Exception | None = None
    try:
        while failure is None:
            try:
                worked.append(work(next(stream)))
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - raised below, after what came before it
                failure = error
            while finished:
                yield finished.popleft()
        stream.close()
        yield from finished
        while worked:
            yield after(worked.popleft())
        if failure is not None:
            raise failure
    finally:
        stream.close()
        while worked:
            after(worked.popleft())
