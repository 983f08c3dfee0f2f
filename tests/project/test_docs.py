"""The documents say everything: every configuration key, every error, every command."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from syncline import errors
from syncline.cli import _COMMANDS
from syncline.config import Section
from syncline.edge.config import EdgeConfig, load_edge_config
from syncline.edge.config_check import check_values

ROOT = Path(__file__).resolve().parents[2]
CONFIG = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")


def sections_of(kind: type[Section]) -> list[type[msgspec.Struct]]:
    found: list[type[msgspec.Struct]] = []

    def visit(node: Any) -> None:
        if isinstance(node, msgspec.inspect.StructType) and node.cls not in found:
            found.append(node.cls)
            for field in node.fields:
                visit(field.type)
        for name in ("item_type", "types", "item_types", "value_type"):
            inner = getattr(node, name, None)
            for each in inner if isinstance(inner, tuple) else (inner,):
                if each is not None:
                    visit(each)

    visit(msgspec.inspect.type_info(kind))
    return found


@pytest.mark.parametrize("section", sections_of(EdgeConfig), ids=lambda s: s.__name__)
def test_every_configuration_key_is_documented(section: type[msgspec.Struct]) -> None:
    for field in section.__struct_fields__:
        assert f"`{field}`" in CONFIG, f"{section.__name__}.{field} is not in docs/config.md"


def test_every_error_is_documented_with_its_exit_code() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.SynclineError):
            row = re.search(rf"^\| `{name}` \| (\d+) \|", text, re.MULTILINE)
            assert row, f"{name} is not in docs/errors.md"
            assert int(row[1]) == kind.exit_code, name


def test_every_command_is_in_the_readme_or_the_docs() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    for group, command in _COMMANDS:
        words = f"syncline {group} {command}".replace("  ", " ")
        assert words in text, f"`{words}` stands in no document"


def examples() -> list[Any]:
    """Every TOML block that is a part of an `edge.toml`, with its page and place there."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for block in re.finditer(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, block.start()) + 1
            if set(tomllib.loads(block[1])) <= set(EdgeConfig.__struct_fields__):
                found.append(pytest.param(block[1], id=f"{page.name}:{line}"))
    return found


@pytest.mark.parametrize("text", examples())
def test_every_edge_toml_in_the_documents_is_accepted(text: str, tmp_path: Path) -> None:
    """A part of one is put into the smallest whole one."""
    whole = "" if "[device]" in text else '[device]\nname = "car"\ndata = "data"\n'
    if "[[camera]]" not in text:
        whole += '[[camera]]\nname = "front"\nkind = "synthetic"\n'
    path = tmp_path / "edge.toml"
    path.write_text(whole + text, encoding="utf-8")
    check_values(load_edge_config(path), path)


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_placeholder_is_left(page: Path) -> None:
    found = re.findall(r"\b[A-Z]+_(?:TIMES|ROWS?|VERDICT)\b|\bTODO\b|\bTBD\b", page.read_text())
    assert not found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
