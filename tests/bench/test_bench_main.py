"""Figures of the main job: replay against a bare loop, the cost of recording and sending, start."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from syncline.edge.config import CameraSection
from syncline.edge.decode.types import Boxes
from syncline.edge.engine import Engine
from syncline.edge.job import Frame, Latencies, Result
from syncline.edge.model.bundle import Bundle
from syncline.edge.pipeline import Pipeline, PipelineOptions, encode_jpeg
from syncline.edge.recorded_time import recorded_timer
from syncline.edge.recordings import open_recording
from syncline.edge.replay import Damage, Model, ReplayOptions, Timed, replay
from syncline.edge.shipped import resolve_bundle
from syncline.edge.sinks import DigestSink, Fanout, RecorderSink, SpoolSink
from syncline.log.recorder import Recorder
from syncline.sensors.frame import Anchor, FrameEvent, RawFrame, Stamp
from syncline.sensors.mode import SensorMode, Shutter
from syncline.spool import Spool
from syncline.timebase import Clock, ManualClock, MappingSegment, OsClock
from tests.edge import plain

pytestmark = pytest.mark.bench
ROUNDS = 5
QUIET_ROUNDS = 80
"""CPU time grows when the other half of the core is busy, with work of other tenants too: the least
of many is the cost."""


@pytest.fixture(scope="module")
def yolox(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Bundle:
    from syncline.cli import main

    out = tmp_path_factory.mktemp("yolox") / "bundle"
    models = shared_data / "models"
    arguments = ["model", "import", str(models / "yolox_nano.onnx"), "--preset", "yolox"]
    code = main([*arguments, "--labels", str(models / "coco.names"), "--out", str(out)])
    assert code == 0
    return Bundle.open(out, trusted_keys=None)


def bare_session(bundle: Bundle) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(bundle.model_bytes(), options, providers=["CPUExecutionProvider"])


def bare_loop(clip: Path, session: Any, frames: int) -> None:
    """Decode, preprocess and run: what anybody would write, with the same threads."""
    import cv2

    name = session.get_inputs()[0].name
    tensor = np.full((1, 3, 416, 416), 114, np.float32)
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_count = 1
        for index, frame in enumerate(container.decode(video=0)):
            if index == frames:
                break
            image = frame.to_ndarray(format="bgr24")
            scale = min(416 / image.shape[0], 416 / image.shape[1])
            size = (int(image.shape[1] * scale), int(image.shape[0] * scale))
            small = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
            tensor[0, :, : size[1], : size[0]] = small.transpose(2, 0, 1)
            session.run(None, {name: tensor})


def our_replay(clip: Path, engine: Engine, seconds: float, *, prefetch: bool) -> None:
    clock = OsClock()
    source = open_recording(clip, CameraSection(name="camera", kind="video", path="-"))
    pipeline = Pipeline(source.boot_id, PipelineOptions(images=False))
    options = ReplayOptions(to_s=seconds, prefetch=prefetch)
    replay(source, Model(engine, clock), pipeline, DigestSink(), clock, options)


def test_replay_is_at_least_0_90_of_a_bare_loop(
    benchmark: Any, shared_data: Path, yolox: Bundle
) -> None:
    """CPU of the bare loop over CPU of the replay, interleaved, best of five each."""
    clip = shared_data / "video" / "solidWhiteRight.mp4"
    session, engine = bare_session(yolox), Engine.load(yolox)
    ours, bare, wall_ours, wall_one, wall_bare = [], [], [], [], []
    for _ in range(ROUNDS):
        cpu, wall = time.process_time(), time.perf_counter()
        bare_loop(clip, session, 50)
        bare.append(time.process_time() - cpu)
        wall_bare.append(time.perf_counter() - wall)
        cpu, wall = time.process_time(), time.perf_counter()
        our_replay(clip, engine, 2.0, prefetch=False)
        ours.append(time.process_time() - cpu)
        wall_one.append(time.perf_counter() - wall)
        our_replay_wall = time.perf_counter()
        our_replay(clip, engine, 2.0, prefetch=True)
        wall_ours.append(time.perf_counter() - our_replay_wall)
    ratio, one = min(bare) / min(ours), min(wall_bare) / min(wall_one)
    ahead = min(wall_bare) / min(wall_ours)
    benchmark.extra_info["cpu_ratio"] = round(ratio, 3)
    benchmark.extra_info["fps_ratio"] = round(one, 3)
    benchmark.extra_info["fps_ratio_prefetch"] = round(ahead, 3)
    benchmark.pedantic(our_replay, (clip, engine, 0.5), {"prefetch": True}, rounds=1)
    print(
        f"\nreplay: {one:.3f} of the bare loop's frames per second in one thread ({ratio:.3f} by "
        f"CPU time), {ahead:.3f} as it runs, with prefetch"
    )
    assert ratio >= 0.90
    assert ahead >= 0.90


def test_boxes_equal_a_plain_script(benchmark: Any, shared_data: Path, yolox: Bundle) -> None:
    """Largest difference of boxes and scores on frames of the clip, fp32, and who found what."""
    clip = shared_data / "video" / "solidWhiteRight.mp4"
    session = plain.session(yolox.folder / "model.onnx")
    model = Model(Engine.load(yolox), OsClock())
    decoder = yolox.manifest.decoder
    source = open_recording(clip, CameraSection(name="camera", kind="video", path="-"))
    worst_px, worst_score, found = 0.0, 0.0, 0
    for timed in islice(source.frames(), 0, 200, 5):
        image = timed.frame.payload
        assert isinstance(image, np.ndarray)
        ours = model.run(model.prepare(timed)[1]).boxes
        assert ours is not None
        boxes, scores, _ = plain.yolox(session, image, decoder.score_threshold, decoder.nms_iou)
        assert len(ours) == len(boxes)
        found += len(boxes)
        if not len(boxes):
            continue
        order, other = np.argsort(-ours.score, kind="stable"), np.argsort(-scores, kind="stable")
        worst_px = max(worst_px, float(np.abs(ours.xyxy_px[order] - boxes[other]).max()))
        worst_score = max(worst_score, float(np.abs(ours.score[order] - scores[other]).max()))
    benchmark.extra_info["worst_px"], benchmark.extra_info["worst_score"] = worst_px, worst_score
    benchmark.pedantic(lambda: None, rounds=1)
    print(f"\n{found} boxes: largest difference {worst_px:.4f} px, {worst_score:.2e} in score")
    assert found > 20
    assert worst_px <= 0.5
    assert worst_score <= 1e-3


def test_memory_of_the_whole_daemon(benchmark: Any, shared_data: Path, tmp_path: Path) -> None:
    """Resident memory of `syncline run` with a looped clip, recording: level and growth."""
    config = tmp_path / "edge.toml"
    config.write_text(
        f'[device]\nname = "bench"\ndata = "{tmp_path / "data"}"\n'
        '[[camera]]\nname = "front"\nkind = "video"\nloop = true\n'
        f'path = "{shared_data / "video" / "solidWhiteRight.mp4"}"\n'
        '[time]\npage = ""\nstatus = ""\n'
    )
    command = [sys.executable, "-m", "syncline", "run", "--config", str(config), "--json"]
    seen: list[tuple[int, int]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        for line in daemon.stdout:
            if line.startswith("{"):
                health = json.loads(line)
                seen.append((int(health.get("framesCaptured", 0)), int(health["rssBytes"])))
                if seen[-1][0] >= 900:
                    daemon.terminate()
    early = next(rss for frames, rss in seen if frames >= 300)
    last = seen[-1][1]
    benchmark.extra_info["rss_mb"] = round(last / 1e6)
    benchmark.extra_info["growth_mb"] = round((last - early) / 1e6, 1)
    benchmark.pedantic(lambda: None, rounds=1)
    print(
        f"\ndaemon: {last / 1e6:.0f} MB after {seen[-1][0]} frames, {(last - early) / 1e6:+.1f} MB"
    )
    assert last <= 200e6
    assert last - early <= 8e6


def pictures(shared_data: Path) -> Iterator[NDArray[np.uint8]]:
    with av.open(str(shared_data / "video" / "solidWhiteRight.mp4")) as container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="bgr24"), dtype=np.uint8)


def test_record_encode_and_send_cost_at_most_2_ms_of_cpu(
    benchmark: Any, shared_data: Path, tmp_path: Path
) -> None:
    """Encode, record and spool 960x540 frames with ten boxes each; process CPU, all threads."""
    source = open_recording(
        shared_data / "video" / "solidWhiteRight.mp4",
        CameraSection(name="camera", kind="video", path="-"),
    )
    timed = list(source.frames())[:100]
    assert isinstance(timed[0].frame.payload, np.ndarray)
    assert timed[0].frame.payload.shape == (540, 960, 3)
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 400, (10, 2)).astype(np.float32)
    boxes = Boxes(
        np.hstack([corner, corner + 80]), np.full(10, 0.7, np.float32), np.zeros(10, np.int64)
    )
    best: list[float] = []

    def record(folder: Path) -> None:
        clock = ManualClock(0, source.boot_id)
        with Recorder(folder / "r", clock=clock, device="bench") as recorder:
            spool = Spool(folder / "s", clock=clock)
            sink = Fanout([RecorderSink(recorder, clock), SpoolSink(spool)])
            pipeline = Pipeline(source.boot_id, PipelineOptions(images=True))
            cpu = time.process_time()
            for one in timed:
                for output in pipeline.captured(one.frame, one.timing):
                    sink.emit(output)
                frame = Frame("camera", one.timing.index, one.frame.payload, one.timing, 0)  # type: ignore[arg-type]
                result = Result(frame, "primary", "0" * 64, boxes, True, "", Latencies())
                for output in pipeline.result(result):
                    sink.emit(output)
            spool.sync()
            recorder.flush()
            best.append((time.process_time() - cpu) / len(timed))
            spool.close()

    jpeg: list[float] = []
    for number in range(QUIET_ROUNDS):
        record(tmp_path / str(number))
        shutil.rmtree(tmp_path / str(number))
        cpu = time.process_time()
        for one in timed:
            encode_jpeg(one.frame.payload, 80)  # type: ignore[arg-type]
        jpeg.append((time.process_time() - cpu) / len(timed))
    benchmark.extra_info["cpu_ms_per_frame"] = round(min(best) * 1e3, 3)
    benchmark.extra_info["jpeg_ms_per_frame"] = round(min(jpeg) * 1e3, 3)
    benchmark.pedantic(record, (tmp_path / "last",), rounds=1)
    print(
        f"\nrecord, encode, send: {min(best) * 1e3:.2f} ms CPU per frame (median of the rounds "
        f"{median(best) * 1e3:.2f}), {min(jpeg) * 1e3:.2f} of it for the JPEG alone"
    )
    assert min(best) <= 2.0e-3


def test_replay_shows_its_first_result_within_2_s(benchmark: Any, shared_data: Path) -> None:
    """Wall from the start of the process to its end after one frame: an upper limit."""
    clip = shared_data / "video" / "solidWhiteRight.mp4"
    bundle = resolve_bundle("road-detector")
    command = [sys.executable, "-m", "syncline", "replay", str(clip), "--model", str(bundle)]
    command += ["--to", "0.03", "--json"]
    walls = []

    def start() -> None:
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        walls.append(time.perf_counter() - begin)

    benchmark.pedantic(start, rounds=ROUNDS)
    print(f"\nfirst result after at most {min(walls):.2f} s")
    assert min(walls) <= 2.0


@pytest.mark.parametrize("rate", [0.5, 1.0, 4.0])
def test_link_12_replay_keeps_its_rate(benchmark: Any, tmp_path: Path, rate: float) -> None:
    """Lateness of each frame against its schedule, p99, and the whole span against the rate."""
    mode = SensorMode.simple(320, 192, shutter=Shutter.GLOBAL)
    image = np.random.default_rng(1).integers(0, 255, (192, 320, 3), dtype=np.uint8)

    class Recording:
        boot_id = "bench"
        frame_count = 0

        def damage(self) -> Damage:
            return Damage()

        def segments(self) -> list[MappingSegment]:
            return []

        def frames(self) -> Iterator[Timed]:
            timer = recorded_timer(mode, Anchor.UNKNOWN, (1000.0, 1000.0))
            for index in range(round(100 * rate)):
                t_ns = 10**9 + index * 50_000_000
                stamp = Stamp(t_ns, Clock.MONOTONIC_RAW, FrameEvent.EOF)
                arrival = Stamp(t_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL)
                raw = RawFrame("camera", index, None, stamp, arrival, (), image)
                yield Timed(raw, timer.stamp(raw))

    clock = OsClock()
    model = Model(
        Engine.load(Bundle.open(resolve_bundle("road-detector"), trusted_keys=None)), clock
    )
    pipeline = Pipeline("bench", PipelineOptions(images=False))
    report = replay(Recording(), model, pipeline, DigestSink(), clock, ReplayOptions(rate=rate))
    late_ms = np.array(report.late_ns) / 1e6
    wall_s = (report.end_raw_ns - report.begin_raw_ns) / 1e9
    p50, p99 = (float(v) for v in np.percentile(late_ms, (50, 99)))
    bare = bare_lateness_ms(clock, round(50_000_000 / rate), len(late_ms) // 2)
    pace = report.span_ns / 1e9 / wall_s
    print(
        f"\nrate {rate}: late p50 {p50:.3f} ms, p99 {p99:.3f} ms (a loop that only sleeps: "
        f"{bare:.3f} ms), {pace:.4f} x"
    )
    benchmark.extra_info["late_p99_ms"] = round(p99, 3)
    benchmark.pedantic(lambda: None, rounds=1)
    if bare > 1.0:
        pytest.skip(f"this machine lets a loop that only sleeps be {bare:.1f} ms late")
    assert p99 <= 2.0


def bare_lateness_ms(clock: OsClock, period_ns: int, count: int) -> float:
    """p99 of how late a loop wakes that does nothing else: what the machine allows."""
    start_ns = clock.raw_ns()
    late = []
    for index in range(1, count + 1):
        due_ns = start_ns + index * period_ns
        time.sleep(max(due_ns - clock.raw_ns(), 0) / 1e9)
        late.append((clock.raw_ns() - due_ns) / 1e6)
    return float(np.percentile(late, 99))
