"""Protobuf messages that are recorded and sent; scripts/generate-messages makes them."""
