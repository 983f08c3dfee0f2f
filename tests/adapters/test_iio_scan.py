"""Industrial I/O: scan types, and layouts as the C compiler makes them."""

from __future__ import annotations

import ctypes
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncline.errors import DeviceError
from syncline.sensors.adapters.iio_scan import Element, ScanLayout, ScanType


@pytest.mark.parametrize(
    ("text", "data", "value"),
    [
        ("le:s16/16>>0", b"\xff\x7f", 32767),
        ("le:s16/16>>0", b"\x00\x80", -32768),
        ("be:s16/16>>0", b"\x80\x00", -32768),
        ("le:s12/16>>4", b"\xf0\xff", -1),
        ("le:u12/16>>4", b"\xff\xff", 4095),
        ("be:s20/32>>8", b"\x00\x0f\xff\xff", 4095),
        ("be:s20/32>>12", b"\x80\x00\x0f\xff", -524288),
        ("le:s64/64>>0", (-5).to_bytes(8, "little", signed=True), -5),
        ("le:u8/8X2>>0", b"\x07\x09", 7),
        ("le:f32/32>>0", struct.pack("<f", 1.5), 1.5),
    ],
)
def test_values_of_scan_types(text: str, data: bytes, value: float) -> None:
    assert ScanType.parse(text + "\n").decode(data) == value


@pytest.mark.parametrize(
    "text",
    ["", "le:s16/16", "xe:s16/16>>0", "le:s17/16>>0", "le:s16/16>>1", "le:s0/16>>0", "le:s16/24>>0",
     "le:s16/16X0>>0", "le:s16/16X65>>0", "le:f24/32>>0", "le:f8/8>>0", "le:s16/16>>0;rm -rf"],
)  # fmt: skip
def test_types_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(DeviceError, match="IIO"):
        ScanType.parse(text)


TYPE_TEXT = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"(be|le):[suf]\d{1,3}/\d{1,3}(X\d{1,3})?>>\d{1,2}", fullmatch=True),
)


@given(TYPE_TEXT, st.binary(min_size=8, max_size=8))
@settings(max_examples=60)
def test_any_type_is_refused_or_decodes_into_its_range(text: str, data: bytes) -> None:
    try:
        kind = ScanType.parse(text)
    except DeviceError:
        return
    value = kind.decode(data)
    if kind.kind == "s":
        assert -(1 << kind.bits - 1) <= value < 1 << kind.bits - 1
    elif kind.kind == "u":
        assert 0 <= value < 1 << kind.bits


C_TYPES = {8: ctypes.c_int8, 16: ctypes.c_int16, 32: ctypes.c_int32, 64: ctypes.c_int64}


@given(st.lists(st.sampled_from([8, 16, 32, 64]), min_size=1, max_size=9), st.randoms())
@settings(max_examples=40)
def test_a_scan_is_aligned_as_a_c_structure(bits: list[int], rng: object) -> None:
    """The kernel aligns as a compiler does, which serves as the judge."""
    fields = [(f"c{i}", C_TYPES[b]) for i, b in enumerate(bits)]
    judge = type("Judge", (ctypes.Structure,), {"_fields_": fields})
    values = [(-7) ** (i % 2) * (i + 1) for i in range(len(bits))]
    scan = bytes(judge(*values))
    elements = [Element(f"c{i}", i, ScanType.parse(f"le:s{b}/{b}>>0")) for i, b in enumerate(bits)]
    layout = ScanLayout(elements[::-1])
    assert layout.size_bytes == ctypes.sizeof(judge)
    assert layout.raw(scan) == {f"c{i}": v for i, v in enumerate(values)}
    with pytest.raises(ValueError, match="no scan"):
        layout.raw(scan + b"x")
