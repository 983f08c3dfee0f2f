"""Providers, node share, the cache of optimised models, and the runtime's own faults."""

from __future__ import annotations

import logging
import resource
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from syncline.edge import providers
from syncline.edge.backend import Backend, BackendOptions
from syncline.edge.cache import ModelCache, cache_key
from syncline.edge.model.bundle import Bundle
from syncline.edge.model_config import ModelSection
from syncline.edge.model_slots import model_slot
from syncline.edge.providers import Host, Plan, check_assignment, check_device_class, plan
from syncline.edge.runner import ModelSlot, Runner
from syncline.edge.session import StopSwitch, available_providers
from syncline.errors import DeadlineError, InferenceError, ManifestError, ProviderError

from . import nets, tiny
from .harness import CLOCK, frame

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def wants_cuda(tmp_path: Path, *, strict: bool) -> Bundle:
    spec = tiny.manifest()
    target = msgspec.structs.replace(spec.target, providers=(CUDA, CPU), strict_provider=strict)
    return tiny.bundle(tmp_path / "cuda", spec=msgspec.structs.replace(spec, target=target))


def test_edge_23_absent_provider_strict_is_an_error_with_its_exit_code(tmp_path: Path) -> None:
    """edge-23: CUDA asked for and absent, strict: typed error, exit code 4."""
    with pytest.raises(ProviderError, match=CUDA) as caught:
        Backend.load(wants_cuda(tmp_path, strict=True))
    assert caught.value.exit_code == 4


