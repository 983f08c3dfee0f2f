"""A live view of what is recorded, for Foxglove on the same machine."""

from __future__ import annotations

import foxglove
from foxglove.websocket import WebSocketServer

from syncline.errors import DeviceError
from syncline.log.recorder import Recorder

DEFAULT_PORT = 8765
_BACKLOG = 64
"""Messages held for a viewer that does not read; the SDK's 1024 pictures would be 100 MB."""


def serve_live(recorder: Recorder, *, name: str, port: int = DEFAULT_PORT) -> WebSocketServer:
    """Offer everything that is recorded on ws://127.0.0.1:port; call `stop()` on the result.

    A viewer that does not read costs a bounded queue and never slows the recorder. The server
    listens on the loopback address alone: it has no login. Use an SSH tunnel to look from afar.

    Args:
        recorder: Whose messages.
        name: Shown in the viewer.
        port: 0 takes a free one, see `port` of the result.

    Raises:
        DeviceError: The port is taken.
    """
    try:
        return foxglove.start_server(
            name=name,
            host="127.0.0.1",
            port=port,
            context=recorder.context,
            message_backlog_size=_BACKLOG,
        )
    except (RuntimeError, OSError) as error:
        raise DeviceError(
            f"cannot listen on 127.0.0.1:{port}: {error}", remedy="Choose another port"
        ) from None
