"""What importing the edge brings along, and what it must not."""

from __future__ import annotations

import subprocess
import sys
import textwrap

_SCRIPT = """
import os, sys
os.environ.pop("ORT_DISABLE_TELEMETRY", None)
seen = []
def hook(event, args):
    if event == "import" and args[0] == "onnxruntime":
        seen.append(os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.addaudithook(hook)
import {module}
for name in ("torch", "onnx", "onnxruntime.quantization"):
    assert name not in sys.modules, name
assert seen and set(seen) == {{"1"}}, seen
print("clean")
"""


def test_the_edge_imports_neither_torch_nor_onnx_and_telemetry_is_off_before_the_runtime() -> None:
    for module in ("syncline.edge.runner", "syncline.edge.backend", "syncline.edge.decode"):
        script = textwrap.dedent(_SCRIPT).format(module=module)
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "clean"


def test_one_module_imports_the_runtime() -> None:
    """A program in a string, which a process of its own runs, is no import."""
    import ast
    from pathlib import Path

    import syncline.edge

    folder = Path(syncline.edge.__path__[0])
    importers = []
    for path in folder.rglob("*.py"):
        names: list[str] = []
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
        if any(name.partition(".")[0] == "onnxruntime" for name in names):
            importers.append(path.relative_to(folder).as_posix())
    assert importers == ["session.py"]
