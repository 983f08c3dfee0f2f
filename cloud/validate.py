"""Does a payload decode as its topic's message, and do the columns in it have one length?

What does not is quarantined, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import foxglove.messages
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from syncline.errors import MessageError
from syncline.messages import syncline_pb2
from syncline.topics import topic_of

_OURS, _FOXGLOVE = "syncline.", "foxglove."
MAX_REASON = 200

_COLUMNS = {
    "syncline.Detections": ("x0_px", "y0_px", "x1_px", "y1_px", "score", "class_id"),
    "syncline.Classification": ("class_id", "score"),
}
"""Repeated fields whose n-th values belong together."""
_OPTIONAL = {"syncline.Detections": ("row_offset_ns",)}
"""Columns that may be left out as a whole."""


@lru_cache(maxsize=64)
def _parser(schema: str) -> Callable[[bytes], Any]:
    if schema.startswith(_OURS):
        kind = getattr(syncline_pb2, schema.removeprefix(_OURS))
        return kind.FromString  # type: ignore[no-any-return]
    source = getattr(foxglove.messages, schema.removeprefix(_FOXGLOVE)).get_schema()
    files = descriptor_pb2.FileDescriptorSet.FromString(source.data)
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    found = pool.FindMessageTypeByName(schema)
    return message_factory.GetMessageClass(found).FromString  # type: ignore[no-any-return]


@lru_cache(maxsize=65536)
def _parser_of(stream: str) -> Callable[[bytes], Any] | str:
    """The parser of a topic, or why there is none."""
    try:
        return _parser(topic_of(stream).schema)
    except MessageError as error:
        return error.message[:MAX_REASON]


def require_columns(message: Any) -> None:
    """Refuse a message whose columns do not fit together.

    Raises:
        MessageError: Their lengths differ.
    """
    kind = message.DESCRIPTOR.full_name
    names = _COLUMNS.get(kind)
    if names is None:
        return
    lengths = {name: len(getattr(message, name)) for name in names}
    for name in _OPTIONAL.get(kind, ()):
        lengths[name] = len(getattr(message, name)) or lengths[names[0]]
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise MessageError(f"columns of unequal length: {told}")


def reason_to_quarantine(stream: str, payload: bytes) -> str | None:
    """Why a payload cannot be used as a record of `stream`; None when it can."""
    parser = _parser_of(stream)
    if isinstance(parser, str):
        return parser
    try:
        require_columns(parser(payload))
    except MessageError as error:
        return error.message[:MAX_REASON]
    except (DecodeError, ValueError, RecursionError) as error:
        return f"does not decode: {error}"[:MAX_REASON]
    return None


def bad_ranges(stream: str, seq: int, payloads: list[bytes]) -> list[tuple[int, int, str]]:
    """Ranges (first seq, last seq, reason) of the payloads that cannot be used."""
    out: list[tuple[int, int, str]] = []
    parser = _parser_of(stream)
    if isinstance(parser, str):
        return [(seq, seq + len(payloads) - 1, parser)]
    for at, payload in enumerate(payloads, seq):
        reason = reason_to_quarantine(stream, payload)
        if reason is None:
            continue
        if out and out[-1][1] == at - 1 and out[-1][2] == reason:
            out[-1] = (out[-1][0], at, reason)
        else:
            out.append((at, at, reason))
    return out
