"""`syncline demo` as a user runs it: everything arrives once, and no claim is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.system.rig import syncline

pytest.importorskip("matplotlib")


def play(out: Path) -> dict[str, Any]:
    done = syncline("demo", "--seconds", "4", "--json", "--out", out)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, play(out)


@pytest.mark.slow
def test_the_demo_keeps_its_claims(first: tuple[Path, dict[str, Any]]) -> None:
    out, report = first
    assert report["link"]["exactly_once"] is True
    assert report["link"]["sent"] == report["link"]["stored"] > 200
    assert report["link"]["camera_segments"] >= 1
    assert report["utc_us"]["inside_hard_bound"] == 1.0
    assert report["utc_us"]["known_share"] > 0.5
    assert report["frame_time_us"]["inside_claim"] >= 0.9
    assert 70 <= report["frames"] <= 80
    assert sum(report["dataset"]["frames"].values()) == report["frames"]
    for name in ("annotated.mp4", "times.png", "report.json"):
        assert (out / name).stat().st_size > 0, name
    assert json.loads((out / "report.json").read_text()) == report


@pytest.mark.slow
def test_the_same_seed_gives_the_same_digest(
    first: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    assert play(tmp_path / "again")["digest"] == first[1]["digest"]
