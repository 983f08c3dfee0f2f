"""Bad input: one line that names what is wrong and the remedy, a documented exit code, no trace."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from syncline.cli import main
from syncline.edge.shipped import resolve_bundle
from tests.system.rig import syncline

Make = Callable[[Path, Path], list[object]]


def truncated_clip(tmp: Path, clip: Path) -> list[object]:
    path = tmp / "cut.mp4"
    path.write_bytes(clip.read_bytes()[:2000])
    return ["replay", path]


def text_as_clip(tmp: Path, clip: Path) -> list[object]:
    path = tmp / "notes.mp4"
    path.write_text("this is no video")
    return ["replay", path]


def empty_folder(tmp: Path, clip: Path) -> list[object]:
    (tmp / "none").mkdir()
    return ["replay", tmp / "none"]


def absent_clip(tmp: Path, clip: Path) -> list[object]:
    return ["replay", tmp / "nothing.mp4"]


def impossible_range(tmp: Path, clip: Path) -> list[object]:
    return ["replay", clip, "--from", "5", "--to", "2"]


def impossible_rate(tmp: Path, clip: Path) -> list[object]:
    return ["replay", clip, "--rate", "fast"]


def range_past_the_end(tmp: Path, clip: Path) -> list[object]:
    return ["replay", clip, "--from", "3600"]


def absent_bundle(tmp: Path, clip: Path) -> list[object]:
    return ["replay", clip, "--model", tmp / "no-bundle"]


def copied_bundle(tmp: Path) -> Path:
    return Path(shutil.copytree(resolve_bundle("road-detector"), tmp / "bundle"))


def flipped_bit(tmp: Path, clip: Path) -> list[object]:
    model = copied_bundle(tmp) / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 4
    model.write_bytes(data)
    return ["replay", clip, "--model", tmp / "bundle"]


def truncated_model(tmp: Path, clip: Path) -> list[object]:
    model = copied_bundle(tmp) / "model.onnx"
    model.write_bytes(model.read_bytes()[:-100])
    return ["replay", clip, "--model", tmp / "bundle"]


def wrong_manifest_key(tmp: Path, clip: Path) -> list[object]:
    manifest = copied_bundle(tmp) / "manifest.toml"
    manifest.write_text(manifest.read_text().replace("width =", "widht =", 1))
    return ["replay", clip, "--model", tmp / "bundle"]


def input_that_does_not_fit(tmp: Path, clip: Path) -> list[object]:
    manifest = copied_bundle(tmp) / "manifest.toml"
    text = manifest.read_text()
    old = next(line for line in text.splitlines() if line.startswith("width ="))
    manifest.write_text(text.replace(old, "width = 64", 1))
    return ["replay", clip, "--model", tmp / "bundle"]


def wrong_config_key(tmp: Path, clip: Path) -> list[object]:
    path = tmp / "edge.toml"
    path.write_text(
        '[device]\nname = "a"\ndata = "d"\nspeed = 3\n[[camera]]\nname="c"\nkind="video"'
    )
    return ["run", "--config", path]


def wrong_config_value(tmp: Path, clip: Path) -> list[object]:
    path = tmp / "edge.toml"
    path.write_text(
        '[device]\nname = "a"\ndata = "d"\n[[camera]]\nname="c"\nkind="video"\npath="x"\n'
        "[record]\njpeg_quality = 700\n"
    )
    return ["run", "--config", path]


def config_is_no_toml(tmp: Path, clip: Path) -> list[object]:
    path = tmp / "edge.toml"
    path.write_text("[device\n")
    return ["run", "--config", path]


def link_without_keys(tmp: Path, clip: Path) -> list[object]:
    path = tmp / "edge.toml"
    path.write_text(
        f'[device]\nname = "a"\ndata = "{tmp}/d"\n'
        f'[[camera]]\nname="c"\nkind="video"\npath="{clip}"\n'
        '[link]\nendpoint = "tcp://127.0.0.1:1"\n'
    )
    return ["run", "--config", path]


def absent_camera(tmp: Path, clip: Path) -> list[object]:
    path = tmp / "edge.toml"
    path.write_text(
        f'[device]\nname = "a"\ndata = "{tmp}/d"\n[[camera]]\nname="c"\nkind="video"\n'
        f'path="{tmp}/gone.mp4"\n'
    )
    return ["run", "--config", path]


def update_without_trusted_keys(tmp: Path, clip: Path) -> list[object]:
    path = tmp / "edge.toml"
    syncline("keys", "new", "server", "--out", tmp / "k")
    syncline("keys", "new", "a", "--out", tmp / "k")
    path.write_text(
        f'[device]\nname = "a"\ndata = "{tmp}/d"\n'
        f'[[camera]]\nname="c"\nkind="video"\npath="{clip}"\n'
        f'[model]\nchannel = "production"\n[link]\nendpoint = "tcp://127.0.0.1:1"\n'
        f'server_key = "{tmp}/k/server.pub"\nkey = "{tmp}/k/a.key"\ndrain_s = 0.0\n'
        '[time]\npage = ""\nstatus = ""\n'
    )
    return ["run", "--config", path]


def whole_system(tmp: Path, clip: Path) -> list[object]:
    """A tree with files that come and go, such as /proc: it is not walked."""
    return ["replay", "/"]


def pictures_that_cannot_be_read(tmp: Path, clip: Path) -> list[object]:
    (tmp / "p").mkdir()
    (tmp / "p" / "0.png").mkdir()
    (tmp / "p" / "1.png").symlink_to(tmp / "gone.png")
    return ["replay", tmp / "p"]


def not_a_log(tmp: Path, clip: Path) -> list[object]:
    path = tmp / "drive.mcap"
    path.write_bytes(b"no log at all" * 10)
    return ["replay", path]


def no_data_folder(tmp: Path, clip: Path) -> list[object]:
    return ["dataset", "create", "x", "--data", tmp / "nowhere"]


def unknown_dataset(tmp: Path, clip: Path) -> list[object]:
    (tmp / "cloud").mkdir()
    return ["dataset", "export", "x", "--data", tmp / "cloud", "--out", tmp / "o"]


def unknown_version(tmp: Path, clip: Path) -> list[object]:
    (tmp / "cloud").mkdir()
    return ["model", "promote", "m", "1.0", "--channel", "production", "--data", tmp / "cloud"]


def demo_over_foreign_files(tmp: Path, clip: Path) -> list[object]:
    (tmp / "mine.txt").write_text("keep me")
    return ["demo", "--out", tmp, "--seconds", "2"]


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """`syncline run` takes SIGTERM and SIGINT for its own; give them back."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


