"""An edge daemon takes what its channel points at only when every digest and the signature hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from syncline.cloud.model_provider import ModelProvider
from syncline.cloud.registry import Registry
from syncline.edge.model.bundle import Bundle, write_bundle
from syncline.edge.model.manifest import DecoderSpec, InputSpec, Manifest, TargetSpec
from syncline.edge.model.signature import generate_key, sign
from syncline.edge.swap import SwapEvent
from syncline.edge.updater import ModelStore, ModelUpdater, UpdateEvent
from syncline.errors import HealthProofError, InputError, IntegrityError, LinkError

from .test_registry import MemoryObjects

PRIVATE, PUBLIC = generate_key()
OTHER_PRIVATE, _ = generate_key()


def make_bundle(
    folder: Path, version: str, *, key: bytes = PRIVATE, security: int = 1, name: str = "det"
) -> Bundle:
    manifest = Manifest(
        name=name,
        version=version,
        task="detection",
        security_version=security,
        labels=("car",),
        input=InputSpec(name="x", width=8, height=8),
        decoder=DecoderSpec(kind="boxes-nms", outputs=("y",)),
        target=TargetSpec(opset=17),
    )
    write_bundle(
        folder, manifest, {"model.onnx": b"w" * 5000 + version.encode(), "golden.npz": b"g"}
    )
    sign(folder, key)
    return Bundle.open(folder, trusted_keys=None)


class Fleet:
    """A registry, its provider, and one device that reads it without a network between."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.objects = MemoryObjects()
        engine = sa.create_engine(f"sqlite:///{tmp_path / 'truth.db'}")
        self.registry = Registry(engine, self.objects)
        self.provider = ModelProvider(self.registry, self.objects)
        self.store = ModelStore(tmp_path / "models")
        self.events: list[UpdateEvent] = []
        self.swapped: list[str] = []
        self.fail_swap = False
        self.cut_after = 10**9
        self.updater = self.new_updater("0" * 64)

    def new_updater(self, running: str, floor: int = 0) -> ModelUpdater:
        return ModelUpdater(
            self.store,
            name="det",
            channel="production",
            trusted_keys=(PUBLIC,),
            security_floor=floor,
            fetch=self.fetch,
            swap=self.swap,
            revert=self.revert,
            report=self.events.append,
            running_digest=running,
        )

    def fetch(self, resource: str, out: Path, /, *, max_bytes: int) -> None:
        try:
            size = self.provider.list_resource("car", resource).size
        except InputError as error:  # over the wire it is a refusal
            raise LinkError(f"the collector refuses: {error}") from error
        if size > max_bytes:
            raise IntegrityError(f"announces {size} bytes, limit {max_bytes}")
        part = out.with_name(out.name + ".part")
        have = part.stat().st_size if part.exists() else 0
        with part.open("ab") as file:
            for offset in range(have, size, 1000):
                if self.cut_after <= 0:
                    raise LinkError("link went down")
                self.cut_after -= 1
                file.write(self.provider.read("car", resource, offset, 1000))
        part.replace(out)

    def revert(self) -> SwapEvent:
        self.swapped.append("back")
        return SwapEvent(0, "primary", "rolled-back", "det", "", self.store.pointer("previous"))

    def swap(self, bundle: Bundle) -> None:
        if self.fail_swap:
            raise HealthProofError("golden output differs")
        self.swapped.append(bundle.manifest.version)

    def publish(self, version: str, **options: object) -> Bundle:
        folder = self.tmp_path / f"src-{version}"
        bundle = make_bundle(folder, version, **options)  # type: ignore[arg-type]
        self.registry.add(bundle, folder, utc_ns=1)
        self.registry.promote(
            bundle.manifest.name, version, "production", actor="a", reason="", utc_ns=1
        )
        return bundle


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def actions(fleet: Fleet) -> list[str]:
    return [event.action for event in fleet.events]


def test_a_promoted_bundle_is_fetched_verified_and_swapped(fleet: Fleet) -> None:
    first = fleet.publish("1.0.0")
    assert fleet.updater.update()
    assert not fleet.updater.update()
    second = fleet.publish("1.1.0")
    assert fleet.updater.update()
    assert fleet.swapped == ["1.0.0", "1.1.0"]
    assert actions(fleet) == ["fetched", "swapped", "fetched", "swapped"]
    assert fleet.store.pointer("current") == second.digest
    assert fleet.store.pointer("previous") == first.digest
    assert Bundle.open(fleet.store.path(second.digest), trusted_keys=(PUBLIC,)).digest


