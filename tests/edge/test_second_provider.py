"""Cases 23, 24 and 35 with an execution provider that is really there: OpenVINO.

Its runtime cannot be installed beside ours, so it needs an environment of its own, made by
`make peers`. Without one the tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from syncline.edge.shipped import resolve_bundle

from . import tiny

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("SYNCLINE_OPENVINO_PYTHON", ROOT / ".venv-openvino/bin/python"))
OPENVINO, CPU = "OpenVINOExecutionProvider", "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not PYTHON.exists(), reason="needs .venv-openvino: make peers"),
]


def split_graph() -> bytes:
    """Class scores by a graph with Hardmax in its middle, which OpenVINO leaves to the CPU."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Hardmax", ["a"], ["h"]),
        helper.make_node("Conv", ["h", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["m"]),
        helper.make_node("Flatten", ["m"], ["scores"]),
    ]
    weights = {"w": np.random.default_rng(0).normal(size=(3, 3, 3, 3)).astype(np.float32)}
    given = ("x", TensorProto.FLOAT, [1, 3, tiny.HEIGHT, tiny.WIDTH])
    return tiny.onnx_bytes(nodes, [given], [("scores", TensorProto.FLOAT, [1, 3])], weights)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("openvino")
    split = tiny.bundle(folder / "split", split_graph(), spec=tiny.scores_manifest())
    command = [PYTHON, ROOT / "tests/edge/second_provider.py"]
    done = subprocess.run(
        [*map(str, command), resolve_bundle("road-detector"), split.folder, folder / "cache"],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_edge_23_the_provider_asked_for_runs_the_model_and_health_says_so(told: Any) -> None:
    """edge-23: strict and there: no warning, and every health message names it."""
    assert told["strict"] == {"requested": OPENVINO, "actual": OPENVINO, "share": 1.0,
                              "warnings": []}  # fmt: skip
    assert told["health"] == [[OPENVINO, OPENVINO, 1.0]] * 5


def test_edge_23_the_next_best_provider_serves_when_the_first_is_absent(told: Any) -> None:
    """edge-23: CUDA asked for, OpenVINO second: strict fails, else one warning and OpenVINO."""
    assert told["absent-strict"]["error"] == "ProviderError"
    assert told["absent-strict"]["code"] == 4
    absent = told["absent"]
    assert (absent["requested"], absent["actual"], absent["share"]) == (CUDA, OPENVINO, 0.0)
    assert len(absent["warnings"]) == 1
    assert OPENVINO in absent["warnings"][0]


def test_edge_24_a_split_graph_is_warned_about(told: Any) -> None:
    """edge-24: the share of a graph that the provider takes in part, from the runtime itself."""
    split = told["split"]
    assert 0.0 < split["share"] < 0.95
    assert len(split["warnings"]) == 1
    assert f"{100 * split['share']:.0f} %" in split["warnings"][0]


def test_edge_35_another_runtime_finds_the_same_boxes(told: Any) -> None:
    """edge-35: the shipped int8 detector proves its golden output there, box for box."""
    ours, theirs = told["boxes"]
    assert ours == theirs
    assert ours[0] > 0
    assert told["blobs"] == [".blob"], "its compiled form belongs in the cache"
    print(told["runtime"], told["cpu_ms"], f"split share {told['split']['share']:.2f}")
