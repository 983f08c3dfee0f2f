"""`/metrics` and `/healthz` repeat `/health`: by the official parser, over HTTP, and in numbers."""

from __future__ import annotations

import http.client
import math
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from syncline.edge.metrics import metrics_text
from syncline.edge.prometheus import MetricsServer
from syncline.errors import ConfigError
from syncline.messages import syncline_pb2 as pb

EDGES_NS = (1_000_000, 10_000_000)


def message() -> pb.Health:
    """Two cameras, one of them absent; a model that serves and its shadow."""
    health = pb.Health(
        state="degraded",
        detail="camera rear: absent",
        raw_ns=16_000_000_000,
        started_raw_ns=1_000_000_000,
        rss_bytes=200 << 20,
        temperature_c=61.5,
        spool_bytes=77,
        time_state=pb.TIME_STATE_COLD,
        counters={"spool.backlog": 4, "record.dropped": 2, "camera.front.frames": 10},
    )
    health.models.add(
        slot="primary",
        state="ok",
        name='odd "name"\\\n',
        version="1.1.0",
        sha256="ab" * 32,
        ep_requested="CUDAExecutionProvider",
        ep_actual="CPUExecutionProvider",
        frames_captured=10,
        frames_processed=7,
        frames_invalid=1,
        dropped={"replaced": 2, "late": 1},
    )
    health.models.add(
        slot="shadow",
        shadow_of="primary",
        state="ok",
        sha256="cd" * 32,
        ep_node_share=1.0,
        frames_captured=6,
        frames_processed=2,
        dropped={"shed": 4},
    )
    for name, counts in (("primary.infer", (1, 5, 1)), ("shadow.infer", (0, 2, 0))):
        health.latency.add(name=name, edges_ns=EDGES_NS, counts=counts, sum_ns=50_000_000)
    health.cameras.add(camera="front", state="ok", frames=10, lost=3, refused=1)
    health.cameras.add(camera="rear", state="absent", detail="no such device")
    return health


def families(text: str) -> dict[str, Metric]:
    found = list(text_string_to_metric_families(text))
    assert len({family.name for family in found}) == len(found), "a metric stands in two places"
    return {family.name.removeprefix("syncline_edge_"): family for family in found}


def value(family: Metric, suffix: str = "", **labels: str) -> float:
    fits = [
        sample.value
        for sample in family.samples
        if sample.name.endswith(suffix) and labels.items() <= sample.labels.items()
    ]
    assert len(fits) == 1, (family.name, labels, fits)
    return fits[0]


def test_the_official_parser_reads_every_metric_with_help_and_type() -> None:
    text = metrics_text(message())
    for name, family in families(text).items():
        assert family.type in ("gauge", "counter", "histogram"), name
        assert family.documentation, name
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(set(names)) == len(names)
    helps = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert helps == names


def test_slots_stand_apart_and_a_shadow_says_whose_it_is() -> None:
    found = families(metrics_text(message()))
    captured = found["frames_captured"]
    assert value(captured, slot="primary", shadow_of="") == 10
    assert value(captured, slot="shadow", shadow_of="primary") == 6
    assert value(found["frames_dropped"], slot="primary", reason="late") == 1
    assert value(found["frames_dropped"], slot="shadow", reason="shed") == 4
    assert value(found["slot_ok"], slot="shadow", sha256="cd" * 32) == 1
    info = {"model": 'odd "name"\\\n', "ep_actual": "CPUExecutionProvider", "sha256": "ab" * 32}
    assert value(found["model_info"], **info) == 1


def test_cameras_temperature_clock_and_counters_are_there() -> None:
    found = families(metrics_text(message()))
    assert value(found["camera_frames"], camera="front") == 10
    assert value(found["camera_lost"], camera="front") == 3
    assert value(found["camera_refused"], camera="front") == 1
    assert value(found["camera_state"], camera="rear", state="absent") == 1
    assert value(found["camera_state"], camera="rear", state="ok") == 0
    assert value(found["temperature_celsius"]) == 61.5
    assert value(found["up_seconds"]) == 15
    assert value(found["state"], state="degraded") == 1
    assert value(found["time_state"], state="cold") == 1
    assert value(found["level"], level="spool.backlog") == 4
    assert value(found["events"], event="record.dropped") == 2
    assert not [s for s in found["events"].samples if "camera" in s.labels["event"]]


