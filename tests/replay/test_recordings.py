"""What a recording of ours replays: one boot, one camera, and what of it was damaged."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from syncline.cli import main
from syncline.edge.config import CameraSection
from syncline.edge.engine import Engine
from syncline.edge.job import Frame
from syncline.edge.pipeline import Pipeline, PipelineOptions
from syncline.edge.recorded_time import recorded_timer
from syncline.edge.recordings import LogRecording, MediaRecording, open_recording
from syncline.errors import LogError, MediaError, UsageError
from syncline.log.boots import choose_boot, messages_per_boot
from syncline.log.reader import LogReader
from syncline.log.schemas import payload_of
from syncline.sensors.adapters.log_pictures import PicturePairs
from syncline.sensors.adapters.matroska import missing_bytes
from syncline.sensors.frame import Anchor
from syncline.sensors.jpeg import JpegPicture
from syncline.sensors.mode import SensorMode
from syncline.timebase import NS_PER_S, OsClock
from tests.edge import tiny

from .rig import BOOT_A, BOOT_B, HEIGHT, WIDTH, raw_frame, record_boot, segment, two_boots

CAMERA = CameraSection(name="camera", kind="video", path="-")


def test_two_boots_must_be_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        LogRecording(two_boots(tmp_path))
    assert f"{BOOT_A} (12 pictures)" in str(caught.value)
    assert f"{BOOT_B} (7 pictures)" in str(caught.value)
    assert "--boot" in caught.value.remedy


@pytest.mark.parametrize(
    ("prefix", "boot", "count", "mapping", "base_s"),
    [("aaaa", BOOT_A, 12, 1, 500), ("b", BOOT_B, 7, 9, 3)],
)
def test_a_boot_replays_alone(
    tmp_path: Path, prefix: str, boot: str, count: int, mapping: int, base_s: int
) -> None:
    recording = LogRecording(two_boots(tmp_path), boot=prefix)
    frames = list(recording.frames())
    times = [timed.timing.mid_ns for timed in frames]
    assert recording.boot_id == boot
    assert len(frames) == recording.frame_count == count
    assert times == sorted(times)
    assert base_s * NS_PER_S < times[0] < times[-1] < (base_s + 1) * NS_PER_S
    assert [s.id for s in recording.segments()] == [mapping]
    assert {s.boot_id for s in recording.segments()} == {boot}
    assert not recording.damage()


def test_the_replay_of_a_camera_that_sends_jpeg_sees_its_very_pixels(tmp_path: Path) -> None:
    """edge-3, edge-35: recorded byte for byte; the model's input is the live one, bit for bit."""
    engine = Engine.load(tiny.bundle(tmp_path / "b"))  # 32 x 24: half of the picture will do

    def jpeg(index: int, *, reducible: bool = False) -> JpegPicture:
        noise = np.random.default_rng(index).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        done, data = cv2.imencode(".jpg", cv2.resize(noise, (WIDTH, HEIGHT)))
        assert done
        return JpegPicture(data.tobytes(), reducible=reducible)

    def tensor(payload: object) -> bytes:
        assert isinstance(payload, JpegPicture)
        frame = Frame("front", 0, payload, None, 0)
        return engine.prepare(frame, engine.preprocessor(), OsClock()).tensor.tobytes()

    record_boot(tmp_path / "rec", BOOT_A, 3, picture=jpeg)
    inputs = []
    for decode in ("full", "reduced"):
        camera = CameraSection(name="camera", kind="video", path="-", decode=decode)
        frames = list(open_recording(tmp_path / "rec", camera).frames())
        live = [jpeg(index, reducible=decode == "reduced") for index in range(3)]
        assert [f.frame.payload.data for f in frames] == [one.data for one in live]  # type: ignore[attr-defined]
        inputs.append([tensor(f.frame.payload) for f in frames])
        assert inputs[-1] == [tensor(one) for one in live]
    assert all(full != reduced for full, reduced in zip(*inputs, strict=True))


