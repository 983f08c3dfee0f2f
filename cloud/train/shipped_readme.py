"""The page about everything that ships: one section per bundle, written by who trains it."""

from __future__ import annotations

import re
from pathlib import Path

_TITLE = "# Shipped bundles"


def put_section(page: Path, name: str, text: str) -> None:
    """Write the section of one bundle, in place of its old one; the others stay.

    Args:
        page: The page, made where absent.
        name: Of the bundle: the section's heading.
        text: Below the heading.
    """
    old = page.read_text(encoding="utf-8") if page.exists() else _TITLE
    title, *parts = re.split(r"(?m)^## (?=\S)", old)
    sections = {part.split("\n", 1)[0].strip(): part for part in parts}
    sections[name] = f"{name}\n\n{text.strip()}"
    blocks = [title.strip(), *(f"## {sections[key].strip()}" for key in sorted(sections))]
    page.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
