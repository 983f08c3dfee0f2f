"""Channels move by compare-and-swap and keep a history that cannot be edited unseen."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import sqlalchemy as sa

from syncline.cloud.registry import Registry
from syncline.errors import ConflictError, InputError, UsageError


class MemoryObjects:
    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        sha = hashlib.sha256(data).hexdigest()
        self.data[sha] = data
        return sha

    def get(self, sha256: str) -> bytes:
        return self.data[sha256]


def fake_bundle(tmp_path: Path, version: str, content: str = "") -> tuple[Any, Path]:
    folder = tmp_path / f"{version}{content}"
    folder.mkdir()
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
    assert registry.was_promoted(served)
    assert not registry.was_promoted(hidden)
