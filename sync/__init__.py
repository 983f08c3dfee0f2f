"""Time: sources, selection, estimate, jumps, scenes, publication. See docs/time.md."""
