"""chrony beside us: its tracking as a source, and our time as its reference clock.

Not both at once: chrony would then listen to itself.
"""

from __future__ import annotations

import math
import socket
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from syncline.errors import MessageError
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.sources.source import GnssSignals, Health, SourceHealth, Tally
from syncline.timebase import NS_PER_S, Clock, PairedRead, RawClock, paired_read

SOCK_SAMPLE = struct.Struct("@qqdiiii")
"""struct sock_sample of chrony's refclock_sock.c: timeval, offset, pulse, leap, padding, magic."""
SOCK_MAGIC = 0x534F434B
INTERVAL_NS = 16 * NS_PER_S
TIMEOUT_NS = 2 * NS_PER_S
MAX_OUTPUT = 4096


@dataclass(frozen=True, slots=True)
class Tracking:
    """What `chronyc -c tracking` says.

    Attributes:
        reference: Reference id in hexadecimal.
        stratum: 1..15; 0 when not synchronised.
        system_slow_ns: chrony's estimate of UTC minus the system clock ("slow" is positive).
        bound_ns: Root delay / 2 + root dispersion.
        skew_ppm: Error of the frequency.
        leap: "Normal", "Insert second", "Delete second", "Not synchronised".
    """

    reference: str
    stratum: int
    system_slow_ns: int
    bound_ns: int
    skew_ppm: float
    leap: str


def parse_tracking(text: str) -> Tracking:
    """One line of `chronyc -c tracking`.

    Raises:
        MessageError: Not that line.
    """
    fields = text.strip().split(",")
    if len(fields) != 14:
        raise MessageError(f"chronyc tracking has {len(fields)} fields, 14 are expected")
    try:
        numbers = [float(fields[i]) for i in (4, 9, 10, 11)]
        stratum = int(fields[2])
    except ValueError as error:
        raise MessageError(f"chronyc tracking: {error}") from error
    if not all(math.isfinite(x) and abs(x) < 2**32 for x in numbers):
        raise MessageError("chronyc tracking: a number is out of range")
    slow_s, skew_ppm, delay_s, dispersion_s = numbers
    bound_ns = round((delay_s / 2 + dispersion_s) * 1e9)
    return Tracking(fields[0], stratum, round(slow_s * 1e9), bound_ns, skew_ppm, fields[13])


class ChronyTracking:
    """chrony's own estimate as a source, read through `chronyc`, which runs beside us.

    Args:
        clock: Raw clock.
        command: The call; tests and unusual command ports change it.
        real: Paired read of REALTIME.
    """

    kind = SourceKind.CHRONY

    def __init__(
        self,
        clock: RawClock,
        command: tuple[str, ...] = ("chronyc", "-c", "-n", "tracking"),
        name: str = "chrony",
        real: Callable[[], PairedRead] = lambda: paired_read(Clock.REALTIME),
    ) -> None:
        self.name = name
        self.tally = Tally()
        self._clock, self._command, self._real = clock, command, real
        self._process: subprocess.Popen[bytes] | None = None
        self._due_raw_ns = clock.raw_ns()
        self._asked_raw_ns = 0
        self._health, self._error = Health.STARTING, ""
        self._polls = 0
        self._leap: int | None = None

    def poll(self, now_raw_ns: int) -> list[Measurement]:
        """Start a call when due; take its answer when it has ended."""
        if self._process is None:
            if now_raw_ns >= self._due_raw_ns:
                self._ask(now_raw_ns)
            return []
        if self._process.poll() is None:
            if now_raw_ns - self._asked_raw_ns > TIMEOUT_NS:
                self._fail("chronyc does not answer")
            return []
        output = self._end()
        try:
            tracking = parse_tracking(output)
        except MessageError:
            self._fail(f"chronyd does not answer: {output.strip()[:80] or 'is it running?'}")
            return []
        return self._measure(tracking)

    def _ask(self, now_raw_ns: int) -> None:
        self._due_raw_ns = now_raw_ns + INTERVAL_NS
        self._asked_raw_ns = now_raw_ns
        self._polls += 1
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except OSError as error:
            self._fail(f"cannot run {self._command[0]}: {error.strerror}")

    def _end(self) -> str:
        process, self._process = self._process, None
        if process is None or process.stdout is None:
            return ""
        with process.stdout as stream:
            return stream.read(MAX_OUTPUT).decode("ascii", "replace")

    def _fail(self, why: str) -> None:
        self.close()
        self._health = Health.MISSING
        self._error = f"{why}; start chronyd or set [time.chrony] tracking = false"

    def _measure(self, tracking: Tracking) -> list[Measurement]:
        if tracking.stratum == 0 or tracking.leap == "Not synchronised":
            self._health, self._error = Health.DEGRADED, "chronyd is not synchronised"
            self.tally.add("not synchronised")
            return []
        self._leap = {"Insert second": 1, "Delete second": -1}.get(tracking.leap, 0)
        self._health, self._error = Health.OK, ""
        pair = self._real()
        return [
            Measurement(
                self.name,
                SourceKind.CHRONY,
                pair.raw_ns,
                pair.other_ns + tracking.system_slow_ns,
                uncertainty_ns=max(tracking.bound_ns // 4, 1000),
                root_bound_ns=tracking.bound_ns + pair.bracket_ns,
                arrival_raw_ns=pair.raw_ns,
                stratum=tracking.stratum,
            )
        ]

    def due_raw_ns(self) -> int:
        """When to ask, or to look for the answer."""
        if self._process is not None:
            return self._clock.raw_ns() + NS_PER_S // 50
        return self._due_raw_ns

    def fileno(self) -> int:
        """-1: the answer is looked for."""
        return -1

    def health(self) -> SourceHealth:
        """Whether chronyd answers."""
        return SourceHealth(self._health, self._error, self._polls, dict(self.tally.counts), 0, 4)

    def signals(self) -> GnssSignals | None:
        """None: no sky."""
        return None

    def set_poll(self, poll_log2: int) -> None:
        """Every 16 s is enough: chrony's estimate moves slowly."""

    def leap(self) -> int | None:
        """What chrony announces."""
        return self._leap

    def close(self) -> None:
        """End a call that still runs."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class ChronySocket:
    """Feeds chronyd's SOCK reference clock with our time.

    Args:
        path: The socket that chronyd made (`refclock SOCK path`).
    """

    def __init__(self, path: Path) -> None:
        self.sent = 0
        self.error = ""
        self._path = path
        self._socket: socket.socket | None = None

    def send(self, real_ns: int, utc_ns: int, leap: int = 0) -> bool:
        """Give one sample; False, with `error` set, when chronyd is not there.

        Args:
            real_ns: CLOCK_REALTIME.
            utc_ns: Our UTC of the same instant.
            leap: 0 none, 1 insert, 2 delete.
        """
        seconds, ns = divmod(real_ns, NS_PER_S)
        offset_s = (utc_ns - real_ns) / NS_PER_S
        sample = SOCK_SAMPLE.pack(seconds, ns // 1000, offset_s, 0, leap, 0, SOCK_MAGIC)
        try:
            if self._socket is None:
                kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_UNIX, kind)
                self._socket.connect(str(self._path))
            self._socket.send(sample)
        except OSError as error:
            self.close()
            self.error = f"chrony socket {self._path}: {error.strerror}; is chronyd running?"
            return False
        self.error = ""
        self.sent += 1
        return True

    def close(self) -> None:
        """Close the socket; the next sample opens it again."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
