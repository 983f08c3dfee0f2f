"""Tells a clock that steps or is slewed, and a path that grows slower, from bad luck.

One block out of line is bad luck and is left out. Two in a row on the same side are an event:
far late means that the host clock was set forward; growing means that it is being slewed; the same
amount twice means that the path's least delay changed, for no oscillator moves like that. Such a
delay is held apart, so that the mapping does not follow it, and is never taken below zero. On a
host clock that may be slewed nothing is held: whatever moves is followed.
"""

from __future__ import annotations

import enum
import math
from dataclasses import replace

from syncline.sensors.bank import BlockNoise, Estimate, OffsetBank
from syncline.sensors.blocks import Block

LATE_SIGMAS = 4.5
EARLY_SIGMAS = 3.0
"""A least delay cannot be early by luck: the gate is closer on that side."""
SLEWED_LATE_SIGMAS = 3.5
SLEWED_EARLY_SIGMAS = 2.5
"""Closer on both sides where the host clock may be slewed: a false alarm costs less there."""
SLEWED_FLOOR_NS = 125_000.0
"""Half of what a full slew adds from block to block: two unlucky blocks do not reach it."""
RETURN_SIGMAS = 2.5
"""Closer still while a held delay waits to be given back."""
FOLLOW_SIGMAS = 3.0
"""One block this far on the same side, soon after a held delay: the clock moves, not the path."""
ALARM_FLOOR_NS = 60_000.0
FORWARD_NS = 2_500_000.0
FORWARD_SIGMAS = 8.0
SLEW_NS_S = 500_000.0
"""Largest slew that adjtime makes (500 ppm)."""
RECENT_S = 3.0
STALL_SHARE = 0.6
"""Late blocks that arrived within less than this share of their own length are a stall's queue."""


class Verdict(enum.Enum):
    """What a block turned out to be."""

    NORMAL = "normal"
    PENDING = "pending"
    FORWARD = "forward"
    SLEW = "slew"
    PATH = "path"


