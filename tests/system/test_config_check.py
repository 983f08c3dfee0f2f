"""`syncline run --check`: what could not run is told, with its key, without running it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from syncline.cli import main
from syncline.edge.model.golden import Golden
from syncline.edge.model.manifest import InputSpec, TargetSpec
from tests.edge import tiny

from .test_bad_output import refused

GOOD = """
[device]
name = "car-1"
data = "{tmp}/data"
[[camera]]
name = "front"
kind = "video"
path = "{clip}"
[[camera]]
name = "rear"
kind = "synthetic"
fps = 20.0
readout_us = 20000.0
[link]
endpoint = "tcp://127.0.0.1:5555"
server_key = "{tmp}/k/server.pub"
key = "{tmp}/k/car-1.key"
"""


@pytest.fixture
def config(tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    for name in ("server", "car-1"):
        assert main(["keys", "new", name, "--out", str(tmp_path / "k")]) == 0
    path = tmp_path / "edge.toml"
    path.write_text(GOOD.format(tmp=tmp_path, clip=clip))
    assert main(["run", "--config", str(path), "--check", "--no-load"]) == 0
    capsys.readouterr()
    return path


@pytest.mark.parametrize(
    ("old", "new", "key", "told"),
    [
        ("server.pub", "none.pub", "$.link.server_key", "none.pub"),
        ("car-1.key", "none.key", "$.link.key", "none.key"),
        ("car-1.key", "car-1.pub", "$.link.key", "no secret key"),
        (":5555", ":99999", "$.link.endpoint", "1 to 65535"),
        (":5555", "", "$.link.endpoint", "no address"),
        ("[link]", '[health]\nprometheus = "here"\n[link]', "$.health.prometheus", "'here'"),
        ("[link]", '[health]\nprometheus = "::1:70000"\n[link]', "$.health.prometheus", "70000"),
        ("clip.mp4", "gone.mp4", "$.camera[0].path", "gone.mp4"),
        ("= 20000.0", "= 1470000.0", "$.camera[1].readout_us", "the period of 50000"),
        ("[link]", '[model]\nbundle = "nope"\n[link]', "$.model.bundle", "nope"),
        ("[link]", '[model]\nshadow = "nope"\n[link]', "$.model.shadow", "nope"),
        ("[link]", '[model]\ntrusted_keys = ["no"]\n[link]', "$.model.trusted_keys", "no"),
        ('kind = "video"', 'kind = "video"\nreadout_us = 1470000', "$.camera[0].readout", "period"),
        ("/data", "/edge.toml/data", "$.device.data", "cannot be written"),
    ],
)
def test_what_cannot_run_is_told(
    config: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, key: str, told: str
) -> None:
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))
    code, line = refused(capsys, "run", "--config", config, "--check", "--no-load")
    assert code == 2
    assert f"{key}" in line
    assert told in line


def test_what_can_run_is_told_too(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", str(config), "--check"]) == 0
    assert "each model loads and reproduces its golden output" in capsys.readouterr().out


def _wrong_size(folder: Path) -> None:
    spec = tiny.manifest(given=InputSpec(name="x", width=64, height=48))
    golden = tiny.golden_of(tiny.segmenter(), tiny.manifest(), tiny.frame(7))
    tiny.bundle(folder, tiny.segmenter(), spec, golden)


def _wrong_decoder(folder: Path) -> None:
    golden = tiny.golden_of(tiny.segmenter(), tiny.manifest(), tiny.frame(7))
    spec = tiny.manifest(task="detection", kind="boxes-nms", outputs=["labels"])
    tiny.bundle(folder, tiny.segmenter(), spec, golden)


def _wrong_golden(folder: Path) -> None:
    golden = tiny.golden_of(tiny.scorer(), tiny.scores_manifest(), tiny.frame(7))
    worse = Golden(golden.frame, tuple(np.add(output, 0.5) for output in golden.outputs))
    tiny.bundle(folder, tiny.scorer(), tiny.scores_manifest(), worse)


def _absent_provider(folder: Path) -> None:
    target = TargetSpec(opset=17, providers=("CUDAExecutionProvider",), strict_provider=True)
    golden = tiny.golden_of(tiny.segmenter(), tiny.manifest(), tiny.frame(7))
    tiny.bundle(folder, tiny.segmenter(), tiny.manifest(target=target), golden)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_wrong_size, "the graph takes"),
        (_wrong_decoder, "boxes-nms"),
        (_wrong_golden, "golden run"),
        (_absent_provider, "CUDAExecutionProvider"),
    ],
)
def test_a_model_that_cannot_load_is_found_before_it_is_to_run(
    config: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None], told: str
) -> None:
    """Digests and manifest are right; only loading and proving it shows what is wrong."""
    folder = config.parent / "bad"
    make(folder)
    text = config.read_text()
    for key in ("bundle", "shadow"):
        config.write_text(text.replace("[link]", f'[model]\n{key} = "{folder}"\n[link]'))
        code, line = refused(capsys, "run", "--config", config, "--check")
        assert (code, f"$.model.{key}" in line) == (2, True), line
        assert told in line
    config.write_text(text.replace("[link]", f'[model]\nbundle = "{folder}"\n[link]'))
    assert main(["run", "--config", str(config), "--check", "--no-load"]) == 0
    assert "no model loaded" in capsys.readouterr().out


def test_a_daemon_is_not_run_without_its_models(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = refused(capsys, "run", "--config", config, "--no-load")
    assert (code, "--check" in line) == (2, True)


def test_each_of_several_models_is_checked(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = config.parent / "bad"
    _wrong_golden(folder)
    models = f'[[model]]\nname = "one"\n[[model]]\nname = "two"\nbundle = "{folder}"\n'
    config.write_text(config.read_text().replace("[link]", f"{models}[link]"))
    code, line = refused(capsys, "run", "--config", config, "--check")
    assert code == 2
    assert "$.model[1].bundle" in line


def test_a_shadow_that_does_another_task_is_found(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = config.parent / "other"
    tiny.bundle(folder)
    config.write_text(config.read_text().replace("[link]", f'[model]\nshadow="{folder}"\n[link]'))
    code, line = refused(capsys, "run", "--config", config, "--check")
    assert code == 2
    assert "$.model.shadow" in line
