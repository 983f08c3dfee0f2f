"""How a process ends while a thread is inside a native library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from syncline.edge.runner import Runner
from syncline.edge.slot import ModelSlot
from tests.conftest import ROOT
from tests.edge import nets
from tests.edge.harness import CLOCK

HUNG = """
import sys, threading
from pathlib import Path
import numpy as np
import syncline.cli
from syncline.edge.backend import Backend
from tests.edge.harness import slow_slot

def command():
    spec = slow_slot(Path(sys.argv[1]), rounds=200, side=128)
    model = Backend.load(spec.bundle)
    tensor = np.zeros(spec.bundle.manifest.input.shape, spec.bundle.manifest.input.dtype)
    model.run(tensor)
    def work():
        while True:
            model.run(tensor)
    for _ in range(4):
        threading.Thread(target=work, daemon=True).start()
    print("done")
    return 3

syncline.cli.main = command
syncline.cli.entry()
"""


def test_a_hung_run_does_not_spoil_the_exit_code(tmp_path: Path) -> None:
    """Left to itself the interpreter tears such a thread down: an abort, whatever was printed."""
    command = [sys.executable, "-c", HUNG, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (3, "done\n", "")


def test_stopping_waits_for_a_model_that_is_being_loaded(tmp_path: Path) -> None:
    bundle = nets.bundle("detector", tmp_path / "b")
    runner = Runner([ModelSlot(name="m", bundle=bundle)], clock=CLOCK)
    runner.start()
    done = runner.swap_in_background(bundle)
    runner.stop(timeout_s=30.0)
    assert done.done()
    assert done.result().action == "swapped"