def test_a_camera_s_jpeg_is_encoded_again_only_when_asked() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    done, data = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 99])
    assert done
    jpeg = JpegPicture(data.tobytes())
    sizes = []
    for recompress in (False, True):
        options = PipelineOptions(images=True, jpeg_quality=30, recompress=recompress)
        mode = SensorMode.simple(WIDTH, HEIGHT, readout_ns=float(HEIGHT), period_ns=5e7)
        frame = raw_frame("front", 0, NS_PER_S, jpeg)
        timing = recorded_timer(mode, Anchor.READOUT, (2000.0, 2000.0)).stamp(frame)
        _, image = Pipeline(BOOT_A, options).captured(frame, timing)
        sizes.append(len(payload_of(image.message)))
    assert sizes[0] > len(jpeg.data) > sizes[1]


@pytest.mark.parametrize("prefix", ["cccc", "x"])
def test_an_unknown_boot_is_refused(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(UsageError, match="fits no boot"):
        LogRecording(two_boots(tmp_path), boot=prefix)


def test_a_prefix_of_two_boots_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fits 2 boots"):
        choose_boot(tmp_path, {"ab1": 3, "ab2": 4}, "ab")


def test_one_boot_needs_no_name(tmp_path: Path) -> None:
    record_boot(tmp_path, BOOT_A, 5)
    assert LogRecording(tmp_path).boot_id == BOOT_A


def test_a_boot_without_pictures_is_no_choice(tmp_path: Path) -> None:
    record_boot(tmp_path, BOOT_A, 5)
    record_boot(tmp_path, BOOT_B, 5, cameras=("rear",))
    assert LogRecording(tmp_path, camera="rear").boot_id == BOOT_B
    assert messages_per_boot(tmp_path, ["/camera/rear/image"]) == {BOOT_B: 5}


def test_pictures_are_counted_in_a_file_without_its_end(tmp_path: Path) -> None:
    record_boot(tmp_path, BOOT_A, 6)
    (path,) = tmp_path.glob("ring/*/cam.mcap")
    whole = path.read_bytes()
    with LogReader(path) as reader:
        (log,) = reader.files()
        last = log.index.chunks[-1]
    path.write_bytes(whole[: last.offset + last.length])
    assert messages_per_boot(tmp_path, ["/camera/front/image"]) == {BOOT_A: 6}


def test_a_camera_of_several_is_chosen(tmp_path: Path) -> None:
    record_boot(tmp_path, BOOT_A, 4, cameras=("front", "rear"))
    both = open_recording(tmp_path, CAMERA)
    rear = open_recording(tmp_path, CAMERA, only="rear")
    assert len(list(both.frames())) == 8
    assert {timed.timing.camera for timed in rear.frames()} == {"rear"}
    with pytest.raises(LogError, match="of camera 'left'"):
        open_recording(tmp_path, CAMERA, only="left")


def test_camera_and_boot_choose_nothing_of_a_video(clip: Path) -> None:
    with pytest.raises(UsageError, match="--camera rear chooses nothing"):
        open_recording(clip, CAMERA, only="rear")
    with pytest.raises(UsageError, match="--boot abc chooses nothing"):
        open_recording(clip, CAMERA, boot="abc")


def test_a_lost_timing_is_named(tmp_path: Path) -> None:
    record_boot(tmp_path / "a", BOOT_A, 5)
    (telemetry,) = (tmp_path / "a").glob("ring/*/tel.mcap")
    telemetry.unlink()
    recording = LogRecording(tmp_path / "a")
    with pytest.raises(LogError, match="5 pictures and no frame time of them: /camera/front/timin"):
        list(recording.frames())
    assert recording.damage().missing == 5


def test_pictures_without_their_timing_are_held_within_bounds() -> None:
    """They wait as they are encoded, and are given up by count and by bytes, the oldest first."""
    large = PicturePairs[str]()
    for at in range(100):
        assert large.picture(("front", at), bytes(1 << 20)) is None
    assert large.unmatched == 36
    assert large.timing(("front", 35), "") is None
    assert large.timing(("front", 36), "its time") == ("its time", bytes(1 << 20))
    small = PicturePairs[str]()
    for at in range(300):
        assert small.picture(("front", at), b"x") is None
    assert small.unmatched == 44
    small.finish()
    assert (small.matched, small.unmatched) == (0, 300)


def test_a_cut_clip_tells_its_damage(tmp_path: Path, clip: Path) -> None:
    whole = MediaRecording(clip, CAMERA)
    for _ in range(2):  # read again, it is the same
        assert len(list(whole.frames())) == 40
        assert not whole.damage()
    cut = MediaRecording(cut_clip(tmp_path, clip), CAMERA)
    count = len(list(cut.frames()))
    assert 0 < count < 40
    assert cut.damage().missing == 40 - count


def test_a_cut_matroska_file_tells_its_damage(tmp_path: Path, clip: Path) -> None:
    """Such a file does not say how many frames it has; missing bytes show all the same."""
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    with av.open(str(clip)) as source, av.open(str(whole), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    recording = MediaRecording(whole, CAMERA)
    assert len(list(recording.frames())) == 40
    assert not recording.damage()
    recording = MediaRecording(cut, CAMERA)
    assert 0 < len(list(recording.frames())) < 40
    assert recording.damage().errors == 1
    assert missing_bytes(cut) == len(data) - len(data) // 2
    assert missing_bytes(clip) == 0


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 40, 60])
def test_the_head_of_a_matroska_file_is_no_whole_one(tmp_path: Path, count: int) -> None:
    """A file that ends in its first numbers, and one whose size was never written."""
    head = bytes.fromhex("1a45dfa3 84 00000000 18538067")
    path = tmp_path / "a.mkv"
    path.write_bytes((head + b"\x01" + b"\xff" * 7 + bytes(60))[:count])
    assert missing_bytes(path) == 0


