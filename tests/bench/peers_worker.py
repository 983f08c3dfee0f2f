"""Runs another runtime on one network and one frame; started by the bench in `.venv-peers`.

It imports nothing of ours, and nothing of it is imported by ours: `ultralytics` is AGPL-3.0. Every
line on standard input asks for so many repetitions; every answer is one line of JSON.

    peers_worker.py network OUT.onnx          make the network that all stand side by side on
    peers_worker.py PEER MODEL.onnx FRAME.npy [SIZE]  PEER: ultralytics, ultralytics-lean, openvino
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT = 640, 384
CONFIDENCE, OVERLAP = 0.25, 0.45
CANDIDATES = 100
Answer = Callable[[], Any]


def loud_network(out: Path) -> None:
    """yolov8n from its own description, random weights; some dozen boxes of its frame leave.

    Norms take the statistics of noise, so that activations live; the class bias is set so that
    `CANDIDATES` cells of noise are above the threshold.
    """
    torch, made = importlib.import_module("torch"), importlib.import_module("ultralytics")
    torch.manual_seed(0)
    model = made.YOLO("yolov8n.yaml")
    network, head = model.model, model.model.model[-1]
    coarse = torch.rand(4, 3, HEIGHT // 16, WIDTH // 16)
    noise = torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bicubic")
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        network.train()
        network(noise)
        network.eval()
        for block in head.cv3:
            block[-1].weight.mul_(3.0)
            block[-1].bias.zero_()
        scores = network(noise)[0][:, 4:].amax(dim=1).flatten()
        logits = torch.logit(scores.double().clamp(1e-9, 1 - 1e-9)).sort(descending=True).values
        wanted = float(np.log(CONFIDENCE / (1 - CONFIDENCE)))
        for block in head.cv3:
            block[-1].bias.add_(wanted - float(logits[CANDIDATES * len(noise)]))
    with contextlib.chdir(out.parent):
        onnx = model.export(format="onnx", imgsz=(HEIGHT, WIDTH), simplify=False, opset=20)
        Path(onnx).replace(out)


def one_thread_sessions() -> None:
    """Give every session of onnxruntime one thread and no spinning, as ours have."""
    ort: Any = importlib.import_module("onnxruntime")
    plain = ort.InferenceSession

    def session(model: Any, options: Any = None, **more: Any) -> Any:
        options = options or ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return plain(model, options, **more)

    ort.InferenceSession = session


def ultralytics(model: Path, frame: Any) -> tuple[Answer, str]:
    """`predict`, as its users call it; boxes xyxy, score, class."""
    made = importlib.import_module("ultralytics")
    base: Any = importlib.import_module("ultralytics.models.yolo.detect").DetectionPredictor
    try:
        importlib.import_module("torchvision")
        about = "suppression by torchvision"
    except (ImportError, RuntimeError):
        # No torchvision for this torch. Its warm-up alone insists on it; without it `predict`
        # takes the suppression that ultralytics brings itself.
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        about = "suppression by ultralytics, no torchvision"

    class Cold(base):  # type: ignore[misc]
        def setup_model(self, *given: Any, **more: Any) -> None:
            super().setup_model(*given, **more)
            self.done_warmup = True

    network = made.YOLO(str(model), task="detect")
    more = {"predictor": Cold} if "no torchvision" in about else {}

    def answer() -> Any:
        found = network.predict(
            frame, imgsz=(HEIGHT, WIDTH), conf=CONFIDENCE, iou=OVERLAP, device="cpu",
            verbose=False, **(more if network.predictor is None else {}),
        )  # fmt: skip
        return found[0].boxes.data.numpy()

    return answer, f"ultralytics {made.__version__}, {about}"


def openvino(model: Path, frame: Any) -> tuple[Answer, str]:
    """Inference alone, one thread, on a tensor that is ready."""
    runtime = importlib.import_module("openvino")
    config = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = runtime.Core().compile_model(str(model), "CPU", config).create_infer_request()

    def answer() -> Any:
        outputs = request.infer({0: frame})
        return next(iter(outputs.values()))

    return answer, f"openvino {runtime.__version__.split('-')[0]}"


def serve(answer: Answer, about: str, lines: Iterator[str]) -> None:
    """Answer each line with the least CPU milliseconds of so many repetitions, all threads."""
    first = np.asarray(answer())
    if first.size > 4000:
        first = first.reshape(-1)[:4000]
    print(json.dumps({"about": about, "answer": first.tolist()}), flush=True)
    for line in lines:
        best = float("inf")
        for _ in range(int(line)):
            start = time.process_time_ns()
            answer()
            best = min(best, (time.process_time_ns() - start) / 1e6)
        print(json.dumps({"best_ms": best}), flush=True)


def main() -> None:
    kind, model = sys.argv[1], Path(sys.argv[2])
    os.environ.update(YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true", YOLO_VERBOSE="false")
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what the peers print is no answer
        if kind == "network":
            loud_network(model)
            return
        if kind == "ultralytics-lean":
            one_thread_sessions()
            importlib.import_module("torch").set_num_threads(1)
        frame = np.load(sys.argv[3])
        made = openvino(model, frame) if kind == "openvino" else ultralytics(model, frame)
    sys.stdout = answers
    serve(*made, iter(sys.stdin))


if __name__ == "__main__":
    main()
