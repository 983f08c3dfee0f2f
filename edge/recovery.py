"""What to do about an execution provider that dies in the middle of a drive. Pure.

A GPU that is lost, a driver that is reset, firmware of an NPU that crashes: from then on every run
fails. One bad frame is no such thing, and frames that all fail prove nothing while the model still
runs its golden frame; so a few failures in a row only raise the question.

The answer takes a load of the model, which is dear. Attempts stand apart by a delay that doubles,
and by twenty times what the last one took: waiting for a provider costs at most a twentieth of a
core. Only the step from one that was loaded anew and fails again to the next does not wait: there
are as many as providers, and frames are lost until it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from syncline.timebase import NS_PER_S

FAILED_RUNS = 3
"""Runs in a row that the runtime failed, of whatever camera, before the provider is questioned."""
FIRST_DELAY_NS = NS_PER_S
LONGEST_DELAY_NS = 300 * NS_PER_S
REST = 20
"""A load is followed by so many times its own duration without one."""
SETTLED_NS = 60 * NS_PER_S
"""A provider that served so long since it was loaded anew is sound again: delays start over."""


@dataclass
class Recovery:
    """One slot's provider: whether it lives, and when its model may be loaded anew.

    Not thread-safe: the runner's lock guards it.

    Attributes:
        home: Providers of the slot while nothing was wrong, in order; empty before the first loss.
        lost: Of those, the ones that failed and are passed over at present.
        error: What the runtime said when runs began to fail.
        cause: What it said of the first that is lost.
        dead: Why the slot gives nothing: its provider fails and no other could be loaded.
        busy: An attempt is under way.
    """

    home: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    error: str = ""
    cause: str = ""
    dead: str = ""
    busy: bool = False
    _failures: int = 0
    _delay_ns: int = 0
    _next_ns: int = 0
    _loaded_ns: int | None = None
    _was_replaced: bool = False

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was wrong lately, so that a run that worked says nothing new."""
        return not (self._failures or self._delay_ns)

    @property
    def is_failing(self) -> bool:
        """Whether enough runs failed in a row to ask what is wrong."""
        return self._failures >= FAILED_RUNS

    def worked(self, now_ns: int) -> bool:
        """A run came to its end; returns whether to try the providers that were lost again."""
        self._failures = 0
        self.dead = ""
        if not self.lost and now_ns >= self._next_ns + SETTLED_NS:
            self._delay_ns = 0
        return self.is_due(now_ns)

    def is_due(self, now_ns: int) -> bool:
        """Whether to try the providers that were lost again, whatever becomes of the frames.

        Where the one that stands in is too slow for the deadline, no run comes to its end.
        """
        return bool(self.lost) and self._may_begin(now_ns)

    def failed(self, now_ns: int, error: str, *, has_next: bool = False) -> bool:
        """The runtime failed a run; returns whether to find out what lives.

        Args:
            now_ns: Now.
            error: What it said.
            has_next: Whether another provider may take this one's place.
        """
        if not self._failures and not self.dead:
            self.error = error
        self._failures += 1
        steps_down = has_next and self._was_replaced and not self.busy
        return self.is_failing and (steps_down or self._may_begin(now_ns))

    def _may_begin(self, now_ns: int) -> bool:
        return not self.busy and now_ns >= self._next_ns

    def begin(self, error: str = "") -> None:
        """An attempt begins; until `end` no other does.

        Args:
            error: Why, where it is no failed run.
        """
        self.error = error or self.error
        self.busy = True
        self._was_replaced = False

    def end(self, begun_ns: int, now_ns: int) -> None:
        """The attempt is over, whatever came of it."""
        self.busy = False
        self._failures = 0
        self._delay_ns = min(max(2 * self._delay_ns, FIRST_DELAY_NS), LONGEST_DELAY_NS)
        self._next_ns = now_ns + max(self._delay_ns, REST * (now_ns - begun_ns))

    def replaced(self, before: Sequence[str], provider: str, now_ns: int) -> None:
        """The model was loaded anew.

        Args:
            before: Providers of the engine before, in order.
            provider: That runs it now.
            now_ns: Now.
        """
        if not self.lost:
            self.home, self.cause = tuple(before), self.error
        at = self.home.index(provider) if provider in self.home else 0
        self.lost = self.home[:at]
        self.dead = ""
        self._loaded_ns = now_ns
        self._was_replaced = True

    def served(self, requested: str, provider: str) -> None:
        """Another model took over: what was lost stays lost unless it runs on it."""
        if provider == requested or provider in self.lost:
            self.lost = ()
        self._failures = 0
        self.dead = ""

    def passed_over(
        self, providers: Sequence[str], now_ns: int, *, strict: bool
    ) -> list[tuple[str, ...]]:
        """What to pass over, attempt by attempt, when the provider that serves fails.

        First nothing more than now: a driver may be back. Then the providers of the engine from
        the front; never the CPU. One that fails soon after it was loaded anew has had its chance.

        Args:
            providers: Of the engine that fails, in order; the CPU is last.
            now_ns: Now.
            strict: No provider may take another's place.
        """
        if strict:
            return [()]
        steps = [self.lost + tuple(providers[:count]) for count in range(len(providers))]
        soon = self._loaded_ns is not None and now_ns - self._loaded_ns < SETTLED_NS
        return steps[1:] if soon and len(steps) > 1 else steps

    def to_come_back(self) -> list[tuple[str, ...]]:
        """What to pass over, attempt by attempt, to get a better provider back."""
        return [self.lost[:count] for count in range(len(self.lost))]

    def trouble(self, provider: str) -> str:
        """What is wrong with the provider; empty when nothing is.

        Args:
            provider: That serves.
        """
        if self.dead:
            return self.dead
        if self.lost:
            return (
                f"{self.lost[0]} failed in service, {provider} runs the model in its place "
                f"({self.cause})"
            )
        return ""
