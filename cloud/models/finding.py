"""One thing that a model's doctor found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        code: Stable name for scripts.
        severity: `error` keeps a model off devices, `warning` costs speed or accuracy, `info` is
            worth knowing.
        message: What, naming the value and the limit.
        remedy: What to do; may be empty.
    """

    code: str
    severity: Severity
    message: str
    remedy: str = ""


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings."""
    order = ("error", "warning", "info")
    return tuple(sorted(findings, key=lambda f: order.index(f.severity)))
