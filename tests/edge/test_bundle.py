"""Manifests, bundles, signatures."""

from __future__ import annotations

import contextlib
import io
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.edge.model.bundle import Bundle, write_bundle
from syncline.edge.model.golden import Golden, compare, pack_golden, unpack_golden
from syncline.edge.model.manifest import (
    DecoderSpec,
    GoldenSpec,
    InputSpec,
    Manifest,
    TargetSpec,
    encode_manifest,
    load_manifest,
    parse_manifest,
)
from syncline.edge.model.signature import generate_key, public_key, sign, verify
from syncline.errors import HealthProofError, IntegrityError, ManifestError

GOLDEN = Golden(np.arange(72, dtype=np.uint8).reshape(4, 6, 3), (np.ones((1, 2), np.float32),))


def make_manifest(**changes: object) -> Manifest:
    base = Manifest(
        name="road-detector",
        version="1.0.0",
        task="detection",
        security_version=3,
        license="Apache-2.0",
        labels=("car", 'a "quoted" label\n', "été"),
        input=InputSpec(name="images", width=416, height=416, resize="letterbox-topleft"),
        decoder=DecoderSpec(kind="yolox", outputs=("output",), strides=(8, 16, 32)),
        target=TargetSpec(opset=17, runtime="onnxruntime 1.31.1"),
        lineage={"parent": "", "data set": "abc"},
        metrics={"all": {"f1": 0.5}, "night.rain": {"f1": 1e-05}},
    )
    return msgspec.structs.replace(base, **changes)


def make_bundle(folder: Path, **changes: object) -> Bundle:
    files = {"model.onnx": random.Random(1).randbytes(5000), "golden.npz": pack_golden(GOLDEN)}
    return write_bundle(folder, make_manifest(**changes), files)


def test_manifest_survives_writing_and_reading(tmp_path: Path) -> None:
    (tmp_path / "manifest.toml").write_bytes(encode_manifest(make_manifest()))
    assert load_manifest(tmp_path) == make_manifest()
    assert load_manifest(tmp_path / "manifest.toml") == make_manifest()


@given(
    st.lists(st.text(max_size=40), max_size=4),
    st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=4),
    st.dictionaries(
        st.text(max_size=9),
        st.dictionaries(st.text(max_size=9), st.floats(allow_nan=False, allow_infinity=False)),
        max_size=3,
    ),
)
def test_any_text_survives_toml(
    labels: list[str], lineage: dict[str, str], metrics: dict[str, dict[str, float]]
) -> None:
    manifest = make_manifest(labels=tuple(labels), lineage=lineage, metrics=metrics)
    assert parse_manifest(encode_manifest(manifest)) == manifest


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (b"format = 1\n=>format = 2\n", "format"),
        (b'name = "road-detector"=>name = "Road Detector"', "name"),
        (b"width = 416=>width = 0", "input.width"),
        (b"width = 416=>width = 100000", "input.width"),
        (b'layout = "NCHW"=>layout = "CHWN"', "input.layout"),
        (b'kind = "yolox"=>kind = "magic"', "decoder.kind"),
        (b'kind = "yolox"=>kind = "argmax"', "decoder.kind"),
        (b'kind = "yolox"=>kind = "ssd"', "decoder.outputs"),
        (b"strides = [8, 16, 32]=>strides = []", "decoder.strides"),
        (b"std = [1.0, 1.0, 1.0]=>std = [1.0, 0.0, 1.0]", "input.std"),
        (b'dtype = "float32"=>dtype = "uint8"\nextra = 1', "extra"),
        (b"opset = 17=>opset = 99", "target.opset"),
        (b"[target]=>[target", "TOML"),
        (b"score_threshold = 0.3=>score_threshold = 1.5", "score_threshold"),
    ],
)
def test_a_wrong_key_is_named(change: bytes, named: str) -> None:
    old, new = change.split(b"=>", 1)
    data = encode_manifest(make_manifest())
    assert old in data
    with pytest.raises(ManifestError, match=named.replace(".", r"\.")):
        parse_manifest(data.replace(old, new, 1))


def test_uint8_input_may_not_be_normalised_twice() -> None:
    spec = InputSpec(name="x", width=8, height=8, dtype="uint8", mean=(1.0, 0.0, 0.0))
    with pytest.raises(ManifestError, match="uint8"):
        encode_manifest(make_manifest(input=spec))


