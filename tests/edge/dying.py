"""Execution providers that die and come back: sessions of the CPU behind their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from syncline.edge.session import Chosen, SessionSpec, open_session
from syncline.errors import ManifestError

CUDA, OPENVINO = "CUDAExecutionProvider", "OpenVINOExecutionProvider"
CPU = "CPUExecutionProvider"


class Session:
    """The CPU's session, as long as its provider lives."""

    def __init__(self, given: Machine, provider: str, inner: Any) -> None:
        self._machine, self.provider, self._inner = given, provider, inner
        self._made = given.resets.get(provider, 0)
        self._is_bad = given.bad_sessions > 0
        given.bad_sessions -= self._is_bad

    def run(self, *args: Any) -> Any:
        self._machine.runs.append(self.provider)
        now = self._machine.resets.get(self.provider, 0)
        if self.provider in self._machine.dead or now != self._made or self._is_bad:
            raise RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : {self.provider}: device lost")
        outputs = self._inner.run(*args)
        kept = self._machine.wrong_while
        is_wrong = self.provider in self._machine.wrong or (kept is not None and kept.exists())
        return [output + 1 for output in outputs] if is_wrong else outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@dataclass
class Machine:
    """What the machine's providers do at present.

    Attributes:
        dead: Every run on these fails, of old sessions and new.
        refusing: No session can be made on these.
        wrong: These compute something else.
        wrong_while: Those that keep a folder compute something else while this file is there.
        bad_sessions: So many of the next sessions fail every run.
        resets: How often the driver was reset: sessions from before stay dead.
        opened: Providers of every session that was made.
        runs: Providers of every run.
    """

    dead: set[str] = field(default_factory=set)
    refusing: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)
    wrong_while: Path | None = None
    bad_sessions: int = 0
    resets: dict[str, int] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)

    def reset(self, provider: str) -> None:
        self.resets[provider] = self.resets.get(provider, 0) + 1

    def open(self, model: bytes, providers: Sequence[Chosen], spec: SessionSpec) -> Any:
        first = next((one.name for one in providers), CPU)
        self.opened.append(first)
        if first in self.refusing:
            raise ManifestError(f"the runtime refuses the model: {first} finds no device")
        return Session(self, first, open_session(model, (), spec))

    @staticmethod
    def install(monkeypatch: pytest.MonkeyPatch) -> Machine:
        machine = Machine()
        monkeypatch.setattr("syncline.edge.opener.open_session", machine.open)
        monkeypatch.setattr("syncline.edge.opener._node_counts", lambda s: {s.provider: 4})
        monkeypatch.setattr(
            "syncline.edge.backend.available_providers", lambda: (CUDA, OPENVINO, CPU)
        )
        return machine
