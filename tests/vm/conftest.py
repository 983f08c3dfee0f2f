"""Machines for the tests of this folder; each program of `inside` runs once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vm import qemu, uml

Run = Callable[..., uml.Answer]


@pytest.fixture(scope="session")
def in_uml(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program of `tests/vm/inside` in a User-Mode Linux machine; remembers its answer."""
    if uml.kernel() is None:
        pytest.skip(f"no User-Mode Linux kernel here: apt-get install {uml.PACKAGE}")
    return remembering(uml.run, tmp_path_factory)


@pytest.fixture(scope="session")
def in_qemu(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same in an emulated machine with Debian's full kernel; slow."""
    if lacks := qemu.missing():
        pytest.skip(lacks)
    return remembering(qemu.run, tmp_path_factory)


def remembering(start: Callable[..., uml.Answer], folders: pytest.TempPathFactory) -> Run:
    answers: dict[tuple[str, ...], uml.Answer] = {}

    def run(
        program: str,
        *arguments: str,
        prepare: Callable[[Path], object] = lambda _: None,
        **options: Any,
    ) -> uml.Answer:
        key = (program, *arguments)
        if key not in answers:
            folder = folders.mktemp(program)
            prepare(folder)
            try:
                answers[key] = start(folder, f"tests.vm.inside.{program}", *arguments, **options)
            except uml.NoMachineError as error:
                pytest.skip(f"virtual machines do not start here: {error}")
        return answers[key]

    return run