def test_nothing_is_taken_before_the_first_promotion(fleet: Fleet) -> None:
    with pytest.raises(LinkError, match="never promoted"):
        fleet.updater.update()
    assert fleet.swapped == []
    assert fleet.events == []


def test_a_wrong_signature_is_refused_once_and_the_old_model_keeps_serving(fleet: Fleet) -> None:
    good = fleet.publish("1.0.0")
    fleet.updater.update()
    fleet.publish("1.1.0", key=OTHER_PRIVATE)
    assert not fleet.updater.update()
    assert not fleet.updater.update()
    assert fleet.swapped == ["1.0.0"]
    assert actions(fleet) == ["fetched", "swapped", "refused"]
    assert "none of the 1 trusted keys" in fleet.events[-1].reason
    assert fleet.store.pointer("current") == good.digest


def test_cloud_31_a_model_below_the_security_floor_is_refused(fleet: Fleet) -> None:
    fleet.publish("1.0.0", security=3)
    updater = fleet.new_updater("0" * 64, floor=4)
    assert not updater.update()
    assert actions(fleet) == ["refused"]
    assert not fleet.swapped


def test_a_damaged_object_is_refused_and_fetched_anew_later(fleet: Fleet) -> None:
    bundle = fleet.publish("1.0.0")
    sha = fleet.registry.version("det", "1.0.0").files["model.onnx"][0]
    whole = fleet.objects.data[sha]
    fleet.objects.data[sha] = b"X" + whole[1:]
    assert not fleet.updater.update()
    assert "does not have the digest" in fleet.events[-1].reason
    fleet.objects.data[sha] = whole
    fleet.provider = ModelProvider(fleet.registry, fleet.objects)
    assert fleet.new_updater("0" * 64).update()
    assert fleet.store.pointer("current") == bundle.digest


def test_a_failed_health_proof_keeps_the_old_model(fleet: Fleet) -> None:
    good = fleet.publish("1.0.0")
    fleet.updater.update()
    fleet.publish("1.1.0")
    fleet.fail_swap = True
    assert not fleet.updater.update()
    assert actions(fleet)[-1] == "refused"
    assert "golden output differs" in fleet.events[-1].reason
    assert fleet.updater.running_digest == good.digest
    assert fleet.store.pointer("current") == good.digest


def test_a_cut_fetch_resumes_where_it_stopped(fleet: Fleet) -> None:
    fleet.publish("1.0.0")
    for cut in range(1, 4):
        fleet.cut_after = cut
        with pytest.raises(LinkError):
            fleet.new_updater("0" * 64).update()
    fleet.cut_after = 10**9
    assert fleet.new_updater("0" * 64).update()
    assert fleet.swapped == ["1.0.0"]


def test_a_bundle_of_another_model_is_refused(fleet: Fleet) -> None:
    fleet.publish("1.0.0")
    foreign = make_bundle(fleet.tmp_path / "foreign", "1.0.0", name="seg")
    row = fleet.registry.version("det", "1.0.0")
    files = {p.name: p.read_bytes() for p in (fleet.tmp_path / "foreign").iterdir()}
    stored = {name: (fleet.objects.put(data), len(data)) for name, data in files.items()}
    with fleet.registry._engine.begin() as db:
        db.execute(
            sa.text("UPDATE model_version SET digest = :d, files = :f WHERE digest = :old"),
            {"d": foreign.digest, "f": json.dumps(stored), "old": row.digest},
        )
    assert not fleet.updater.update()
    assert "is of model 'seg'" in fleet.events[-1].reason


def test_going_back_names_the_reason_and_never_retries_the_bad_one(fleet: Fleet) -> None:
    good = fleet.publish("1.0.0")
    fleet.updater.update()
    fleet.publish("1.1.0")
    fleet.updater.update()
    fleet.updater.roll_back("30 constant outputs")
    assert fleet.swapped == ["1.0.0", "1.1.0", "back"]
    assert fleet.events[-1].action == "rolled-back"
    assert not fleet.updater.update()
    assert fleet.store.pointer("current") == good.digest
