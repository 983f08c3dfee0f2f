"""Full disks, restarts, damage, a collector that lies: the updater keeps a model and says why."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from syncline.cloud.model_provider import ModelProvider
from syncline.edge.model.bundle import Bundle
from syncline.edge.model.signature import sign
from syncline.edge.refusals import MAX_REFUSALS, Refusals
from syncline.edge.updater import ModelStore
from syncline.errors import LinkError, StorageError

from .test_updater import PRIVATE, PUBLIC, Fleet, actions, make_bundle


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_a_full_disk_after_the_swap_is_told_and_made_good_by_the_next_update(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The swapped model serves; `current` follows as soon as the disk takes it."""
    first = fleet.publish("1.0.0")
    fleet.updater.update()
    second = fleet.publish("1.1.0")
    point = ModelStore.point

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ModelStore, "point", full)
    for _ in range(2):
        with pytest.raises(StorageError, match="No space left"):
            fleet.updater.update()
    assert fleet.swapped == ["1.0.0", "1.1.0"]
    assert fleet.updater.running_digest == second.digest
    assert fleet.store.pointer("current") == first.digest
    monkeypatch.setattr(ModelStore, "point", point)
    assert not fleet.updater.update()
    assert fleet.store.pointer("current") == second.digest
    assert fleet.store.pointer("previous") == first.digest
    assert actions(fleet)[-1] == "swapped"


def test_going_back_on_a_full_disk_is_written_by_the_next_update(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fleet.publish("1.0.0")
    fleet.updater.update()
    fleet.publish("1.1.0")
    fleet.updater.update()
    with monkeypatch.context() as patch:
        patch.setattr("syncline.edge.refusals.replace_durably", raise_full)
        assert fleet.updater.roll_back("constant output")
    assert actions(fleet)[-1] == "rolled-back"
    assert not fleet.updater.update()
    assert fleet.store.pointer("current") == first.digest
    assert not fleet.new_updater(first.digest).update()


def raise_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_was_refused_or_taken_back_stays_so_over_a_restart(fleet: Fleet) -> None:
    good = fleet.publish("1.0.0")
    fleet.updater.update()
    fleet.publish("1.1.0")
    fleet.updater.update()
    fleet.updater.roll_back("30 constant outputs")
    assert not fleet.new_updater(good.digest).update()
    fleet.publish("1.2.0")
    fleet.fail_swap = True
    assert not fleet.new_updater(good.digest).update()
    before = list(fleet.events)
    fleet.fail_swap = False
    assert not fleet.new_updater(good.digest).update()
    assert fleet.events == before
    assert fleet.swapped == ["1.0.0", "1.1.0", "back"]


def test_a_refused_version_gets_a_new_chance_when_the_channel_was_elsewhere(fleet: Fleet) -> None:
    fleet.publish("1.0.0")
    fleet.fail_swap = True
    fleet.updater.update()
    fleet.fail_swap = False
    fleet.publish("1.1.0")
    fleet.updater.update()
    fleet.registry.rollback("det", "production", actor="a", utc_ns=3)
    assert fleet.updater.update()
    assert fleet.swapped == ["1.1.0", "1.0.0"]


def test_a_refusal_by_other_keys_is_forgotten_when_the_keys_change(fleet: Fleet) -> None:
    fleet.publish("1.0.0", security=3)
    assert not fleet.new_updater("0" * 64, floor=4).update()
    assert not fleet.new_updater("0" * 64, floor=4).update()
    assert actions(fleet) == ["refused"]
    assert fleet.new_updater("0" * 64, floor=3).update()


@pytest.mark.parametrize("content", ["", "{", '[{"digest": 3}]', "\0" * 40])
def test_a_damaged_list_of_refusals_counts_as_empty(fleet: Fleet, content: str) -> None:
    (fleet.store.folder / "refused.json").write_text(content)
    fleet.publish("1.0.0")
    assert fleet.new_updater("0" * 64).update()


def test_refusals_are_bounded(tmp_path: Path) -> None:
    refusals = Refusals(tmp_path / "refused.json", "p")
    for at in range(3 * MAX_REFUSALS):
        refusals.add(f"{at:064d}", "x" * 10_000)
    refusals.save()
    assert (tmp_path / "refused.json").stat().st_size < MAX_REFUSALS * 700
    again = Refusals(tmp_path / "refused.json", "p")
    assert f"{3 * MAX_REFUSALS - 1:064d}" in again
    assert f"{0:064d}" not in again


def test_a_damaged_stored_bundle_is_fetched_again_once(fleet: Fleet) -> None:
    first = fleet.publish("1.0.0")
    fleet.updater.update()
    fleet.publish("1.1.0")
    fleet.updater.update()
    (fleet.store.path(first.digest) / "model.onnx").write_bytes(b"rotten")
    fleet.registry.rollback("det", "production", actor="a", utc_ns=3)
    assert fleet.updater.update()
    assert fleet.swapped == ["1.0.0", "1.1.0", "1.0.0"]
    assert Bundle.open(fleet.store.path(first.digest), trusted_keys=(PUBLIC,)).digest


def test_a_collector_cannot_fill_the_disk(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.publish("1.0.0")
    row = fleet.registry.version("det", "1.0.0")
    sha = row.files["model.onnx"][0]
    fleet.objects.data[sha] += bytes(100_000)
    monkeypatch.setattr(ModelProvider, "_size", lambda *_: 105_005)
    assert not fleet.updater.update()
    assert "announces 105005 bytes, limit " in fleet.events[-1].reason
    assert sum(p.stat().st_size for p in fleet.store.folder.rglob("*") if p.is_file()) < 10_000


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"files": {"a": ["00" * 32, -(1 << 40)], "b": ["00" * 32, 1 << 40]}}, "bundle of 0 bytes"),
        ({"files": {"a": ["00" * 32, (1 << 30) + 1]}}, "limit 1073741824"),
    ],
)
def test_impossible_sizes_are_refused(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], told: str
) -> None:
    forge(fleet, monkeypatch, change)
    assert not fleet.updater.update()
    assert told in fleet.events[-1].reason


