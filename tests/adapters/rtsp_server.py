"""A small RTSP server (RFC 2326, RFC 3550, RFC 6184) for tests: H.264 over TCP or UDP.

It plays one clip round and round to each client, paced by the raw clock, with sender reports when
asked to, and fails on command.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np

RTP_HZ = 90_000
NTP_UNIX_S = 2_208_988_800
SIZE_PX = (96, 64)
GOP = 10
SSRC = 0x5C11E


def encode(count: int, fps: int, size_px: tuple[int, int] = SIZE_PX) -> list[list[bytes]]:
    """NAL units of each picture of a clip; six stripes hold its number, light for a 1."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height = size_px
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, fps)
    context.framerate = Fraction(fps)
    context.gop_size = GOP
    context.options = {"preset": "ultrafast", "tune": "zerolatency", "bf": "0"}
    pictures: list[list[bytes]] = []
    for number in range(count):
        bits = [220 if number >> bit & 1 else 30 for bit in range(6)]
        row = np.repeat(np.array(bits, np.uint8), size_px[0] // 6)
        picture = np.broadcast_to(row[None, :, None], (size_px[1], size_px[0], 3))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
        frame.pts = number
        for packet in context.encode(frame):
            pictures.append(_nal_units(bytes(packet)))
    assert len(pictures) == count, "zerolatency gives every picture at once"
    return pictures


def number_of(picture: np.ndarray) -> int:
    """Number of a picture of `encode` in its clip."""
    stripes = np.array_split(picture.mean(axis=(0, 2)), 6)
    return sum((float(stripe.mean()) > 125) << bit for bit, stripe in enumerate(stripes))


def _nal_units(annex_b: bytes) -> list[bytes]:
    parts = annex_b.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
    return [part for part in parts if part]


@dataclass
class Behaviour:
    """How the server treats its clients; tests change it while it runs.

    Attributes:
        fps: Pictures per second.
        reports: Send an RTCP sender report before every `GOP` pictures.
        utc_ahead_ns: UTC of the sender less CLOCK_MONOTONIC_RAW.
        lag_s: How long after its sampling a picture is sent.
        password: Basic authentication, `user:password`; empty: none.
        mute_after: Pictures after which it says nothing more, the line staying open; 0 = never.
        hang_up_after: Pictures after which it closes the connection; 0 = never.
        silent: Accepts connections and never answers.
        garbage: What it answers to everything.
        first_rtp: RTP time of the first picture.
        udp: Takes UDP, else only interleaved TCP.
        lose_every: Loses one of so many packets on the way, UDP only; 0 = none.
    """

    fps: int = 50
    reports: bool = True
    utc_ahead_ns: int = 1_800_000_000 * 10**9
    lag_s: float = 0.0
    password: str = ""
    mute_after: int = 0
    hang_up_after: int = 0
    silent: bool = False
    garbage: bytes = b""
    first_rtp: int = 4_294_900_000  # wraps within a second
    udp: bool = False
    lose_every: int = 0


@dataclass
class RtspServer:
    """Listens on 127.0.0.1 until `close`; a context manager.

    Attributes:
        behaviour: See `Behaviour`.
        port: 0 = a free one.
        sampled_ns: CLOCK_MONOTONIC_RAW of the sampling of every picture, by session.
    """

    behaviour: Behaviour = field(default_factory=Behaviour)
    port: int = 0
    sampled_ns: list[list[int]] = field(default_factory=list)
    clip: list[list[bytes]] = field(default_factory=lambda: encode(50, 50))

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._clients: list[socket.socket] = []
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp_ports: tuple[int, int] | None = None
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/live"

    def __enter__(self) -> RtspServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Die: every connection breaks, the port is closed."""
        self._stop.set()
        _shut(self._listener)
        self.drop_clients()
        for thread in self._threads:
            thread.join(5.0)
            assert not thread.is_alive()
        self._udp.close()

    def drop_clients(self) -> None:
        """Break the connections, keep the port."""
        for client in self._clients:
            _shut(client)
        self._clients.clear()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if self.behaviour.silent:
                while client.recv(4096):
                    pass
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            buffer = b""
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = client.recv(4096)
                    if not data:
                        return
                    buffer += data
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                if self.behaviour.garbage:
                    client.sendall(self.behaviour.garbage)
                    return
                method = head.split(b" ", 1)[0].decode()
                client.sendall(self._answer(method, head.decode("latin-1")))
                if method == "SETUP":
                    found = re.search(rb"client_port=(\d+)-(\d+)", head)
                    self._udp_ports = (int(found[1]), int(found[2])) if found else None
                if method == "PLAY" and self._allowed(head.decode("latin-1")):
                    self._play(client)
                    return
                if method == "TEARDOWN":
                    return

    def _allowed(self, head: str) -> bool:
        wanted = base64.b64encode(self.behaviour.password.encode()).decode()
        return not self.behaviour.password or f"Authorization: Basic {wanted}" in head

    def _answer(self, method: str, head: str) -> bytes:
        number = next(
            line.split(":", 1)[1].strip() for line in head.split("\r\n") if line[:5] == "CSeq:"
        )
        lines, body = [f"CSeq: {number}", "Session: 1;timeout=60"], ""
        status = "200 OK"
        if method == "OPTIONS":
            lines.append("Public: DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif not self._allowed(head):
            status = "401 Unauthorized"
            lines.append('WWW-Authenticate: Basic realm="cam"')
        elif method == "DESCRIBE":
            body = self._sdp()
            lines += ["Content-Type: application/sdp", f"Content-Base: {self.url}/"]
        elif method == "SETUP" and "interleaved" not in head:
            ports = re.search(r"client_port=[-0-9]+", head)
            lines.append(f"Transport: RTP/AVP;unicast;{ports[0] if ports else ''};server_port=9-9")
            status = "200 OK" if self.behaviour.udp else "461 Unsupported Transport"
        elif method == "SETUP":
            lines.append(f"Transport: RTP/AVP/TCP;unicast;interleaved=0-1;ssrc={SSRC:08X}")
        lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([f"RTSP/1.0 {status}", *lines, "", body]).encode()

    def _sdp(self) -> str:
        sets = [n for n in self.clip[0] if n[0] & 31 in (7, 8)]
        told = ",".join(base64.b64encode(n).decode() for n in sets)
        return "\r\n".join([
            "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=test", "c=IN IP4 0.0.0.0", "t=0 0",
            "m=video 0 RTP/AVP 96", f"a=rtpmap:96 H264/{RTP_HZ}",
            f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={told}", "a=control:track0", "",
        ])  # fmt: skip

    def _play(self, client: socket.socket) -> None:
        sampled: list[int] = []
        self.sampled_ns.append(sampled)
        start_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        sequence = number = 0
        while not self._stop.is_set():
            how = self.behaviour
            if how.hang_up_after and number >= how.hang_up_after:
                return
            at_ns = start_ns + number * 10**9 // how.fps
            due_ns = at_ns + round(how.lag_s * 1e9)
            now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
            self._stop.wait(max(due_ns - now_ns, 0) / 1e9)
            if how.mute_after and number >= how.mute_after:
                continue
            rtp = (how.first_rtp + number * RTP_HZ // how.fps) % 2**32
            if how.reports and number % GOP == 0:
                self._send(client, 1, _report(rtp, at_ns + how.utc_ahead_ns))
            sampled.append(at_ns)
            units = self.clip[number % len(self.clip)]
            for at, unit in enumerate(units):
                last = 0x80 if at == len(units) - 1 else 0
                rtp_head = struct.pack("!BBHII", 0x80, last | 96, sequence % 65536, rtp, SSRC)
                if not how.lose_every or sequence % how.lose_every:
                    self._send(client, 0, rtp_head + unit)
                sequence += 1
            number += 1

    def _send(self, client: socket.socket, channel: int, packet: bytes) -> None:
        if self._udp_ports is None:
            client.sendall(struct.pack("!BBH", 0x24, channel, len(packet)) + packet)
        else:
            client.getpeername()  # raises once the client is gone
            self._udp.sendto(packet, ("127.0.0.1", self._udp_ports[channel]))


def _report(rtp: int, utc_ns: int) -> bytes:
    seconds, rest = divmod(utc_ns, 10**9)
    ntp = (seconds + NTP_UNIX_S) % 2**32 << 32 | (rest << 32) // 10**9
    return struct.pack("!BBHIQIII", 0x80, 200, 6, SSRC, ntp, rtp, 0, 0)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
