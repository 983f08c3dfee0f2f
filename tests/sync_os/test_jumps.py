"""Steps, slews and suspends of the system clock: injected, and with the real kernel."""

from __future__ import annotations

import select
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.sync.events import Step, UnknownStep
from syncline.sync.jumps import (
    ClockReads,
    Jump,
    JumpDetector,
    JumpWatch,
    Suspended,
    TimerNotice,
    read_clocks,
    system_watch,
)
from syncline.timebase import Clock, PairedRead
from tests.vm.inside.setter import step_by

S = 1_000_000_000


def reads(
    raw_ns: int, stepped_ns: int = 0, slept_ns: int = 0, slewed_ns: int = 0, bracket_ns: int = 200
) -> ClockReads:
    """As the kernel makes its clocks: a slew moves all, a suspend two, a step REALTIME alone."""
    mono_ns = raw_ns + 221_000_000 + slewed_ns
    return ClockReads(
        PairedRead(raw_ns, mono_ns + 10**18 + slept_ns + stepped_ns, bracket_ns),
        PairedRead(raw_ns, mono_ns + slept_ns, bracket_ns),
        PairedRead(raw_ns, mono_ns, bracket_ns),
    )


@given(
    size_ns=st.one_of(st.integers(1_000, 10**18), st.integers(-(10**18), -1_000)),
    elapsed_ns=st.integers(10_000, 60 * S),
)
def test_sync_20_a_noticed_step_has_its_size(size_ns: int, elapsed_ns: int) -> None:
    """sync-20: size within 1 us, whatever the size and the time since the last read."""
    detector = JumpDetector(reads(0))
    (step,) = detector.check(reads(elapsed_ns, size_ns), noticed=True)
    assert isinstance(step, Step)
    assert abs(step.size_ns - size_ns) <= 1_000
    assert step.clock is Clock.REALTIME
    assert step.uncertainty_ns <= 1_000
    assert detector.check(reads(elapsed_ns + S, size_ns), noticed=False) == []


@given(
    rates_ppm=st.lists(st.integers(-83_000, 83_000), min_size=1, max_size=50),
    every_ns=st.integers(S // 100, 5 * S),
)
def test_sync_40_slewing_is_never_a_step(rates_ppm: list[int], every_ns: int) -> None:
    """sync-40: zero step events while the clock is slewed, as fast as chronyd may."""
    detector = JumpDetector(reads(0))
    offset_ns = 0
    for n, ppm in enumerate(rates_ppm, 1):
        offset_ns += every_ns * ppm // 1_000_000
        assert detector.check(reads(n * every_ns, slewed_ns=offset_ns), noticed=False) == []


@given(
    size_ns=st.sampled_from([5 * S, -3_600 * S, 100_000, -1_000]),
    ppm=st.integers(-83_000, 83_000),
    elapsed_ns=st.integers(S // 1000, 10 * S),
)
def test_sync_20_a_slew_that_just_began_is_not_part_of_the_step(
    size_ns: int, ppm: int, elapsed_ns: int
) -> None:
    """sync-20: a step while the clock is slewed at a rate that nothing has told before."""
    detector = JumpDetector(reads(0))
    slewed_ns = elapsed_ns * ppm // 1_000_000
    (step,) = detector.check(reads(elapsed_ns, size_ns, slewed_ns=slewed_ns), noticed=True)
    assert isinstance(step, Step)
    assert step.size_ns == size_ns
    assert step.uncertainty_ns < 1_000


def test_steps_that_cancel_are_unknown_and_a_missed_notice_is_found() -> None:
    detector = JumpDetector(reads(0))
    (event,) = detector.check(reads(S, 0), noticed=True)
    assert isinstance(event, UnknownStep)
    (step,) = detector.check(reads(2 * S, -3_600 * S), noticed=False)
    assert isinstance(step, Step)
    assert abs(step.size_ns + 3_600 * S) < 2_000


def test_sync_31_suspend_is_no_step() -> None:
    """sync-31: BOOTTIME and REALTIME run on by 600 s while RAW stands: suspend, and no step."""
    detector = JumpDetector(reads(0))
    assert detector.check(reads(S, 0, 600 * S), noticed=True) == [Suspended(S, 600 * S, 2 * S)]
    assert detector.check(reads(2 * S, 0, 600 * S), noticed=False) == []


def test_suspend_with_a_real_step_shows_both() -> None:
    detector = JumpDetector(reads(0))
    slept, stepped = detector.check(reads(S, 60 * S, 600 * S), noticed=True)
    assert isinstance(slept, Suspended)
    assert isinstance(stepped, Step)
    assert stepped.size_ns == 60 * S  # the length of the sleep is blurred, the step is not


def test_watch_runs_on_this_machine_without_rights() -> None:
    watch, lacks = system_watch()
    try:
        assert lacks == ""
        time.sleep(0.01)
        assert watch.poll() == []
    finally:
        watch.close()


@pytest.mark.root
def test_sync_20_sync_40_real_steps_of_one_microsecond_and_up() -> None:
    """sync-20, sync-40: 200 of 200 real steps noticed within 10 ms, sizes within 1 us.

    The steps alternate in sign and are put back, so the machine's clock ends where it was.
    """
    watch = JumpWatch(TimerNotice())
    pairs = [(ns, -ns) for ns in (1_000, 5_000, 100_000, 1_000_000) for _ in range(25)]
    sizes = [ns for pair in pairs for ns in pair]
    found: list[list[Jump]] = []
    late_ns: list[int] = []
    try:
        for size_ns in sizes:
            watch.poll()
            began_ns = time.monotonic_ns()
            step_by(size_ns)
            ready, _, _ = select.select([watch.fileno()], [], [], 0.5)
            late_ns.append(time.monotonic_ns() - began_ns)
            assert ready, "no notice"
            found.append(watch.poll())
        time.sleep(0.05)
        assert watch.poll() == []
    except PermissionError:
        pytest.skip("no right to set the clock (CAP_SYS_TIME)")
    finally:
        watch.close()
    events = [event for batch in found for event in batch]
    assert len(events) == len(sizes)
    steps = [(e, w) for e, w in zip(events, sizes, strict=True) if isinstance(e, Step)]
    # A step of 1 us may hide in a read whose bracket was preempted; it is still noticed.
    assert len(steps) >= 0.95 * len(sizes)
    errors_ns = sorted(abs(step.size_ns - wanted) for step, wanted in steps)
    assert errors_ns[int(0.98 * len(errors_ns))] <= 1_000
    assert sorted(late_ns)[int(0.95 * len(late_ns))] < 10_000_000


def test_reading_the_clocks_is_quick_and_consistent() -> None:
    first, second = read_clocks(), read_clocks()
    assert second.real.raw_ns > first.real.raw_ns
    assert second.real.bracket_ns < 1_000_000
