"""Hot swap: nothing lost, nothing wrong ever serves, and back in a moment."""

from __future__ import annotations

import io
import random
import threading
import time
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from syncline.edge.backend import BackendOptions
from syncline.edge.model.bundle import Bundle, write_bundle
from syncline.edge.model.golden import Golden
from syncline.edge.model.manifest import InputSpec
from syncline.edge.model.signature import generate_key, sign
from syncline.edge.queue import QueuePolicy
from syncline.edge.runner import ModelSlot, Runner
from syncline.edge.swap import SwapPolicy
from syncline.errors import (
    HealthProofError,
    IntegrityError,
    ManifestError,
    ModelError,
    ProviderError,
    UsageError,
)

from . import tiny
from .harness import CLOCK, Told, books_balance, frame


@pytest.fixture
def old(tmp_path: Path) -> Bundle:
    return tiny.bundle(tmp_path / "old", tiny.segmenter(0))


@pytest.fixture
def new(tmp_path: Path) -> Bundle:
    return tiny.bundle(tmp_path / "new", tiny.segmenter(1), tiny.manifest(version="2"))


def serving(bundle: Bundle, told: Told | None = None, **changes: object) -> Runner:
    slot = ModelSlot(name="main", bundle=bundle, policy=QueuePolicy.BLOCK)
    callbacks = None if told is None else told.callbacks()
    return Runner([slot], clock=CLOCK, callbacks=callbacks, **changes)  # type: ignore[arg-type]


def still_serves(runner: Runner, bundle: Bundle, refused: int) -> None:
    assert runner.process(frame(1)).model_digest == bundle.digest
    health = runner.health()
    assert health.counters.get("swap-refused", 0) == refused
    assert health.slots[0].model_digest == bundle.digest


def test_edge_16_twenty_swaps_lose_and_double_nothing(old: Bundle, new: Bundle) -> None:
    """edge-16: 20 swaps while frames come: 0 lost, 0 doubled, each result names its model."""
    told = Told()
    runner = serving(old, told)
    runner.start()
    stop = threading.Event()
    sent = 0

    def feed() -> None:
        nonlocal sent
        while not stop.is_set():
            runner.submit(frame(sent))
            sent += 1
            time.sleep(0.003)

    feeder = threading.Thread(target=feed)
    feeder.start()
    for turn in range(20):
        event = runner.swap_in_background(old if turn % 2 else new).result(20)
        assert event.action == "swapped"
        before = len(told.results)
        told.wait(partial(lambda seen: len(told.results) > seen + 1, before))
    stop.set()
    feeder.join()
    runner.stop()
    assert [r.frame.index for r in told.results] == list(range(sent))
    assert {r.model_digest for r in told.results} == {old.digest, new.digest}
    changes = sum(
        a.model_digest != b.model_digest
        for a, b in zip(told.results, told.results[1:], strict=False)
    )
    assert changes == 20
    assert told.drops == []
    books_balance(runner, told)
    for result in random.Random(1).sample(told.results, 5):
        want = serving(old if result.model_digest == old.digest else new).process(result.frame)
        assert result.labels is not None
        assert want.labels is not None
        assert (result.labels.labels == want.labels.labels).all()


