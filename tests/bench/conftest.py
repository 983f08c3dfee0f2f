"""Fixtures of the benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import pytest

from tests.bench.idle import wait_until_idle


@pytest.fixture
def one_opencv_thread() -> Iterator[None]:
    """What is compared runs on one thread."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@pytest.fixture
def idle(request: pytest.FixtureRequest) -> None:
    """Skips, before there is a benchmark that would complain of not being used."""
    if request.config.getoption("benchmark_disable"):
        pytest.skip("needs an idle machine: make bench")
    wait_until_idle()


@pytest.fixture
def quiet(idle: None, benchmark: Any) -> Any:
    """The benchmark fixture, for cases that mean nothing beside other load."""
    return benchmark
