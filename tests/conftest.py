"""Fixtures that every area uses."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import syncline

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deep", max_examples=2000, deadline=None)
settings.load_profile("ci")

assert syncline.__version__
assert os.environ.get("ORT_DISABLE_TELEMETRY") == "1"
assert "onnxruntime" not in sys.modules


@pytest.fixture(autouse=True)
def _niceness_stays() -> Iterator[None]:
    """A command that a test runs in this process may ask to go before others: for itself alone."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    yield
    if os.getpriority(os.PRIO_PROCESS, 0) < before:
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, int(thread.name), before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real recordings that lies beside the checkout; absent on a bare clone."""
    path = Path(os.environ.get("SYNCLINE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"real recordings are not at {path}: set SYNCLINE_SHARED_DATA")
    return path
