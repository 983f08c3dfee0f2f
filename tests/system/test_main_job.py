"""The main job with real processes: a device, a collector, faults, a promotion."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from syncline.cloud.catalog import Catalog
from syncline.edge.model.manifest import encode_manifest, load_manifest
from syncline.edge.shipped import resolve_bundle
from syncline.messages import syncline_pb2 as pb
from tests.system.rig import Site, syncline, wait_for

pytestmark = pytest.mark.slow


def frames_stored(site: Site) -> int:
    with Catalog.open(site.cloud) as catalog:
        return sum(
            catalog.count("car-1", boot, "/camera/front/timing") for boot in catalog.boots("car-1")
        )


def stored_indices(site: Site, stream: str) -> list[tuple[int, int]]:
    """(seq, raw_ns) of every record of a stream, over all boots of this machine (one)."""
    with Catalog.open(site.cloud) as catalog:
        (boot,) = catalog.boots("car-1")
        return [(r.seq, r.raw_ns) for r in catalog.records("car-1", boot, stream)]


def messages(site: Site, stream: str, kind: Any) -> list[Any]:
    with Catalog.open(site.cloud) as catalog:
        (boot,) = catalog.boots("car-1")
        return [kind.FromString(r.payload) for r in catalog.records("car-1", boot, stream)]


def test_every_frame_ends_stored_as_a_result_or_a_counted_drop(site: Site, clip: Path) -> None:
    collector = site.collect()
    edge = site.edge(site.config(clip, bundle="road-detector"))
    wait_for("60 frames stored", lambda: frames_stored(site) >= 60)
    assert edge.stop() == 0, edge.tail()
    assert collector.stop() == 0, collector.tail()
    timings = messages(site, "/camera/front/timing", pb.FrameTiming)
    results = messages(site, "/camera/front/detections", pb.Detections)
    with Catalog.open(site.cloud) as catalog:
        (boot,) = catalog.boots("car-1")
        streams = catalog.streams("car-1", boot)
    drops = messages(site, "/drops", pb.Drop) if "/drops" in streams else []
    captured = [t.index for t in timings]
    assert captured == list(range(len(captured)))
    ended = [r.frame_index for r in results] + [d.frame_index for d in drops]
    assert sorted(ended) == captured
    assert all(r.valid for r in results)
    assert {r.model_sha256 for r in results} == {wait_for_digest()}


def wait_for_digest() -> str:
    from syncline.edge.model.bundle import Bundle

    return Bundle.open(resolve_bundle("road-detector"), trusted_keys=None).digest


def test_link_24_kill_9_of_either_end_loses_and_doubles_nothing(site: Site, clip: Path) -> None:
    rng = random.Random(11)
    config = site.config(clip, bundle="road-detector", extra="[record]\nimages = false\n")
    collector, edge = site.collect(), site.edge(config)
    for victim in ("collector", "edge", "collector"):
        before = frames_stored(site)
        wait_for("frames flow", lambda before=before: frames_stored(site) > before + 10)
        time.sleep(rng.uniform(0.0, 0.5))
        if victim == "collector":
            collector.kill()
            time.sleep(rng.uniform(0.0, 1.0))
            collector = site.collect()
        else:
            edge.kill()
            edge = site.edge(config)
    before = frames_stored(site)
    wait_for("frames flow again", lambda: frames_stored(site) > before + 20)
    assert edge.stop() == 0, edge.tail()
    assert collector.stop() == 0, collector.tail()
    for stream in ("/camera/front/timing", "/camera/front/detections", "/drops", "/health"):
        numbers = [seq for seq, _ in stored_indices(site, stream)]
        first = numbers[0] if numbers else 0
        assert numbers == list(range(first, first + len(numbers))), f"{stream} has gaps or repeats"
    # A restarted camera counts from 0 again: within each life nothing may be missing between the
    # first record and the last one that was made durable before the kill.
    timings = messages(site, "/camera/front/timing", pb.FrameTiming)
    lives: list[list[int]] = []
    for timing in timings:
        if timing.index == 0:
            lives.append([])
        lives[-1].append(timing.index)
    assert len(lives) == 2
    assert all(life == list(range(len(life))) for life in lives)
    # Each frame ended: what the killed process still held, at most the one in work and the newest
    # that waited, ended with it.
    results = messages(site, "/camera/front/detections", pb.Detections)
    drops = messages(site, "/drops", pb.Drop) if has_stream(site, "/drops") else []
    ended = [r.frame_index for r in results] + [d.frame_index for d in drops]
    captured = [t.index for t in timings]
    lost = Counter(captured) - Counter(ended)
    assert not Counter(ended) - Counter(captured)
    assert set(lost) <= set(lives[0][-2:])


def signed_copy(folder: Path, version: str, key: Path | None) -> Path:
    shutil.copytree(resolve_bundle("road-detector"), folder)
    (folder / "manifest.sig").unlink(missing_ok=True)
    manifest = load_manifest(folder)
    import msgspec

    changed = encode_manifest(msgspec.structs.replace(manifest, version=version))
    (folder / "manifest.toml").write_bytes(changed)
    if key is not None:
        syncline("model", "sign", folder, "--key", key)
    return folder


def test_a_promotion_reaches_a_running_device_and_a_bad_one_does_not(
    site: Site, clip: Path
) -> None:
    syncline("keys", "signing", "release", "--out", site.keys)
    key = site.keys / "release.sign.key"
    good = signed_copy(site.folder / "good", "9.1.0", key)
    unsigned = signed_copy(site.folder / "unsigned", "9.2.0", None)
    for bundle in (good, unsigned):
        syncline("model", "add", bundle, "--data", site.cloud)
    trusted = f'channel = "production"\ntrusted_keys = ["{site.keys / "release.sign.pub"}"]'
    config = site.config(clip, bundle="road-detector", model=trusted)
    collector, edge = site.collect(), site.edge(config)
    wait_for("results flow", lambda: frames_stored(site) > 10)

    def promote(version: str) -> None:
        syncline(
            "model", "promote", "road-detector", version, "--channel=production",
            f"--data={site.cloud}",
        )  # fmt: skip

    promote("9.1.0")
    wait_for("the swap", lambda: any(r.get("modelVersion") == "9.1.0" for r in edge.lines()))
    promote("9.2.0")
    wait_for("the refusal", lambda: "9.2.0 refused" in edge.text())
    before = frames_stored(site)
    wait_for("frames flow on", lambda: frames_stored(site) > before + 10)
    assert edge.stop() == 0, edge.tail()
    assert collector.stop() == 0, collector.tail()
    events = messages(site, "/model/events", pb.ModelEvent)
    acts = [(e.action, e.version) for e in events]
    assert acts.count(("swapped", "9.1.0")) == acts.count(("refused", "9.2.0")) == 1
    assert ("swapped", "9.2.0") not in acts
    assert {e.slot for e in events} == {"primary"}
    results = messages(site, "/camera/front/detections", pb.Detections)
    drops = messages(site, "/drops", pb.Drop) if has_stream(site, "/drops") else []
    timings = messages(site, "/camera/front/timing", pb.FrameTiming)
    # Not one frame was lost over the swap, and each result names the model that made it.
    ended = sorted([r.frame_index for r in results] + [d.frame_index for d in drops])
    assert ended == [t.index for t in timings]
    digests = [r.model_sha256 for r in results]
    assert len(set(digests)) == 2
    assert digests == sorted(digests, key=lambda d: d != digests[0])


def has_stream(site: Site, stream: str) -> bool:
    with Catalog.open(site.cloud) as catalog:
        (boot,) = catalog.boots("car-1")
        return stream in catalog.streams("car-1", boot)


def test_an_absent_collector_stops_nothing_and_gets_everything_later(
    site: Site, clip: Path
) -> None:
    config = site.config(clip, bundle="road-detector")
    text = config.read_text().replace("drain_s = 20.0", "drain_s = 0.2")
    config.write_text(text)
    edge = site.edge(config)
    wait_for("frames without a collector", lambda: _captured(edge.lines()) >= 40)
    assert edge.stop() == 0, edge.tail()
    captured = _captured(edge.lines())
    config.write_text(text.replace("drain_s = 0.2", "drain_s = 20.0"))
    collector = site.collect()
    edge = site.edge(config)
    wait_for("the backlog", lambda: frames_stored(site) >= captured)
    assert edge.stop() == 0, edge.tail()
    assert collector.stop() == 0, collector.tail()


def _captured(lines: list[dict[str, Any]]) -> int:
    return max((int(row.get("framesCaptured", 0)) for row in lines), default=0)


def test_a_dataset_is_made_of_what_a_device_sent(site: Site, clip: Path, tmp_path: Path) -> None:
    config = site.config(clip, bundle="road-detector", extra="[record]\nsegment_s = 1.0\n")
    config.write_text(
        config.read_text().replace("drain_s = 20.0", "drain_s = 20.0\nupload_images = true")
    )
    collector, edge = site.collect(), site.edge(config)

    def uploads() -> int:
        with Catalog.open(site.cloud) as catalog:
            return len(catalog.uploads("car-1"))

    wait_for("camera segments", lambda: uploads() >= 2)
    assert edge.stop() == 0, edge.tail()
    assert collector.stop() == 0, collector.tail()
    made = syncline("dataset", "create", "one", "--data", site.cloud, "--json").stdout
    again = syncline("dataset", "create", "two", "--data", site.cloud, "--json").stdout
    import json

    first, second = json.loads(made), json.loads(again)
    assert first["id"] == second["id"]
    assert sum(first["frames"].values()) >= 20
    assert first["damaged_segments"] == {}
    out = tmp_path / "coco"
    syncline("dataset", "export", "one", "--data", site.cloud, "--out", out)
    pictures = list(out.rglob("*.jpg"))
    assert len(pictures) == sum(first["frames"].values())
    assert all(p.read_bytes()[:2] == b"\xff\xd8" for p in pictures)
