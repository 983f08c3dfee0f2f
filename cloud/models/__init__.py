"""Model tooling: import, check, quantise, gate and bench; the only user of `onnx` but training."""

from importlib.util import find_spec

from syncline.errors import UsageError

if find_spec("onnx") is None:
    raise UsageError(
        "the model tooling needs onnx, which is not installed",
        remedy="pip install 'syncline[cloud]'",
    )
