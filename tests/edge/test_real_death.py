"""A real provider that really dies in the middle of a drive, and comes back.

WebGPU on SwiftShader, as in `test_real_plugins.py`, behind a Vulkan driver of ours that loses its
device while a file exists (`losing_driver.c`): the provider meets what a reset of a GPU is to it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from syncline.log.reader import LogReader

from . import tiny
from .test_real_plugins import CPU, ICD, PYTHON, ROOT, WEBGPU, library, needs_vulkan

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.soak,
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not PYTHON.exists(), reason="needs .venv-plugins: make peers"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
    needs_vulkan,
]


@dataclass
class Driver:
    """The driver, and the files that make it lose its device."""

    folder: Path

    @property
    def lost(self) -> Path:
        return self.folder / "lost"

    @property
    def gone(self) -> Path:
        return self.folder / "gone"

    @property
    def env(self) -> dict[str, str]:
        software = json.loads(ICD.read_text())["ICD"]["library_path"]
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "VK_DRIVER_FILES": str(self.folder / "icd.json"),
            "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1",
            "SYNCLINE_TEST_DRIVER": str((ICD.parent / software).resolve()),
            "SYNCLINE_TEST_LOST": str(self.lost),
            "SYNCLINE_TEST_GONE": str(self.gone),
        }


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    built = tmp_path / "liblosing.so"
    source = str(HERE / "losing_driver.c")
    command = ["cc", "-shared", "-fPIC", "-o", str(built), source, "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    icd = {"library_path": str(built), "api_version": "1.0.5"}
    text = json.dumps({"file_format_version": "1.0.0", "ICD": icd})
    (tmp_path / "icd.json").write_text(text)
    return Driver(tmp_path)


def driven(
    driver: Driver,
    gate: Path,
    *,
    strict: bool = False,
    short: bool = False,
    shadow: bool = False,
) -> Any:
    small = tiny.bundle(driver.folder / "tiny", tiny.scorer(), tiny.scores_manifest())
    given = {
        "library": str(library("onnxruntime_ep_webgpu")), "tiny": str(small.folder),
        "gate": str(gate), "strict": strict, "short": short, "shadow": shadow,
    }  # fmt: skip
    done = subprocess.run(
        [str(PYTHON), str(HERE / "real_death.py"), json.dumps(given)],
        capture_output=True, text=True, timeout=250, check=False, env=driver.env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(told, indent=1))
    books = told["books"]
    assert books["captured"] == books["processed"] + sum(books["dropped"].values())
    assert (books["results"], books["drops"]) == (books["processed"], books["dropped"]["failed"])
    assert books["invalid"] == 0
    assert told["before"]["actual"] == told["end"]["actual"] == WEBGPU
    assert (told["end"]["state"], told["end"]["lost"]) == ("ok", 0)
    return told


@pytest.mark.parametrize("how", ["lost", "gone"])
def test_a_lost_device_gives_way_to_the_cpu_and_is_taken_back(driver: Driver, how: str) -> None:
    """edge-23, edge-34: a handful of frames, then the CPU, degraded; then WebGPU again."""
    told = driven(driver, getattr(driver, how))
    dead, after, back = told["dead"], told["after"], told["back"]
    assert (dead["actual"], dead["requested"], dead["state"]) == (CPU, WEBGPU, "degraded")
    assert dead["detail"].startswith(f"{WEBGPU} failed in service, {CPU} runs the model")
    assert 3 <= dead["lost"] <= 50
    assert (after["held"], after["lost"]) == (True, 0)
    assert told["still"]["lost"] == 0
    assert told["still"]["cpu_share"] < 0.5
    assert (back["held"], back["lost"]) == (True, 0)
    changes = [(before, now) for action, before, now, _ in told["events"] if action == "reloaded"]
    assert changes == [(WEBGPU, CPU), (CPU, WEBGPU)]
    assert back["counters"]["provider-lost"] == 1
    assert back["counters"]["reloaded"] == 2


def test_a_device_that_was_reset_serves_on(driver: Driver) -> None:
    """edge-34: it is back when the model is loaded anew: the CPU is not needed."""
    told = driven(driver, driver.lost, short=True)
    changes = [(before, now) for action, before, now, _ in told["events"] if action == "reloaded"]
    assert changes == [(WEBGPU, WEBGPU)]
    assert 3 <= told["books"]["drops"] <= 50


@pytest.mark.parametrize("shadow", [False, True], ids=["alone", "with-shadow"])
def test_strict_waits_for_the_device(driver: Driver, shadow: bool) -> None:
    """edge-23: nothing takes its place; tried again ever more seldom, until it serves again. A
    shadow, which no frame reaches meanwhile, holds on to the dead device no more than it does."""
    told = driven(driver, driver.lost, strict=True, shadow=shadow)
    assert not shadow or told["shadow"]["held"]
    assert told["dead"]["state"] == told["still"]["state"] == "degraded"
    assert (told["still"]["actual"], told["still"]["served"]) == (WEBGPU, 0)
    assert "failed in service" in told["still"]["detail"]
    assert told["still"]["counters"]["reload-failed"] <= 5
    assert told["still"]["cpu_share"] < 0.5
    assert told["back"]["held"]
    assert ["reloaded", WEBGPU, WEBGPU] in [event[:3] for event in told["events"]]


def test_the_daemon_goes_on_without_its_device(driver: Driver) -> None:
    """edge-23, as an operator: /health names who stands in, /model/events has both changes."""
    small = tiny.bundle(driver.folder / "tiny", tiny.scorer(), tiny.scores_manifest()).folder
    config = driver.folder / "edge.toml"
    config.write_text(f"""
