"""The repository is what CONTRIBUTING says: one copy of every module, every package listed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AREAS = ("syncline", "sensors", "sync", "edge", "cloud")


def packages_on_disk() -> set[str]:
    found = set()
    for area in AREAS:
        for init in (ROOT / area).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            if area == "syncline" and len(parts) > 1 and parts[1] in AREAS:
                continue
            found.add(".".join(parts if area == "syncline" else ("syncline", *parts)))
    return found


def test_every_package_is_listed_in_pyproject() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert packages_on_disk() == set(table["packages"])
    mapped = {p for p in table["packages"] if not p.startswith("syncline.") or "." in p}
    assert set(table["package-dir"]) <= mapped


@pytest.mark.parametrize("area", AREAS[1:])
def test_the_links_point_at_the_folders(area: str) -> None:
    link = ROOT / "syncline" / area
    assert link.is_symlink()
    assert link.readlink() == Path("..") / area


def test_no_module_is_imported_by_its_folder_name() -> None:
    """`import edge` from the root would give a second copy of every class."""
    banned = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = banned["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert set(AREAS[1:]) <= set(names)


def test_importing_the_edge_brings_neither_torch_nor_onnx_nor_the_cloud() -> None:
    code = (
        "import sys, pkgutil, importlib, syncline.edge as e\n"
        "for m in pkgutil.walk_packages(e.__path__, 'syncline.edge.'):\n"
        "    importlib.import_module(m.name)\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('torch', 'onnx', 'sqlalchemy')"
        " or m.startswith('syncline.cloud')]\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
