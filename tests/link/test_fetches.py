"""Fetches and notices over real sockets: resumed, bounded, refused."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import pytest

from syncline.errors import InputError, IntegrityError, LinkError
from syncline.link import Notice, Resource

from .proxy import Proxy
from .rig import Rig, wait


class Shelf:
    """A provider of one resource, for one device."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.number = 1
        self.reads: list[int] = []

    def list_resource(self, device: str, name: str) -> Resource:
        if name != "model/a" or device != "car":
            raise InputError(f"there is no {name!r} for {device}")
        return Resource(len(self.data), hashlib.sha256(self.data).hexdigest())

    def read(self, device: str, name: str, offset: int, length: int) -> bytes:
        self.list_resource(device, name)
        self.reads.append(offset)
        return self.data[offset : offset + length]

    def revision(self) -> int:
        return self.number

    def notices(self, device: str) -> Sequence[Notice]:
        return [Notice("model/a/production", self.number, f"v{self.number}")]


def test_fetch_resumes_and_checks(rig: Rig) -> None:
    shelf = Shelf(random.Random(1).randbytes(3_000_000))
    rig.start(shelf)
    _, uplink = rig.device()
    out = rig.folder / "got" / "a.bin"
    out.parent.mkdir()
    out.with_name("a.bin.part").write_bytes(shelf.data[:1_500_000])
    seen: list[tuple[int, int]] = []
    uplink.fetch("model/a", out, lambda at, size: seen.append((at, size)), timeout_s=20)
    assert out.read_bytes() == shelf.data
    assert seen[-1] == (3_000_000, 3_000_000)
    assert min(shelf.reads) >= 1_500_000, "what was there was not fetched again"
    assert not out.with_name("a.bin.part").exists()


def test_fetch_over_a_link_that_breaks(rig: Rig) -> None:
    shelf = Shelf(random.Random(1).randbytes(4_000_000))
    rig.start(shelf)
    proxy = Proxy(rig.listen)
    _, uplink = rig.device(endpoint=proxy.endpoint)
    cuts = iter(range(2))

    def progress(at: int, size: int) -> None:
        if next(cuts, None) is not None:
            proxy.drop_all()

    uplink.fetch("model/a", rig.folder / "a.bin", progress, timeout_s=60)
    assert (rig.folder / "a.bin").read_bytes() == shelf.data
    proxy.close()


def test_nothing_is_written_of_more_than_was_wanted(rig: Rig) -> None:
    rig.start(Shelf(bytes(100_000)))
    _, uplink = rig.device()
    out = rig.folder / "a.bin"
    with pytest.raises(IntegrityError, match="announces 100000 bytes of 'model/a', limit 99999"):
        uplink.fetch("model/a", out, timeout_s=10, max_bytes=99_999)
    assert not out.exists()
    assert not out.with_name("a.bin.part").exists()
    uplink.fetch("model/a", out, timeout_s=10, max_bytes=100_000)
    assert out.stat().st_size == 100_000


def test_a_fetch_that_is_refused_says_why(rig: Rig) -> None:
    rig.start(Shelf(b"x"))
    _, uplink = rig.device()
    with pytest.raises(LinkError, match="no 'model/b'"):
        uplink.fetch("model/b", rig.folder / "b", timeout_s=10)
    rig.enrol("lorry")
    _, other = rig.device("lorry")
    with pytest.raises(LinkError, match="for lorry"):
        other.fetch("model/a", rig.folder / "b", timeout_s=10)
    assert not (rig.folder / "b").exists()


def test_notices_come_at_hello_and_when_something_changes(rig: Rig) -> None:
    shelf = Shelf(b"x")
    rig.start(shelf)
    got: list[Notice] = []
    rig.device(on_notice=got.append)
    wait(lambda: len(got) == 1, 10)
    assert got[0] == Notice("model/a/production", 1, "v1")
    shelf.number = 2
    wait(lambda: len(got) > 1, 5)
    assert got[-1].text == "v2"
