"""A cached form that a real provider compiled, of another model; one line of JSON.

Run by `test_real_cache.py` with the interpreter of an environment that holds the plug-in:

    PYTHONPATH=ROOT real_cache.py {"provider": ..., "library": ..., "one": ..., "other": ..., ...}
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from syncline.edge.backend import BackendOptions
from syncline.edge.cache import ModelCache
from syncline.edge.engine import Engine
from syncline.edge.model.bundle import Bundle
from syncline.edge.runner import ModelSlot, Runner
from syncline.timebase import OsClock

GIVEN = json.loads(sys.argv[1])
CACHE = Path(GIVEN["cache"])
OPTIONS = BackendOptions(
    providers=(GIVEN["provider"], "CPUExecutionProvider"),
    strict_provider=True,
    plugins=((GIVEN["provider"], Path(GIVEN["library"])),),
    cache_dir=CACHE,
)


def opened(key: str) -> Bundle:
    return Bundle.open(Path(GIVEN[key]), trusted_keys=None)


def entries() -> set[str]:
    return {path.stem for path in CACHE.glob("*.onnx")}


def loaded(bundle: Bundle) -> dict[str, Any]:
    begin_ns = time.process_time_ns()
    engine = Engine.load(bundle, OPTIONS)
    backend = engine.backend
    return {
        "cached": backend.from_cache, "rebuilt": backend.rebuilt, "actual": backend.ep_actual,
        "diff": engine.proof.max_abs_diff, "cpu_ms": (time.process_time_ns() - begin_ns) / 1e6,
    }  # fmt: skip


def main() -> None:
    one, other = opened("one"), opened("other")
    told: dict[str, Any] = {"first": loaded(one)}
    (mine,) = entries()
    told["other"] = loaded(other)
    (its,) = entries() - {mine}
    wrong = ModelCache(CACHE, its).read()
    assert wrong is not None
    with ModelCache(CACHE, mine).writing() as draft:
        assert draft.path is not None
        draft.path.write_bytes(wrong.data)
        draft.note = wrong.note
    slot = ModelSlot(name="main", bundle=one, backend=OPTIONS)
    runner = Runner([slot], clock=OsClock())
    runner.load()
    told["counters"] = dict(runner.health().counters)
    told["again"] = loaded(one)
    print("\n" + json.dumps(told))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main()