def test_edge_23_absent_provider_falls_back_with_one_warning_and_says_so_in_health(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """edge-23: not strict: exactly one warning, and ep_actual = CPU in every health message."""
    bundle = wants_cuda(tmp_path, strict=False)
    runner = Runner([ModelSlot(name="main", bundle=bundle)], clock=CLOCK)
    with caplog.at_level(logging.WARNING):
        for index in range(5):
            assert runner.process(frame(index)).valid
            message = runner.health().to_message()
            assert (message.ep_requested, message.ep_actual) == (CUDA, CPU)
            assert message.ep_node_share == 0.0
    assert len([r for r in caplog.records if CUDA in r.getMessage()]) == 1


def test_plan_keeps_the_order_and_ends_on_the_cpu() -> None:
    have = ("OpenVINOExecutionProvider", CUDA, CPU)
    assert plan([CUDA, CPU], have, strict=True).providers == (CUDA, CPU)
    assert plan([CUDA, have[0]], have, strict=True).providers == (CUDA, have[0], CPU)
    chosen = plan(["TensorrtExecutionProvider", CUDA], have, strict=False)
    assert chosen.providers == (CUDA, CPU)
    assert chosen.is_fallback
    assert plan([], [CPU], strict=True).providers == (CPU,)


def test_edge_24_node_share_is_published_and_a_low_one_warned_about(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """edge-24: share of nodes on the provider asked for; below 95 % warns."""
    chosen = Plan(CUDA, (CUDA, CPU))
    with caplog.at_level(logging.WARNING):
        assert check_assignment({CUDA: 96, CPU: 4}, chosen, strict=True) == pytest.approx(0.96)
        assert not caplog.records
        assert check_assignment({CUDA: 94, CPU: 6}, chosen, strict=True) == pytest.approx(0.94)
        assert "94 %" in caplog.text
    backend = Backend.load(tiny.bundle(tmp_path / "b"))
    assert (backend.node_share, backend.ep_actual) == (1.0, CPU)


def test_a_plugin_without_a_device_falls_back_however_often_it_is_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """edge-23: a vendor's library registers once per process; the second model must load too."""
    calls: list[str] = []

    def register(name: str, _path: str) -> None:
        if name in calls:
            raise RuntimeError(f"EP library is already registered under {name}")
        calls.append(name)

    monkeypatch.setattr("onnxruntime.register_execution_provider_library", register)
    monkeypatch.setattr("syncline.edge.plugins._REGISTERED", {})
    monkeypatch.setattr("syncline.edge.plugins._check_loads", lambda _: None)
    options = BackendOptions(plugins=((CUDA, tmp_path / "lib.so"),))
    for turn in ("a", "b"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            backend = Backend.load(wants_cuda(tmp_path / turn, strict=False), options)
        assert backend.ep_actual == CPU
        (warning,) = caplog.records
        assert "finds no device" in warning.getMessage()
    assert calls == [CUDA]


def test_plugins_of_the_configuration_reach_the_runtime(tmp_path: Path) -> None:
    text = '{"plugins": {"OpenVINOExecutionProvider": "/opt/ep.so"}, "threads": 2}'
    section = msgspec.json.decode(text, type=ModelSection)
    slot = model_slot(section, tiny.bundle(tmp_path / "b"), tmp_path)
    assert slot.backend.plugins == (("OpenVINOExecutionProvider", Path("/opt/ep.so")),)
    assert slot.backend.intra_op_threads == 2


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_edge_23_provider_that_is_listed_but_takes_nothing_is_no_silent_cpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """edge-23, edge-24: a runtime built with CUDA, on a machine without a driver, places all on
    the CPU and raises nothing: strict is an error, else one warning."""
    monkeypatch.setattr("syncline.edge.backend.available_providers", lambda: (CUDA, CPU))
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [CUDA, CPU])
    with pytest.raises(ProviderError, match="0 % of the graph") as caught:
        Backend.load(wants_cuda(tmp_path / "strict", strict=True))
    assert caught.value.exit_code == 4
    with caplog.at_level(logging.WARNING):
        backend = Backend.load(wants_cuda(tmp_path / "free", strict=False))
    assert (backend.ep_requested, backend.ep_actual, backend.node_share) == (CUDA, CPU, 0.0)
    assert len([r for r in caplog.records if CUDA in r.getMessage()]) == 1


def test_vnni_builds_run_only_where_vnni_is() -> None:
    plain = Host("x86_64", frozenset({"avx2"}))
    vnni = Host("x86_64", frozenset({"avx2", "avx512_vnni"}))
    arm = Host("aarch64", frozenset())
    check_device_class("x86-64-vnni", vnni, [CPU])
    check_device_class("x86-64", vnni, [CPU])
    check_device_class("arm64", arm, [CPU])
    check_device_class("any", arm, [CPU])
    check_device_class("tensorrt", vnni, ["TensorrtExecutionProvider", CPU])
    for wrong, host in (("x86-64-vnni", plain), ("x86-64", arm), ("arm64", plain)):
        with pytest.raises(ProviderError, match=wrong):
            check_device_class(wrong, host, [CPU])


def test_host_reads_the_flags_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\n")
    assert Host.this(tmp_path / "cpuinfo").flags == {"fpu", "avx2", "avx_vnni"}
    assert Host.this(tmp_path / "absent").flags == frozenset()


def test_edge_31_cache_is_used_and_gives_the_same_bits(tmp_path: Path) -> None:
    """edge-31: the second load comes from the cache, with the same output, bit for bit."""
    bundle = tiny.bundle(tmp_path / "b", tiny.segmenter(argmax=False),
                         tiny.manifest(kind="logits", outputs=["logits"]))  # fmt: skip
    options = BackendOptions(cache_dir=tmp_path / "cache")
    tensor = np.random.default_rng(1).uniform(0, 255, (1, 3, 24, 32)).astype(np.float32)
    first, second = Backend.load(bundle, options), Backend.load(bundle, options)
    plain = Backend.load(bundle)
    assert (first.from_cache, second.from_cache) == (False, True)
    for backend in (first, second):
        np.testing.assert_array_equal(backend.run(tensor)[0], plain.run(tensor)[0])


def test_edge_31_key_holds_model_runtime_cpu_and_providers() -> None:
    """edge-31: keyed by digest, runtime version, CPU flags: a foreign entry is never found."""
    host = Host("x86_64", frozenset({"avx2"}))
    base = cache_key("a" * 64, "1.31.1", host, [CPU])
    others = [
        cache_key("b" * 64, "1.31.1", host, [CPU]),
        cache_key("a" * 64, "1.31.2", host, [CPU]),
        cache_key("a" * 64, "1.31.1", Host("x86_64", frozenset({"avx2", "vnni"})), [CPU]),
        cache_key("a" * 64, "1.31.1", Host("aarch64", frozenset({"avx2"})), [CPU]),
        cache_key("a" * 64, "1.31.1", host, [CUDA, CPU]),
    ]
    assert len({base, *others}) == 6
    assert base == cache_key("a" * 64, "1.31.1", host, [CPU])


def test_edge_31_damaged_or_foreign_entry_is_ignored(tmp_path: Path) -> None:
    """edge-31: a damaged entry, and another model's file under our key, are not loaded."""
    bundle = tiny.bundle(tmp_path / "b")
    options = BackendOptions(cache_dir=tmp_path / "cache")
    Backend.load(bundle, options)
    (entry,) = (tmp_path / "cache").glob("*.onnx")
    good = entry.read_bytes()
    for bad in (good[:-50], bytes([good[0] ^ 1]) + good[1:], tiny.segmenter(9), b""):
        entry.write_bytes(bad)
        assert not Backend.load(bundle, options).from_cache
        assert Backend.load(bundle, options).from_cache  # written anew
    entry.with_suffix(".sha256").unlink()
    assert not Backend.load(bundle, options).from_cache


def test_a_disk_that_fills_up_while_the_cache_is_written_costs_no_model(tmp_path: Path) -> None:
    """A device that starts with a full disk: a file can be made there, and not be filled."""
    bundle = nets.bundle("segmenter", tmp_path / "b")
    options = BackendOptions(cache_dir=tmp_path / "cache")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        full = Backend.load(bundle, options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not full.from_cache
    assert list((tmp_path / "cache").iterdir()) == []
    Backend.load(bundle, options)
    ready = Backend.load(bundle, options)
    assert ready.from_cache, "there is room again"
    tensor = np.full(bundle.manifest.input.shape, 99, bundle.manifest.input.dtype)
    np.testing.assert_array_equal(ready.run(tensor)[0], full.run(tensor)[0])


def test_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    options = BackendOptions(cache_dir=tmp_path / "file")
    assert not Backend.load(tiny.bundle(tmp_path / "b"), options).from_cache
    assert ModelCache(tmp_path / "none", "k").read() is None


def test_tensor_of_another_shape_or_type_is_a_typed_error_and_the_next_is_good(
    tmp_path: Path,
) -> None:
    backend = Backend.load(tiny.bundle(tmp_path / "b"))
    good = np.zeros((1, 3, 24, 32), np.float32)
    for bad in (good[:, :2], good.astype(np.float64), good[0], np.zeros((1, 3, 25, 32), "f4")):
        with pytest.raises(InferenceError, match="run of 'tiny' failed"):
            backend.run(bad)
        assert backend.run(good)[0].shape == (1, 24, 32)


def test_edge_27_stop_switch_ends_a_run_and_the_session_lives_on(tmp_path: Path) -> None:
    """edge-27: the runtime's terminate flag, at the level of one run."""
    model, spec = tiny.slow(20_000, 256), tiny.scores_manifest()
    golden = tiny.golden_of(model, spec, np.zeros((24, 32, 3), np.uint8))
    backend = Backend.load(tiny.bundle(tmp_path / "slow", model, spec, golden))
    tensor = np.full((1, 3, 24, 32), 255.0, np.float32)
    switch = StopSwitch()
    threading.Timer(0.05, switch.stop).start()
    begin = time.monotonic()
    with pytest.raises(DeadlineError, match="deadline"):
        backend.run(tensor, switch)
    assert 0.04 < time.monotonic() - begin < 0.5
    assert backend.run(tensor * 0.0)[0].shape == (1, 3)


def test_model_that_the_runtime_refuses(tmp_path: Path) -> None:
    golden = tiny.golden_of(tiny.segmenter(), tiny.manifest(), tiny.frame(7))
    bundle = tiny.bundle(tmp_path / "b", b"this is no model", golden=golden)
    with pytest.raises(ManifestError, match="refuses the model"):
        Backend.load(bundle)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"outputs": ["nothing"]}, r"names \['nothing'\]"),
        ({"kind": "logits"}, r"logits: output has shape"),
    ],
)
def test_graph_and_manifest_that_disagree(
    tmp_path: Path, change: dict[str, str], named: str
) -> None:
    from syncline.edge.engine import Engine

    golden = tiny.golden_of(tiny.segmenter(), tiny.manifest(), tiny.frame(7))
    spec = tiny.manifest(**change)  # type: ignore[arg-type]
    bundle = tiny.bundle(tmp_path / "b", tiny.segmenter(), spec, golden)
    with pytest.raises(ManifestError, match=named):
        Engine.load(bundle)


def test_accelerator_options_keep_compiled_models_apart(tmp_path: Path) -> None:
    options = providers.provider_options("TensorrtExecutionProvider", tmp_path)
    assert options["trt_engine_cache_path"] == str(tmp_path)
    assert providers.provider_options(CPU, tmp_path) == {}
    assert "precision" in providers.provider_options("OpenVINOExecutionProvider", None)
    assert CPU in available_providers()
    assert "AzureExecutionProvider" not in available_providers()
