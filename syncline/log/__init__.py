"""Recorded logs: MCAP files in a ring of segments. See docs/log-format.md."""
