"""Pulse per second: the kernel stamps the edge, somebody else must say which second it was.

A pulse is labelled by time and never by counting, so a missing pulse cannot shift the second.
Without a label it tells the phase alone and becomes no measurement. Nothing is believed before the
line has shown that it beats once a second: a label would snap any edge to a whole second.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from syncline.errors import ClockError, DeviceError, PermissionDeniedError
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.sources.device_file import open_device
from syncline.sync.sources.pairing import real_to_raw
from syncline.sync.sources.source import GnssSignals, Health, SourceHealth, Tally
from syncline.timebase import NS_PER_S, Clock, PairedRead, RawClock, paired_read

PPS_FETCH = 0xC00870A4
"""_IOWR('p', 0xa4, struct pps_fdata *) of linux/pps.h on 64-bit machines."""
LABEL_BOUND_NS = 400_000_000
"""A label must be well within half a second."""
MAX_LABEL_AGE_NS = 64 * NS_PER_S
PERIOD_TOLERANCE_NS = 500_000
"""A pulse comes whole seconds after the last, to 500 ppm; anything else is noise on the line."""
HISTORY = 8
CONFIRM = 2
"""Gaps of one second that a line must show before its pulses count."""
WRONG_RUN = 3
"""So many pulses in a row that are no second after the last: it is the line's rate, not noise."""
LOST_NS = 4 * NS_PER_S
POLL_NS = NS_PER_S // 4
SILENT_NS = 4 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Pulse:
    """One edge.

    Attributes:
        sequence: Kernel's count.
        real_ns: CLOCK_REALTIME of the edge.
    """

    sequence: int
    real_ns: int


class PulseDevice(Protocol):
    """Where pulses come from; `PpsDevice` is the kernel's."""

    def fetch(self) -> Pulse | None:
        """The last pulse, None before the first; raises DeviceError when the device is gone."""

    def close(self) -> None:
        """Give it back."""


class _KernelTime(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_int64), ("nsec", ctypes.c_int32), ("flags", ctypes.c_uint32))


class _KernelInfo(ctypes.Structure):
    _fields_ = (
        ("assert_sequence", ctypes.c_uint32),
        ("clear_sequence", ctypes.c_uint32),
        ("assert_tu", _KernelTime),
        ("clear_tu", _KernelTime),
        ("current_mode", ctypes.c_int),
    )


class _KernelFetch(ctypes.Structure):
    _fields_ = (("info", _KernelInfo), ("timeout", _KernelTime))


class PpsDevice:
    """`/dev/pps*` (RFC 2783 through the PPS_FETCH ioctl).

    Args:
        path: Device.
        clear: Use the falling edge.

    Raises:
        PermissionDeniedError: No right to open it.
        DeviceError: No such device.
    """

    def __init__(self, path: Path, clear: bool = False) -> None:
        self._path, self._clear = path, clear
        remedy = "Load pps-ldisc or pps-gpio, or remove it from [time]"
        self._fd = open_device(path, os.O_RDWR, "pulse device", remedy)

    def fetch(self) -> Pulse | None:
        """The last edge, without waiting."""
        data = _KernelFetch()
        try:
            fcntl.ioctl(self._fd, PPS_FETCH, data)
        except OSError as error:
            raise DeviceError(f"{self._path}: {error.strerror}") from error
        info = data.info
        sequence = info.clear_sequence if self._clear else info.assert_sequence
        stamp = info.clear_tu if self._clear else info.assert_tu
        return Pulse(sequence, stamp.sec * NS_PER_S + stamp.nsec) if sequence else None

    def close(self) -> None:
        """Close the device."""
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Label:
    """Somebody's UTC of a raw instant, good enough to number seconds.

    Attributes:
        raw_ns: The instant.
        utc_ns: Its UTC.
        bound_ns: Hard bound of it.
        offset_ps: Known lateness of the next pulse (u-blox quantisation error).
    """

    raw_ns: int
    utc_ns: int
    bound_ns: int
    offset_ps: int = 0


Labeller = Callable[[int], Label | None]


EPOCH_MARGIN_NS = 20_000_000


def epoch_label(epoch: Measurement | None, raw_ns: int) -> Label | None:
    """The second of a pulse by the receiver's last message.

    A message follows its pulse by less than a second, so the pulse that follows a message by less
    than a second is the next one. Epochs whose leap seconds are in doubt label nothing.

    Args:
        epoch: Last accepted epoch, `arrival_raw_ns` of its first byte.
        raw_ns: The pulse.
    """
    if epoch is None or epoch.root_bound_ns >= 2 * NS_PER_S or epoch.utc_ns % NS_PER_S:
        return None
    after_ns = raw_ns - epoch.arrival_raw_ns
    if not EPOCH_MARGIN_NS < after_ns < NS_PER_S - EPOCH_MARGIN_NS:
        return None
    return Label(raw_ns, epoch.utc_ns + NS_PER_S, 0)


