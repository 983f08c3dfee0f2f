"""Pulses: which second they mark, what is no pulse, and the driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncline.errors import DeviceError
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.sources.phc import PhcDevice
from syncline.sync.sources.pps import (
    Label,
    Pps,
    PpsDevice,
    Pulse,
    PulsePairing,
    epoch_label,
)
from syncline.sync.sources.source import Health
from syncline.timebase import ManualClock, PairedRead
from tests.sync_os.drive import MS, drive
from tests.sync_os.ntp_fakes import UTC0_NS, S


def test_sync_43_a_missing_pulse_does_not_shift_the_second() -> None:
    """sync-43: seconds are told by the label, so losing pulses 3 and 4 changes nothing."""
    pairing = PulsePairing("pps0")
    utc0 = UTC0_NS
    for n in (0, 1, 2, 5, 6, 9):
        raw = 7_123_456_789 + n * S + n * 20_000
        label = Label(raw - 250 * MS, utc0 + n * S - 250 * MS + 90 * MS, 100 * MS)
        m = pairing.take(raw, raw + 1000, label)
        assert (m is None) == (n < 2)  # the line must first show that it beats seconds
        assert m is None or m.utc_ns == utc0 + n * S
    assert pairing.missing == 4
    assert pairing.trouble == ""


def test_sync_43_without_a_label_there_is_phase_only() -> None:
    """sync-43: no label, a doubtful label, a label between seconds: phase, no measurement."""
    pairing = PulsePairing("pps0")
    for n, label in enumerate(
        [
            None,
            Label(S, UTC0_NS, 450 * MS),
            Label(3 * S, UTC0_NS + 450 * MS, 10 * MS),
            Label(0, UTC0_NS, 390 * MS),
        ]
    ):
        taken = pairing.take((n + 1) * S, (n + 1) * S, label)
        assert (taken is None) == (n < 3)
        assert pairing.phase_raw_ns == (n + 1) * S
    assert sum(pairing.tally.counts.values()) == 3


def test_noise_on_the_pulse_line_is_refused() -> None:
    pairing = PulsePairing("pps0")
    label = Label(S, UTC0_NS, MS)
    for n in range(3):
        assert (pairing.take(n * S, n * S, label) is None) == (n < 2)
    assert pairing.take(2 * S + 300 * MS, 2 * S + 300 * MS, label) is None
    assert pairing.take(3 * S + 1000, 3 * S + 1000, label) is not None
    assert pairing.trouble == ""


@pytest.mark.parametrize("period_ms", [1040, 1250, 500, 200, 999, 900, 2000, 1500])
def test_sync_43_a_pulse_of_another_rate_is_never_a_measurement(period_ms: int) -> None:
    """sync-43, deploy-25: not one measurement, though the label is good; said by the fifth pulse.

    A period of whole seconds is no wrong rate but a line that loses pulses: it is not confirmed.
    """
    pairing = PulsePairing("pps0")
    said = 0
    for n in range(200):
        raw = 123_456_789 + n * period_ms * MS
        assert pairing.take(raw, raw, Label(raw, UTC0_NS + raw, MS)) is None
        said = said or (n + 1 if pairing.trouble else 0)
    assert said <= 5
    assert bool(said) == (period_ms != 2000)


def test_sync_43_a_poll_that_sees_every_fifth_edge_is_not_fooled() -> None:
    """sync-43: 5 Hz, of which a stalled program fetches one a second: the kernel's count tells."""
    pairing = PulsePairing("pps0")
    for n in range(20):
        raw = n * S + 400 * MS
        assert pairing.take(raw, raw, Label(raw, UTC0_NS + raw, MS), edges=5) is None


def test_sync_43_noise_first_then_true_pulses() -> None:
    """sync-43: an edge of the start-up does not lock the true pulses out."""
    pairing = PulsePairing("pps0")
    taken = [
        pairing.take(raw, raw, Label(raw, UTC0_NS + raw, MS))
        for raw in (300 * MS, *(n * S for n in range(1, 10)))
    ]
    assert [m is not None for m in taken[-4:]] == [True] * 4
    assert all(m is None or abs(m.utc_ns - UTC0_NS - m.raw_ns) < MS for m in taken)


def test_a_receivers_message_labels_the_next_pulse() -> None:
    epoch = Measurement(
        "g", SourceKind.GNSS, 0, UTC0_NS, root_bound_ns=750 * MS, arrival_raw_ns=10 * S
    )
    label = epoch_label(epoch, 10 * S + 600 * MS)
    assert label is not None
    assert label.utc_ns == UTC0_NS + S
    assert epoch_label(epoch, 10 * S + 5 * MS) is None
    assert epoch_label(epoch, 11 * S + 600 * MS) is None
    assert epoch_label(None, S) is None


class FakePulses:
    """A pulse device on a clock moved by hand; loses some pulses and once disappears."""

    def __init__(self, clock: ManualClock, lost: set[int]) -> None:
        self.clock, self.lost, self.gone = clock, lost, False

    def fetch(self) -> Pulse | None:
        if self.gone:
            raise DeviceError("unplugged")
        n = (self.clock.raw_ns() - 20 * MS) // S
        while n in self.lost:
            n -= 1
        return Pulse(n, 10**18 + n * S + 20 * MS) if n > 0 else None

    def close(self) -> None:
        pass


def test_sync_43_the_pulse_driver() -> None:
    """sync-43: through the driver, with a label out of the service's estimate."""
    clock = ManualClock(0)
    device = FakePulses(clock, lost={5, 6})
    source = Pps(
        PulsePairing("pps0"), lambda: device, clock,
        label=lambda raw: Label(raw, UTC0_NS + raw - 20 * MS, MS),
        real=lambda: PairedRead(clock.raw_ns(), 10**18 + clock.raw_ns(), 100),
    )  # fmt: skip
    got = drive(source, clock, 20)
    assert len(got) >= 15  # 18 pulses; the first is older than the driver, two show the rhythm
    for m in got:
        assert abs(m.utc_ns - UTC0_NS - (m.raw_ns - 20 * MS)) <= 100
    device.gone = True
    assert drive(source, clock, 3) == []
    assert source.health().health is Health.MISSING
    device.gone = False
    assert drive(source, clock, 5)


def test_missing_devices_are_named() -> None:
    with pytest.raises(DeviceError, match="pps-gpio"):
        PpsDevice(Path("/dev/nosuch-pps"))
    with pytest.raises(DeviceError, match="ethtool"):
        PhcDevice(Path("/dev/nosuch-ptp"))
