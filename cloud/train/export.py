"""From a trained network to an ONNX file that every runtime we support loads."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from syncline.cloud.train.networks import fuse

OPSET = 20
IR_VERSION = 10


def export_onnx(
    net: nn.Module, path: Path, *, width: int, height: int, outputs: tuple[str, ...]
) -> None:
    """Write the raw network as fixed-shape ONNX: one file, opset 20, IR 10, batch norms folded.

    The exporter's defaults write weights into a second file and an opset newer than runtimes
    accept; both are set here.

    Args:
        net: Any network of `networks`; it is copied, never changed.
        path: Where the file goes.
        width: Input width in pixels.
        height: Input height in pixels.
        outputs: A name for every output of the network.
    """
    ready = fuse(copy.deepcopy(net).eval().cpu())
    frame = torch.zeros(1, 3, height, width)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the exporter's own, about torch's insides
        torch.onnx.export(
            ready,
            (frame,),
            str(path),
            input_names=["images"],
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = onnx.load(path)
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
