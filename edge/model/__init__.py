"""Model bundles: manifest, digests, signature and golden proof."""
