"""What our backend does with a provider that comes as a library; one line of JSON at the end.

Run by `test_real_plugins.py` with the interpreter of an environment that holds the plug-ins:

    PYTHONPATH=ROOT real_plugin.py {"provider": ..., "library": ..., "options": ..., "cache": ...,
                                    "whole": ..., "split": ..., "tiny": ...}
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from syncline.edge.backend import Backend, BackendOptions
from syncline.edge.engine import Engine
from syncline.edge.model.bundle import Bundle
from syncline.edge.preprocess import Preprocessor
from syncline.errors import SynclineError
from tests.edge.provider_probe import CPU, CUDA, Kept, failure, served, success

GIVEN = json.loads(sys.argv[1])
BESIDE_S = 12.0
NAME = GIVEN["provider"]


def options(*providers: str, strict: bool = True, cache: bool = False) -> BackendOptions:
    return BackendOptions(
        providers=providers or (NAME, CPU),
        strict_provider=strict,
        plugins=((NAME, Path(GIVEN["library"])),),
        provider_options={NAME: GIVEN["options"]},
        cache_dir=Path(GIVEN["cache"]) if cache else None,
    )


def opened(key: str) -> Bundle:
    return Bundle.open(Path(GIVEN[key]), trusted_keys=None)


def loaded(bundle: Bundle, given: BackendOptions, kept: Kept) -> dict[str, Any]:
    """Loaded and proven on its golden frame."""
    begin_ns = time.process_time_ns()
    try:
        engine = Engine.load(bundle, given)
    except SynclineError as error:
        return failure(error)
    spent_ms, backend = (time.process_time_ns() - begin_ns) / 1e6, engine.backend
    return {
        **success(backend, kept), "runtime": backend.runtime, "cached": backend.from_cache,
        "agreement": engine.proof.agreement, "diff": engine.proof.max_abs_diff, "cpu_ms": spent_ms,
    }  # fmt: skip


def beside(bundle: Bundle, kept: Kept) -> dict[str, Any]:
    """Two sessions that run in threads of their own while a third is loaded again and again."""
    given, frame = options(), bundle.golden()
    tensor, _ = Preprocessor(bundle.manifest.input)(frame.frame)
    runs, wrong, end = [0, 0], [0, 0], time.monotonic() + BESIDE_S

    def work(index: int, backend: Backend) -> None:
        while time.monotonic() < end:
            (got,) = backend.run(tensor)
            wrong[index] += not np.allclose(got, frame.outputs[0], atol=5e-3, rtol=5e-3)
            runs[index] += 1

    backends = [Backend.load(bundle, given) for _ in runs]
    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(backends)]
    for thread in threads:
        thread.start()
    loads = 0
    while time.monotonic() < end:
        Engine.load(bundle, given)
        loads += 1
    for thread in threads:
        thread.join()
    kept.taken()
    return {"runs": runs, "wrong": wrong, "loads": loads}


def cases(kept: Kept) -> dict[str, Any]:
    tiny = opened("tiny")
    told: dict[str, Any] = {"strict": loaded(tiny, options(), kept)}
    if "error" in told["strict"]:
        return told
    told["absent-strict"] = loaded(tiny, options(CUDA, NAME), kept)
    told["absent"] = loaded(tiny, options(CUDA, NAME, strict=False), kept)
    told["health"] = served(tiny, options())
    kept.taken()
    told["compiled"] = [loaded(tiny, options(cache=True), kept) for _ in range(3)]
    told["beside"] = beside(tiny, kept)
    told["files"] = sorted(path.suffix for path in Path(GIVEN["cache"]).iterdir())
    if "split" in GIVEN:
        told["split"] = loaded(opened("split"), options(), kept)
    if "whole" in GIVEN:
        told["whole"] = loaded(opened("whole"), options(strict=False), kept)
        told["whole-cpu"] = loaded(opened("whole"), options(CPU), kept)
    return told


def main() -> None:
    print("\n" + json.dumps(cases(Kept())))


if __name__ == "__main__":
    main()
