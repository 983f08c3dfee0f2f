"""A text endpoint for Prometheus: one page, on the address that the configuration gives."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from syncline.edge.metrics import metrics_text
from syncline.errors import ConfigError
from syncline.messages import syncline_pb2 as pb

MAX_PORT = 65_535
_log = logging.getLogger(__name__)


class _Server(ThreadingHTTPServer):
    """Says in the log, within its limits, what goes wrong with a request."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asked may hang up at any time: that is no error of ours."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            _log.error("a request of %s failed", client_address, exc_info=error)


def host_and_port(address: str) -> tuple[str, int]:
    """Where `health.prometheus` says to listen; without a host on this machine alone.

    Raises:
        ConfigError: It is no address.
    """
    host, _, port = address.rpartition(":")
    if not port.isascii() or not port.isdecimal() or int(port) > MAX_PORT:
        raise _cannot_listen(address, "no host:port")
    return host or "127.0.0.1", int(port)


def _cannot_listen(address: str, why: object) -> ConfigError:
    return ConfigError(
        f"cannot listen on {address!r} for Prometheus: {why}",
        remedy="Give health.prometheus a free host:port such as 127.0.0.1:9464",
    )


class MetricsServer:
    """Serves `/metrics` and `/healthz`.

    Args:
        address: `host:port`.
        health: Tells how the daemon is, on any thread; `/healthz` answers 200 while that is `ok`,
            else 503, with state and reason.

    Raises:
        ConfigError: The address cannot be bound.
    """

    def __init__(self, address: str, health: Callable[[], pb.Health]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, metrics_text(health()))
                elif path == "/healthz":
                    now = health()
                    lines = filter(None, [now.state, now.detail])
                    self._answer(200 if now.state == "ok" else 503, "\n".join(lines) + "\n")
                else:
                    self._answer(404, "there are /metrics and /healthz\n")

            def _answer(self, status: int, body: str) -> None:
                data = body.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Requests are not logged."""

        try:
            self._server = _Server(host_and_port(address), Handler)
        except OSError as error:
            raise _cannot_listen(address, error.strerror or error) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics")
        self._thread.daemon = True

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5.0)