def test_a_histogram_is_cumulative_and_in_seconds() -> None:
    latency = families(metrics_text(message()))["latency_seconds"]
    labels = {"slot": "primary", "stage": "infer"}
    buckets = {
        float(s.labels["le"]): s.value
        for s in latency.samples
        if s.name.endswith("_bucket") and labels.items() <= s.labels.items()
    }
    assert buckets == {0.001: 1, 0.01: 6, math.inf: 7}
    assert value(latency, "_count", **labels) == 7
    assert value(latency, "_sum", **labels) == pytest.approx(0.05)


def test_what_is_not_known_is_left_out() -> None:
    text = metrics_text(pb.Health(state="starting", temperature_c=math.nan))
    found = families(text)
    assert "temperature_celsius" not in found
    assert "up_seconds" not in found
    assert value(found["state"], state="starting") == 1


@pytest.fixture
def served() -> Iterator[tuple[MetricsServer, pb.Health]]:
    health = message()
    server = MetricsServer("127.0.0.1:0", lambda: health)
    server.start()
    yield server, health
    server.close()


def get(server: MetricsServer, path: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type") or "", answer.read().decode()
    finally:
        connection.close()


def test_healthz_says_what_health_says(served: tuple[MetricsServer, pb.Health]) -> None:
    server, health = served
    assert get(server, "/healthz")[::2] == (503, "degraded\ncamera rear: absent\n")
    health.state, health.detail = "ok", ""
    assert get(server, "/healthz")[::2] == (200, "ok\n")
    health.state = "starting"
    assert get(server, "/healthz")[0] == 503


def test_metrics_are_served_as_prometheus_asks(served: tuple[MetricsServer, pb.Health]) -> None:
    server, health = served
    status, kind, text = get(server, "/metrics")
    assert (status, text) == (200, metrics_text(health))
    assert kind.startswith("text/plain; version=0.0.4")
    assert get(server, "/")[0] == 404


def test_scrapes_at_once_are_all_answered(served: tuple[MetricsServer, pb.Health]) -> None:
    server, _ = served
    told: list[int] = []
    threads = [
        threading.Thread(target=lambda: told.append(get(server, "/metrics")[0])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert told == [200] * 8


def test_a_probe_may_ask_for_the_head_alone_and_a_scraper_add_parameters(
    served: tuple[MetricsServer, pb.Health],
) -> None:
    server, health = served
    assert get(server, "/metrics?name=up")[::2] == (200, metrics_text(health))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("HEAD", "/healthz")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (503, b"")
    connection.close()


def test_a_scraper_that_hangs_up_leaves_no_traceback(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Only what is wrong with us is told, and in the log, which has limits."""
    asked, hung_up, broken = threading.Event(), threading.Event(), [False]

    def health() -> pb.Health:
        asked.set()
        assert hung_up.wait(20)
        if broken[0]:
            raise ValueError("a bug")
        return message()

    server = MetricsServer("127.0.0.1:0", health)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert asked.wait(20)
    hung_up.set()
    assert get(server, "/metrics")[0] == 200
    assert not caplog.records
    broken[0] = True
    with pytest.raises(http.client.RemoteDisconnected):
        get(server, "/metrics")
    server.close()
    assert "a bug" in caplog.text
    assert capfd.readouterr().err.count("Traceback") <= caplog.text.count("Traceback")


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999", "127.0.0.1:x", ":-1"])
def test_an_address_that_cannot_be_is_a_configuration_error(address: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        MetricsServer(address, message)


def test_a_port_that_is_taken_is_a_configuration_error(
    served: tuple[MetricsServer, pb.Health],
) -> None:
    with pytest.raises(ConfigError, match="cannot listen"):
        MetricsServer(f"127.0.0.1:{served[0].port}", message)
