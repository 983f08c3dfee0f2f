"""Label maps: what people store, and what a gate may conclude from them."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from syncline.cli import main
from syncline.cloud.models.agreement import Tally, confusion
from syncline.cloud.models.build import (
    QuantizeOptions,
    fp32_build,
    int8_build,
    quantize_bundle,
)
from syncline.cloud.models.frames import open_frames
from syncline.cloud.models.gate import GateLimits, compare_results, judge_labels
from syncline.cloud.models.probe import Probe
from syncline.cloud.models.targets import this_machine
from syncline.cloud.models.truth import read_label_map, truth_folder
from syncline.edge.decode import LabelMap
from syncline.edge.model.bundle import Bundle
from syncline.errors import MediaError, UsageError

from .conftest import made_frames

Map = NDArray[np.uint8]


def png(labels: Map, bits: int, kind: int) -> bytes:
    """A PNG of grey samples (kind 0) or palette indices (3) of any depth, not interlaced."""
    rows = []
    for row in labels:
        if bits == 16:
            rows.append(b"\0" + row.astype(">u2").tobytes())
            continue
        per = 8 // bits
        wide = np.zeros((-(-len(row) // per), per), np.uint8)
        wide.reshape(-1)[: len(row)] = row
        shifts = np.arange(per - 1, -1, -1, dtype=np.uint8) * bits
        rows.append(b"\0" + (wide << shifts).sum(axis=1).astype(np.uint8).tobytes())
    palette = np.random.default_rng(1).integers(0, 256, (1 << min(bits, 8), 3), np.uint8)
    head = struct.pack(">IIBBBBB", labels.shape[1], labels.shape[0], bits, kind, 0, 0, 0)
    chunks = [(b"IHDR", head)]
    chunks += [(b"PLTE", palette.tobytes()), (b"tRNS", b"\0\x80")] if kind == 3 else []
    chunks += [(b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("kind", [0, 3])
def test_samples_are_labels_whatever_their_depth(tmp_path: Path, bits: int, kind: int) -> None:
    if (bits, kind) == (16, 3):
        return  # no such PNG
    rng = np.random.default_rng(bits)
    labels = rng.integers(0, min(1 << bits, 256), (7, 13)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(png(labels, bits, kind))
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), labels)


def test_what_holds_no_labels_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    wide = np.array([[0, 26001, 65535]], np.uint16)
    assert cv2.imwrite(str(file), wide)
    with pytest.raises(MediaError, match="26001, which is no class id"):
        read_label_map(file)
    assert cv2.imwrite(str(file), np.minimum(wide, 65535 * (wide > 0)).clip(0, 3))
    np.testing.assert_array_equal(read_label_map(file), [[0, 3, 3]])
    file.write_bytes(png(np.array([[7, 255]], np.uint8), 8, 3)[:-20])
    with pytest.raises(MediaError, match="cannot be decoded"):
        read_label_map(file)
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert cv2.imwrite(str(file), np.dstack([grey] * 3))
    np.testing.assert_array_equal(read_label_map(file), grey)
    assert cv2.imwrite(str(file), np.dstack([grey, grey, grey[::-1]]))
    with pytest.raises(MediaError, match=r"holds colours, not labels\. Store class ids"):
        read_label_map(file)
    file.write_bytes(b"BM" + bytes(100))
    with pytest.raises(MediaError, match="is not a PNG"):
        read_label_map(file)


def test_ignore_of_sixteen_bits(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), np.array([[1, 255, 65535]], np.uint16))
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), [[1, 255, 255]])


@pytest.fixture(scope="module")
def maps(bundle: Bundle, picture_folder: Path) -> dict[str, Map]:
    """What the fp32 model says of each picture, at the picture's size."""
    found = {}
    probe = Probe(fp32_build(bundle, fold_graph=False).model, bundle.manifest)
    for frame in open_frames(picture_folder, 12).read():
        result = probe(frame.bgr)
        assert isinstance(result, LabelMap)
        found[frame.name] = result.upsampled()
    return found


def stored(folder: Path, maps: dict[str, Map], kind: int = 3) -> Path:
    for name, labels in maps.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(labels, 8, kind))
    return folder


