"""edge-18, edge-31: a cached model that computes wrongly, every byte of it as it was written."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from syncline.edge.backend import Backend, BackendOptions
from syncline.edge.cache import ModelCache
from syncline.edge.engine import Engine
from syncline.edge.model.bundle import Bundle
from syncline.edge.model.golden import Golden
from syncline.edge.runner import ModelSlot, Runner
from syncline.errors import HealthProofError, InferenceError

from . import tiny
from .dying import CPU, CUDA, Machine
from .harness import CLOCK, Told, frame


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny.bundle(tmp_path / "b", tiny.scorer(), tiny.scores_manifest())


@pytest.fixture
def options(tmp_path: Path) -> BackendOptions:
    return BackendOptions(cache_dir=tmp_path / "cache")


def entry_of(options: BackendOptions) -> ModelCache:
    assert options.cache_dir is not None
    (graph,) = options.cache_dir.glob("*.onnx")
    return ModelCache(options.cache_dir, graph.stem)


def replace_entry(options: BackendOptions, data: bytes) -> None:
    """Another graph in the entry's place, under a right digest."""
    cache = entry_of(options)
    kept = cache.read()
    assert kept is not None
    with cache.writing() as draft:
        assert draft.path is not None
        draft.path.write_bytes(data)
        draft.note = kept.note


def spoil(options: BackendOptions) -> None:
    """Change the weights of the optimised graph: it computes something else."""
    cache = entry_of(options)
    model = onnx.load_from_string(cache.path.read_bytes())
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32:
            weight.CopyFrom(numpy_helper.from_array(values + np.float32(0.5), weight.name))
    replace_entry(options, model.SerializeToString())


def test_a_cached_model_that_computes_wrongly_is_built_anew(
    bundle: Bundle, options: BackendOptions, caplog: pytest.LogCaptureFixture
) -> None:
    """edge-18: forgotten, built anew, proven, counted; the next load comes from the cache."""
    assert not Engine.load(bundle, options).backend.from_cache
    good = entry_of(options).path.read_bytes()
    spoil(options)
    told = Told()
    slot = ModelSlot(name="main", bundle=bundle, backend=options)
    runner = Runner([slot], clock=CLOCK, callbacks=told.callbacks())
    with caplog.at_level(logging.WARNING):
        runner.load()
    assert runner.process(frame(0)).valid
    assert runner.health().counters["cache-rebuilt"] == 1
    (warning,) = caplog.records
    assert "'tiny' from the cache is refused" in warning.getMessage()
    assert "built anew" in warning.getMessage()
    assert entry_of(options).path.read_bytes() == good
    again = Engine.load(bundle, options).backend
    assert (again.from_cache, again.rebuilt) == (True, False)


def test_a_cached_graph_of_another_kind_is_built_anew(
    bundle: Bundle, options: BackendOptions
) -> None:
    """Its inputs or outputs are not the manifest's: the same."""
    Engine.load(bundle, options)
    replace_entry(options, tiny.segmenter())
    assert not Backend.load(bundle, options).from_cache
    assert Engine.load(bundle, options).backend.from_cache


def test_a_model_that_is_itself_at_fault_is_refused_and_leaves_nothing(
    bundle: Bundle, options: BackendOptions, tmp_path: Path
) -> None:
    """edge-18: built anew once, refused, and its entry is gone: no second build on each try."""
    golden = bundle.golden()
    wrong = Golden(golden.frame, (golden.outputs[0] + 1,))
    bad = tiny.bundle(tmp_path / "bad", tiny.scorer(), tiny.scores_manifest(), wrong)
    Engine.load(bundle, options)  # the same graph, so the same entry
    with pytest.raises(HealthProofError):
        Engine.load(bad, options)
    assert options.cache_dir is not None
    assert list(options.cache_dir.iterdir()) == []


def test_a_swap_rebuilds_too(bundle: Bundle, options: BackendOptions, tmp_path: Path) -> None:
    other = tiny.bundle(tmp_path / "o", tiny.scorer(0.02), tiny.scores_manifest(version="2"))
    Engine.load(other, options)
    spoil(options)
    runner = Runner([ModelSlot(name="main", bundle=bundle, backend=options)], clock=CLOCK)
    runner.load()
    runner.swap(other)
    counters = runner.health().counters
    assert (counters["cache-rebuilt"], counters["swapped"]) == (1, 1)
    assert "swap-refused" not in counters


def test_a_dead_provider_does_not_cost_the_cache(
    bundle: Bundle, options: BackendOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may have taken minutes to compile outlives the death of what it was compiled for; where
    another form of the model does run, the cached one was at fault after all."""
    machine = Machine.install(monkeypatch)
    given = BackendOptions(providers=(CUDA, CPU), cache_dir=options.cache_dir)
    Engine.load(bundle, given)
    assert options.cache_dir is not None
    (folder,) = options.cache_dir.iterdir()
    (folder / "engine.plan").write_bytes(b"took minutes")
    machine.dead.add(CUDA)
    with pytest.raises(InferenceError, match="device lost"):
        Engine.load(bundle, given)
    assert (folder / "engine.plan").exists()
    machine.dead.clear()
    assert Engine.load(bundle, given).backend.from_cache

    machine.bad_sessions = 1
    engine = Engine.load(bundle, given)
    assert (engine.backend.rebuilt, engine.backend.provider) == (True, CUDA)
    assert not folder.exists()


def test_a_providers_own_folder_is_emptied(
    bundle: Bundle, options: BackendOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine.install(monkeypatch)
    given = BackendOptions(providers=(CUDA, CPU), cache_dir=options.cache_dir)
    assert not Engine.load(bundle, given).backend.from_cache
    assert options.cache_dir is not None
    (folder,) = options.cache_dir.iterdir()
    (folder / "engine.plan").write_bytes(b"wrong")
    machine.wrong_while = folder / "engine.plan"
    engine = Engine.load(bundle, given)
    assert engine.backend.rebuilt
    assert list(folder.iterdir()) == []
