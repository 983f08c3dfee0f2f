"""Outputs: never over something that is there, whole or not at all, and one line when refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import av
import numpy as np
import pytest

from syncline.cli import main
from syncline.cloud.catalog import Catalog
from syncline.cloud.devices import Devices
from syncline.edge.annotate import Annotator
from syncline.edge.decode.types import Boxes
from syncline.edge.job import Frame, Latencies, Result
from syncline.edge.model.bundle import Bundle, write_bundle
from syncline.edge.shipped import resolve_bundle
from syncline.errors import StorageError, UsageError
from syncline.figure import new_figure, save_figure
from syncline.link.keys import PublicKey
from syncline.log.disk import Disk
from syncline.timebase import NS_PER_S
from tests.replay.rig import BOOT_A, record_boot, segment

FULL = Path("/dev/full")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code and the only line of a command that is refused."""
    code = main([str(a) for a in arguments])
    stderr = capsys.readouterr().err
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("syncline: ")
    assert ". " in lines[0], f"no remedy: {lines[0]}"
    return code, lines[0]


def result(index: int) -> Result:
    image = np.full((48, 64, 3), 10 * index % 250, np.uint8)
    boxes = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    frame = Frame("front", index, image, None, index * 50_000_000)
    return Result(frame, "primary", "0" * 64, boxes, True, "", Latencies())


