"""NNCF as another quantiser of the body, for SiLU networks that run on OpenVINO (extra `openvino`).

Where plain min-max calibration loses such a network (YOLOX-nano: F1 0.55 against fp32), NNCF's bias
correction keeps it; its graphs gain speed on OpenVINO, not on the CPU kernels of ONNX Runtime.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any

import onnx

from syncline.cloud.models.graph import first_line, validate
from syncline.cloud.models.partition import partition
from syncline.cloud.models.quantize import Feeds, StreamingReader, optimised
from syncline.errors import ModelError, UsageError


class BodyFeeds:
    """Inputs of the body, read anew in every pass: NNCF makes several, and memory stays bounded."""

    def __init__(self, feeds: Callable[[], Iterable[Feeds]], head: onnx.ModelProto | None) -> None:
        self._feeds = feeds
        self._head = head

    def __iter__(self) -> Iterator[Feeds]:
        reader = StreamingReader(self._feeds(), self._head)
        while (feed := reader.get_next()) is not None:
            yield feed


def quantise_with_nncf(
    model: onnx.ModelProto,
    feeds: Callable[[], Iterable[Feeds]],
    *,
    frames: int,
    keep_stem: bool = True,
) -> onnx.ModelProto:
    """Quantise the body of a graph with NNCF: uint8 activations, 7-bit weights.

    8-bit ones overflow on x86 without VNNI through OpenVINO too.

    Args:
        model: Left alone; fixed input shape.
        feeds: Starts a pass over the calibration inputs.
        frames: How many a pass has.
        keep_stem: Leave a thin first convolution in float.

    Raises:
        UsageError: NNCF is not installed.
        ModelError: NNCF refuses the graph.
    """
    nncf = _nncf()
    parts = partition(optimised(model), keep_stem=keep_stem)
    data = nncf.Dataset(BodyFeeds(feeds, parts.head_model()))
    try:
        advanced = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
        # the slow bias correction crashes on ONNX graphs of nncf 3.4 (duplicate names)
        body = nncf.quantize(
            parts.body_model(),
            data,
            subset_size=frames,
            fast_bias_correction=True,
            advanced_parameters=advanced,
        )
    except Exception as error:
        raise ModelError(f"NNCF refuses the graph: {first_line(error)}") from error
    merged = parts.with_body(body)
    validate(merged)
    return merged


def _nncf() -> Any:
    os.environ["NNCF_CI"] = "1"  # its own switch for runs that must not report home
    try:
        return import_module("nncf")
    except ImportError as error:
        raise UsageError(
            "NNCF is not installed", remedy="pip install 'syncline[openvino]'"
        ) from error
