"""Drivers of time sources: each hands in measurements and its own health, and decides nothing."""
