"""Plain onnxruntime scripts, each written as the model's own demo: ours is held against them."""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]
Detections = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def nms(boxes: Floats, scores: Floats, classes: NDArray[np.int64], iou: float) -> Detections:
    """The textbook loop, per class, best first."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(classes[index] != classes[k] or _iou(boxes[index], boxes[k]) <= iou for k in kept):
            kept.append(int(index))
    return boxes[kept], scores[kept], classes[kept]


def _iou(a: Floats, b: Floats) -> float:
    x0, y0 = max(a[0], b[0]), max(a[1], b[1])
    x1, y1 = min(a[2], b[2]), min(a[3], b[3])
    inter = max(x1 - x0, 0.0) * max(y1 - y0, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return float(inter / union) if union > 0 else 0.0


def _clip(boxes: Floats, image: Image) -> Floats:
    h, w = image.shape[:2]
    clipped: Floats = np.clip(boxes, 0, [w, h, w, h])
    return clipped


def yolox(model: ort.InferenceSession, image: Image, threshold: float, iou: float) -> Detections:
    size = 416
    padded = np.full((size, size, 3), 114, np.uint8)
    ratio = min(size / image.shape[0], size / image.shape[1])
    inner = cv2.resize(
        image,
        (int(image.shape[1] * ratio), int(image.shape[0] * ratio)),
        interpolation=cv2.INTER_LINEAR,
    )
    padded[: inner.shape[0], : inner.shape[1]] = inner
    tensor = np.ascontiguousarray(padded.transpose(2, 0, 1)[None], dtype=np.float32)
    out = model.run(None, {"images": tensor})[0][0].astype(np.float64)
    grids, strides = [], []
    for stride in (8, 16, 32):
        n = size // stride
        xv, yv = np.meshgrid(np.arange(n), np.arange(n))
        grids.append(np.stack((xv, yv), 2).reshape(-1, 2))
        strides.append(np.full((n * n, 1), stride))
    grid, step = np.concatenate(grids), np.concatenate(strides)
    centre, extent = (out[:, :2] + grid) * step, np.exp(out[:, 2:4]) * step
    boxes = np.concatenate([centre - extent / 2, centre + extent / 2], 1) / ratio
    scores = out[:, 4:5] * out[:, 5:]
    classes, best = scores.argmax(1), scores.max(1)
    good = best >= threshold
    found = nms(boxes[good], best[good], classes[good], iou)
    return _clip(found[0], image), found[1], found[2]


def fastestdet(
    model: ort.InferenceSession, image: Image, threshold: float, iou: float
) -> Detections:
    tensor = cv2.resize(image, (352, 352), interpolation=cv2.INTER_LINEAR)
    tensor = tensor.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    out = model.run(None, {"input.1": tensor})[0][0].astype(np.float64)
    h, w = image.shape[:2]
    rows = []
    for gy in range(22):
        for gx in range(22):
            cell = out[:, gy, gx]
            score = cell[0] ** 0.6 * cell[5:].max() ** 0.4
            if score < threshold:
                continue
            cx, cy = (gx + np.tanh(cell[1])) / 22 * w, (gy + np.tanh(cell[2])) / 22 * h
            bw, bh = w / (1 + np.exp(-cell[3])), h / (1 + np.exp(-cell[4]))
            rows.append((cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2, score,
                         cell[5:].argmax()))  # fmt: skip
    table = np.array(rows).reshape(-1, 6)
    found = nms(table[:, :4], table[:, 4], table[:, 5].astype(np.int64), iou)
    return _clip(found[0], image), found[1], found[2]


def rfb(model: ort.InferenceSession, image: Image, threshold: float, iou: float) -> Detections:
    tensor = cv2.cvtColor(cv2.resize(image, (320, 240)), cv2.COLOR_BGR2RGB)
    tensor = ((tensor.astype(np.float32) - 127) / 128).transpose(2, 0, 1)[None]
    scores, boxes = model.run(["scores", "boxes"], {"input": tensor})
    h, w = image.shape[:2]
    face = scores[0, :, 1].astype(np.float64)
    good = face >= threshold
    scaled = boxes[0].astype(np.float64) * [w, h, w, h]
    found = nms(scaled[good], face[good], np.zeros(good.sum(), np.int64), iou)
    return _clip(found[0], image), found[1], found[2]


def twinlite(model: ort.InferenceSession, image: Image) -> tuple[Image, Image]:
    """(drivable, lane) masks at 640 x 360."""
    rgb = cv2.cvtColor(cv2.resize(image, (640, 360)), cv2.COLOR_BGR2RGB)
    tensor = (rgb.astype(np.float32) / np.float32(255)).transpose(2, 0, 1)[None]
    drivable, lane = model.run(["da", "ll"], {"images": np.ascontiguousarray(tensor)})
    return drivable[0].argmax(0).astype(np.uint8), lane[0].argmax(0).astype(np.uint8)
