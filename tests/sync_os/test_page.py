"""The shared-memory page: what is read is what was written, whole, from another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import ClockError, DeviceError
from syncline.sync.page import PageContent, PageReader, PageWriter
from syncline.timebase import NO_BOUND_NS, MappingSegment, TimeState

_WRITER = """
import sys
from pathlib import Path
from syncline.sync.page import PageWriter
from syncline.timebase import MappingSegment, TimeState
writer = PageWriter(Path(sys.argv[1]))
n = 0
while True:
    n += 1
    # Every field follows from n: a reader can tell a torn copy.
    writer.write(MappingSegment(n, n & 0xFFFF, str(n), 3*n, 5*n, n*1e-9, (7.0*n, 11.0*n, 13.0*n),
        17.0*n, 19*n, 23.0*n, TimeState(n % 5), ("a%d" % n, "b%d" % n)), 29*n, "p%d" % (n % 1000))
    if n == 1:
        print("up", flush=True)
"""


def _whole(content: PageContent) -> int:
    """The number behind the content; asserts that every field belongs to it."""
    s, n = content.segment, content.segment.id
    assert s == MappingSegment(
        n, n & 0xFFFF, str(n), 3 * n, 5 * n, n * 1e-9, (7.0 * n, 11.0 * n, 13.0 * n), 17.0 * n,
        19 * n, 23.0 * n, TimeState(n % 5), (f"a{n}", f"b{n}"),
    )  # fmt: skip
    assert (content.published_raw_ns, content.policy) == (29 * n, f"p{n % 1000}")
    return n


def _read_under_fire(path: Path, reads: int, contents: int) -> int:
    """Read at least so often, and until so many contents were seen, while another process writes.

    Where the two share one processor, many reads may fall between two writes.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE
    ) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"up\n"
            reader = PageReader(path)
            changes, last, seen, done = 0, -1, None, 0
            while done < reads or changes < contents:
                done += 1
                content = reader.content()
                if content is seen:
                    continue  # the very object that was found whole; nothing can change it
                n = _whole(content)
                assert n > last
                changes, last, seen = changes + 1, n, content
            reader.close()
        finally:
            writer.kill()
    return changes


def test_sync_38_no_torn_reads_under_a_furious_writer(tmp_path: Path) -> None:
    """sync-38: every read is whole while another process writes without pause."""
    _read_under_fire(tmp_path / "page", 60_000, 200)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_sync_38_soak_no_torn_reads(tmp_path: Path) -> None:
    """sync-38: 100 000 000 reads against a writer without pause."""
    changes = _read_under_fire(tmp_path / "page", 100_000_000, 100_000)
    print(f"{changes} contents seen")


@given(
    raw0=st.integers(0, 2**62),
    utc0=st.integers(0, 2**62),
    rate=st.floats(-1e-3, 1e-3),
    bound=st.integers(0, NO_BOUND_NS),
    sources=st.lists(st.sampled_from(["ntp:192.0.2.1", "gnss0", "pps0", "ptp0"]), max_size=30),
)
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    raw0: int,
    utc0: int,
    rate: float,
    bound: int,
    sources: list[str],
) -> None:
    path = tmp_path_factory.getbasetemp() / "round"
    segment = MappingSegment(
        1, 0, "1f0c7f4e-9d2b-4e6b-8f1e-4c1f33a6b111", raw0, utc0, rate, (1.0, 2.0, 3.0), 4.0, bound,
        1000.0, TimeState.SYNCED, tuple(sources),
    )  # fmt: skip
    writer = PageWriter(path)
    writer.write(segment, 7, "open-sky")
    reader = PageReader(path)
    got = reader.content().segment
    assert got.sources == segment.sources[: len(got.sources)]
    assert got.utc_ns(raw0 + 10**9) == segment.utc_ns(raw0 + 10**9)
    assert got.bound_ns(raw0 + 10**9) == segment.bound_ns(raw0 + 10**9)
    reader.close()
    writer.close()


def test_readers_survive_a_restart_of_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "page"
    writer = PageWriter(path)
    reader = PageReader(path)
    with pytest.raises(ClockError, match="no content"):
        reader.content()
    writer.write(MappingSegment(1, 0, "b", 0, 0), 0)
    assert reader.segment().id == 1
    writer.close()
    with pytest.raises(ClockError, match="writer stopped"):
        reader.content()
    again = PageWriter(path)
    again.write(MappingSegment(2, 0, "c", 0, 0), 0)
    assert reader.segment().id == 2
    again.close()
    reader.close()


def test_a_second_writer_is_refused_and_an_absent_page_is_named(tmp_path: Path) -> None:
    writer = PageWriter(tmp_path / "page")
    with pytest.raises(DeviceError, match="in use"):
        PageWriter(tmp_path / "page")
    writer.close()
    with pytest.raises(DeviceError, match="Start the time service"):
        PageReader(tmp_path / "absent")
    with pytest.raises(DeviceError, match="cannot make"):
        PageWriter(tmp_path / "no" / "folder")
    (tmp_path / "text").write_bytes(b"hello" * 2000)
    with pytest.raises(DeviceError, match="not a time page"):
        PageReader(tmp_path / "text")


def test_utc_through_the_page_equals_the_segments(tmp_path: Path) -> None:
    writer = PageWriter(tmp_path / "page")
    segment = MappingSegment(3, 0, "b", 10**12, 1_800_000_000 * 10**9, 2.5e-6, hard_bound_ns=500)
    writer.write(segment, 0)
    reader = PageReader(tmp_path / "page")
    for raw_ns in np.linspace(10**12, 2 * 10**12, 50).astype(int):
        assert reader.utc(int(raw_ns)).utc_ns == segment.utc_ns(int(raw_ns))
    reader.close()
    writer.close()
