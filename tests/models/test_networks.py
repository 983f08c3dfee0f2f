"""The reference networks: exported graphs compute what torch does, decoding included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from syncline.cloud.models.fold_boxes import fold_edgedet
from syncline.cloud.models.graph import inputs, load_model, opset, outputs, serialise, validate
from syncline.cloud.models.importer import ImportOptions, import_model
from syncline.cloud.models.quantize import quantise_graph
from syncline.cloud.models.runtime import GraphSession
from syncline.cloud.models.targets import TARGETS
from syncline.edge.model.manifest import DecoderSpec, InputSpec

torch: Any = pytest.importorskip("torch", reason="needs the train extra")
pytestmark = pytest.mark.train

W, H = 128, 96
MAPS = ("p8", "p16", "p32")


def exported(net: Any, folder: Path, names: tuple[str, ...]) -> Path:
    from syncline.cloud.train.export import export_onnx

    path = folder / "net.onnx"
    export_onnx(net, path, width=W, height=H, outputs=names)
    return path


def settled(net: Any) -> Any:
    """Batch norms with statistics of their own, so that folding them is not the identity."""
    net.train()
    with torch.no_grad():
        for _ in range(4):
            net(torch.rand(4, 3, H, W))
    return net.eval()


@pytest.mark.parametrize("channels", [32, 56])
def test_edgeseg_exports_as_it_computes(tmp_path: Path, channels: int) -> None:
    from syncline.cloud.train.networks import EdgeSeg

    net = settled(EdgeSeg(channels, 11))
    model = load_model(exported(net, tmp_path, ("logits",)))
    validate(model)
    assert opset(model) <= 20
    assert {n.op_type for n in model.graph.node} <= {"Conv", "Relu", "Add", "Resize", "Identity"}
    assert outputs(model)[0].dims == (1, 11, H // 4, W // 4)
    frame = np.random.default_rng(0).random((1, 3, H, W), dtype=np.float32)
    found = GraphSession(serialise(model)).run({"images": frame})[0]
    with torch.no_grad():
        wanted = net(torch.from_numpy(frame)).numpy()
    np.testing.assert_allclose(np.asarray(found, np.float64), wanted, rtol=1e-3, atol=1e-4)
    parts = list(tmp_path.iterdir())
    assert parts == [tmp_path / "net.onnx"], "no second data file"


@pytest.mark.parametrize("width", [1.0, 1.75])
def test_edgedet_decodes_in_the_graph_as_in_training(tmp_path: Path, width: float) -> None:
    from syncline.cloud.train.networks import EdgeDet, decode_maps

    net = settled(EdgeDet(width, 3))
    model = load_model(exported(net, tmp_path, MAPS))
    assert inputs(model)[0].dims == (1, 3, H, W)
    decoder = DecoderSpec(
        kind="boxes-nms", outputs=("x",), strides=(8, 16, 32), score_threshold=0.0, nms_iou=1.0
    )
    folded, _ = fold_edgedet(model, MAPS, decoder, InputSpec(name="images", width=W, height=H))
    frame = np.random.default_rng(0).random((1, 3, H, W), dtype=np.float32)
    rows = np.asarray(GraphSession(serialise(folded)).run({"images": frame})[0], np.float64)
    with torch.no_grad():
        boxes, logits = decode_maps(net(torch.from_numpy(frame)))
    scores = torch.sigmoid(logits)[0].numpy()
    best = int(scores.max(axis=1).argmax())
    np.testing.assert_allclose(rows[0, :4], boxes[0, best].numpy(), rtol=1e-3, atol=1e-2)
    assert rows[0, 4] == pytest.approx(scores[best].max(), rel=1e-4)
    assert rows[0, 5] == scores[best].argmax()


def test_small_detector_is_below_2_mb_in_int8(tmp_path: Path) -> None:
    from syncline.cloud.train.networks import EdgeDet

    path = exported(settled(EdgeDet(1.0, 3)), tmp_path, MAPS)
    bundle = import_model(path, tmp_path / "fp32", ImportOptions(preset="edgedet")).bundle
    assert bundle.manifest.decoder.kind == "boxes-nms"
    feed = {"images": np.random.default_rng(0).random((1, 3, H, W), dtype=np.float32)}
    model = quantise_graph(
        load_model(bundle.folder / "model.onnx"), iter([feed]), TARGETS["x86-64"]
    )
    assert len(serialise(model)) < 2_000_000
