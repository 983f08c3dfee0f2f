"""The time simulator: oscillators, paths, servers, receivers, and those that lie."""
