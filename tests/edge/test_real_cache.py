"""edge-18, edge-31: what a real compiler left in the cache computes something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import tiny
from .test_real_plugins import PYTHON, QNN, library, run

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not PYTHON.exists(), reason="needs .venv-plugins: make peers"),
]


def test_a_wrong_compiled_model_is_compiled_anew(tmp_path: Path) -> None:
    """edge-18, edge-31: under QNN's emulator, another model's compiled form, sound in every byte:
    the golden proof refuses it, the model is compiled anew, and the next load is from the cache."""
    spec = tiny.scores_manifest()
    one = tiny.bundle(tmp_path / "one", tiny.scorer(), spec)
    other = tiny.bundle(tmp_path / "other", tiny.scorer(bias=(0.5, 0.9, 0.7)), spec)
    given = {
        "provider": QNN, "library": str(library("onnxruntime_qnn")), "one": str(one.folder),
        "other": str(other.folder), "cache": str(tmp_path / "cache"),
    }  # fmt: skip
    done = run([Path(__file__).with_name("real_cache.py"), json.dumps(given)])
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    print(told)
    assert (told["first"]["cached"], told["first"]["actual"]) == (False, QNN)
    assert told["counters"] == {"cache-rebuilt": 1}
    assert done.stderr.count("from the cache is refused") == 1
    assert (told["again"]["cached"], told["again"]["rebuilt"]) == (True, False)
    assert told["again"]["diff"] == told["first"]["diff"]