def test_edge_17_damaged_models_are_refused_while_the_old_one_serves(
    old: Bundle, new: Bundle
) -> None:
    """edge-17: minus 100 bytes and 60 one-bit flips: all refused, counter +1 each, old serves."""
    runner = serving(old)
    path = new.folder / "model.onnx"
    good = path.read_bytes()
    rng, damaged = random.Random(5), [good[:-100]]
    for _ in range(60):
        flipped = bytearray(good)
        flipped[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    for count, data in enumerate(damaged, start=1):
        path.write_bytes(data)
        with pytest.raises(IntegrityError, match="SHA-256"):
            runner.swap(new.folder)
        still_serves(runner, old, refused=count)
    path.write_bytes(good)
    runner.swap(new.folder)
    still_serves(runner, new, refused=61)


def test_edge_18_a_torn_golden_archive_is_refused_and_counted(tmp_path: Path, old: Bundle) -> None:
    """edge-18: right digest of a golden archive whose deflate stream is damaged."""
    runner = serving(old)
    whole = {name: old.read(name) for name in old.manifest.files}
    golden, packed = old.golden(), io.BytesIO()
    np.savez_compressed(packed, frame=golden.frame, out_0=golden.outputs[0])
    torn = bytearray(packed.getvalue())
    torn[200:230] = bytes(30)
    files = {**whole, "golden.npz": bytes(torn)}
    damaged = write_bundle(
        tmp_path / "torn", msgspec.structs.replace(old.manifest, files={}), files
    )
    with pytest.raises(ManifestError, match=r"golden\.npz cannot be read"):
        runner.swap(damaged)
    still_serves(runner, old, refused=1)
    assert runner.health().counters["swap-refused.ManifestError"] == 1


def test_edge_18_wrong_golden_output_is_refused_and_rollback_is_quick(
    tmp_path: Path, old: Bundle, new: Bundle
) -> None:
    """edge-18: right digest, wrong golden output: refused; going back takes less than 1 s."""
    runner = serving(old)
    golden = tiny.golden_of(tiny.segmenter(3), tiny.manifest(), tiny.frame(7))
    lying = tiny.bundle(tmp_path / "lying", tiny.segmenter(1), golden=golden)
    with pytest.raises(HealthProofError, match="golden run"):
        runner.swap(lying)
    still_serves(runner, old, refused=1)
    assert runner.health().counters["swap-refused.HealthProofError"] == 1
    runner.swap(new)
    begin = time.monotonic()
    assert runner.rollback().action == "rolled-back"
    assert time.monotonic() - begin < 1.0
    still_serves(runner, old, refused=1)


def test_a_model_that_does_not_end_is_refused_and_holds_no_other_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """edge-18: a golden run without end would hold the swap for ever."""
    monkeypatch.setattr("syncline.edge.engine.PROOF_LIMIT_S", 0.2)
    spec = tiny.scores_manifest()
    old = tiny.bundle(tmp_path / "old", tiny.scorer(), spec)
    runner = serving(old)
    unproven = Golden(tiny.frame(7), (np.zeros((1, 3), np.float32),))
    endless = tiny.bundle(
        tmp_path / "endless", tiny.slow(rounds=100_000), tiny.scores_manifest(version="2"), unproven
    )
    begin = time.monotonic()
    with pytest.raises(HealthProofError, match="does not end"):
        runner.swap(endless)
    assert time.monotonic() - begin < 10.0
    still_serves(runner, old, refused=1)
    other = tiny.bundle(tmp_path / "new", tiny.scorer(0.02), tiny.scores_manifest(version="3"))
    assert runner.swap(other).action == "swapped"


def test_an_unsigned_bundle_that_served_before_may_come_back_but_only_unchanged(
    tmp_path: Path, old: Bundle, new: Bundle
) -> None:
    private, public = generate_key()
    sign(new.folder, private)
    runner = serving(old, swap_policy=SwapPolicy(trusted_keys=(public,)))
    runner.swap(new.folder)
    assert runner.rollback().action == "rolled-back"
    runner.swap(new.folder)
    manifest = old.folder / "manifest.toml"
    manifest.write_text(manifest.read_text() + "\n# touched\n")
    with pytest.raises(IntegrityError, match="is not the one that served before"):
        runner.rollback()


@pytest.mark.parametrize("kind", ["task", "labels", "input", "graph shape", "graph classes"])
def test_edge_19_other_input_or_classes_are_refused_by_name(
    tmp_path: Path, old: Bundle, kind: str
) -> None:
    """edge-19: another task, other classes, another input: refused, with the reason."""
    runner = serving(old)
    runner.load()
    spec, model, folder = tiny.manifest(), tiny.segmenter(), tmp_path / "other"
    if kind == "task":
        other = tiny.bundle(folder, tiny.scorer(), tiny.scores_manifest())
        named = "task"
    elif kind == "labels":
        other = tiny.bundle(folder, model, tiny.manifest(labels=("road", "sky", "car")))
        named = "labels"
    elif kind == "input":
        given = InputSpec(name="x", width=32, height=24, layout="NHWC", dtype="uint8")
        other = tiny.bundle(folder, tiny.segmenter(dtype="uint8"), tiny.manifest(given=given))
        named = "takes uint8"
    elif kind == "graph shape":
        golden = tiny.golden_of(model, spec, tiny.frame(7))
        model = tiny.segmenter(dtype="uint8")
        other = tiny.bundle(folder, model, spec, golden)
        named = "graph takes"
    else:
        logits = tiny.manifest(kind="logits", outputs=["logits"], labels=("a", "b"))
        model = tiny.segmenter(argmax=False)
        three = tiny.manifest(kind="logits", outputs=["logits"])
        runner = serving(
            tiny.bundle(tmp_path / "three", model, three),
            swap_policy=SwapPolicy(allow_other_labels=True),
        )
        runner.load()
        golden = tiny.golden_of(model, logits, tiny.frame(7))
        other, named = tiny.bundle(folder, model, logits, golden), "3 classes"
    with pytest.raises(ManifestError, match=named):
        runner.swap(other)
    assert runner.process(frame(1)).valid
    assert runner.health().counters["swap-refused"] == 1


def test_policy_may_allow_another_input(tmp_path: Path, old: Bundle) -> None:
    given = InputSpec(name="x", width=32, height=24, layout="NHWC", dtype="uint8")
    other = tiny.bundle(tmp_path / "u8", tiny.segmenter(dtype="uint8"), tiny.manifest(given=given))
    runner = serving(old, swap_policy=SwapPolicy(allow_other_input=True))
    before = runner.process(frame(4)).labels
    runner.swap(other)
    after = runner.process(frame(4)).labels
    assert before is not None
    assert after is not None
    assert (before.labels == after.labels).all()


def test_signature_and_security_version_are_the_devices_own_matter(
    old: Bundle, new: Bundle
) -> None:
    private, public = generate_key()
    told = Told()
    runner = serving(old, told, swap_policy=SwapPolicy(trusted_keys=[public]))
    with pytest.raises(IntegrityError, match=r"manifest\.sig"):
        runner.swap(new)  # opened without keys, verified again with them
    sign(new.folder, private)
    runner.swap(new)
    assert [e.action for e in told.events] == ["loaded", "refused", "swapped"]
    strict = serving(old, swap_policy=SwapPolicy(min_security_version=1))
    with pytest.raises(IntegrityError, match="security_version"):
        strict.swap(new)
    still_serves(strict, old, refused=1)


def test_build_for_other_hardware_is_refused(tmp_path: Path, old: Bundle) -> None:
    spec = tiny.manifest()
    other = msgspec.structs.replace(
        spec, target=msgspec.structs.replace(spec.target, device_class="riscv-npu")
    )
    runner = serving(old)
    with pytest.raises(ProviderError, match="riscv-npu"):
        runner.swap(tiny.bundle(tmp_path / "npu", spec=other))
    still_serves(runner, old, refused=1)


def test_no_memory_for_the_new_model(
    old: Bundle, new: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = serving(old)
    runner.load()

    def full(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(Bundle, "model_bytes", full)
    with pytest.raises(ModelError, match="memory"):
        runner.swap(new)
    monkeypatch.undo()
    still_serves(runner, old, refused=1)


def test_rollback_without_a_past(old: Bundle) -> None:
    with pytest.raises(UsageError, match="no other model"):
        serving(old).rollback()


def test_edge_15_memory_does_not_grow_with_swaps(tmp_path: Path, old: Bundle, new: Bundle) -> None:
    """edge-15: 100 swaps: RSS within the first swap + 25 MB."""
    runner = Runner(
        [ModelSlot(name="main", bundle=old, backend=BackendOptions(cache_dir=tmp_path / "c"))],
        clock=CLOCK,
    )
    runner.load()
    runner.swap(new)
    first = runner.health().rss_bytes
    for turn in range(99):
        runner.swap(old if turn % 2 == 0 else new)
        runner.process(frame(turn))
    assert runner.health().rss_bytes <= first + (25 << 20)
    assert runner.health().counters["swapped"] == 100
