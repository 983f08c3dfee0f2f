"""NTP packets: encoding, decoding and the checks a reply must pass (RFC 5905, sections 7.3 and 8).

Decoded here in integers: a float of seconds since 1900 steps by 477 ns, which is more than the
error of a LAN exchange. `tests/sync_os/test_ntp_packet.py` compares with ntplib within that step.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from syncline.errors import MessageError
from syncline.timebase import NS_PER_S

NTP_UNIX_S = 2_208_988_800
"""Seconds from 1900-01-01 (NTP era 0) to 1970-01-01."""
ERA_S = 1 << 32
ERA_MARGIN_S = 10 * 365 * 86_400
"""Stamps are unwrapped into 136 years that begin this long before the floor, so that a server which
is merely behind the floor is seen as behind and not as 136 years ahead."""
PACKET_BYTES = 48
MAX_PACKET_BYTES = 1024
MAX_ROOT_DISTANCE_NS = 3 * NS_PER_S
"""Server's own claimed error above which it is of no use (chrony's `maxdistance` default)."""

_FORMAT = struct.Struct("!BBbbII4sQQQQ")


@dataclass(frozen=True, slots=True)
class NtpPacket:
    """The header of an NTP packet; stamps stay 64-bit fixed point, 32 bits of it seconds.

    Attributes:
        leap: 0 none, 1 insert, 2 delete at the end of the UTC month's day, 3 not synchronised.
        version: 1..7.
        mode: 3 client, 4 server.
        stratum: 0 kiss-o'-death, 1..15, 16 not synchronised.
        poll: log2 seconds.
        precision: log2 seconds.
        root_delay_ns: Round-trip delay of the server to its reference.
        root_dispersion_ns: Error of the server to its reference.
        ref_id: Four bytes: reference name, address hash or kiss code.
        reference: When the server's clock was last set.
        origin: Our transmit stamp, returned.
        receive: T2.
        transmit: T3.
    """

    leap: int
    version: int
    mode: int
    stratum: int
    poll: int
    precision: int
    root_delay_ns: int
    root_dispersion_ns: int
    ref_id: bytes
    reference: int
    origin: int
    receive: int
    transmit: int

    @property
    def root_distance_ns(self) -> int:
        """Error the server admits itself: root delay / 2 + root dispersion."""
        return self.root_delay_ns // 2 + self.root_dispersion_ns


def _short_to_ns(value: int) -> int:
    return (value * NS_PER_S + 0x8000) >> 16


def _ns_to_short(ns: int) -> int:
    return min((ns << 16) // NS_PER_S, 0xFFFFFFFF)


def stamp_to_utc_ns(stamp: int, floor_utc_ns: int) -> int:
    """UTC of a 64-bit NTP stamp; its era is the one that puts it in the 136 years around the floor.

    Args:
        stamp: 64-bit NTP stamp.
        floor_utc_ns: UTC that is certainly past; eras begin `ERA_MARGIN_S` before it.
    """
    pivot_s = floor_utc_ns // NS_PER_S - ERA_MARGIN_S
    seconds = (stamp >> 32) - NTP_UNIX_S
    utc_s = pivot_s + (seconds - pivot_s) % ERA_S
    return utc_s * NS_PER_S + (((stamp & 0xFFFFFFFF) * NS_PER_S + (1 << 31)) >> 32)


def utc_ns_to_stamp(utc_ns: int) -> int:
    """64-bit NTP stamp of a UTC, wrapping at the era."""
    seconds, ns = divmod(utc_ns, NS_PER_S)
    fraction = ((ns << 32) + NS_PER_S // 2) // NS_PER_S
    return (((seconds + NTP_UNIX_S) << 32) + fraction) & 0xFFFFFFFFFFFFFFFF


def encode_request(cookie: int, origin: int = 0, receive: int = 0) -> bytes:
    """A client request whose transmit stamp is a random cookie (nothing of our clock leaks).

    Args:
        cookie: 64 random bits that a reply must return.
        origin: Server's receive stamp of the last exchange, to ask for its interleaved answer.
        receive: 64 other random bits, which an interleaved answer returns instead.
    """
    return _FORMAT.pack(4 << 3 | 3, 0, 0, 0x20, 0, 0, b"\0" * 4, 0, origin, receive, cookie)


def encode(packet: NtpPacket) -> bytes:
    """The 48 bytes of any packet; used by the servers of tests."""
    return _FORMAT.pack(
        packet.leap << 6 | packet.version << 3 | packet.mode,
        packet.stratum,
        packet.poll,
        packet.precision,
        _ns_to_short(packet.root_delay_ns),
        _ns_to_short(packet.root_dispersion_ns),
        packet.ref_id,
        packet.reference,
        packet.origin,
        packet.receive,
        packet.transmit,
    )


def decode(data: bytes) -> NtpPacket:
    """Read the header of a datagram; extension fields and MACs after it are not read.

    Raises:
        MessageError: Fewer than 48 bytes or more than a datagram of ours may have.
    """
    if not PACKET_BYTES <= len(data) <= MAX_PACKET_BYTES:
        raise MessageError(
            f"NTP packet of {len(data)} bytes, must be {PACKET_BYTES}..{MAX_PACKET_BYTES}"
        )
    first, stratum, poll, precision, delay, dispersion, ref_id, *stamps = _FORMAT.unpack_from(data)
    return NtpPacket(
        first >> 6,
        first >> 3 & 7,
        first & 7,
        stratum,
        poll,
        precision,
        _short_to_ns(delay),
        _short_to_ns(dispersion),
        ref_id,
        *stamps,
    )


class Refusal(enum.Enum):
    """Why a reply changed nothing."""

    LENGTH = "wrong length"
    MODE = "mode is not server"
    VERSION = "version is not 3 or 4"
    ORIGIN = "origin is not our request's stamp"
    DUPLICATE = "no request is open"
    KISS_RATE = "kiss-o'-death RATE"
    KISS_DENY = "kiss-o'-death DENY or RSTR"
    KISS_OTHER = "kiss-o'-death of another code"
    UNSYNCHRONISED = "server is not synchronised"
    STRATUM = "stratum above 15"
    ROOT_DISTANCE = "root distance is too large"
    ZERO_STAMP = "receive or transmit stamp is zero"
    BACKWARDS = "server sent before it received"
    DELAY = "delay is negative or beyond the limit"
    FLOOR = "time is before the floor or beyond its ceiling"
    CLOCK_MOVED = "the system clock was set during the exchange"


_KISS = {b"RATE": Refusal.KISS_RATE, b"DENY": Refusal.KISS_DENY, b"RSTR": Refusal.KISS_DENY}


def refusal(
    packet: NtpPacket, cookie: int | None, interleaved_cookie: int | None = None
) -> Refusal | None:
    """Why a packet is no answer to the open request, or None when it is a good one.

    The order matters: nothing of a packet is believed, a kiss code included, before its origin.
    """
    if packet.mode != 4:
        return Refusal.MODE
    if packet.version not in (3, 4):
        return Refusal.VERSION
    if cookie is None:
        return Refusal.DUPLICATE
    if packet.origin not in (cookie, interleaved_cookie):
        return Refusal.ORIGIN
    if packet.stratum == 0:
        return _KISS.get(packet.ref_id, Refusal.KISS_OTHER)
    if packet.leap == 3:
        return Refusal.UNSYNCHRONISED
    if packet.stratum > 15:
        return Refusal.STRATUM
    if packet.receive == 0 or packet.transmit == 0:
        return Refusal.ZERO_STAMP
    if packet.root_distance_ns > MAX_ROOT_DISTANCE_NS:
        return Refusal.ROOT_DISTANCE
    return None
