"""Several models in one daemon: who sees which camera, how messages are told apart, one health."""

from __future__ import annotations

import http.client
import logging
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from syncline import topics
from syncline.edge import daemon
from syncline.edge.config import EdgeConfig
from syncline.edge.daemon import EdgeDaemon
from syncline.edge.model.bundle import Bundle
from syncline.edge.swap import SwapEvent
from syncline.edge.updater import UpdateEvent
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import OsClock
from tests.edge import tiny
from tests.system.rig import free_port


class Site:
    """A daemon of two cameras, two models and a shadow, run in this process."""

    def __init__(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval_s: float = 0.1
    ) -> None:
        self.bundles = {
            name: tiny.bundle(tmp_path / name, tiny.segmenter(seed), tiny.manifest(name=name))
            for seed, name in enumerate(("lanes", "signs", "wide"))
        }
        self.port = free_port()
        pictures = tmp_path / "pictures"
        pictures.mkdir()
        for index in range(10):
            cv2.imwrite(str(pictures / f"{index:03d}.png"), tiny.frame(index))
        raw: dict[str, Any] = {
            "device": {"name": "car-1", "data": str(tmp_path / "data")},
            "camera": [
                {"name": name, "kind": "images", "path": str(pictures), "fps": 20, "loop": True}
                for name in ("front", "rear")
            ],
            "model": [
                {
                    "name": "lanes",
                    "bundle": str(tmp_path / "lanes"),
                    "cameras": ["front"],
                    "shadow": str(tmp_path / "wide"),
                    "deadline_ms": 60_000,
                },
                {
                    "name": "signs",
                    "bundle": str(tmp_path / "signs"),
                    "max_rate_hz": 2.0,
                    "priority": -1,
                    "deadline_ms": 60_000,
                },
            ],
            "health": {"interval_s": interval_s, "prometheus": f"127.0.0.1:{self.port}"},
            "record": {"enabled": False},
            "time": {"page": "", "status": ""},
        }
        self.told: list[Any] = []
        self.health: list[pb.Health] = []
        self.daemon = EdgeDaemon(msgspec.convert(raw, EdgeConfig), OsClock(), self.health.append)
        monkeypatch.setattr(self.daemon._outgoing, "emit", self.told.append)

    def on(self, topic: topics.Topic, camera: str) -> set[tuple[str, bool]]:
        """(digest, shadow) of what was said on a topic."""
        found = [o.message for o in list(self.told) if o.topic == topic.of(camera)]
        return {(m.model_sha256, m.shadow) for m in found}

    def run_until(self, done: Any) -> None:
        stop = threading.Event()
        thread = threading.Thread(target=self.daemon.run, args=[stop])
        thread.start()
        try:
            end = time.monotonic() + 30
            while not done():
                assert time.monotonic() < end, self.health[-1:]
                time.sleep(0.05)
        finally:
            stop.set()
            thread.join(30)

    def slots(self) -> dict[str, pb.ModelHealth]:
        return {model.slot: model for model in self.health[-1].models} if self.health else {}

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", path)
        answer = connection.getresponse()
        with connection.sock or answer:
            return answer.status, answer.read().decode()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def test_two_models_and_a_shadow_are_told_apart_everywhere(site: Site) -> None:
    pages: dict[str, tuple[int, str]] = {}

    def done() -> bool:
        slots = site.slots()
        if min((slots[s].frames_processed for s in slots), default=0) < 4:
            return False
        pages.update({path: site.get(path) for path in ("/metrics", "/healthz")})
        return True

    site.run_until(done)
    digests: dict[str, Bundle] = site.bundles
    lanes, signs, wide = (digests[name].digest for name in ("lanes", "signs", "wide"))
    assert site.on(topics.SEGMENTATION, "front") == {(lanes, False), (signs, False)}
    assert site.on(topics.SEGMENTATION, "rear") == {(signs, False)}
    assert site.on(topics.SHADOW_SEGMENTATION, "front") == {(wide, True)}
    assert not site.on(topics.SHADOW_SEGMENTATION, "rear")
    slots = site.slots()
    assert [(s.name, s.shadow_of, s.sha256) for s in slots.values()] == [
        ("lanes", "", lanes),
        ("signs", "", signs),
        ("wide", "lanes", wide),
    ]
    assert slots["signs"].dropped["rate"] > 0
    assert "rate" not in slots["lanes"].dropped
    health = site.health[-1]
    serving = [slots["lanes"], slots["signs"]]
    assert health.frames_captured == sum(s.frames_captured for s in serving)
    assert health.dropped["rate"] == slots["signs"].dropped["rate"]
    assert {h.name.rpartition(".")[0] for h in health.latency} == set(slots)
    assert [camera.camera for camera in health.cameras] == ["front", "rear"]
    assert 0 < health.raw_ns - health.started_raw_ns < 60 * 10**9
    drops = [o.message for o in site.told if o.topic == topics.DROPS.name]
    books = site.daemon._runner.health().slots[1].dropped
    assert sum(d.count for d in drops if d.reason == "rate") == books["rate"]
    events = [o.message for o in site.told if o.topic == topics.MODEL_EVENTS.name]
    assert {(e.action, e.slot) for e in events} == {
        ("loaded", "lanes"),
        ("loaded", "signs"),
        ("loaded", "lanes-shadow"),
    }
    status, text = pages["/metrics"]
    assert status == 200
    samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
    infos = {s.labels["slot"]: s.labels for s in samples if s.name.endswith("model_info")}
    assert {slot: labels["sha256"] for slot, labels in infos.items()} == {
        "lanes": lanes,
        "signs": signs,
        "lanes-shadow": wide,
    }
    assert pages["/healthz"] == (200, "ok\n")


