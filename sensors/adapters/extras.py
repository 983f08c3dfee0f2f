"""Optional libraries, imported when first needed; their absence is a line with the remedy."""

from __future__ import annotations

import importlib
from types import ModuleType

from syncline.errors import UsageError


def need(module: str, what: str) -> ModuleType:
    """Import an optional library.

    Args:
        module: Its import name.
        what: What it is needed for, for the message.

    Raises:
        UsageError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{what} needs {module.partition('.')[0]}, which is not installed",
            remedy="Install it with: pip install 'syncline[sensors]'",
        ) from error
