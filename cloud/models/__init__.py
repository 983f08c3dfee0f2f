"""Model tooling: import, check, quantise, gate and bench; the only user of `onnx` but training."""
