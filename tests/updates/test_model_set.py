"""Several models of one device: their own stores, keys, channels, labels and events."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from syncline.edge.config import EdgeConfig, load_edge_config
from syncline.edge.job import DropReason, Frame
from syncline.edge.model.bundle import Bundle
from syncline.edge.model.signature import sign
from syncline.edge.model_set import ModelSet
from syncline.edge.runner import Callbacks, Runner
from syncline.edge.starvation import STARVED_FRAMES
from syncline.edge.swap import SwapEvent
from syncline.edge.updater import UpdateEvent
from syncline.errors import ConfigError, IntegrityError
from syncline.timebase import OsClock
from tests.edge import tiny

from .test_updater import OTHER_PRIVATE, PRIVATE, PUBLIC, Fleet

LABELS = ("road", "car", "sky")
OTHER_LABELS = ("face", "hand", "nothing")


def signed(
    folder: Path,
    name: str,
    version: str,
    *,
    labels: tuple[str, ...] = LABELS,
) -> Bundle:
    seed = sum(version.encode())
    spec = tiny.manifest(name=name, version=version, labels=labels)
    tiny.bundle(folder, tiny.segmenter(seed), spec)
    sign(folder, PRIVATE)
    return Bundle.open(folder, trusted_keys=None)


class Device:
    """A device of two models that follow a channel each, and the registry behind it."""

    def __init__(self, tmp_path: Path, **second: object) -> None:
        self.tmp_path = tmp_path
        self.fleet = Fleet(tmp_path)
        key = tmp_path / "release.pub"
        key.write_bytes(_public_file())
        models: list[dict[str, Any]] = []
        for slot in ("first", "second"):
            signed(tmp_path / slot, slot, "1.0.0")
            models.append(
                {
                    "name": slot,
                    "bundle": str(tmp_path / slot),
                    "channel": "production",
                    "trusted_keys": [str(key)],
                }
            )
        models[1].update(second)
        raw = {
            "device": {"name": "car-1", "data": str(tmp_path / "data")},
            "camera": [{"name": "front", "kind": "synthetic"}],
            "model": models,
        }
        self.config = msgspec.convert(raw, EdgeConfig)
        self.events: list[tuple[str, UpdateEvent]] = []
        self.models = ModelSet(self.config, tmp_path / "data")
        self.runner = Runner(self.models.slots(), clock=OsClock())
        self.runner.load()
        self.stack = ExitStack()

    def follow(self) -> None:
        def told(slot: str, event: UpdateEvent) -> None:
            self.events.append((slot, event))

        self.models.follow(self.runner, self.fleet.fetch, OsClock(), told, self.stack)

    def publish(self, name: str, version: str, **options: Any) -> Bundle:
        folder = self.tmp_path / f"src-{name}-{version}"
        bundle = signed(folder, name, version, **options)
        self.fleet.registry.add(bundle, folder, utc_ns=1)
        self.fleet.registry.promote(name, version, "production", actor="a", reason="", utc_ns=1)
        self.models.notice(f"model/{name}/production")
        return bundle

    def digests(self) -> list[str]:
        return [slot.model_digest for slot in self.runner.health().slots]

    def actions(self) -> list[tuple[str, str]]:
        return [(slot, event.action) for slot, event in self.events]


def _public_file() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(PUBLIC).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def until(test: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not test():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path)
    with device.stack:
        yield device


def test_each_model_follows_its_own_channel_and_remembers_it(device: Device) -> None:
    first, second = device.digests()
    device.publish("first", "1.0.0")
    device.publish("second", "1.0.0")
    device.follow()
    newer = device.publish("second", "1.1.0")
    until(lambda: device.digests() == [first, newer.digest])
    until(lambda: device.actions() == [("second", "fetched"), ("second", "swapped")])
    folder = device.tmp_path / "data" / "models" / "slots"
    until(lambda: (folder / "second" / "current").is_file())
    assert not (folder / "first" / "current").exists()
    again = ModelSet(device.config, device.tmp_path / "data").slots()
    assert [slot.bundle.digest for slot in again] == [first, newer.digest]
    assert second != newer.digest


def test_a_model_with_other_labels_is_refused_and_the_old_one_serves(device: Device) -> None:
    """edge-19, on the way of a device: the registry offers it, keys and digests are right."""
    before = device.digests()
    device.publish("first", "1.0.0")
    device.publish("second", "2.0.0", labels=OTHER_LABELS)
    device.follow()
    until(lambda: ("second", "refused") in device.actions())
    assert device.digests() == before
    assert "labels" in device.events[-1][1].reason
    assert "swapped" not in [action for _, action in device.actions()]


def test_other_labels_are_taken_where_the_configuration_allows_them(tmp_path: Path) -> None:
    device = Device(tmp_path, allow_other_labels=True)
    with device.stack:
        device.publish("first", "1.0.0")
        new = device.publish("second", "2.0.0", labels=OTHER_LABELS)
        device.follow()
        until(lambda: device.digests()[1] == new.digest)
        until(lambda: device.actions() == [("second", "fetched"), ("second", "swapped")])


def test_a_bundle_that_no_trusted_key_signed_does_not_run(tmp_path: Path) -> None:
    device = Device(tmp_path)
    (tmp_path / "second" / "manifest.sig").unlink()
    sign(tmp_path / "second", OTHER_PRIVATE)
    with pytest.raises(IntegrityError):
        ModelSet(device.config, tmp_path / "data2")
    (tmp_path / "second" / "manifest.sig").unlink()
    with pytest.raises(IntegrityError):
        ModelSet(device.config, tmp_path / "data3")


def test_a_shadow_is_held_to_the_keys_too(tmp_path: Path) -> None:
    shadow = tmp_path / "shadow"
    tiny.bundle(shadow, tiny.segmenter(9), tiny.manifest(name="wide"))
    with pytest.raises(IntegrityError, match="has no manifest"):
        Device(tmp_path, shadow=str(shadow))
    sign(shadow, PRIVATE)
    (tmp_path / "again").mkdir()
    device = Device(tmp_path / "again", shadow=str(shadow))
    assert [slot.name for slot in device.models.slots()] == ["first", "second", "second-shadow"]


def test_an_update_that_leaves_its_shadow_behind_does_not_keep_a_device_from_starting(
    tmp_path: Path,
) -> None:
    shadow = tmp_path / "shadow"
    signed(shadow, "wide", "1.0.0")
    device = Device(tmp_path, allow_other_labels=True, shadow=str(shadow))
    with device.stack:
        device.publish("first", "1.0.0")
        new = device.publish("second", "2.0.0", labels=OTHER_LABELS)
        device.follow()
        until(lambda: device.digests()[1] == new.digest)
        current = tmp_path / "data" / "models" / "slots" / "second" / "current"
        until(lambda: current.is_file() and current.read_text().strip() == new.digest)
    again = ModelSet(device.config, tmp_path / "data")
    runner = Runner(again.slots(), clock=OsClock())
    runner.load()
    assert [slot.slot for slot in runner.health().slots] == ["first", "second"]
    assert "runs without its shadow" in again.problems()[0]


def test_a_model_that_no_longer_loads_gives_way_to_the_one_before(device: Device) -> None:
    """A device must not stay dead because its runtime or an accelerator is another one since."""
    before = device.digests()
    device.publish("first", "1.0.0")
    folder = device.tmp_path / "src"
    golden = tiny.golden_of(tiny.segmenter(3), tiny.manifest(), tiny.frame(7))
    tiny.bundle(folder, tiny.segmenter(4), tiny.manifest(name="second", version="1.1.0"), golden)
    sign(folder, PRIVATE)
    digest = Bundle.open(folder, trusted_keys=None).digest
    store = device.tmp_path / "data" / "models" / "slots" / "second"
    folder.rename(store / digest)
    (store / "current").write_text(digest + "\n")
    events: list[SwapEvent] = []
    slots = ModelSet(device.config, device.tmp_path / "data").slots()
    assert slots[1].bundle.digest == digest
    runner = Runner(slots, clock=OsClock(), callbacks=Callbacks(on_event=events.append))
    runner.load()
    assert [slot.model_digest for slot in runner.health().slots] == before
    assert [(e.slot, e.action) for e in events] == [
        ("first", "loaded"),
        ("second", "unloadable"),
        ("second", "loaded"),
    ]
    assert "golden" in events[1].reason
    assert runner.health().counters["unloadable"] == 1


def test_a_configured_bundle_that_is_gone_stops_no_device_that_was_updated(device: Device) -> None:
    device.publish("first", "1.0.0")
    new = device.publish("second", "1.1.0")
    device.follow()
    current = device.tmp_path / "data" / "models" / "slots" / "second" / "current"
    until(lambda: current.is_file() and current.read_text().strip() == new.digest)
    shutil.rmtree(device.tmp_path / "second")
    slots = ModelSet(device.config, device.tmp_path / "data").slots()
    assert slots[1].bundle.digest == new.digest


def test_a_camera_that_breaks_after_a_swap_does_not_send_the_model_back(device: Device) -> None:
    device.publish("first", "1.0.0")
    new = device.publish("second", "1.1.0")
    device.follow()
    until(lambda: device.actions() == [("second", "fetched"), ("second", "swapped")])
    for index in range(STARVED_FRAMES):
        broken = Frame("rear", index, np.zeros((2, 2), np.uint8), None, 0)
        assert not device.runner.process(broken, "second").valid
        good = Frame("front", index, tiny.frame(index), None, 0)
        assert device.runner.process(good, "second").valid
    slot = device.runner.health().slots[1]
    assert (slot.state, slot.fault) == ("degraded", "")
    device.models.check()
    assert device.digests()[1] == new.digest
    assert device.actions()[-1] == ("second", "swapped")


def test_a_model_that_fails_after_a_swap_goes_back_and_the_other_stays(device: Device) -> None:
    device.publish("first", "1.0.0")
    before = device.digests()
    device.publish("second", "1.1.0")
    device.follow()
    until(lambda: device.actions() == [("second", "fetched"), ("second", "swapped")])
    state = device.runner._serving.slots["second"]
    for index in range(STARVED_FRAMES):
        state.drop(Frame("front", index, tiny.frame(0), None, 0), DropReason.TIMEOUT)

    def went_back() -> bool:
        device.models.check()
        return device.digests() == before

    until(went_back)
    assert [action for _, action in device.actions()][-1] == "rolled-back"
    assert "timeout" in device.events[-1][1].reason


def test_what_ships_with_the_program_needs_no_signature(tmp_path: Path) -> None:
    device = Device(tmp_path, bundle="road-detector")
    assert device.models.slots()[1].bundle.manifest.name == "road-detector"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "first"}, "share the name first"),
        ({"cameras": ["left"]}, "cameras names left"),
        ({"bundle": "first"}, "told apart"),
        ({"name": "first-shadow"}, "share the name first-shadow"),
    ],
)
def test_models_that_contradict_each_other_are_refused(
    tmp_path: Path, change: dict[str, object], told: str
) -> None:
    model = {"name": "second", "bundle": "second"} | change
    lines = "\n".join(
        f"{key} = {msgspec.json.encode(text).decode()}" for key, text in model.items()
    )
    path = tmp_path / "edge.toml"
    path.write_text(
        '[device]\nname = "a"\ndata = "d"\n[[camera]]\nname = "front"\nkind = "synthetic"\n'
        f'[[model]]\nname = "first"\nbundle = "first"\nshadow = "x"\n[[model]]\n{lines}\n'
    )
    with pytest.raises(ConfigError, match=told):
        load_edge_config(path)
