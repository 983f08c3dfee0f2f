"""ZeroMQ sockets with the settings of docs/wire.md, and what their monitors tell."""

from __future__ import annotations

import zmq
from zmq.utils.monitor import recv_monitor_message

from syncline.link.keys import KeyPair
from syncline.link.wire import MAX_MESSAGE_BYTES

ZAP_DOMAIN = b"syncline"
RECONNECT_MS, RECONNECT_MAX_MS = 200, 4000
KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_COUNT = 30, 10, 3
HANDSHAKE_MS = 3000
CONNECT_MS = 2000
RCVHWM = 8


def _common(socket: zmq.Socket[bytes], keys: KeyPair) -> None:
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.CURVE_PUBLICKEY, keys.public.encode())
    socket.set(zmq.CURVE_SECRETKEY, keys.secret.encode())
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.set(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S)
    socket.set(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_EVERY_S)
    socket.set(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT)


def dealer(
    context: zmq.Context[zmq.Socket[bytes]], server_key: str, keys: KeyPair
) -> zmq.Socket[bytes]:
    """The device's socket, not connected. What it may hold is bounded by the session's window."""
    socket = context.socket(zmq.DEALER)
    _common(socket, keys)
    socket.set(zmq.CURVE_SERVERKEY, server_key.encode())
    socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    socket.set(zmq.CONNECT_TIMEOUT, CONNECT_MS)
    socket.set(zmq.SNDHWM, 0)
    return socket


def router(context: zmq.Context[zmq.Socket[bytes]], keys: KeyPair) -> zmq.Socket[bytes]:
    """The collector's socket, not bound; nobody gets in without the ZAP handler.

    There are no ZeroMQ heartbeats at either end. In libzmq 4.3.5 a peer that disconnects while this
    end has stopped reading (receive limit reached) leaves an engine that aborts the process when it
    sends or answers a PING (`Assertion failed: !_io_error`). The acknowledgement timeout finds a
    dead link instead, and TCP keepalive clears idle ones.
    """
    socket = context.socket(zmq.ROUTER)
    _common(socket, keys)
    socket.set(zmq.CURVE_SERVER, 1)
    socket.set(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.set(zmq.ROUTER_HANDOVER, 1)
    socket.set(zmq.RCVHWM, RCVHWM)
    socket.set(zmq.SNDHWM, 256)
    socket.set(zmq.BACKLOG, 1024)
    return socket


_UP = zmq.EVENT_HANDSHAKE_SUCCEEDED
_DOWN = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class Monitor:
    """Whether a connecting socket has an authenticated connection."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket: zmq.Socket[bytes] = socket.get_monitor_socket(_UP | _DOWN | _FAILED)
        self.connected = False
        self.problem = ""

    def read(self) -> bool:
        """Take the events that wait; returns whether the connection is up."""
        while self.socket.poll(0):
            event = recv_monitor_message(self.socket)
            kind = event["event"]
            if kind == _UP:
                self.connected, self.problem = True, ""
            elif kind & _DOWN:
                self.connected = False
            elif kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self.problem = "refused: the collector does not know this device's key"
            else:
                self.problem = "handshake failed: wrong server key, or not a collector"
        return self.connected

    def close(self, socket: zmq.Socket[bytes]) -> None:
        """Stop watching."""
        socket.disable_monitor()
        self.socket.close(linger=0)