class BlockGuard:
    """Judges blocks and feeds the filter bank with those that are in line.

    Args:
        bank: The filters.
        steady_host: The host clock is never set nor slewed (MONOTONIC_RAW), so that a small step
            can only be the path's. Otherwise the mapping follows it.

    Attributes:
        delay_ns: Least delay beyond the declared one that was seen to come on, held apart.
    """

    def __init__(self, bank: OffsetBank, *, steady_host: bool = True) -> None:
        self.bank = bank
        self.steady_host = steady_host
        self.noise = BlockNoise()
        self.delay_ns = 0.0
        self.since: Block | None = None
        self._pending: list[tuple[float, float, float, Block]] = []
        self._held_ns = 0.0
        self._normal = (0.0, 0.0)
        self._event_s = -math.inf

    def restart(self, t_s: float, offset_ns: float, sigma_ns: float) -> Estimate:
        """Begin anew at an offset, keeping the skew: the host clock stepped back."""
        self.noise.restart()
        self._pending.clear()
        self.delay_ns = 0.0
        self.bank.doubt_ns2 = 0.0
        self.bank.restart(t_s, offset_ns, sigma_ns)
        return self.bank.estimate()

    def first(self, block: Block, t_s: float, y_ns: float) -> Estimate:
        """Take the first block after a start: there is nothing yet to judge it by."""
        corrected, r_ns2 = self.noise.take(t_s, y_ns, block)
        return self.bank.step(t_s, corrected, r_ns2)

    def take(
        self, block: Block, t_s: float, y_ns: float, est: Estimate
    ) -> tuple[Estimate, Verdict]:
        """Judge a block whose minimum is `y_ns` (before the held delay) against the estimate."""
        corrected, r_ns2 = self.noise.take(t_s, y_ns, block)
        y_ns = corrected - self.delay_ns
        late_ns = y_ns - est.at(t_s)
        sigma_ns = math.sqrt(est.variance_at(t_s) + r_ns2)
        if not self._is_alarm(late_ns, sigma_ns):
            self._pending.clear()
            self._normal = (t_s, late_ns)
            return self._doubt(self.bank.step(t_s, y_ns, r_ns2)), Verdict.NORMAL
        if self._pending and (self._pending[-1][2] > 0.0) != (late_ns > 0.0):
            self._pending.clear()
        self._pending.append((t_s, y_ns, late_ns, block))
        if self._follows(late_ns, sigma_ns):
            return self._slew(), Verdict.SLEW
        if len(self._pending) == 1:
            return est, Verdict.PENDING
        return self._decide(est, sigma_ns)

    def _is_alarm(self, late_ns: float, sigma_ns: float) -> bool:
        if not self.steady_host:
            gate = SLEWED_LATE_SIGMAS if late_ns > 0.0 else SLEWED_EARLY_SIGMAS
        elif late_ns > 0.0:
            gate = LATE_SIGMAS if self._held_ns <= 0.0 else FOLLOW_SIGMAS
        else:
            gate = RETURN_SIGMAS if self.delay_ns > 0.0 else EARLY_SIGMAS
        floor_ns = ALARM_FLOOR_NS if self.steady_host else SLEWED_FLOOR_NS
        return abs(late_ns) > max(gate * sigma_ns, floor_ns)

    def _follows(self, late_ns: float, sigma_ns: float) -> bool:
        """One more block on the side of a delay that was only just held."""
        recent = self._pending[-1][0] - self._event_s < RECENT_S
        same = self._held_ns * late_ns > 0.0
        return recent and same and abs(late_ns) > FOLLOW_SIGMAS * sigma_ns

    def _decide(self, est: Estimate, sigma_ns: float) -> tuple[Estimate, Verdict]:
        (t1, _, late1, block1), (t2, _, late2, block2) = self._pending
        if late2 > 0.0 and (_is_queue(block1, block2) or late1 < FORWARD_NS < late2):
            del self._pending[0]
            return est, Verdict.PENDING
        self.since = block1
        if min(late1, late2) > max(FORWARD_NS, FORWARD_SIGMAS * sigma_ns):
            verdict = Verdict.FORWARD
            self._held_ns = 0.0
            self._shift(0.5 * (late1 + late2))
        elif self._returns(late2, sigma_ns):
            verdict = Verdict.PATH
            self._hold(-self.delay_ns)
        elif (
            not self.steady_host
            or self._is_growing(t1, late1, t2, late2)
            or t2 - self._event_s < RECENT_S
        ):
            return self._slew(), Verdict.SLEW
        else:
            verdict = Verdict.PATH
            self._hold(0.5 * (late1 + late2))
        return self._apply(), verdict

    def _doubt(self, est: Estimate) -> Estimate:
        """Add what may be wrong with the verdict itself.

        While a delay is held apart, how well its size is known is part of the offset.
        """
        doubt = self.bank.doubt_ns2
        return replace(est, p00=est.p00 + doubt) if doubt else est

    def _slew(self) -> Estimate:
        if self._pending[-1][0] - self._event_s < RECENT_S:
            self._unhold()
        last_s, _, late_ns, _ = self._pending[-1]
        since_s = max(last_s - self._normal[0], 1e-3)
        self.bank.loosen(min(abs(late_ns) / since_s, SLEW_NS_S))
        may_be_step_ns = 0.5 * late_ns
        self._apply()
        self._held_ns = 0.0
        return self._doubt(self.bank.doubt_offset(may_be_step_ns * may_be_step_ns))

    def _returns(self, late_ns: float, sigma_ns: float) -> bool:
        """The held delay has gone: a block is early by just that much."""
        return self.delay_ns > 0.0 and abs(late_ns + self.delay_ns) < EARLY_SIGMAS * sigma_ns

    def _is_growing(self, t1: float, late1: float, t2: float, late2: float) -> bool:
        """A ramp grows from block to block, and came from where the last normal block was."""
        sign = math.copysign(1.0, late2)
        grown = sign * (late2 - late1)
        noise = math.sqrt(2.0 * self.noise.r_ns2)
        if grown <= max(0.2 * abs(late2), 1.5 * noise):
            return False
        t0, late0 = self._normal
        before = grown / max(t2 - t1, 1e-3) * min(t1 - t0, 1.0)
        return sign * (late1 - late0) <= before + noise

    def _shift(self, by_ns: float) -> None:
        self.noise.restart()
        self.bank.shift(by_ns, self.noise.r_ns2)

    def _hold(self, late_ns: float) -> None:
        after = self.delay_ns + late_ns
        if not self.steady_host:
            held = 0.0
        elif after < 3.0 * math.sqrt(self.noise.r_ns2):
            held = -self.delay_ns
            late_ns = held if after > -3.0 * math.sqrt(self.noise.r_ns2) else late_ns
        else:
            held = late_ns
        self.delay_ns += held
        self._held_ns = held
        if held:
            self.bank.doubt_ns2 = (
                self.bank.doubt_ns2 + self.noise.r_ns2 if self.delay_ns > 0.0 else 0.0
            )
        if held != late_ns:
            self.bank.shift(late_ns - held, self.noise.r_ns2)
        self._move_pending(-held)

    def _unhold(self) -> None:
        self.delay_ns = max(self.delay_ns - self._held_ns, 0.0)
        if self.delay_ns == 0.0:
            self.bank.doubt_ns2 = 0.0
        self._move_pending(self._held_ns)
        if self._held_ns:
            self.bank.shift(self._held_ns, self.noise.r_ns2)
        self._held_ns = 0.0

    def _move_pending(self, by_ns: float) -> None:
        self._pending = [(t, y + by_ns, late, block) for t, y, late, block in self._pending]

    def _apply(self) -> Estimate:
        self._event_s = self._pending[-1][0]
        for t_s, y_ns, _, _ in self._pending:
            est = self.bank.step(t_s, y_ns, self.noise.r_ns2)
        self._pending.clear()
        self.noise.restart()
        return self._doubt(est)


def _is_queue(first: Block, last: Block) -> bool:
    took = last.last_host_ns - first.first_host_ns
    return took < STALL_SHARE * (last.last_x_ns - first.first_x_ns)
