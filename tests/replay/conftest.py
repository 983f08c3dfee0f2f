"""A short clip for the replay tests."""

from __future__ import annotations

from tests.system.conftest import clip

__all__ = ["clip"]
