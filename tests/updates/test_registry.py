"""Channels move by compare-and-swap and keep a history that cannot be edited unseen."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import sqlalchemy as sa

from syncline.cloud.model_provider import ModelProvider
from syncline.cloud.registry import Registry
from syncline.errors import ConflictError, InputError, UsageError


class MemoryObjects:
    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.gets = 0

    def put(self, data: bytes) -> str:
        sha = hashlib.sha256(data).hexdigest()
        self.data[sha] = data
        return sha

    def get(self, sha256: str) -> bytes:
        self.gets += 1
        return self.data[sha256]

    def get_range(self, sha256: str, offset: int, length: int) -> bytes:
        return self.data[sha256][offset : offset + length]


def fake_bundle(tmp_path: Path, version: str, content: str = "") -> tuple[Any, Path]:
    folder = tmp_path / f"{version}{content}"
    folder.mkdir(parents=True)
    (folder / "manifest.toml").write_text(f"{version}{content}")
    (folder / "model.onnx").write_bytes(b"weights" + version.encode())
    digest = hashlib.sha256(f"{version}{content}".encode()).hexdigest()
    manifest = SimpleNamespace(name="det", version=version)
    return cast(Any, SimpleNamespace(manifest=manifest, digest=digest)), folder


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'truth.db'}", connect_args={"timeout": 30})
    registry = Registry(engine, MemoryObjects())
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        bundle, folder = fake_bundle(tmp_path, version)
        registry.add(bundle, folder, utc_ns=1)
    return registry


def promote(registry: Registry, version: str, expected: int | None = None) -> int:
    return registry.promote(
        "det",
        version,
        "production",
        actor="ann",
        reason="test",
        utc_ns=5,
        expected_revision=expected,
    ).revision


def test_promote_and_rollback_leave_a_history(registry: Registry) -> None:
    assert [promote(registry, v) for v in ("1.0.0", "1.1.0")] == [1, 2]
    back = registry.rollback("det", "production", actor="bob", utc_ns=9)
    assert (back.version, back.revision, back.reason) == ("1.0.0", 3, "rollback from 1.1.0")
    history = registry.history("det", "production")
    assert [m.version for m in history] == ["1.0.0", "1.1.0", "1.0.0"]
    registry.verify_history("det", "production")
    assert registry.total_revision() == 3
    assert [m.revision for m in registry.channels()] == [3]


def test_rollbacks_go_further_back_and_never_to_what_was_rolled_back_from(
    registry: Registry,
) -> None:
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        promote(registry, version)

    def rollback() -> str:
        return registry.rollback("det", "production", actor="bob", utc_ns=9).version

    assert [rollback(), rollback()] == ["1.1.0", "1.0.0"]
    with pytest.raises(UsageError, match="no earlier version"):
        rollback()
    # A promotion after it stands on what the rollback left, not on what it left behind.
    promote(registry, "2.0.0")
    assert rollback() == "1.0.0"
    registry.verify_history("det", "production")


def test_a_stale_expectation_is_a_conflict_and_changes_nothing(registry: Registry) -> None:
    promote(registry, "1.0.0", 0)
    with pytest.raises(ConflictError, match="at revision 1, not 0"):
        promote(registry, "1.1.0", 0)
    move = registry.channel("det", "production")
    assert move is not None
    assert (move.version, move.revision) == ("1.0.0", 1)


def test_cloud_26_simultaneous_promotions_each_win_once_or_conflict(registry: Registry) -> None:
    wins: list[int] = []
    conflicts: list[int] = []

    def worker() -> None:
        for _ in range(25):
            try:
                wins.append(promote(registry, "1.1.0"))
            except ConflictError:
                conflicts.append(1)

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) + len(conflicts) == 100
    assert sorted(wins) == list(range(1, len(wins) + 1))
    assert len(registry.history("det", "production")) == len(wins)
    registry.verify_history("det", "production")


@pytest.mark.parametrize("column", ["version", "actor", "reason", "utc_ns"])
def test_cloud_26_an_edited_past_row_is_found(registry: Registry, column: str) -> None:
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        promote(registry, version)
    with registry._engine.begin() as db:
        value = 77 if column == "utc_ns" else "forged"
        db.execute(
            sa.text(f"UPDATE model_channel_history SET {column} = :v WHERE revision = 2"),
            {"v": value},
        )
    with pytest.raises(InputError, match="altered at revision 2"):
        registry.verify_history("det", "production")


def test_versions_are_never_replaced(registry: Registry, tmp_path: Path) -> None:
    bundle, folder = fake_bundle(tmp_path, "1.0.0", "other")
    with pytest.raises(ConflictError, match="exists with digest"):
        registry.add(bundle, folder, utc_ns=2)


def test_unknown_versions_and_first_rollbacks_are_refused(registry: Registry) -> None:
    with pytest.raises(InputError, match=r"has no version 9.9.9 \(known: 1.0.0, 1.1.0, 2.0.0\)"):
        promote(registry, "9.9.9")
    with pytest.raises(UsageError, match="no earlier version"):
        registry.rollback("det", "production", actor="x", utc_ns=0)


def test_only_promoted_objects_are_served(registry: Registry) -> None:
    promote(registry, "1.1.0")
    served = registry.version("det", "1.1.0").files["model.onnx"][0]
    hidden = registry.version("det", "2.0.0").files["model.onnx"][0]
    assert registry.promoted_size(served) == len(b"weights1.1.0")
    assert registry.promoted_size(hidden) is None
    for odd in ("", "%", "model.onnx", "_" * 64, served[:63]):
        assert registry.promoted_size(odd) is None


def test_pieces_are_read_alone_and_the_registry_is_asked_once_per_revision(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object of any size costs one piece per piece."""
    promote(registry, "1.1.0")
    objects = cast(MemoryObjects, registry._objects)
    sha = registry.version("det", "1.1.0").files["model.onnx"][0]
    hidden = registry.version("det", "2.0.0").files["model.onnx"][0]
    asked: list[str] = []
    size_of = registry.promoted_size

    def watched(sha256: str) -> int | None:
        asked.append(sha256)
        return size_of(sha256)

    monkeypatch.setattr(registry, "promoted_size", watched)
    provider = ModelProvider(registry, objects)
    found = provider.list_resource("car", f"object/{sha}")
    assert (found.size, found.sha256) == (12, sha)
    pieces = [provider.read("car", f"object/{sha}", at, 5) for at in range(0, 12, 5)]
    assert b"".join(pieces) == b"weights1.1.0"
    for _ in range(2):
        with pytest.raises(InputError, match="of no promoted model"):
            provider.read("car", f"object/{hidden}", 0, 5)
    assert asked == [sha, hidden]
    assert objects.gets == 0
    promote(registry, "2.0.0")
    assert provider.read("car", f"object/{hidden}", 0, 5) == b"weigh"
    with pytest.raises(InputError, match="there is no resource"):
        provider.list_resource("car", "file/x")


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_removing_the_newest_rows_is_found(registry: Registry, kept: int) -> None:
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        promote(registry, version)
    with registry._engine.begin() as db:
        db.execute(sa.text(f"DELETE FROM model_channel_history WHERE revision > {kept}"))
    with pytest.raises(InputError, match=f"altered at revision {kept + 1}"):
        registry.verify_history("det", "production")
    with pytest.raises(InputError, match=f"altered at revision {kept + 1}"):
        promote(registry, "1.0.0")


