"""A text endpoint for Prometheus: one page, on the address that the configuration gives."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from syncline.edge.metrics import metrics_text
from syncline.errors import ConfigError
from syncline.messages import syncline_pb2 as pb


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
        host, _, port = address.rpartition(":")

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, metrics_text(health()))
                elif self.path == "/healthz":
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
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Requests are not logged."""

        try:
            self._server = ThreadingHTTPServer((host or "127.0.0.1", int(port)), Handler)
        except (OSError, ValueError, OverflowError) as error:
            raise ConfigError(
                f"health.prometheus: cannot listen on {address!r}: {error}",
                remedy="Give a free host:port such as 127.0.0.1:9464",
            ) from error
        self._server.daemon_threads = True
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