def test_a_digest_cannot_leave_the_folder(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    (fleet.tmp_path / "precious").mkdir()
    forge(fleet, monkeypatch, {"digest": "../precious"})
    with pytest.raises(LinkError, match="is no digest"):
        fleet.updater.update()
    assert (fleet.tmp_path / "precious").is_dir()


def test_a_channel_document_that_is_too_long_refuses_no_bundle(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.publish("1.0.0")
    fleet.updater.update()
    forge(fleet, monkeypatch, {"version": "x" * (65 << 10)})
    with pytest.raises(LinkError, match="limit 65536"):
        fleet.updater.update()
    assert actions(fleet) == ["fetched", "swapped"]


def forge(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    """Let the collector answer with a changed channel document."""
    fleet.publish("3.0.0")
    honest = ModelProvider._channel_document

    def forged(self: ModelProvider, rest: str) -> bytes:
        return json.dumps({**json.loads(honest(self, rest)), **change}).encode()

    monkeypatch.setattr(ModelProvider, "_channel_document", forged)


def test_going_back_while_a_swap_is_under_way_does_nothing(fleet: Fleet) -> None:
    """The watch neither waits for the proof nor condemns the new digest for the old model."""
    first = fleet.publish("1.0.0")
    fleet.updater.update()
    second = fleet.publish("1.1.0")
    during: list[bool] = []
    swap = fleet.swap

    def watched(bundle: Bundle) -> None:
        swap(bundle)
        during.append(fleet.updater.roll_back("degraded", second.digest))

    fleet.updater._swap = watched
    assert fleet.updater.update()
    assert during == [False]
    assert not fleet.updater.roll_back("late word about the old model", first.digest)
    assert fleet.updater.running_digest == fleet.store.pointer("current") == second.digest
    assert fleet.updater.roll_back("bad indeed", second.digest)
    assert fleet.store.pointer("current") == first.digest
    assert not fleet.updater.update()


def test_a_version_that_is_signed_later_is_taken_after_its_next_promotion(fleet: Fleet) -> None:
    fleet.publish("1.0.0")
    fleet.updater.update()
    folder = fleet.tmp_path / "late"
    bundle = make_bundle(folder, "1.1.0")
    (folder / "manifest.sig").unlink()
    fleet.registry.add(bundle, folder, utc_ns=1)
    fleet.registry.promote("det", "1.1.0", "production", actor="a", reason="", utc_ns=1)
    assert not fleet.updater.update()
    assert actions(fleet)[-1] == "refused"
    sign(folder, PRIVATE)
    row = fleet.registry.add(bundle, folder, utc_ns=2)
    assert fleet.registry.version("det", "1.1.0") == row
    fleet.registry.promote("det", "1.1.0", "production", actor="a", reason="", utc_ns=2)
    assert fleet.updater.update()
    assert fleet.swapped == ["1.0.0", "1.1.0"]
