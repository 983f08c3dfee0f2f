"""Section `[time]` of the configuration."""

from __future__ import annotations

from syncline.config import Section


class TimeSection(Section, frozen=True, kw_only=True):
    """Where UTC comes from and what may be done with it."""
