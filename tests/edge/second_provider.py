"""What our backend does with a second execution provider; one line of JSON on standard output.

Run by `test_second_provider.py` with the interpreter of an environment that holds
`onnxruntime-openvino`, which cannot be installed beside `onnxruntime`:

    PYTHONPATH=ROOT second_provider.py BUNDLE SPLIT-BUNDLE CACHE
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from syncline.edge.backend import Backend, BackendOptions
from syncline.edge.decode import decoder_for
from syncline.edge.model.bundle import Bundle
from syncline.edge.model.golden import compare
from syncline.edge.preprocess import Preprocessor
from syncline.edge.session import RUNTIME
from syncline.errors import SynclineError
from tests.edge.provider_probe import CPU, CUDA, Kept, failure, served, success

WHOLE, SPLIT, CACHE = (Path(argument) for argument in sys.argv[1:])
OPENVINO = "OpenVINOExecutionProvider"


def options(*providers: str, strict: bool, cache: Path | None = None) -> BackendOptions:
    return BackendOptions(providers=providers, strict_provider=strict, cache_dir=cache)


def least_ms(backend: Backend, tensor: Any) -> float:
    best = float("inf")
    for _ in range(12):
        start = time.process_time_ns()
        backend.run(tensor)
        best = min(best, (time.process_time_ns() - start) / 1e6)
    return best


def loaded(bundle: Bundle, given: BackendOptions, kept: Kept) -> dict[str, Any]:
    try:
        backend = Backend.load(bundle, given)
    except SynclineError as error:
        return failure(error)
    return success(backend, kept)


def main() -> None:
    kept = Kept()
    whole, split = (Bundle.open(path, trusted_keys=None) for path in (WHOLE, SPLIT))
    golden = whole.golden()
    tensor, geometry = Preprocessor(whole.manifest.input)(golden.frame)
    ours = Backend.load(whole, options(CPU, strict=True))
    theirs = Backend.load(whole, options(OPENVINO, CPU, strict=True, cache=CACHE))
    compare(golden, theirs.run(tensor), whole.manifest.golden)
    decode = decoder_for(whole.manifest)
    boxes: list[Any] = [decode(each.run(tensor), geometry) for each in (ours, theirs)]
    print(
        json.dumps(
            {
                "runtime": RUNTIME,
                "strict": loaded(whole, options(OPENVINO, CPU, strict=True), kept),
                "absent-strict": loaded(whole, options(CUDA, OPENVINO, strict=True), kept),
                "absent": loaded(whole, options(CUDA, OPENVINO, strict=False), kept),
                "split": loaded(split, options(OPENVINO, CPU, strict=True), kept),
                "health": served(whole, options(OPENVINO, CPU, strict=True)),
                "blobs": [path.suffix for path in CACHE.rglob("*.blob")],
                "boxes": [[len(each.score), each.class_id.tolist()] for each in boxes],
                "cpu_ms": {"cpu": least_ms(ours, tensor), "openvino": least_ms(theirs, tensor)},
            }
        )
    )


if __name__ == "__main__":
    main()
