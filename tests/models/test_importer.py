"""Foreign models come in repaired, recognised and proved, and decode as a plain script does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from syncline.cli import main
from syncline.cloud.models.builder import GraphBuilder
from syncline.cloud.models.frames import open_frames
from syncline.cloud.models.graph import opset, parse_model, serialise
from syncline.cloud.models.importer import ImportOptions, ImportReport, import_model, read_labels
from syncline.cloud.models.probe import Probe
from syncline.edge.backend import Backend
from syncline.edge.decode import Boxes, LabelMap
from syncline.edge.engine import Engine
from syncline.edge.model.bundle import Bundle
from syncline.edge.model.golden import compare
from syncline.edge.preprocess import Preprocessor
from syncline.errors import ModelError, UsageError

FOREIGN = {
    "yolox_nano": ("yolox", "yolox", "coco.names", 80),
    "FastestDet": ("fastestdet", "fastestdet", "coco.names", 80),
    "twinlitenet": ("twinlite", "twinlite", "", 4),
    "version-RFB-320": ("ultraface", "ssd", "face", 1),
}


BringIn = Callable[..., ImportReport]


@pytest.fixture(scope="module")
def bring_in(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> BringIn:
    """Import each foreign model once."""
    done: dict[tuple[str, bool], ImportReport] = {}

    def get(name: str, *, fold: bool = False) -> ImportReport:
        if (name, fold) not in done:
            out = tmp_path_factory.mktemp("foreign") / "b"
            done[name, fold] = imported(shared_data / "models", name, out, fold=fold)
        return done[name, fold]

    return get


def imported(folder: Path, name: str, out: Path, *, fold: bool) -> ImportReport:
    labels = FOREIGN[name][2]
    text = str(folder / labels) if labels.endswith(".names") else labels
    options = ImportOptions(labels=read_labels(text) if text else (), fold=fold)
    return import_model(folder / f"{name}.onnx", out, options)


@pytest.mark.parametrize("name", FOREIGN)
def test_real_models_are_recognised_and_raised(bring_in: BringIn, name: str) -> None:
    _, kind, _, labels = FOREIGN[name]
    bundle = bring_in(name).bundle
    assert bundle.manifest.decoder.kind == kind
    assert len(bundle.manifest.labels) == labels
    assert opset(parse_model(bundle.model_bytes())) == bundle.manifest.target.opset == 17
    assert len(bundle.manifest.lineage["parent"]) == 64


@pytest.mark.parametrize("name", FOREIGN)
def test_the_edge_runs_what_was_imported(bring_in: BringIn, name: str) -> None:
    bundle = bring_in(name, fold=True).bundle
    backend, golden = Backend.load(bundle), bundle.golden()
    found = backend.run(Preprocessor(bundle.manifest.input)(golden.frame)[0])
    compare(golden, found, bundle.manifest.golden)


@pytest.mark.parametrize("name", FOREIGN)
def test_folded_graph_gives_the_same_results_on_real_frames(
    bring_in: BringIn, shared_data: Path, name: str
) -> None:
    """edge-12: for label maps every label; for boxes every box within 0.01 px."""
    plain, folded = (bring_in(name, fold=fold).bundle for fold in (False, True))
    assert folded.manifest.input.dtype == "uint8"
    assert folded.manifest.decoder.kind in ("boxes-nms", "argmax")
    probes = [Probe(parse_model(b.model_bytes()), b.manifest) for b in (plain, folded)]
    boxes = 0
    for frame in open_frames(shared_data / "images/camvid/val", 3).read():
        one, other = (probe(frame.bgr) for probe in probes)
        if isinstance(one, LabelMap) and isinstance(other, LabelMap):
            np.testing.assert_array_equal(one.labels, other.labels)
        else:
            assert isinstance(one, Boxes)
            assert isinstance(other, Boxes)
            np.testing.assert_allclose(other.xyxy_px, one.xyxy_px, atol=0.01)
            np.testing.assert_allclose(other.score, one.score, atol=1e-5)
            np.testing.assert_array_equal(other.class_id, one.class_id)
            boxes += len(one)
    assert boxes > 0 or name in ("twinlitenet", "version-RFB-320")


def test_twinlite_denormals_are_flushed_and_proved(bring_in: BringIn) -> None:
    """edge-9, the identity: 11 % of the weights are denormal; zeroed, no output bit changes."""
    report = bring_in("twinlitenet")
    assert any("49786 denormal weights (11.3%)" in note for note in report.notes)
    assert any("bit-identical" in note for note in report.notes)


def test_weights_listed_as_inputs_are_removed(bring_in: BringIn) -> None:
    bundle = bring_in("version-RFB-320").bundle
    assert [v.name for v in parse_model(bundle.model_bytes()).graph.input] == ["input"]


def test_wrong_preset_is_refused_with_the_shapes(net_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not look like yolox: input images \[1, 3, 96, 160"):
        import_model(net_file, tmp_path / "b", ImportOptions(preset="yolox"))


def test_unknown_preset_lists_the_known(net_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="twinlite"):
        import_model(net_file, tmp_path / "b", ImportOptions(preset="nonsense"))


def test_wrong_number_of_labels_is_refused(net_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 labels were given, the graph has 11 classes"):
        import_model(net_file, tmp_path / "b", ImportOptions(labels=("a", "b")))


def external_model(net: onnx.ModelProto, folder: Path, location: str) -> Path:
    model = onnx.ModelProto()
    model.CopyFrom(net)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    (folder / "weights.data").write_bytes(tensor.raw_data)
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    path = folder / "external.onnx"
    path.write_bytes(serialise(model))
    return path


def test_second_data_file_is_taken_in(small_net: onnx.ModelProto, tmp_path: Path) -> None:
    path = external_model(small_net, tmp_path, "weights.data")
    report = import_model(path, tmp_path / "b", ImportOptions(preset="edgeseg"))
    assert "1 tensors taken in from a second data file" in report.notes
    model = parse_model(report.bundle.model_bytes())
    assert {t.name: t.raw_data for t in model.graph.initializer} == {
        t.name: t.raw_data for t in small_net.graph.initializer
    }


@pytest.mark.parametrize(
    "location",
    ["../weights.data", "/etc/hostname", "a/../../weights.data", "", "C:\\weights", "..\\weights",
     "weights.data\0x", "missing.data"],
)  # fmt: skip
def test_hostile_data_paths_are_refused(
    small_net: onnx.ModelProto, tmp_path: Path, location: str
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "weights.data").write_bytes(bytes(1 << 20))
    with pytest.raises(ModelError, match="data file"):
        import_model(external_model(small_net, inner, location), tmp_path / "b", ImportOptions())


def test_linked_data_file_is_refused(small_net: onnx.ModelProto, tmp_path: Path) -> None:
    path = external_model(small_net, tmp_path, "link.data")
    (tmp_path / "link.data").symlink_to("/etc/hostname")
    with pytest.raises(ModelError, match="is a link"):
        import_model(path, tmp_path / "b", ImportOptions())


@pytest.mark.parametrize(("key", "value"), [("length", "99999999"), ("offset", "-1")])
def test_data_out_of_range_is_refused(
    small_net: onnx.ModelProto, tmp_path: Path, key: str, value: str
) -> None:
    path = external_model(small_net, tmp_path, "weights.data")
    model = parse_model(path.read_bytes())
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == key:
                entry.value = value
    path.write_bytes(serialise(model))
    with pytest.raises(ModelError, match=r"asks for bytes|is not a number"):
        import_model(path, tmp_path / "b", ImportOptions())


def test_batch_of_two_is_refused(tmp_path: Path) -> None:
    b = GraphBuilder("t")
    b.node("Relu", ["x"], out="y")
    shape = [2, 3, 32, 32]
    path = tmp_path / "m.onnx"
    path.write_bytes(serialise(b.model([("x", 1, shape)], [("y", 1, shape)])))
    with pytest.raises(ModelError, match="batch size is 2"):
        import_model(path, tmp_path / "b", ImportOptions())


def test_free_shape_asks_for_the_size(tmp_path: Path) -> None:
    b = GraphBuilder("t")
    b.node("Relu", ["x"], out="y")
    path = tmp_path / "m.onnx"
    model = b.model([("x", 1, ["n", 3, "h", "w"])], [("y", 1, ["n", 3, "h", "w"])])
    path.write_bytes(serialise(model))
    with pytest.raises(ModelError, match="--size WIDTHxHEIGHT"):
        import_model(path, tmp_path / "b", ImportOptions())
    report = import_model(path, tmp_path / "b", ImportOptions(size=(64, 32), preset="logits"))
    assert (report.bundle.manifest.input.width, report.bundle.manifest.input.height) == (64, 32)


def test_command_line_prints_json_and_one_line_errors(
    net_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["model", "import", str(net_file), "--preset", "edgeseg", "--out", str(tmp_path / "b")]
    assert main([*args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["preset"] == "edgeseg"
    assert Bundle.open(tmp_path / "b", trusted_keys=None).digest == found["digest"]
    assert main(args) == 4
    assert capsys.readouterr().err.startswith("syncline: ")
    assert main([*args[:-1], str(tmp_path / "c"), "--size", "12by34"]) == 2


def test_the_golden_frame_may_be_chosen_from_a_folder(
    net_file: Path, picture_folder: Path, tmp_path: Path
) -> None:
    """One of the pictures, not a drawn one; the manifest names what computed its output."""
    options = ImportOptions(preset="edgeseg", golden=picture_folder)
    made = import_model(net_file, tmp_path / "b", options).bundle
    pictures = [frame.bgr for frame in open_frames(picture_folder, 99).read()]
    assert any(np.array_equal(made.golden().frame, picture) for picture in pictures)
    assert " on " in made.manifest.target.runtime


def test_raw_maps_of_our_detector_are_folded_into_boxes(tmp_path: Path) -> None:
    """Three maps in, one list of boxes out; the edge runs what comes of it."""
    builder, rng = GraphBuilder("det"), np.random.default_rng(0)
    for stride in (8, 16, 32):
        kernel = rng.normal(0.0, 0.05, (7, 3, stride, stride)).astype(np.float32)
        weight = builder.const(kernel)
        builder.node(
            "Conv", ["images", weight], out=f"map{stride}",
            kernel_shape=[stride, stride], strides=[stride, stride],
        )  # fmt: skip
    maps = [(f"map{s}", onnx.TensorProto.FLOAT, [1, 7, 64 // s, 96 // s]) for s in (8, 16, 32)]
    model = builder.model([("images", onnx.TensorProto.FLOAT, [1, 3, 64, 96])], maps)
    (tmp_path / "det.onnx").write_bytes(serialise(model))
    made = import_model(tmp_path / "det.onnx", tmp_path / "b", ImportOptions(preset="edgedet"))
    manifest = made.bundle.manifest
    assert (manifest.decoder.kind, len(manifest.labels)) == ("boxes-nms", 3)
    assert Engine.load(made.bundle).proof.max_abs_diff == 0.0
