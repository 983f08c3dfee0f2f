"""From payload bytes to messages; a type is made once per schema, never per message."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from syncline.errors import LogError
from syncline.log.records import Record, SchemaRecord
from syncline.messages import syncline_pb2

_OURS = "syncline."


class Decoder:
    """Decodes records of one reader."""

    def __init__(self) -> None:
        self._makers: dict[tuple[str, bytes], Callable[[memoryview], Any]] = {}
        self._last: tuple[SchemaRecord, Callable[[memoryview], Any]] | None = None

    def decode(self, record: Record) -> Any:
        """The protobuf message of a record; a dict for JSON.

        Raises:
            LogError: The payload or its schema does not decode.
        """
        make = self._maker(record)
        try:
            return make(record.data)
        except (DecodeError, ValueError, RecursionError) as error:
            raise LogError(
                f"message {record.sequence} of {record.topic!r} does not decode as "
                f"{record.schema!r}: {error}"
            ) from None

    def _maker(self, record: Record) -> Callable[[memoryview], Any]:
        schema, encoding = record.channel.schema, record.channel.encoding
        if encoding == "json":
            return _from_json
        if encoding != "protobuf" or schema is None:
            raise LogError(
                f"topic {record.topic!r} is encoded as {encoding!r}",
                remedy="Use `syncline log convert` for ROS 2 bags, or read record.data",
            )
        if self._last is not None and self._last[0] is schema:
            return self._last[1]
        key = (schema.name, schema.data)
        if key not in self._makers:
            self._makers[key] = _protobuf_maker(schema)
        self._last = (schema, self._makers[key])
        return self._makers[key]


def _from_json(data: memoryview) -> Any:
    return json.loads(bytes(data))


def _protobuf_maker(schema: SchemaRecord) -> Callable[[memoryview], Any]:
    kind = _known_class(schema.name) or _class_of(schema)

    def make(data: memoryview) -> Any:
        message = kind()
        message.ParseFromString(data)
        return message

    return make


def _known_class(name: str) -> Any:
    """Our own class for our own messages: field numbers are never reused, so it fits old files."""
    return getattr(syncline_pb2, name.removeprefix(_OURS), None) if name.startswith(_OURS) else None


def _class_of(schema: SchemaRecord) -> Any:
    if schema.encoding != "protobuf":
        raise LogError(f"schema {schema.name!r} is written in {schema.encoding!r}, not protobuf")
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(schema.data)
        pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            pool.Add(file)
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))
    except (DecodeError, TypeError, KeyError, ValueError) as error:
        raise LogError(f"schema {schema.name!r} is no valid FileDescriptorSet: {error}") from None
