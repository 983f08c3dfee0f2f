"""The options of commands that name execution providers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from syncline.errors import UsageError


def plugins_of(given: Sequence[str]) -> tuple[tuple[str, Path], ...]:
    """`--plugin NAME=LIBRARY` as name and path.

    Raises:
        UsageError: It is no such pair.
    """
    pairs = [text.partition("=") for text in given]
    for text, (name, _, path) in zip(given, pairs, strict=True):
        if not (name and path):
            raise UsageError(
                f"--plugin {text!r} is no NAME=LIBRARY",
                remedy="Give the provider's name and its library; `syncline doctor` lists both",
            )
    return tuple((name, Path(path)) for name, _, path in pairs)


def options_of(given: Sequence[str]) -> dict[str, dict[str, str]]:
    """`--provider-option NAME.KEY=VALUE` as options by the provider's name.

    Raises:
        UsageError: It is no such option.
    """
    options: dict[str, dict[str, str]] = {}
    for text in given:
        place, equals, value = text.partition("=")
        name, _, key = place.partition(".")
        if not (name and key and equals):
            raise UsageError(
                f"--provider-option {text!r} is no NAME.KEY=VALUE",
                remedy="Write for example QNNExecutionProvider.htp_performance_mode=burst",
            )
        options.setdefault(name, {})[key] = value
    return options
