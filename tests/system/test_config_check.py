"""`syncline run --check`: what could not run is told, with its key, without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncline.cli import main

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
    assert main(["run", "--config", str(path), "--check"]) == 0
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
    code, line = refused(capsys, "run", "--config", config, "--check")
    assert code == 2
    assert f"{key}" in line
    assert told in line
