"""Names to addresses without blocking: getaddrinfo in a thread of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

MAX_ADDRESSES = 16

Resolve = Callable[[str, int], list[str]]


def system_resolve(host: str, port: int) -> list[str]:
    """Numeric addresses of a name in the resolver's order.

    Raises:
        OSError: The name does not resolve.
    """
    found: list[str] = []
    for _, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
        text = str(address[0])
        if text not in found:
            found.append(text)
    return found[:MAX_ADDRESSES]


class Lookup:
    """One running or finished look-up.

    Args:
        host: Name or numeric address.
        port: Port, which some resolvers use.
        resolve: What does the work; may block.
    """

    def __init__(self, host: str, port: int, resolve: Resolve = system_resolve) -> None:
        self._host, self._port, self._resolve = host, port, resolve
        self.addresses: list[str] = []
        self.error = ""
        self._thread = threading.Thread(target=self._run, name=f"resolve {host}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.addresses = self._resolve(self._host, self._port)
        except (OSError, UnicodeError) as error:
            self.error = f"{self._host} does not resolve: {error}"

    @property
    def done(self) -> bool:
        """True when `addresses` or `error` is final."""
        return not self._thread.is_alive()
