"""Decoders: from a graph's outputs to boxes, label maps or class scores in source pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from syncline.edge.decode.boxes import (
    FastestDetDecoder,
    InGraphNmsDecoder,
    SsdDecoder,
    Yolov5Decoder,
    Yolov8Decoder,
    YoloxDecoder,
)
from syncline.edge.decode.maps import (
    ArgmaxDecoder,
    LogitsDecoder,
    ScoresDecoder,
    TwinliteDecoder,
)
from syncline.edge.decode.types import Boxes, Decoded, Decoder, LabelMap, Scores
from syncline.edge.model.manifest import DecoderKind, Manifest

__all__ = ["Boxes", "Decoded", "Decoder", "LabelMap", "Scores", "decoder_for"]

_DECODERS: Mapping[DecoderKind, Callable[[Manifest], Decoder]] = {
    "yolox": YoloxDecoder,
    "yolov8": Yolov8Decoder,
    "yolov5": Yolov5Decoder,
    "fastestdet": FastestDetDecoder,
    "ssd": SsdDecoder,
    "boxes-nms": InGraphNmsDecoder,
    "argmax": ArgmaxDecoder,
    "logits": LogitsDecoder,
    "twinlite": TwinliteDecoder,
    "scores": ScoresDecoder,
}


def decoder_for(manifest: Manifest) -> Decoder:
    """The decoder that a manifest names."""
    return _DECODERS[manifest.decoder.kind](manifest)
