"""No number of `edge.toml` is without bounds: what a thread could not bear ends at the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from syncline.config import parse
from syncline.edge.config import EdgeConfig, load_edge_config
from syncline.errors import ConfigError


def numbers() -> list[tuple[tuple[str | int, ...], type]]:
    """Path and type of every number in the configuration."""
    found: list[tuple[tuple[str | int, ...], type]] = []

    def visit(node: Any, path: tuple[str | int, ...]) -> None:
        if isinstance(node, msgspec.inspect.FloatType):
            found.append((path, float))
        elif isinstance(node, msgspec.inspect.IntType):
            found.append((path, int))
        elif isinstance(node, msgspec.inspect.StructType):
            for field in node.fields:
                visit(field.type, (*path, field.encode_name))
        elif isinstance(node, msgspec.inspect.UnionType):
            for inner in node.types:
                visit(inner, path)
        elif isinstance(node, msgspec.inspect.VarTupleType):
            visit(node.item_type, (*path, 0))
        elif isinstance(node, msgspec.inspect.TupleType):
            for at, inner in enumerate(node.item_types):
                visit(inner, (*path, at))

    visit(msgspec.inspect.type_info(EdgeConfig), ())
    return found


def test_there_are_numbers_to_look_at() -> None:
    paths = {path for path, _ in numbers()}
    assert len(paths) > 40
    assert ("model", "deadline_ms") in paths
    assert ("model", 0, "deadline_ms") in paths
    assert ("time", "ntp", 0, "port") in paths


def toml(path: tuple[str | int, ...], value: str) -> str:
    """A configuration whose only addition is one key, as TOML text."""
    *where, key = path
    if isinstance(key, int):  # of a pair: the other half is left as it may be
        *where, name = where
        key, value = str(name), f"[{value}, {value}]"
    table = ".".join(str(part) for part in where if isinstance(part, str))
    is_list = where and where[-1] == 0
    lines = ['[device]\nname = "a"\ndata = "d"', '[[camera]]\nname = "c"\nkind = "synthetic"']
    at = {"device": 0, "camera": 1}.get(table)
    if at is None:
        lines.append(f"[[{table}]]" if is_list else f"[{table}]")
        at = len(lines) - 1
    lines[at] += f"\n{key} = {value}"
    return "\n".join(lines) + "\n"


def of(kind: type) -> list[tuple[str | int, ...]]:
    return sorted({path for path, found in numbers() if found is kind}, key=str)


def refused(path: tuple[str | int, ...], value: str) -> None:
    """The key itself is what the error names."""
    key = next(part for part in reversed(path) if isinstance(part, str))
    with pytest.raises(ConfigError) as caught:
        parse(toml(path, value).encode(), EdgeConfig)
    assert f"{key}`" in str(caught.value) or f"{key}[" in str(caught.value)


@pytest.mark.parametrize("path", of(float), ids=str)
def test_no_float_is_without_bounds(path: tuple[str | int, ...]) -> None:
    for value in ("inf", "-inf", "nan", "1e300", "1e12"):
        refused(path, value)


@pytest.mark.parametrize("path", of(int), ids=str)
def test_no_integer_is_without_bounds(path: tuple[str | int, ...]) -> None:
    for value in (str(2**63), str(-(2**63)), "9" * 40):
        refused(path, value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"width": 48}, "64..4096"),
        ({"height": 8192}, "64..4096"),
    ],
)
def test_a_rendered_camera_has_a_size_that_can_be_rendered(
    tmp_path: Path, change: dict[str, int], told: str
) -> None:
    lines = "\n".join(f"{key} = {value}" for key, value in change.items())
    path = tmp_path / "edge.toml"
    path.write_text(
        f'[device]\nname = "a"\ndata = "d"\n[[camera]]\nname = "c"\nkind = "synthetic"\n{lines}\n'
    )
    with pytest.raises(ConfigError, match=told):
        load_edge_config(path)


def test_a_channel_needs_keys(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(
        '[device]\nname = "a"\ndata = "d"\n[[camera]]\nname = "c"\nkind = "synthetic"\n'
        '[model]\nchannel = "production"\n'
    )
    with pytest.raises(ConfigError, match="updates must be signed"):
        load_edge_config(path)
