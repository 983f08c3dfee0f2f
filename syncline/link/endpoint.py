"""The address of a collector: `tcp://host:port`, and nothing that only looks like one."""

from __future__ import annotations

import re

from syncline.errors import UsageError

MAX_PORT = 65_535
_TCP = re.compile(r"tcp://(?P<host>[^\s/:;\[\]]+|\[[0-9A-Fa-f:.%a-z]+\]):(?P<port>\d{1,9}|\*)")


def check_endpoint(text: str, *, listen: bool = False) -> str:
    """Return `text` when it can be connected to, or listened on.

    ZeroMQ takes a port modulo 65536 without a word.

    Args:
        text: Address.
        listen: Port 0 or `*` takes a free one.

    Raises:
        UsageError: It is no address of TCP, or its port is out of range.
    """
    remedy = "Give tcp://ADDRESS:PORT, such as tcp://127.0.0.1:5555"
    found = _TCP.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is no address", remedy=remedy)
    port = 0 if found["port"] == "*" else int(found["port"])
    least = 0 if listen else 1
    if not least <= port <= MAX_PORT or (found["port"] == "*" and not listen):
        raise UsageError(f"{text!r}: a port is {least} to {MAX_PORT}", remedy=remedy)
    return text