def test_palette_and_grey_labels_give_the_same_figures(
    bundle: Bundle, picture_folder: Path, maps: dict[str, Map], tmp_path: Path
) -> None:
    source = open_frames(picture_folder, 12)
    fp32 = fp32_build(bundle, fold_graph=True)
    int8 = int8_build(fp32, source, QuantizeOptions(target=this_machine()))
    figures = []
    for kind in (0, 3):
        truth = truth_folder(stored(tmp_path / str(kind), maps, kind))
        found = compare_results(fp32, int8, source, truth)
        figures.append(found.metrics()["all"])
        classes = found.slices["all"].by_class(bundle.manifest.labels)
        assert sum(c["judged_pixels"] for c in classes.values()) == figures[-1]["judged_pixels"]
    assert figures[0] == figures[1]
    assert figures[0]["miou_fp32"] == 1.0
    assert figures[0]["truth_frames"] == 12
    assert figures[0]["miou"] < 1.0


Quantize = Callable[..., int]


@pytest.fixture
def quantize(bundle: Bundle, picture_folder: Path, tmp_path: Path) -> Quantize:
    """`model quantize` into `out`, judged by the labels in a folder, its limits easy to hold."""

    def run(truth: str, *more: str) -> int:
        easy = ["--min-speedup", "0.01", "--runs", "1", "--max-drop", "1"]
        args = ["--calibration", str(picture_folder), "--out", str(tmp_path / "out")]
        judged = ["--truth", str(tmp_path / truth)]
        return main(["model", "quantize", str(bundle.folder), *args, *judged, *easy, *more])

    return run


def test_labels_that_say_nothing_refuse_the_build(
    quantize: Quantize, maps: dict[str, Map], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without a matching name, labels of other classes, labels turned about."""

    def told(folder: str, labels: dict[str, Map]) -> str:
        stored(tmp_path / folder, labels)
        assert quantize(folder) in (3, 4)
        return capsys.readouterr().err

    other = {f"{i}-{name}".replace("/", "_"): m for i, (name, m) in enumerate(maps.items())}
    assert "none of the 6 frames has a label map" in told("names", other)
    void = {name: np.full_like(m, 200) for name, m in maps.items()}
    assert "0.0% of the labels are of a class" in told("void", void)
    few = told("few", dict(list(maps.items())[:2]))
    assert "are too few to judge on" in few or "has a label map" in few
    shuffled = np.random.default_rng(0).permutation(11).astype(np.uint8)
    ids = {name: shuffled[m] for name, m in maps.items()}
    assert "one label for every pixel" in told("ids", ids)
    turned = {name: m.T.copy() for name, m in maps.items()}
    assert "the label map of" in told("turned", turned)
    assert not (tmp_path / "out").exists()


def test_good_labels_are_counted_per_class(
    quantize: Quantize, maps: dict[str, Map], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path / "truth", maps)
    assert quantize("truth", "--json", "--min-miou", "0", "--min-pixels", "0") == 0
    found = json.loads(capsys.readouterr().out)
    pixels = {name: part["judged_pixels"] for name, part in found["classes"].items()}
    assert sum(pixels.values()) == found["metrics"]["all"]["judged_pixels"] > 0
    assert all(name.startswith("class.") for name in pixels)
    stamped = Bundle.open(tmp_path / "out", trusted_keys=None).manifest.metrics
    assert stamped["evidence"]["judged_frames"] == 6
    assert stamped["all"]["truth_frames"] == 6
    assert set(pixels) <= set(stamped)


def test_one_label_everywhere_is_no_achievement() -> None:
    truth = np.repeat(np.arange(4, dtype=np.uint8), 25)
    tally = Tally(frames=9, truth_frames=9, truth_pixels=100)
    constant = confusion(truth, np.zeros(100, np.uint8))
    tally.truth = (constant, constant)
    assert "one label for every pixel would have 0.0625" in judge_labels(tally, GateLimits())[0]
    tally.truth = (confusion(truth, truth),) * 2
    assert judge_labels(tally, GateLimits()) == []


def test_labels_of_a_detector_are_a_mistake(bundle: Bundle, tmp_path: Path) -> None:
    detector = msgspec.structs.replace(bundle.manifest, task="detection")
    source = Bundle(bundle.folder, bundle.digest, detector)
    with pytest.raises(UsageError, match="label maps say nothing of a detection model"):
        quantize_bundle(
            source, tmp_path / "a", made_frames(8), made_frames(8),
            QuantizeOptions(target=this_machine()), cpu_ns=lambda: 0, truth=lambda _: None,
        )  # fmt: skip
