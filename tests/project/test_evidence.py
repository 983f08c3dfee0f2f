"""The documents name tests that exist: a claim whose test was renamed is no claim."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
NAMED = re.compile(r"\b(test_\w+)\.py\b")
CASE = re.compile(r"\b(test_\w+)(?:\.py)?::(test_\w+)")


@cache
def known_files() -> dict[str, str]:
    """Text of the test files by name; several areas may share one."""
    found: dict[str, str] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        found[path.stem] = found.get(path.stem, "") + path.read_text(encoding="utf-8")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = {name for name in NAMED.findall(text) if name not in known_files()}
    missing |= {
        f"{file}::{start}"
        for file, start in CASE.findall(text)
        if f"def {start}" not in known_files().get(file, "")
    }
    assert not missing
