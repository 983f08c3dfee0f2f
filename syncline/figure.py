"""Figures for people: matplotlib without a screen, saved as a picture or as a page."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import TYPE_CHECKING

from syncline.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure that needs no screen and is not kept by matplotlib.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise UsageError(
            "the picture needs matplotlib", remedy="Install: pip install 'syncline[cloud]'"
        ) from missing
    return Figure(figsize=(width_in, height_in), layout="constrained")


def save_figure(figure: Figure, path: Path, title: str) -> None:
    """Save as the ending of `path` says: .png, .svg, .pdf, or .html (one page with the drawing).

    Raises:
        UsageError: The file cannot be written, or its ending means nothing.
    """
    try:
        if path.suffix.lower() in (".html", ".htm"):
            path.write_text(_page(figure, title), encoding="utf-8")
        else:
            figure.savefig(path, dpi=DPI)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"picture {path}: {error}", remedy="Give a writable .png, .svg, .pdf or .html"
        ) from error


def _page(figure: Figure, title: str) -> str:
    """The figure as SVG inside a page: sharp at any zoom, no script, nothing fetched."""
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None})
    svg = drawing.getvalue()
    svg = svg[svg.index("<svg") :]
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>\n'
        "<style>body{margin:1rem;font-family:sans-serif}svg{width:100%;height:auto}</style>\n"
        f"</head><body>\n{svg}\n</body></html>\n"
    )
