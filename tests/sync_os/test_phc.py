"""Hardware clocks: the bracket of a read, TAI, clocks that keep no time."""

from __future__ import annotations

import random

import pytest

from syncline.sync.leap import built_in
from syncline.sync.sources.phc import Phc, PhcOptions, bracket_read
from syncline.sync.sources.source import Health
from tests.sync_os.ntp_fakes import UTC0_NS, S


class SlowClock:
    """RAW that moves by a random time at each reading, as preemption and bus do."""

    boot_id = "slow"

    def __init__(self, seed: int) -> None:
        self.now, self.random = 10**12, random.Random(seed)

    def raw_ns(self) -> int:
        self.now += int(self.random.expovariate(1 / 2_000))
        return self.now

    def sleep_until(self, raw_ns: int) -> None:
        self.now = max(self.now, raw_ns)


class FakePhc:
    """A hardware clock that counts `offset + raw` at some instant within the read."""

    def __init__(self, clock: SlowClock, offset_ns: int) -> None:
        self.clock, self.offset_ns = clock, offset_ns

    def read_ns(self) -> int:
        return self.clock.raw_ns() + self.offset_ns

    def close(self) -> None:
        pass


def test_sync_42_the_error_of_a_bracket_read_is_at_most_half_the_bracket() -> None:
    """sync-42: 5 000 reads with random delays before and after."""
    for seed in range(5_000):
        clock = SlowClock(seed)
        read = bracket_read(clock, FakePhc(clock, 37 * S))
        error = abs(read.phc_ns - 37 * S - read.raw_ns)
        assert error <= read.bracket_ns // 2 + 1


@pytest.mark.parametrize(
    ("announced", "usable"), [(37, True), (None, False), (36, False), (0, False)]
)
def test_sync_41_a_phc_without_a_valid_tai_offset_gives_nothing(
    announced: int | None, usable: bool
) -> None:
    """sync-41: UTC only when TAI - UTC is announced and agrees with the table."""
    clock = SlowClock(1)
    source = Phc(
        PhcOptions("ptp0", tai_utc_s=announced), lambda: FakePhc(clock, UTC0_NS + 37 * S), clock,
        built_in(),
    )  # fmt: skip
    assert source.poll(clock.raw_ns()) == []  # it must first show that it advances
    clock.now += S
    got = source.poll(clock.raw_ns())
    assert bool(got) == usable
    if got:
        assert abs(got[0].utc_ns - UTC0_NS - got[0].raw_ns) <= got[0].root_bound_ns
        assert source.health().health is Health.OK
    else:
        assert source.health().health is Health.DEGRADED
        assert "TAI - UTC" in source.health().message


@pytest.mark.parametrize(
    ("ppm", "word"), [(-1e6, "stands still"), (2000.0, "another rate"), (-5000.0, "another rate")]
)
def test_sync_42_a_hardware_clock_that_does_not_keep_time_gives_nothing(
    ppm: float, word: str
) -> None:
    """sync-42, deploy-25: frozen or of another rate: no measurement, said at the second read."""
    clock = SlowClock(2)
    start = clock.now

    class Odd(FakePhc):
        def read_ns(self) -> int:
            super().read_ns()
            return UTC0_NS + round((clock.now - start) * (1 + ppm * 1e-6))

    source = Phc(PhcOptions("ptp0", utc=True), lambda: Odd(clock, 0), clock, built_in())
    for n in range(5):
        assert source.poll(clock.raw_ns()) == []
        clock.now += S
        assert n == 0 or word in source.health().message


def test_sync_42_a_step_of_the_hardware_clock_costs_one_reading() -> None:
    """sync-42: ptp4l sets the clock once: the reading across the step is not used, the next is."""
    clock = SlowClock(3)
    phc = FakePhc(clock, UTC0_NS)
    source = Phc(PhcOptions("ptp0", utc=True), lambda: phc, clock, built_in())
    got = []
    for n in range(8):
        phc.offset_ns += 37 * S if n == 4 else 0
        got.append(len(source.poll(clock.raw_ns())))
        clock.now += S
    assert got == [0, 1, 1, 1, 0, 1, 1, 1]