@pytest.mark.parametrize("change", ["version = '1.0.0'", "revision = 2", "head_hash = 'x'"])
def test_a_channel_row_that_differs_from_its_history_is_found(
    registry: Registry, change: str
) -> None:
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        promote(registry, version)
    with registry._engine.begin() as db:
        db.execute(sa.text(f"UPDATE model_channel SET {change}"))
    with pytest.raises(InputError, match="altered at revision"):
        registry.verify_history("det", "production")


def test_a_channel_row_that_is_gone_is_found(registry: Registry) -> None:
    registry.verify_history("det", "production")
    promote(registry, "1.0.0")
    with registry._engine.begin() as db:
        db.execute(sa.text("DELETE FROM model_channel"))
    with pytest.raises(InputError, match="altered at revision 1"):
        registry.verify_history("det", "production")


@pytest.mark.parametrize(("content", "clash"), [("", False), ("other", True)])
def test_adding_one_version_at_once_adds_it_once(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, clash: bool
) -> None:
    """The other one commits between our look and our insert."""
    bundle, folder = fake_bundle(tmp_path, "3.0.0")
    second = fake_bundle(tmp_path / "x", "3.0.0", content)
    find = registry._find
    looks = iter([True])

    def late(name: str, version: str) -> Any:
        found = find(name, version)
        if next(looks, False):
            registry.add(*second, utc_ns=7)
        return found

    monkeypatch.setattr(registry, "_find", late)
    if clash:
        with pytest.raises(ConflictError, match="exists with digest"):
            registry.add(bundle, folder, utc_ns=8)
    else:
        assert registry.add(bundle, folder, utc_ns=8).digest == bundle.digest
    assert [v.version for v in registry.versions()].count("3.0.0") == 1