class PulsePairing:
    """Pulses on the raw clock, labels in, measurements out. No I/O.

    Args:
        name: Source name.
        sigma_ns: One sigma of the edge's stamp.
        bound_ns: Hard bound of the edge: interrupt latency, cable.
        cable_ns: Delay of cable and antenna: the pulse is this late.
    """

    def __init__(
        self, name: str, sigma_ns: int = 1_000, bound_ns: int = 20_000, cable_ns: int = 0
    ) -> None:
        self.name = name
        self.tally = Tally()
        self.missing = 0
        self._sigma_ns, self._bound_ns, self._cable_ns = sigma_ns, bound_ns, cable_ns
        self._pulses: deque[int] = deque(maxlen=HISTORY)
        self._confirmed = self._wrong = self._gap_ns = self._heard_raw_ns = 0

    @property
    def trouble(self) -> str:
        """What is wrong with the line; empty while it beats seconds."""
        if self._wrong < WRONG_RUN or self._confirmed:
            return ""
        gap_s = self._gap_ns / NS_PER_S
        return f"pulses come {gap_s:.6f} s apart, not a second: set the receiver's pulse to 1 Hz"

    @property
    def phase_raw_ns(self) -> int | None:
        """Raw time of the last good pulse: the phase, known even without a label."""
        return self._pulses[-1] if self._pulses else None

    def take(
        self, raw_ns: int, arrival_raw_ns: int, label: Label | None, edges: int = 1
    ) -> Measurement | None:
        """Judge one pulse; a measurement when it is a pulse and has a label.

        Args:
            raw_ns: The edge.
            arrival_raw_ns: When it was fetched.
            label: Its second.
            edges: Edges that the kernel counted since the last call, this one included.
        """
        why = self._rhythm(raw_ns, edges)
        if why:
            self.tally.add(why)
            return None
        if label is None or abs(raw_ns - label.raw_ns) > MAX_LABEL_AGE_NS:
            self.tally.add("no label for the second")
            return None
        drift_ns = abs(raw_ns - label.raw_ns) // 10_000
        if label.bound_ns + drift_ns >= LABEL_BOUND_NS:
            self.tally.add("label is not sure of the second")
            return None
        near_ns = label.utc_ns + (raw_ns - label.raw_ns)
        second_ns = (near_ns + NS_PER_S // 2) // NS_PER_S * NS_PER_S
        if abs(near_ns - second_ns) > LABEL_BOUND_NS:
            self.tally.add("label falls between two seconds")
            return None
        return Measurement(
            self.name,
            SourceKind.PPS,
            raw_ns - self._cable_ns - label.offset_ps // 1000,
            second_ns,
            uncertainty_ns=self._sigma_ns,
            root_bound_ns=self._bound_ns,
            arrival_raw_ns=arrival_raw_ns,
        )

    def _rhythm(self, raw_ns: int, edges: int) -> str:
        """Why an edge is no pulse of a line that beats seconds; empty when it is one."""
        gap_ns, self._heard_raw_ns = raw_ns - self._heard_raw_ns, raw_ns
        self._gap_ns = gap_ns // max(edges, 1)
        if self._confirmed < CONFIRM:
            return self._confirm(raw_ns, gap_ns, edges)
        seconds = _whole_seconds(raw_ns - self._pulses[-1])
        if seconds is None:
            self._wrong += 1
            if self._wrong < WRONG_RUN and raw_ns - self._pulses[-1] < LOST_NS:
                return _NOT_A_SECOND
            # The line was dead, or its rate was changed: begin anew.
            self._confirmed = 0
            self._pulses.append(raw_ns)
            return _NOT_A_SECOND
        self._wrong = 0
        self.missing += seconds - 1
        self._pulses.append(raw_ns)
        return ""

    def _confirm(self, raw_ns: int, gap_ns: int, edges: int) -> str:
        """Count gaps of one second; of a line of 5 Hz every fifth edge follows by one as well."""
        first = not self._pulses
        self._pulses.append(raw_ns)
        seconds = None if first else _whole_seconds(gap_ns)
        if seconds == 1 and edges == 1:
            self._confirmed += 1
            self._wrong = 0
            return "" if self._confirmed >= CONFIRM else _UNCONFIRMED
        self._confirmed = 0
        if first or (seconds is not None and edges <= seconds):
            return _UNCONFIRMED  # pulses were lost
        self._wrong += 1
        return _NOT_A_SECOND


_NOT_A_SECOND = "not a second after the last pulse"
_UNCONFIRMED = "rhythm is not known yet"


def _whole_seconds(gap_ns: int) -> int | None:
    """Seconds of a gap of whole seconds, None for any other."""
    seconds = (gap_ns + NS_PER_S // 2) // NS_PER_S
    if seconds < 1 or abs(gap_ns - seconds * NS_PER_S) > PERIOD_TOLERANCE_NS * seconds:
        return None
    return seconds


class Pps:
    """A pulse device whose seconds another source labels.

    Args:
        pairing: Judges pulses; carries the source's name.
        open_device: Opens the device; raises DeviceError.
        clock: Raw clock.
        label: UTC of a raw instant, from the estimate or from the receiver's messages.
        real: Paired read of REALTIME.
    """

    kind = SourceKind.PPS

    def __init__(
        self,
        pairing: PulsePairing,
        open_device: Callable[[], PulseDevice],
        clock: RawClock,
        label: Labeller,
        real: Callable[[], PairedRead] = lambda: paired_read(Clock.REALTIME),
    ) -> None:
        self.name = pairing.name
        self.pairing = pairing
        self._open, self._clock, self._label, self._real = open_device, clock, label, real
        self._device: PulseDevice | None = None
        self._last: Pulse | None = None
        self._before = real()
        self._due_raw_ns = clock.raw_ns()
        self._heard_raw_ns = clock.raw_ns()
        self._health, self._error = Health.STARTING, ""
        self._seen = 0

    def poll(self, now_raw_ns: int) -> list[Measurement]:
        """Fetch the last pulse; a device that is gone is tried again every second."""
        if now_raw_ns < self._due_raw_ns:
            return []
        self._due_raw_ns = now_raw_ns + POLL_NS
        # A pulse that this fetch finds is younger than the last one, and so than its `before`.
        before, self._before = self._before, self._real()
        try:
            if self._device is None:
                self._device = self._open()
                self._health, self._error = Health.OK, ""
            pulse = self._device.fetch()
        except DeviceError as error:
            self._fail(now_raw_ns, error)
            return []
        if pulse is None or (self._last is not None and pulse.sequence == self._last.sequence):
            return []
        edges = 1 if self._last is None else pulse.sequence - self._last.sequence
        self._last = pulse
        self._heard_raw_ns = now_raw_ns
        self._seen += 1
        return self._pulse(pulse, before, edges)

    def _pulse(self, pulse: Pulse, before: PairedRead, edges: int) -> list[Measurement]:
        after = self._real()
        try:
            stamp = real_to_raw(pulse.real_ns, before, after)
        except ClockError:
            self.pairing.tally.add("the system clock was set, or the pulse is old")
            return []
        label = self._label(stamp.raw_ns)
        measured = self.pairing.take(stamp.raw_ns, after.raw_ns, label, edges)
        return [measured] if measured else []

    def _fail(self, now_raw_ns: int, error: DeviceError) -> None:
        denied = isinstance(error, PermissionDeniedError)
        self._health = Health.DENIED if denied else Health.MISSING
        self._error = str(error)
        self.close()
        self._due_raw_ns = now_raw_ns + NS_PER_S

    def due_raw_ns(self) -> int:
        """Next fetch."""
        return self._due_raw_ns

    def fileno(self) -> int:
        """-1: the device is polled."""
        return -1

    def health(self) -> SourceHealth:
        """Device, pulses, refusals."""
        health, message = self._health, self._error
        if health is Health.OK and self._clock.raw_ns() - self._heard_raw_ns > SILENT_NS:
            health, message = Health.SILENT, "no pulse for 4 s: the receiver has no fix, or cable"
        elif health is Health.OK and self.pairing.trouble:
            health, message = Health.DEGRADED, f"{self.name}: {self.pairing.trouble}"
        refused = dict(self.pairing.tally.counts)
        if self.pairing.missing:
            refused["missing pulse"] = self.pairing.missing
        return SourceHealth(health, message, self._seen, refused)

    def signals(self) -> GnssSignals | None:
        """None: a pulse tells nothing of the sky."""
        return None

    def set_poll(self, poll_log2: int) -> None:
        """A pulse keeps its own rhythm."""

    def leap(self) -> int | None:
        """None."""
        return None

    def close(self) -> None:
        """Close the device; the next poll opens it again."""
        if self._device is not None:
            self._device.close()
        self._device = None
