"""Outputs: never over something that is there, whole or not at all, and one line when refused."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from syncline.cli import main
from syncline.edge.annotate import Annotator
from syncline.edge.decode.types import Boxes
from syncline.edge.job import Frame, Latencies, Result
from syncline.errors import StorageError, UsageError

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