def test_a_picture_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    picture = np.full((48, 64, 3), 90, np.uint8)
    for at in range(3):
        assert cv2.imwrite(str(tmp_path / f"{at}.png"), picture)
    (tmp_path / "3.png").symlink_to(tmp_path / "gone.png")
    recording = MediaRecording(tmp_path, CAMERA)
    assert len(list(recording.frames())) == 3
    assert recording.damage().errors == 1


def test_frames_that_nobody_asked_for_are_not_missing(clip: Path) -> None:
    recording = MediaRecording(clip, CAMERA)
    frames = recording.frames()
    next(frames)
    assert not recording.damage()


def test_replay_warns_of_damage(
    tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(cut_clip(tmp_path, clip)), "--json"]) == 0
    told = capsys.readouterr()
    report = json.loads(told.out)
    assert report["damaged"]
    assert report["missing"] == 40 - report["frames"]
    assert "is damaged" in told.err
    assert f"{report['frames']} frames came" in told.err
    assert main(["replay", str(clip), "--json"]) == 0
    told = capsys.readouterr()
    assert not json.loads(told.out)["damaged"]
    assert told.err == ""


def test_replay_of_two_boots_ends_with_2_and_lists_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = two_boots(tmp_path / "two")
    assert main(["replay", str(path)]) == 2
    assert f"{BOOT_B} (7 pictures)" in capsys.readouterr().err
    assert main(["replay", str(path), "--boot", "bbbb", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 7


def test_frames_name_the_segment_that_holds_for_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Segments go out as their time comes, so that frames do not all name the last one."""
    base_ns = 10 * NS_PER_S
    parts = tuple(segment(n, BOOT_A, base_ns + n * NS_PER_S // 10) for n in (1, 4, 6))
    record_boot(tmp_path / "in", BOOT_A, 12, raw0_ns=base_ns, segments=parts)
    out = tmp_path / "out"
    assert main(["replay", str(tmp_path / "in"), "--out", str(out), "--json"]) == 0
    capsys.readouterr()
    with LogReader(out, topics=["/camera/front/timing"]) as reader:
        messages = [reader.decode(record) for record in reader]
    named = [(m.mid_raw_ns, m.segment_id) for m in messages]
    assert len(named) == 12
    for mid_ns, number in named:
        held = [s.id for s in parts if s.raw0_ns <= mid_ns] or [1]
        assert number == held[-1]


def cut_clip(folder: Path, clip: Path) -> Path:
    """The clip with its second half of picture data blanked out of the file's end."""
    import av

    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.size]
        at = packets[len(packets) // 2].pos
    assert at is not None
    path = folder / "cut.mp4"
    data = clip.read_bytes()
    index = data.index(b"moov") - 4
    # The table of contents lies at the end of this file: it stays where it points from.
    path.write_bytes(data[:at] + bytes(index - at) + data[index:])
    return path


def test_an_absent_recording(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="does not exist"):
        open_recording(tmp_path / "none", CAMERA)
