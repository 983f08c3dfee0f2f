"""What the programs share that ask our backend about a provider.

They run with the interpreters of other environments, with the root of the project as PYTHONPATH.
"""

from __future__ import annotations

import logging
from typing import Any

from syncline.edge.backend import Backend, BackendOptions
from syncline.edge.job import Frame
from syncline.edge.model.bundle import Bundle
from syncline.edge.runner import ModelSlot, Runner
from syncline.errors import SynclineError
from syncline.timebase import OsClock

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class Kept(logging.Handler):
    """Keeps warnings, from the moment it is made."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def taken(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


def failure(error: SynclineError) -> dict[str, Any]:
    """A load that ended in an error."""
    return {"error": type(error).__name__, "code": error.exit_code, "says": str(error)}


def success(backend: Backend, kept: Kept) -> dict[str, Any]:
    """A load that did not: which provider it got, and what was said on the way."""
    return {
        "requested": backend.ep_requested, "actual": backend.ep_actual,
        "share": backend.node_share, "warnings": kept.taken(),
    }  # fmt: skip


def served(bundle: Bundle, options: BackendOptions) -> list[list[Any]]:
    """(provider asked for, provider, node share) of the health after each of five frames."""
    clock, image = OsClock(), bundle.golden().frame
    runner = Runner([ModelSlot(name="main", bundle=bundle, backend=options)], clock=clock)
    said = []
    for index in range(5):
        assert runner.process(Frame("front", index, image, None, clock.raw_ns())).valid
        message = runner.health().to_message()
        said.append([message.ep_requested, message.ep_actual, message.ep_node_share])
    return said
