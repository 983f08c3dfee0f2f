"""Word to the service manager over NOTIFY_SOCKET, by hand: sd_notify(3) is one datagram."""

from __future__ import annotations

import logging
import os
import socket

_LOG = logging.getLogger(__name__)


def notify(text: str) -> bool:
    """Send a state such as `READY=1`, `STOPPING=1`, `WATCHDOG=1` or `STATUS=...`.

    Returns:
        True when it was sent; False when no service manager listens.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or address[0] not in "/@":
        return False
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(text.encode(), address)
    except OSError as error:
        _LOG.warning("service manager not told: %s", error)
        return False
    return True


def watchdog_interval_s() -> float | None:
    """Half of WATCHDOG_USEC: how often to send `WATCHDOG=1`; None when nobody waits for it."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    return int(usec) / 2e6 if usec.isdigit() and int(usec) > 0 else None
