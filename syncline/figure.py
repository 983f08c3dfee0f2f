"""Figures for people: matplotlib without a screen, saved as a picture or as a page."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import TYPE_CHECKING

from syncline.errors import UsageError
from syncline.output import check_folder, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110
ENDINGS = (".png", ".svg", ".pdf", ".jpg", ".html")


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


def check_picture(path: Path) -> None:
    """Refuse a picture that could not be saved, before the work and not after it.

    Raises:
        UsageError: The ending means nothing.
        StorageError: Its folder is not there, or not ours to write.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(
            f"the ending of picture {path} means nothing", remedy=f"Call it {', '.join(ENDINGS)}"
        )
    check_folder(path)


def save_figure(figure: Figure, path: Path, title: str) -> None:
    """Save as the ending of `path` says; .html is one page with the drawing.

    It is drawn in memory first, so that a disk that takes no more keeps no half of it.

    Raises:
        UsageError: The ending means nothing.
        StorageError: The file cannot be written; what was there stays.
    """
    check_picture(path)
    drawn = io.BytesIO()
    if path.suffix.lower() == ".html":
        drawn.write(_page(figure, title).encode())
    else:
        figure.savefig(drawn, format=path.suffix.lower()[1:], dpi=DPI)
    write_whole(path, drawn.getvalue())


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
