"""A small file is the old one or the new one, and nothing is left beside it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from syncline.files import replace_durably, replace_whole


@pytest.mark.parametrize("replace", [replace_durably, replace_whole])
def test_the_new_file_stands_alone(tmp_path: Path, replace: Callable[[Path, bytes], None]) -> None:
    path = tmp_path / "state.json"
    for data in (b"one", b"", b"two" * 1000):
        replace(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["state.json"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("replace", "step"),
    [
        (replace_durably, "os.fsync"),
        (replace_durably, "pathlib.Path.replace"),
        (replace_whole, "pathlib.Path.replace"),
    ],
)
def test_a_disk_that_refuses_leaves_the_old_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replace: Callable[[Path, bytes], None],
    step: str,
) -> None:
    path = tmp_path / "state.json"
    replace(path, b"old")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(step, refuse)
        with pytest.raises(OSError, match="No space left"):
            replace(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state.json"]  # noqa: PTH208
