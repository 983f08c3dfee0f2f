"""Does a payload decode as its topic's message? What does not is quarantined, with the reason."""

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


def reason_to_quarantine(stream: str, payload: bytes) -> str | None:
    """Why a payload cannot be used as a record of `stream`; None when it can."""
    parser = _parser_of(stream)
    if isinstance(parser, str):
        return parser
    try:
        parser(payload)
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
