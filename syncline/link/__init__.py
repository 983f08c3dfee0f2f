"""The wire and the device's end of it. See docs/wire.md."""

from syncline.link.keys import KeyPair, PublicKey, load_keypair, load_public, new_keypair

__all__ = ["KeyPair", "PublicKey", "load_keypair", "load_public", "new_keypair"]