[device]
name = "bench"
data = "{driver.folder / "data"}"
[[camera]]
name = "front"
kind = "synthetic"
fps = 5.0
width = 160
height = 96
[model]
bundle = "{small}"
deadline_ms = 5000.0
plugins = {{ {WEBGPU} = "{library("onnxruntime_ep_webgpu")}" }}
providers = ["{WEBGPU}", "{CPU}"]
[health]
interval_s = 0.5
[time]
page = ""
status = ""
""")
    command = [str(PYTHON), "-m", "syncline", "run", "--config", str(config), "--json"]
    daemon = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=driver.env
    )
    try:
        heard = Heard(daemon)
        heard.until(lambda m: m["epActual"] == WEBGPU and int(m.get("framesProcessed", 0)) > 10)
        driver.lost.touch()
        lost = heard.until(lambda m: m["epActual"] == CPU)
        assert lost["state"] == "degraded"
        assert f"{WEBGPU} failed in service, {CPU} runs the model in its place" in lost["detail"]
        driver.lost.unlink()
        back = heard.until(lambda m: m["epActual"] == WEBGPU and m["state"] == "ok")
        assert int(back["framesProcessed"]) > int(lost["framesProcessed"])
    finally:
        daemon.terminate()
        _, errors = daemon.communicate(timeout=60)
    assert daemon.returncode == 0, errors[-2000:]
    with LogReader(driver.folder / "data/recording", topics=["/model/events"]) as log:
        said = [reason for record in log if (reason := log.decode(record).reason)]
    assert f"now on {CPU} in place of {WEBGPU}" in said[0]
    assert f"{WEBGPU} works again" in said[-1]


class Heard:
    """Health messages of a daemon, as they come."""

    def __init__(self, daemon: subprocess.Popen[str]) -> None:
        assert daemon.stdout is not None
        self._lines = daemon.stdout

    def until(self, holds: Callable[[Any], bool], limit_s: float = 100.0) -> Any:
        end_s = time.monotonic() + limit_s
        message: Any = None
        for line in self._lines:
            if line.startswith("{"):
                message = json.loads(line)
                if holds(message):
                    return message
            assert time.monotonic() < end_s, message
        raise AssertionError(f"the daemon ended: {message}")
