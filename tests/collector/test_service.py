"""What the collector's answering thread logs: each refusal once, until it changes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from syncline.cloud.service import Service
from syncline.errors import InputError
from syncline.link.provider import Resource
from syncline.link.wire import End, Fetch, Notice, Refused
from syncline.timebase import ManualClock


class Shelf:
    """A provider that refuses in changing words."""

    def __init__(self) -> None:
        self.words = "was never promoted to"

    def list_resource(self, device: str, name: str) -> Resource:
        if self.words:
            raise InputError(f"{name} {self.words}")
        return Resource(1, "0" * 64)

    def read(self, device: str, name: str, offset: int, length: int) -> bytes:
        return b"x"

    def revision(self) -> int:
        return 0

    def notices(self, device: str) -> Sequence[Notice]:
        return []


def test_a_refusal_is_logged_once_for_a_device_and_a_channel_until_it_changes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shelf = Shelf()
    service = Service(shelf, ManualClock(), lambda _: None, list)

    def ask(device: str, channel: str, times: int = 5) -> int:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            for _ in range(times):
                answer = service._fetch(device, Fetch(1, f"model/det/{channel}", 0, 0))
                assert isinstance(answer, Refused if shelf.words else End)
        return len(caplog.records)

    assert ask("car-1", "production") == 1
    assert ask("car-1", "production") == 0
    assert ask("car-2", "production") == 1
    assert ask("car-1", "canary") == 1
    shelf.words = "has no such version"
    assert ask("car-1", "production") == 1
    shelf.words = ""
    assert ask("car-1", "production") == 0
    shelf.words = "has no such version"
    assert ask("car-1", "production") == 1
    assert service.failures == 30
