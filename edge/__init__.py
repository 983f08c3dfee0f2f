"""The edge: model runner, recorder, uplink, updates and the daemon that holds them together."""
