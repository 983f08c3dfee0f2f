"""A stratum-1 time server that is true on CLOCK_MONOTONIC_RAW, whatever CLOCK_REALTIME does."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

from tests.vm.inside.setter import S, raw_ns

UTC_MINUS_RAW_NS = 1_800_000_000 * S
"""What it says at RAW 0. It is not the machine's CLOCK_REALTIME."""
PORT = 123


class TimeServer:
    """The server in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-m", __name__], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def hold(self, still: bool) -> None:
        """Let requests wait, or answer them."""
        self._process.send_signal(signal.SIGSTOP if still else signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate(timeout=10)


def _serve() -> None:
    from syncline.sync.sources.ntp_packet import encode
    from tests.sync_os.ntp_fakes import honest

    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", PORT))
    print("ready", flush=True)
    while True:
        request, peer = sock.recvfrom(512)
        now = UTC_MINUS_RAW_NS + raw_ns()
        sock.sendto(encode(honest(request, now, UTC_MINUS_RAW_NS + raw_ns())), peer)


if __name__ == "__main__":
    _serve()
