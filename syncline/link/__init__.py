"""The wire and the device's end of it. See docs/wire.md."""

from syncline.link.endpoint import check_endpoint
from syncline.link.keys import KeyPair, PublicKey, load_keypair, load_public, new_keypair
from syncline.link.provider import Provider, Resource
from syncline.link.sender import Sender
from syncline.link.terms import LinkCaps, LinkState, LinkStats, Timing
from syncline.link.uplink import Uplink, UplinkOptions
from syncline.link.wire import Notice

__all__ = [
    "KeyPair",
    "LinkCaps",
    "LinkState",
    "LinkStats",
    "Notice",
    "Provider",
    "PublicKey",
    "Resource",
    "Sender",
    "Timing",
    "Uplink",
    "UplinkOptions",
    "check_endpoint",
    "load_keypair",
    "load_public",
    "new_keypair",
]
