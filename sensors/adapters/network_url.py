"""Addresses of network cameras: which are taken, and how they are shown."""

from __future__ import annotations

from urllib.parse import urlsplit

from syncline.errors import UsageError

SCHEMES = frozenset({"rtsp", "rtsps", "rtp", "udp", "tcp", "srt", "http", "https"})
"""What is opened; FFmpeg's `file:`, `concat:` and the like are not for a camera's address."""


def without_secret(url: str) -> str:
    """The address without user, password and query, for logs and messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def check_url(url: str) -> None:
    """Refuse what is no address of a stream.

    Raises:
        UsageError: No host, a port that is none, or a scheme that is not in `SCHEMES`.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageError(
            f"stream address cannot be read: {error}", remedy="Write rtsp://HOST:PORT/PATH"
        ) from error
    if parts.scheme not in SCHEMES:
        raise UsageError(
            f"stream address begins with {url.partition(':')[0][:20]!r}",
            remedy=f"Give one of {', '.join(sorted(SCHEMES))}",
        )
    if not parts.netloc:
        raise UsageError(
            f"stream address {url[:80]!r} names no host", remedy="Write rtsp://HOST:PORT/PATH"
        )
