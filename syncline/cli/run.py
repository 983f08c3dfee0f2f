"""`syncline run`: the edge daemon."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

from cyclopts import Parameter

from syncline.errors import UsageError
from syncline.timebase import OsClock

if TYPE_CHECKING:
    from syncline.messages import syncline_pb2 as pb

LINE_EVERY = 10
_FULL = (errno.ENOSPC, errno.EDQUOT)
"""A disk may have room again: the next line is tried."""
_log = logging.getLogger(__name__)
_NUMBER = re.compile(r"\d+")


def run(
    *,
    config: Path,
    check: bool = False,
    load: bool = True,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Run the edge daemon until SIGTERM or SIGINT, which drain it.

    Args:
        config: The configuration, see docs/config.md.
        check: Only check the configuration, the files that it names, and that each model loads.
        load: With --no-load, --check leaves the models alone: for another machine's configuration.
        json_: Print each health message as one JSON line.
    """
    from syncline.edge.config import load_edge_config
    from syncline.edge.config_check import check_possible, check_values

    if not (check or load):
        raise UsageError(
            "--no-load goes with --check: a daemon without models does nothing",
            remedy="Add --check, or leave --no-load away",
        )
    loaded = load_edge_config(config)
    check_values(loaded, config)
    if check:
        check_possible(loaded, config, load=load)
        models = "each model loads and reproduces its golden output" if load else "no model loaded"
        print(f"{config}: every key is known and possible; files and keys are there; {models}")
        return 0
    import cv2

    from syncline.edge.daemon import EdgeDaemon
    from syncline.edge.log_limit import limited
    from syncline.edge.niceness import ask_for_all

    nice = ask_for_all(loaded.device.nice)  # threads that start from now on inherit it
    _log.info("niceness %d (device.nice is %d)", nice, loaded.device.nice)
    cv2.setNumThreads(1)  # waking a pool to resize one frame costs more CPU than it does work
    clock = OsClock()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with limited(clock), _shown(as_json=json_) as show:
        EdgeDaemon(loaded, clock, show).run(stop)
    return 0


@contextmanager
def _shown(*, as_json: bool) -> Iterator[Callable[[pb.Health], None]]:
    with ExitStack() as stack:
        stack.callback(_careful(partial(print, end="", flush=True)))
        if as_json:
            show = _print_json
        elif sys.stdout.isatty():
            from syncline.cli.run_screen import Screen

            show = stack.enter_context(Screen()).show
        else:
            lines = _Lines()
            stack.callback(_careful(lines.end))
            show = lines.show
        yield _careful(show)


P = ParamSpec("P")


def _careful(show: Callable[P, object]) -> Callable[P, None]:
    """Show, or go on without: nobody who looks on, and no disk of a log, may end a device."""

    def shown(*given: P.args, **named: P.kwargs) -> None:
        try:
            show(*given, **named)
        except OSError as error:
            why = error.strerror or error
            if error.errno in _FULL:
                _log.error("a line was not shown: standard output: %s", why)
                return
            _log.error("nothing is shown from here on: standard output: %s", why)
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return shown


def _print_json(message: pb.Health) -> None:
    from google.protobuf.json_format import MessageToJson

    print(MessageToJson(message, indent=None), flush=True)


class _Lines:
    """A line every tenth health message, whenever the state or its reason changes, and the last."""

    def __init__(self) -> None:
        self._count = 0
        self._told = ("", "")
        self._untold: pb.Health | None = None

    def show(self, message: pb.Health) -> None:
        # A reason that only counts on is no news.
        told = (message.state, _NUMBER.sub("#", message.detail))
        is_due = told != self._told or self._count % LINE_EVERY == 0
        self._untold = None if is_due else message
        if is_due:
            print(health_line(message), flush=True)
        self._told = told
        self._count += 1

    def end(self) -> None:
        """A drive shorter than ten messages would else be told by its first alone, all zeros."""
        if self._untold is not None:
            print(health_line(self._untold), flush=True)


def health_line(message: pb.Health) -> str:
    """One line of health: state, models, frames, drops, what waits to be sent, time."""
    from syncline.messages import syncline_pb2 as pb

    dropped = " ".join(f"{reason}={count}" for reason, count in sorted(message.dropped.items()))
    models = ",".join(f"{m.name}-{m.version}" for m in message.models if not m.shadow_of)
    parts = [
        f"state={message.state}",
        f"model={models}",
        f"captured={message.frames_captured}",
        f"processed={message.frames_processed}",
        f"dropped[{dropped}]",
        f"backlog={message.counters.get('spool.backlog', 0)}",
        f"time={pb.TimeState.Name(message.time_state).removeprefix('TIME_STATE_')}",
        f"bound={message.time_bound_ns / 1e6:.3f}ms" if message.time_bound_ns else "bound=none",
        f"rss={message.rss_bytes // 1_000_000}MB",
    ]
    return " ".join([*parts, *([f"detail={message.detail!r}"] if message.detail else [])])
