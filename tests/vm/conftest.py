"""Machines for the tests of this folder; each program of `inside` runs once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vm import uml

Run = Callable[..., uml.Answer]


@pytest.fixture(scope="session")
def in_uml(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program of `tests/vm/inside` in a User-Mode Linux machine; remembers its answer."""
    if uml.kernel() is None:
        pytest.skip(f"no User-Mode Linux kernel here: apt-get install {uml.PACKAGE}")
    answers: dict[tuple[str, ...], uml.Answer] = {}

    def run(
        program: str,
        *arguments: str,
        timeout_s: float = 100.0,
        prepare: Callable[[Path], object] = lambda _: None,
    ) -> uml.Answer:
        key = (program, *arguments)
        if key not in answers:
            folder: Path = tmp_path_factory.mktemp(program)
            prepare(folder)
            name = f"tests.vm.inside.{program}"
            answers[key] = uml.run(folder, name, *arguments, timeout_s=timeout_s)
        return answers[key]

    return run
