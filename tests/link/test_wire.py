"""Messages: what goes in comes out, what is damaged is refused by name."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import MessageError
from syncline.link import wire

text = st.text(max_size=40)
u64 = st.integers(0, 2**64 - 1)
rows = st.lists(
    st.tuples(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=50)), min_size=1, max_size=20
)


def data_of(packed: list[tuple[int, bytes]], seq: int = 5) -> wire.Data:
    return wire.Data(7, 3, 1, len(packed), seq, "boot", "/health", wire.pack_body(packed))


EXAMPLES: list[wire.Message] = [
    wire.Hello(1, "car", "boot", [("boot", "/health", 4)]),
    wire.Welcome(1, [("boot", "/health", 9)], 1 << 20, [wire.Notice("model/a/prod", 3, "v2")]),
    data_of([(1, b"a"), (2, b"")]),
    wire.Ack(2**64 - 1, 7, 65536),
    wire.Error(1, "busy", "disk full"),
    wire.Offer("ab" * 32, 10, "seg.mcap", {"kind": "camera"}),
    wire.State("ab" * 32, 5),
    wire.Part(b"\1" * 32, 2**40, b"bytes"),
    wire.Fetch(1, "model/a", 0, 100),
    wire.Chunk(1, 2**33, b"bytes"),
    wire.End(1, 5, "cd" * 32),
    wire.Refused(1, "no"),
    wire.Notice("model/a/prod", 4, "v3"),
    wire.Bye(9),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_every_message_survives_its_bytes(message: wire.Message) -> None:
    assert wire.unpack(wire.pack(message)) == message


@given(rows)
def test_bodies_survive(packed: list[tuple[int, bytes]]) -> None:
    assert wire.unpack_body(wire.pack_body(packed), len(packed)) == packed


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_every_truncation_is_refused(message: wire.Message) -> None:
    """link-28: a cut message is never taken for a shorter one."""
    whole = wire.pack(message)
    for size in range(len(whole)):
        with pytest.raises(MessageError):
            wire.unpack(whole[:size])


@pytest.mark.parametrize("kind", [wire.Data, wire.Part, wire.Chunk])
def test_every_bit_flip_of_a_message_with_bytes_is_refused(kind: type) -> None:
    """link-28: CURVE finds a flip anyway; without it the checksum does."""
    whole = wire.pack(next(m for m in EXAMPLES if type(m) is kind))
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(MessageError):
            wire.unpack(bytes(damaged))


@given(st.binary(max_size=400), st.integers(1, 20))
def test_noise_is_refused_with_a_message_error(noise: bytes, kind: int) -> None:
    for data in (noise, wire.PREFIX + bytes([kind]) + noise):
        with contextlib.suppress(MessageError):
            wire.unpack(data)


def test_deep_and_long_messages_are_refused() -> None:
    bomb = wire.PREFIX + bytes([wire.HELLO]) + b"\x91" * 100_000
    with pytest.raises(MessageError):
        wire.unpack(bomb)
    with pytest.raises(MessageError, match="over"):
        wire.unpack(wire.PREFIX + bytes([wire.CHUNK]) + bytes(2 << 20))


def test_lengths_that_do_not_add_up_are_refused() -> None:
    body = bytearray(wire.pack_body([(1, b"abc"), (2, b"de")]))
    body[16] += 1
    with pytest.raises(MessageError, match="add up"):
        wire.unpack_body(bytes(body), 2)
    with pytest.raises(MessageError):
        wire.unpack_body(b"short", 1000)