def test_bundle_opens_and_reads(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    again = Bundle.open(tmp_path / "b", trusted_keys=None)
    assert again.digest == bundle.digest
    assert again.model_bytes() == random.Random(1).randbytes(5000)
    np.testing.assert_array_equal(again.golden().frame, GOLDEN.frame)


def test_a_damaged_manifest_is_refused_by_name() -> None:
    """Every one-bit flip of its bytes: a manifest, or one typed error."""
    good = encode_manifest(make_manifest())
    for at in range(0, 8 * len(good), 3):
        bad = bytearray(good)
        bad[at // 8] ^= 1 << at % 8
        with contextlib.suppress(ManifestError):
            parse_manifest(bytes(bad))
    for text in (b"security_version = " + b"9" * 5000, b"security_version = " + b"9" * 22):
        with pytest.raises(ManifestError):
            parse_manifest(good.replace(b"security_version = 3", text))


def test_equal_bundles_have_equal_digests(tmp_path: Path) -> None:
    assert make_bundle(tmp_path / "a").digest == make_bundle(tmp_path / "b").digest


def test_edge_17_truncation_and_bit_flips_are_refused(tmp_path: Path) -> None:
    """edge-17: minus 100 bytes, and 60 one-bit flips: all refused by digest."""
    make_bundle(tmp_path / "b")
    path = tmp_path / "b" / "model.onnx"
    good = path.read_bytes()
    damaged = [good[:-100]]
    rng = random.Random(2)
    for _ in range(60):
        flipped = bytearray(good)
        flipped[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(IntegrityError, match="SHA-256"):
            Bundle.open(tmp_path / "b", trusted_keys=None)
        refused += 1
    assert refused == 61
    path.write_bytes(good)
    Bundle.open(tmp_path / "b", trusted_keys=None)


def test_change_after_opening_is_seen(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    (tmp_path / "b" / "model.onnx").write_bytes(b"something else")
    with pytest.raises(IntegrityError, match="SHA-256"):
        bundle.model_bytes()


def test_unknown_missing_and_linked_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    make_bundle(folder)
    (folder / "extra.bin").write_bytes(b"x")
    with pytest.raises(ManifestError, match=r"extra\.bin"):
        Bundle.open(folder, trusted_keys=None)
    (folder / "extra.bin").unlink()
    (folder / "golden.npz").rename(tmp_path / "elsewhere.npz")
    with pytest.raises(ManifestError, match="lacks"):
        Bundle.open(folder, trusted_keys=None)
    (folder / "golden.npz").symlink_to(tmp_path / "elsewhere.npz")
    with pytest.raises(ManifestError, match="plain file"):
        Bundle.open(folder, trusted_keys=None)
    with pytest.raises(ManifestError, match="cannot read"):
        Bundle.open(tmp_path / "nowhere", trusted_keys=None)


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "", "manifest.toml"])
def test_file_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    files = {"model.onnx": b"m", "golden.npz": b"g"}
    manifest = make_manifest(files={**dict.fromkeys(files, "0" * 64), name: "0" * 64})
    (tmp_path / "b").mkdir()

    def write_and_open() -> None:
        (tmp_path / "b" / "manifest.toml").write_bytes(encode_manifest(manifest))
        Bundle.open(tmp_path / "b", trusted_keys=None)

    with pytest.raises(ManifestError):
        write_and_open()


def test_signature_of_a_trusted_key_is_needed(tmp_path: Path) -> None:
    private, public = generate_key()
    other_private, other_public = generate_key()
    folder = tmp_path / "b"
    make_bundle(folder)
    with pytest.raises(IntegrityError, match=r"no manifest\.sig"):
        Bundle.open(folder, trusted_keys=[public])
    sign(folder, private)
    assert Bundle.open(folder, trusted_keys=[other_public, public]).signer == public
    with pytest.raises(IntegrityError, match="trusted keys"):
        Bundle.open(folder, trusted_keys=[other_public])
    with pytest.raises(IntegrityError, match="0 trusted keys"):
        Bundle.open(folder, trusted_keys=[])
    sign(folder, other_private)
    with pytest.raises(IntegrityError, match="trusted keys"):
        Bundle.open(folder, trusted_keys=[public])


def test_changed_manifest_breaks_the_signature(tmp_path: Path) -> None:
    private, public = generate_key()
    folder = tmp_path / "b"
    make_bundle(folder)
    sign(folder, private)
    path = folder / "manifest.toml"
    path.write_bytes(path.read_bytes().replace(b"security_version = 3", b"security_version = 4"))
    with pytest.raises(IntegrityError, match="trusted keys"):
        Bundle.open(folder, trusted_keys=[public])


def test_keys_and_signatures_of_wrong_length() -> None:
    private, public = generate_key()
    assert public_key(private) == public
    with pytest.raises(IntegrityError, match="64"):
        verify(b"x", b"short", [public])
    with pytest.raises(IntegrityError, match="32"):
        verify(b"x", bytes(64), [b"short"])


def test_old_security_version_is_refused(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b")
    Bundle.open(tmp_path / "b", trusted_keys=None, min_security_version=3)
    with pytest.raises(IntegrityError, match="security_version=3"):
        Bundle.open(tmp_path / "b", trusted_keys=None, min_security_version=4)


def test_bundle_is_not_written_over_another(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b")
    with pytest.raises(ManifestError, match="not empty"):
        make_bundle(tmp_path / "b")


def test_golden_archives_that_are_none() -> None:
    assert unpack_golden(pack_golden(GOLDEN)).outputs[0].shape == (1, 2)
    for data in (b"", b"not a zip", pack_golden(GOLDEN)[:-30]):
        with pytest.raises(ManifestError, match="golden"):
            unpack_golden(data)
    with pytest.raises(ManifestError, match="frame"):
        unpack_golden(pack_golden(Golden(np.zeros((2, 2), np.uint8), GOLDEN.outputs)))
    with pytest.raises(ManifestError, match="out_0"):
        unpack_golden(pack_golden(Golden(GOLDEN.frame, ())))


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_a_damaged_golden_archive_with_a_matching_digest(
    pack: Callable[..., None],
) -> None:
    """Whatever zip, deflate and the array headers make of it: one typed error, or the arrays."""
    buffer = io.BytesIO()
    pack(buffer, frame=GOLDEN.frame, out_0=GOLDEN.outputs[0])
    good = buffer.getvalue()
    refused = 0
    for at in range(0, 8 * len(good), 3):
        bad = bytearray(good)
        bad[at // 8] ^= 1 << at % 8
        try:
            unpack_golden(bytes(bad))
        except ManifestError:
            refused += 1
    assert refused > len(good)


def test_golden_comparison() -> None:
    spec = GoldenSpec(atol=1e-3, rtol=0.0, min_agreement=0.9)
    want = Golden(GOLDEN.frame, (np.zeros(100, np.float32), np.zeros(1000, np.uint8)))
    labels = np.r_[np.ones(1), np.zeros(999)].astype(np.uint8)
    close = [np.full(100, 5e-4, np.float32), labels]
    proof = compare(want, close, spec)
    assert proof.agreement == pytest.approx(0.999)
    assert proof.max_abs_diff == pytest.approx(5e-4)
    far = [np.r_[1.0, np.zeros(99)].astype(np.float32), close[1]]
    with pytest.raises(HealthProofError, match="output 0"):
        compare(want, far, spec)
    with pytest.raises(HealthProofError, match="output 1"):
        compare(want, [close[0], np.roll(labels, 1) | labels], spec)
    with pytest.raises(HealthProofError, match="output 0"):
        compare(want, [np.full(100, np.nan, np.float32), close[1]], spec)
    with pytest.raises(HealthProofError, match="float64"):
        compare(want, [close[0].astype(np.float64), close[1]], spec)
    with pytest.raises(HealthProofError, match="outputs"):
        compare(want, close[:1], spec)


def test_reading_a_model_sets_aside_no_more_than_it_holds(tmp_path: Path) -> None:
    """A small device has no GiB to set aside for the largest model that would be allowed."""
    bundle = make_bundle(tmp_path / "b")
    tracemalloc.start()
    try:
        size = len(bundle.model_bytes())
        assert tracemalloc.get_traced_memory()[1] < size + (1 << 20)
    finally:
        tracemalloc.stop()