def test_the_input_is_never_the_annotated_video(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A1: by its own name, by another way to it, and by a link."""
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(clip.read_bytes())
    (tmp_path / "link.mp4").symlink_to(copy)
    for name in (copy, tmp_path / "." / "x" / ".." / "copy.mp4", tmp_path / "link.mp4"):
        (tmp_path / "x").mkdir(exist_ok=True)
        code, line = refused(capsys, "replay", copy, "--to", "0.2", "--annotate", name)
        assert code == 2
        assert "is the input" in line
    assert copy.read_bytes() == clip.read_bytes()


def test_an_annotated_video_that_is_there_stays(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.mp4"
    mine.write_text("mine")
    code, line = refused(
        capsys, "replay", clip, "--annotate", mine, "--out", tmp_path / "recording"
    )
    assert code == 2
    assert "exists" in line
    assert mine.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.mp4"]


@pytest.mark.parametrize(
    ("name", "code", "named"),
    [
        ("x.foo", 2, "names no container"),
        ("nodir/x.mp4", 5, "No such file"),
        ("file/x.mp4", 5, "Not a directory"),
        ("file/deep/x.mp4", 5, "Not a directory"),
    ],
)
def test_an_annotated_video_that_cannot_be(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, code: int, named: str
) -> None:
    (tmp_path / "file").write_text("")
    found, line = refused(capsys, "replay", clip, "--annotate", tmp_path / name)
    assert found == code
    assert named in line


def test_an_annotated_video_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with Annotator(path, ()) as annotator:
        for index in range(5):
            annotator.add(result(index))
        assert not path.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 5


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with Annotator(tmp_path / "a.mkv", ()) as annotator:
            annotator.add(result(0))
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_name_taken_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    annotator = Annotator(tmp_path / "a.mp4", ())
    annotator.add(result(0))
    (tmp_path / "a.mp4").write_text("another's")
    with pytest.raises(UsageError, match="exists"):
        annotator.close()
    assert (tmp_path / "a.mp4").read_text() == "another's"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("frames", [1, 200])
def test_a_full_disk_ends_the_annotated_video_with_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: int
) -> None:
    """The end of the file cannot be written either; that must not hide the first reason."""
    if not FULL.exists():
        pytest.skip("no /dev/full here")
    annotator = Annotator(tmp_path / "a.mkv", ())
    monkeypatch.setattr(annotator, "_part", tmp_path / "part.mkv")
    (tmp_path / "part.mkv").symlink_to(FULL)

    def draw() -> None:
        with annotator:
            for index in range(frames):
                annotator.add(result(index))

    with pytest.raises(StorageError, match="No space left") as caught:
        draw()
    assert "Free space" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "code", "named"),
    [
        ("nodir/x.png", 5, "No such file"),
        ("file/x.png", 5, "Not a directory"),
        ("x.foo", 2, "means nothing"),
        ("timing", 2, "means nothing"),
    ],
)
def test_a_picture_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, code: int, named: str
) -> None:
    """It is told before the recording is read: there is none here."""
    (tmp_path / "file").write_text("")
    for command in (
        ["log", "view", "no-log", "--out"],
        ["sensors", "calibrate", "no-log", "--camera=a", "--imu=b", "--matrix=9,9,9,9", "--plot"],
    ):
        found, line = refused(capsys, *command, tmp_path / name)
        assert found == code
        assert named in line


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf", ".jpg", ".html"])
def test_a_picture_on_a_full_disk_keeps_the_old_one(tmp_path: Path, ending: str) -> None:
    figure = new_figure(2, 2)
    figure.add_subplot().plot([0, 1], [0, 1])
    path = tmp_path / f"a{ending}"
    save_figure(figure, path, "a")
    old = path.read_bytes()
    assert len(old) > 1000
    (tmp_path / f".{path.name}.part").symlink_to(FULL)
    with pytest.raises(StorageError, match="No space left"):
        save_figure(figure, path, "a")
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_rerun_on_a_full_disk_leaves_nothing_and_may_be_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rerun")
    record_boot(tmp_path / "drive", BOOT_A, 3, segments=(segment(1, BOOT_A, NS_PER_S),))
    out = tmp_path / "out.rrd"
    command = ["log", "convert", str(tmp_path / "drive"), str(out), "--to", "rerun"]
    (tmp_path / ".out.rrd.part").symlink_to(FULL)
    assert main(command) == 5
    told = capfd.readouterr().err.splitlines()
    assert [line for line in told if line.startswith("syncline: ")] == [
        f"syncline: cannot write {out}: No space left on device. Free space, or choose another disk"
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["drive"]
    assert main(command) == 0
    assert "left out: 1 of /time/mapping" in capfd.readouterr().out
    assert main(command) == 2
    assert main([*command[:3], str(tmp_path / "no" / "x.rrd"), *command[4:]]) == 5


@pytest.mark.parametrize("matrix", ["0,0,0,0", "nan,1,1,1", "500,-1,3,3", "500,500", "inf,1,1,1"])
def test_a_camera_matrix_that_is_none(capsys: pytest.CaptureFixture[str], matrix: str) -> None:
    command = ("sensors", "calibrate", "no-log", "--camera=a", "--imu=b")
    code, line = refused(capsys, *command, f"--matrix={matrix}")
    assert code == 2
    assert matrix in line


def test_a_demo_where_none_can_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    code, line = refused(capsys, "demo", "--out", tmp_path / "file" / "out")
    assert code == 5
    assert "Not a directory" in line
    monkeypatch.setattr(Disk, "free_bytes", lambda _self, _path: 100 << 20)
    code, line = refused(capsys, "demo", "--out", tmp_path / "demo")
    assert code == 5
    assert "100 MiB are free, 256 are needed" in line


def test_a_bundle_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Bundle.open(resolve_bundle("road-detector"), trusted_keys=None)
    files = {name: good.read(name) for name in good.manifest.files}
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Not a directory"):
        write_bundle(tmp_path / "file" / "b", good.manifest, files)
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "manifest.toml":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left"):
        write_bundle(tmp_path / "b", good.manifest, files)
    assert not (tmp_path / "b").exists()


def test_a_catalog_that_cannot_be_written_says_whose_it_must_be(tmp_path: Path) -> None:
    """A read-only database, as the rights of a folder would make it."""
    with Catalog.open(tmp_path) as catalog:
        devices = Devices(catalog)
        with catalog.engine.connect() as db:
            db.exec_driver_sql("PRAGMA query_only = ON")
            db.rollback()
        with pytest.raises(StorageError, match="readonly") as caught:
            devices.enrol(PublicKey("car-1", "x" * 40))
    assert caught.value.remedy == "Let this user write the data folder and the files in it"
