"""The demo's report: lines for the terminal, and the same as JSON."""

from __future__ import annotations

from pathlib import Path

from syncline.demo.play import DemoResult
from syncline.demo.score import score_detections, score_frame_times, score_utc
from syncline.sensors.frame import Quality


def report_json(result: DemoResult) -> dict[str, object]:
    """Every figure of the report."""
    frames = result.run.frames
    times, utc = score_frame_times(frames), score_utc(result.run)
    boxes = score_detections(frames)
    indices = [f.timing.index for f in frames]
    lost = indices[-1] - indices[0] + 1 - len(indices)
    return {
        "wall_s": round(result.wall_s, 1),
        "drive_s": round((frames[-1].timing.mid_ns - frames[0].timing.mid_ns) / 1e9, 1),
        "model": result.model,
        "frames": len(frames),
        "frames_lost_before_the_host": lost,
        "frames_flagged": sum(f.timing.quality is not Quality.OK for f in frames),
        "frame_time_us": {
            "p50": round(times.p50_us, 1),
            "p99": round(times.p99_us, 1),
            "max": round(times.max_us, 1),
            "inside_claim": round(times.within_2_sigma, 4),
            "arrival_instead_p50": round(times.arrival_p50_us),
        },
        "utc_us": {
            "known_share": round(utc.known_share, 3),
            "p50": round(utc.p50_us, 2),
            "p99": round(utc.p99_us, 2),
            "max": round(utc.max_us, 2),
            "hard_bound_p50": round(utc.bound_p50_us, 1),
            "inside_hard_bound": round(utc.inside_bound, 4),
            "without_satellites_s": utc.dark_s,
            "without_satellites_max": round(utc.dark_max_us, 2),
            "receiver_off_by_1_s_for_s": utc.lying_s,
            "receiver_off_max": round(utc.lying_max_us, 2),
        },
        "detections": {
            "things": boxes.true,
            "found": boxes.found,
            "wrong": boxes.wrong,
            "precision": round(boxes.precision, 3),
            "recall": round(boxes.recall, 3),
        },
        "link": {
            "sent": sum(result.sent.values()),
            "stored": sum(result.stored.records.values()),
            "streams_with_gaps_or_doubles": result.stored.gaps,
            "exactly_once": result.sent == result.stored.records and not result.stored.gaps,
            "camera_segments": result.stored.files,
            "camera_bytes": result.stored.file_bytes,
        },
        "dataset": {"id": result.dataset.id, "frames": result.dataset.count()},
        "digest": result.digest,
        "clock_events": result.run.notices,
    }


def report_lines(result: DemoResult, out: Path) -> list[str]:
    """The report for a person."""
    r = report_json(result)
    t, u, d, k = (r[name] for name in ("frame_time_us", "utc_us", "detections", "link"))
    assert isinstance(t, dict)
    assert isinstance(u, dict)
    assert isinstance(d, dict)
    assert isinstance(k, dict)
    wrong = ", ".join(result.stored.gaps) or "counts differ"
    once = "each exactly once" if k["exactly_once"] else f"NOT exactly once: {wrong}"
    return [
        "",
        f"A synthetic drive of {r['drive_s']} s went through the whole system in {r['wall_s']} s.",
        "",
        "When was each pixel exposed?   (rolling shutter, drifting camera clock, late arrivals)",
        f"  {r['frames']} frames, {r['frames_lost_before_the_host']} lost on the way and counted",
        f"  mid-exposure is wrong by {t['p50']} us (median), {t['p99']} us (p99)",
        f"  arrival time instead would be wrong by {t['arrival_instead_p50'] / 1000:.1f} ms",
        f"  truth inside the claimed interval (bias and 2 sigma):"
        f" {t['inside_claim'] * 100:.1f} % of frames",
        "",
        "What time was it?   (satellites lost in a tunnel, then a receiver that is off by 1 s)",
        f"  UTC is wrong by {u['p50']} us (median), {u['max']} us (worst)",
        f"  inside the hard bound {u['inside_hard_bound'] * 100:.1f} % of the time",
        f"  {u['without_satellites_s']} s without satellites:"
        f" wrong by {u['without_satellites_max']} us at most",
        f"  {u['receiver_off_by_1_s_for_s']} s of lies: wrong by {u['receiver_off_max']} us",
        *(f"  {line}" for line in result.run.notices[:12]),
        "",
        f"What was seen?   ({r['model']}, trained on rendered scenes only)",
        f"  {d['found']} of {d['things']} things found: recall {d['recall']}",
        f"  {d['wrong']} boxes wrong: precision {d['precision']}",
        "",
        "What arrived?   (ZeroMQ with CURVE to a collector in another process)",
        f"  {k['stored']} of {k['sent']} records stored, {once}",
        f"  {k['camera_segments']} camera segments, {k['camera_bytes'] / 1e6:.1f} MB",
        f"  dataset demo {result.dataset.id[:16]}: {_splits(result.dataset.count())}",
        "",
        f"Look at   {out / 'annotated.mp4'}   the drive with boxes and frame times",
        f"          {out / 'times.png'}   errors and bounds over the drive",
        f"          {out / 'recording'}   opens in Foxglove; syncline log info {out / 'recording'}",
        f"          {out / 'cloud'}   syncline dataset list --data {out / 'cloud'}",
    ]


def _splits(counts: dict[str, int]) -> str:
    return "  ".join(f"{split} {count}" for split, count in counts.items())
