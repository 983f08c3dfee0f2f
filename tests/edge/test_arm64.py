"""The edge on arm64, under emulation: see docs/arm64.md. Right results, nothing about speed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "scripts" / "arm64-check"
LIMIT_S = 5400
PROCESSORS = ("cortex-a76", "cortex-a72")


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.timeout(LIMIT_S + 60)
def test_arm64_under_emulation() -> None:
    """edge-8, edge-31, edge-35: wheels install; builds for arm64 and for any machine prove
    themselves and agree with x86; builds for x86 are refused; a foreign cache is not taken."""
    if platform.machine() != "x86_64":
        pytest.skip("arm64 is emulated on x86-64")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("SYNCLINE_ARM64") or caches / "syncline" / "arm64")
    environment = {**os.environ, "PYTHON": sys.executable, "SYNCLINE_ARM64": str(cache)}
    able = subprocess.run(
        [SCRIPT, "--check"], env=environment, capture_output=True, text=True, check=False
    )
    if able.returncode:
        pytest.skip(able.stderr.strip())
    done = subprocess.run(
        [SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    report = cache / "shared" / "builds" / "report.json"
    found = json.loads(report.read_text(encoding="utf-8"))
    assert all(one["ok"] for one in found)
    names = {one["name"] for one in found}
    for processor in PROCESSORS:
        assert f"{processor} road-detector-arm64, same tensors" in names
        assert f"{processor} road-segmenter-arm64, same tensors" in names