def test_an_absent_camera_is_said_alike_by_health_and_healthz(site: Site) -> None:
    """Every other part is well; no metric of a slot shows it."""
    capture = site.daemon._captures[1]
    capture.problem = "no such device"
    message = site.daemon._status.message()
    assert message.state == "starting"  # worse than degraded: no model is loaded yet
    assert "camera rear: absent: no such device" in message.detail
    site.daemon._runner.load()
    message = site.daemon._status.message()
    assert message.state == "degraded"
    assert message.cameras[1].state == "absent"
    site.daemon._outgoing.close()


def test_a_rare_health_message_keeps_nothing_else_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told once an hour, a device still judges a new model and uploads within the second."""
    monkeypatch.setattr(daemon, "TICK_S", 0.02)
    site = Site(tmp_path, monkeypatch, interval_s=3600.0)
    checks: list[int] = []
    monkeypatch.setattr(site.daemon._models, "check", lambda: checks.append(1))
    site.run_until(lambda: len(checks) > 10)
    assert len(site.health) == 1


@pytest.mark.parametrize("action", ["swapped", "refused", "rolled-back"])
def test_a_swap_is_told_once_with_its_slot(site: Site, action: str) -> None:
    """The runner and the updater both know of it: the updater has the reasons."""
    site.daemon._on_swap(SwapEvent(1, "signs", action, "signs", "2", "d" * 64))
    site.daemon._on_update("signs", UpdateEvent(action, "signs", "2", "d" * 64, "why"))
    events = [o.message for o in site.told if o.topic == topics.MODEL_EVENTS.name]
    assert [(e.action, e.slot, e.reason) for e in events] == [(action, "signs", "why")]
    site.daemon._outgoing.close()


def test_a_failed_runner_is_never_told_as_merely_degraded(site: Site) -> None:
    site.daemon._runner._serving.failure = "9 workers hang"
    site.daemon._captures[0].problem = "gone"
    message = site.daemon._status.message()
    assert message.state == "failed"
    assert "9 workers hang" in message.detail
    site.daemon._outgoing.close()


def test_health_is_asked_from_many_threads_at_once(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.daemon._runner.load()
    told: list[pb.Health] = []
    threads = [
        threading.Thread(target=lambda: told.append(site.daemon._status.message()))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(told) == 16
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
    site.daemon._outgoing.close()
