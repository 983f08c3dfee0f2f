"""Both pure steps against each other over a simulated link."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncline.cloud.sessions import Sessions
from syncline.link.sender import Sender
from syncline.link.terms import LinkCaps, LinkState
from syncline.link.wire import Ack, Error, Hello, Welcome, pack, unpack
from syncline.messages.syncline_pb2 import Detections
from syncline.spool import Spool
from syncline.timebase import ManualClock
from syncline.topics import LinkClass

from .lossy import Faults, World

E, R, T, B = LinkClass
PAYLOAD = Detections(camera="a").SerializeToString()
STREAM = "/camera/a/detections"


def put(world: World, n: int, start: int = 0) -> None:
    for i in range(start, start + n):
        world.spool.put(R, STREAM, i, PAYLOAD)
        if i % 7 == 0:
            world.spool.put(T, "/camera/b/shadow", i, PAYLOAD * 3)
    world.spool.sync()


def check(world: World, n: int) -> None:
    """The database equals the sent set: once, in order, same bytes."""
    found = list(world.catalog.records("car", "boot", STREAM))
    assert [r.raw_ns for r in found] == list(range(n))
    assert all(r.payload == PAYLOAD for r in found)
    assert [r.seq for r in found] == list(range(found[0].seq, found[0].seq + n))
    other = list(world.catalog.records("car", "boot", "/camera/b/shadow"))
    assert [r.raw_ns for r in other] == list(range(0, n, 7))


def test_records_arrive_in_order_over_a_good_link(tmp_path: Path) -> None:
    world = World(tmp_path)
    put(world, 3000)
    world.drain()
    check(world, 3000)
    assert world.sender.stats.sessions == 1
    assert world.sender.stats.sent_records == world.sender.stats.acked_records
    world.close()


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    drop=st.sampled_from([0.0, 0.05]),
    double=st.sampled_from([0.0, 0.2]),
    reorder=st.sampled_from([0.0, 0.2]),
    cut=st.sampled_from([0.0, 0.05]),
    flip=st.sampled_from([0.0, 0.05]),
)
def test_link_28_any_mix_of_faults_ends_in_the_sent_set(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int, drop: float, double: float, reorder: float, cut: float, flip: float,
) -> None:  # fmt: skip
    """link-28: dropped, doubled, reordered, cut and flipped messages: database equals sent set."""
    faults = Faults(drop, double, reorder, cut, flip)
    world = World(tmp_path_factory.mktemp("mix"), seed=seed, faults=faults)
    for part in range(10):
        put(world, 100, part * 100)
        world.run(50, 5)
    world.drain(3_600_000, 20)
    check(world, 1000)
    world.close()


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.timeout(3000)
def test_link_28_a_million_messages(tmp_path: Path) -> None:
    """link-28 at full count: a million messages were carried, each with one record or few.

    Records of many streams alternate: a message holds one stream, so the count is not eaten by
    large batches, and each fault hits another one.
    """
    world = World(tmp_path, seed=28, faults=Faults(0.001, 0.05, 0.01, 0.001, 0.001))
    streams = [f"/camera/c{i}/detections" for i in range(64)]
    n = 0
    while world.up.carried + world.down.carried < 1_000_000:
        for stream in streams:
            world.spool.put(R, stream, n, PAYLOAD)
        n += 1
        world.spool.sync()
        world.run(5, 5)
        world.up.sent.clear()
        world.down.sent.clear()
    world.drain(3_600_000, 20)
    print(world.up.carried, world.down.carried, n, world.sessions.counts)
    for stream in streams:
        found = list(world.catalog.records("car", "boot", stream))
        assert [r.raw_ns for r in found] == list(range(n))
        assert all(r.payload == PAYLOAD for r in found)
    assert n * len(streams) >= 200_000, "too few records reached the link"
    assert world.sessions.counts["gaps"] > 0
    assert world.sessions.counts["duplicates"] > 0
    world.close()


def test_link_25_a_collector_that_is_down_for_hours(tmp_path: Path) -> None:
    """link-25, on the manual clock: 6 h down, then drained: no loss, no duplicate row."""
    world = World(tmp_path)
    put(world, 500)
    world.drain()
    world.collecting = False
    world.restart_collector()
    for part in range(90):
        put(world, 40, 500 + part * 40)
        world.run(240_000, 60_000)
    assert world.spool.stats().backlog > 3000
    world.collecting = True
    took_ms = world.drain()
    check(world, 500 + 3600)
    assert took_ms < 120_000
    world.close()


def test_link_26_a_blackhole_of_a_minute(tmp_path: Path) -> None:
    """link-26 in the step: after link-up records flow within 5 s, and none is lost.

    The transport may also notice; test_uplink shows it with real sockets.
    """
    world = World(tmp_path)
    put(world, 200)
    world.run(100)
    world.collecting = False
    for second in range(60):
        world.linked = second < 6
        put(world, 10, 200 + second * 10)
        world.run(1000, 10)
        world.cut()
    world.collecting = world.linked = True
    acked, waited_ms = world.sender.stats.acked_records, 0
    while world.sender.stats.acked_records == acked:
        world.step(10)
        waited_ms += 10
        assert waited_ms <= 5000
    world.drain()
    check(world, 800)
    world.close()


@pytest.mark.parametrize("jump_s", [315_360_000, -315_360_000])
def test_link_33_a_jump_of_the_realtime_clock_is_not_even_seen(
    tmp_path: Path, jump_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """link-33: no clock is read but the raw one: +-10 y change no byte and no timer."""
    import time

    def world_run(folder: Path) -> tuple[list[tuple[int, int]], int]:
        world = World(folder, seed=5, faults=Faults(drop=0.02))
        put(world, 500)
        world.drain()
        check(world, 500)
        sent = list(world.up.sent)
        world.close()
        return sent, world.clock.raw_ns()

    plain = world_run(tmp_path / "a")
    real = time.time  # noqa: TID251 - the clock that is moved
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    monkeypatch.setattr(time, "time_ns", lambda: int((real() + jump_s) * 1e9))
    assert world_run(tmp_path / "b") == plain


def test_link_33_the_raw_clock_may_stand_or_leap_forward(tmp_path: Path) -> None:
    """link-33: a suspended device (raw time leaps) begins a new session and loses nothing."""
    world = World(tmp_path)
    put(world, 300)
    world.run(4)
    world.clock.advance(10 * 365 * 86400 * 10**9)
    world.drain()
    check(world, 300)
    world.close()


@pytest.mark.parametrize("cap", [50_000, 500_000])
def test_link_30_the_cap_of_the_link_holds(tmp_path: Path, cap: int) -> None:
    """link-30: any one-second mean of what is sent stays within 1.05 x the cap, and uses it."""
    world = World(tmp_path, caps=LinkCaps(link=cap))
    for i in range(cap * 8 // 300):
        world.spool.put(R, STREAM, i, PAYLOAD + b"\x2a\x00" * 130)
    world.spool.sync()
    world.run(6000)
    sent = world.up.sent
    first = sent[0][0]
    for start in range(first, first + 5 * 10**9, 10**8):
        size = sum(n + 80 for t, n in sent if start <= t < start + 10**9)
        assert size <= 1.05 * cap, (size, cap)
    steady = sum(n + 80 for t, n in sent if first + 10**9 <= t < first + 5 * 10**9) / 4
    assert steady >= 0.9 * cap
    world.close()


def test_link_30_the_cap_of_a_class_leaves_the_others_alone(tmp_path: Path) -> None:
    """link-30: capped telemetry does not slow results down."""
    world = World(tmp_path, caps=LinkCaps(classes={T: 20_000}))
    for i in range(2000):
        world.spool.put(T, "/camera/b/shadow", i, PAYLOAD * 20)
        world.spool.put(R, STREAM, i, PAYLOAD)
    world.spool.sync()
    world.run(1000)
    stats = world.spool.stats().classes
    assert stats[R].backlog == 0
    assert stats[T].backlog > 500
    world.close()


def test_link_23_a_fresh_event_does_not_wait_behind_the_backlog(tmp_path: Path) -> None:
    """link-23 on a simulated 10 Mbit link: the drain uses >= 90 %, events take <= 1 s at p99."""
    world = World(tmp_path, bytes_per_s=1_250_000, delay_ms=20)
    for i in range(24_000):
        world.spool.put(B, "/camera/b/shadow", i, b"\x0a\x01a" * 330)
    world.spool.sync()
    world.run(3000)
    late: list[float] = []
    began, acked = world.clock.raw_ns(), world.spool.stats().classes[B].backlog
    for i in range(30):
        world.spool.put(E, "/time/events", i, b"")
        world.spool.sync()
        at = world.clock.raw_ns()
        while world.spool.stats().classes[E].backlog:
            world.step()
        late.append((world.clock.raw_ns() - at) / 1e6)
        world.run(20)
    spent_s = (world.clock.raw_ns() - began) / 1e9
    rate = (acked - world.spool.stats().classes[B].backlog) * 990 / spent_s
    late.sort()
    print(f"p50 {late[15]:.0f} ms, max {late[-1]:.0f} ms, drain {rate / 1_250_000:.3f} of the link")
    assert late[-1] <= 1000
    assert rate >= 0.9 * 1_250_000
    world.close()


def test_link_38_old_messages_sent_again_give_no_new_row(tmp_path: Path) -> None:
    """link-38: every message of a session, resent by the same key in any order, adds nothing."""
    world = World(tmp_path)
    put(world, 500)
    kept: list[bytes] = []
    send = world.up.send

    def keep(data: bytes, now_ns: int) -> None:
        kept.append(data)
        send(data, now_ns)

    world.up.send = keep  # type: ignore[method-assign]
    world.drain()
    check(world, 500)
    rng = random.Random(38)
    for _ in range(3):
        again = list(kept)
        rng.shuffle(again)
        for data in [kept[0], *again]:
            send(data, world.clock.raw_ns())
        world.run(100)
    world.drain()
    check(world, 500)
    world.close()


# -- details of the device's step ----------------------------------------------------------------


def _sender(tmp_path: Path) -> tuple[Sender, Spool]:
    spool = Spool(tmp_path / "s", clock=ManualClock(10**9, "boot"))
    return Sender(spool, "car", rng=random.Random(1)), spool


def _open(sender: Sender, now: int = 0, window: int = 1 << 20) -> int:
    hello = unpack(sender.step(now, [], connected=True).frames[0])
    assert isinstance(hello, Hello)
    return hello.session


def test_an_ack_of_another_session_or_of_the_future_means_nothing(tmp_path: Path) -> None:
    sender, spool = _sender(tmp_path)
    spool.put(R, STREAM, 0, b"x")
    spool.sync()
    session = _open(sender)
    sender.step(1, [pack(Welcome(session, [], 1 << 20, []))], connected=True)
    sender.step(2, [pack(Ack(session + 1, 1, 1 << 20)), pack(Ack(session, 99, 1 << 20))],
                connected=True)  # fmt: skip
    assert spool.stats().backlog == 1
    sender.step(3, [pack(Ack(session, 1, 1 << 20))], connected=True)
    assert spool.stats().backlog == 0
    spool.close()


def test_what_the_collector_has_is_not_sent_again(tmp_path: Path) -> None:
    sender, spool = _sender(tmp_path)
    seqs = [spool.put(R, STREAM, i, b"x") for i in range(10)]
    spool.sync()
    session = _open(sender)
    welcome = Welcome(session, [("boot", STREAM, seqs[6])], 1 << 20, [])
    out = sender.step(1, [pack(welcome)], connected=True)
    data = unpack(out.frames[0])
    assert (data.seq, data.n) == (seqs[6], 4)  # type: ignore[union-attr]
    spool.close()


def test_a_closed_window_holds_records_back_and_an_ack_opens_it(tmp_path: Path) -> None:
    sender, spool = _sender(tmp_path)
    spool.put(E, "/time/events", 0, b"x")
    spool.sync()
    session = _open(sender)
    out = sender.step(1, [pack(Welcome(session, [], 0, []))], connected=True)
    assert out.frames == []
    out = sender.step(10**12, [pack(Ack(session, 0, 1 << 20))], connected=True)
    assert len(out.frames) == 1
    assert not out.reset
    spool.close()


def test_a_refusal_is_told_and_tried_again_later(tmp_path: Path) -> None:
    sender, spool = _sender(tmp_path)
    session = _open(sender)
    sender.step(1, [pack(Error(session, "identity", "not yours"))], connected=True)
    assert "identity" in sender.stats.problem
    assert sender.stats.state is LinkState.HELLO
    assert sender.step(10**11, [], connected=True).reset
    spool.close()


def test_sessions_share_the_budget() -> None:
    sessions = Sessions(budget_bytes=1 << 20)
    for i in range(100):
        hello = pack(Hello(i + 1, f"car{i}", "b", []))
        sessions.receive(b"\0%d" % i, f"car{i}", [hello], 0)
    assert sessions.window == 64 << 10
    assert len(sessions.connected) == 100
