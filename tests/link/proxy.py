"""A TCP proxy that can go dead, drop connections, and keep what it carried."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading


class Proxy:
    """Forwards 127.0.0.1:port to a target; one thread.

    Attributes:
        blackhole: While True nothing is read or forwarded: the link is dead, not closed.
        captured: Bytes of the first connection from the client's side, when `capture`.
    """

    def __init__(self, target: str, *, capture: bool = False) -> None:
        self.aim(target)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.blackhole = False
        self.capture = capture
        self.captured = bytearray()
        self.connections = 0
        self.up_bytes = 0
        self.cut_after: int | None = None
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._clients: list[socket.socket] = []
        self._stop = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def aim(self, target: str) -> None:
        """Where the next connections go."""
        host, port = target.removeprefix("tcp://").rsplit(":", 1)
        self._target = (host, int(port))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for sock in list(self._pairs):
            sock.close()
        self._listener.close()
        self._selector.close()

    def drop_all(self) -> None:
        """Every connection is reset, at the next turn of the thread."""
        self.cut_after = 0

    def _run(self) -> None:
        while not self._stop.is_set():
            if self.blackhole:
                self._stop.wait(0.02)
                continue
            for key, _ in self._selector.select(0.02):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is self._listener:
                    self._accept()
                elif sock in self._pairs:
                    self._forward(sock)
            if self.cut_after is not None and self.up_bytes >= self.cut_after:
                self.cut_after = None
                for client in list(self._clients):
                    self._drop(client)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._target, timeout=1)
        except OSError:
            client.close()
            return
        self.connections += 1
        self._pairs[client], self._pairs[server] = server, client
        self._clients.append(client)
        for sock in (client, server):
            sock.setblocking(True)
            sock.settimeout(2)
            self._selector.register(sock, selectors.EVENT_READ)

    def _forward(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(65536)
            if data:
                if sock in self._clients:
                    self.up_bytes += len(data)
                    if self.capture and sock is self._clients[0]:
                        self.captured += data
                self._pairs[sock].sendall(data)
                return
        except OSError:
            pass
        self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        other = self._pairs.pop(sock, None)
        if other is None:
            return
        self._pairs.pop(other, None)
        for one in (sock, other):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(one)
            if one in self._clients and not self.capture:
                self._clients.remove(one)
            one.close()
