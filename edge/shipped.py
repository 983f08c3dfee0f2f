"""Model bundles that come with syncline."""

from __future__ import annotations

from pathlib import Path

from syncline.errors import UsageError

_FOLDER = Path(__file__).parent / "bundles"


def shipped_bundles() -> list[str]:
    """Names of the bundles that come with syncline."""
    if not _FOLDER.is_dir():
        return []
    return sorted(p.name for p in _FOLDER.iterdir() if (p / "manifest.toml").is_file())


def resolve_bundle(name: str) -> Path:
    """Folder of a bundle, given as a path or as the name of a shipped one.

    Raises:
        UsageError: There is neither.
    """
    path = Path(name)
    if (path / "manifest.toml").is_file():
        return path
    if name in shipped_bundles():
        return _FOLDER / name
    raise UsageError(
        f"{name} is no model bundle (shipped: {', '.join(shipped_bundles()) or 'none'})",
        remedy="Give a folder with manifest.toml, or make one with: syncline model import",
    )


def is_shipped(folder: Path) -> bool:
    """Whether a bundle came with the program, and is trusted as much."""
    return folder.parent == _FOLDER