CASES: list[tuple[Make, int, str]] = [
    (truncated_clip, 3, "cannot read video"),
    (text_as_clip, 3, "cannot read video"),
    (empty_folder, 3, "holds no pictures"),
    (absent_clip, 3, "does not exist"),
    (impossible_range, 2, "holds no time"),
    (impossible_rate, 2, "is no rate"),
    (range_past_the_end, 2, "no frame lies between"),
    (absent_bundle, 2, "is no model bundle"),
    (flipped_bit, 4, "model.onnx"),
    (truncated_model, 4, "model.onnx"),
    (wrong_manifest_key, 4, "widht"),
    (input_that_does_not_fit, 4, "64"),
    (wrong_config_key, 2, "speed"),
    (wrong_config_value, 2, "$.record.jpeg_quality"),
    (config_is_no_toml, 2, "is not TOML"),
    (link_without_keys, 2, "$.link.server_key"),
    (absent_camera, 3, "gone.mp4"),
    (update_without_trusted_keys, 2, "trusted_keys"),
    (whole_system, 3, "holds no pictures"),
    (pictures_that_cannot_be_read, 3, "none of 2 pictures"),
    (not_a_log, 3, "drive.mcap"),
    (no_data_folder, 2, "is no data folder"),
    (unknown_dataset, 3, "there is no dataset"),
    (unknown_version, 3, "has no version"),
    (demo_over_foreign_files, 2, "that no demo made"),
]


@pytest.mark.parametrize(("make", "code", "named"), CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_bad_input_is_one_line_and_a_code(
    make: Make,
    code: int,
    named: str,
    tmp_path: Path,
    clip: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(a) for a in make(tmp_path, clip)]
    with handlers_kept():
        returned = main(arguments)
    stderr = capsys.readouterr().err
    assert returned == code, stderr
    lines = [line for line in stderr.splitlines() if line.startswith("syncline: ")]
    assert len(lines) == 1, stderr
    assert named in lines[0]
    # After the error stands what to do about it, as a sentence of its own.
    assert ". " in lines[0], f"no remedy: {lines[0]}"


def test_a_wrong_signature_is_refused(tmp_path: Path) -> None:
    from syncline.edge.model.bundle import Bundle
    from syncline.edge.model.signature import generate_key, sign
    from syncline.errors import IntegrityError

    folder = copied_bundle(tmp_path)
    mine, _ = generate_key()
    _, theirs = generate_key()
    sign(folder, mine)
    with pytest.raises(IntegrityError, match="none of the 1 trusted keys"):
        Bundle.open(folder, trusted_keys=[theirs])


def test_foreign_files_survive_the_demo(tmp_path: Path, clip: Path) -> None:
    demo_over_foreign_files(tmp_path, clip)
    assert main(["demo", "--out", str(tmp_path), "--seconds", "2"]) == 2
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_no_trace_reaches_the_user_of_the_real_command(tmp_path: Path, clip: Path) -> None:
    done = syncline(*truncated_clip(tmp_path, clip), check=False)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
