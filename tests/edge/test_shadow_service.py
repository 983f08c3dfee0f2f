"""The shadow in a daemon: an unbiased lot, disagreements on record, frames chosen by them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from syncline import topics
from syncline.edge.decode.types import Boxes
from syncline.edge.job import Frame, Latencies, Result
from syncline.edge.records import Output
from syncline.edge.select import SelectOptions
from syncline.edge.shadow_service import AROUND_NS, ShadowService
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import NS_PER_S

PERIOD_NS = NS_PER_S // 30
IMAGE = np.zeros((8, 8, 3), np.uint8)
OPTIONS = SelectOptions(random_share=0.2, rate_per_hour=3600.0)


def boxes(count: int) -> Boxes:
    corner = np.arange(count, dtype=np.float32)[:, None] * 20 + np.zeros((1, 2), np.float32)
    return Boxes(
        np.hstack([corner, corner + 10]), np.full(count, 0.9, np.float32), np.zeros(count, np.int64)
    )


def result(index: int, count: int = 2, *, shadow: bool = False, camera: str = "front") -> Result:
    frame = Frame(camera, index, IMAGE, None, index * PERIOD_NS)
    digest = "s" if shadow else "p"
    slot = "shadow" if shadow else "primary"
    return Result(frame, slot, digest, boxes(count), True, "", Latencies(), shadow)


class World:
    """A service, and what it said by topic."""

    def __init__(self, device: str = "car-1", boot: str = "boot", **changes: Any) -> None:
        self.said: dict[str, list[Any]] = {}
        options = dataclasses.replace(OPTIONS, **changes)
        self.service = ShadowService(device, boot, {"primary"}, self._emit, options)

    def _emit(self, outputs: list[Output]) -> None:
        for output in outputs:
            assert topics.topic_of(output.topic)
            assert output.raw_ns == output.message.mid_raw_ns  # type: ignore[union-attr]
            self.said.setdefault(output.topic, []).append(output.message)

    def run(self, frames: range, *, every: int = 1, differ: int = 50) -> World:
        """The shadow has time for every `every`-th frame, and misses a box of each `differ`-th."""
        for index in frames:
            primary = result(index)
            self.service.on_result(primary)
            if index % every == 0:
                shadow = result(index, 1 if index % differ == 0 else 2, shadow=True)
                self.service.on_result(shadow)
                self.service.on_shadow(primary, shadow)
        return self

    def chosen(self, choice: str) -> list[int]:
        rows = self.said.get("/camera/front/selected", [])
        return [row.frame_index for row in rows if row.choice == choice]

    def counters(self) -> dict[str, int]:
        message = pb.Health()
        self.service.add_to(message)
        return dict(message.counters)


@pytest.mark.parametrize("every", [1, 3, 10_000])
def test_the_lot_is_drawn_of_every_result_whether_the_shadow_had_time_or_not(every: int) -> None:
    """edge-36: a lot of the frames that idle moments leave would favour quiet roads."""
    random = World().run(range(800), every=every).chosen("random")
    assert random == World().run(range(800), every=7, differ=2).chosen("random")
    assert 110 < len(random) < 210  # 160 +- 4.4 sigma
    rows = World().run(range(50)).said["/camera/front/selected"]
    assert all((r.share, r.worth, r.before_ns, r.after_ns) == (0.2, 0, 0, 0) for r in rows)
    assert {(r.camera, r.boot_id, r.model_sha256) for r in rows} == {("front", "boot", "p")}


def test_no_two_devices_boots_or_runs_draw_the_same_frames() -> None:
    one = set(World().run(range(250)).chosen("random"))
    for other in (World("car-2"), World(boot="next"), World("car-1\0x", "boot")):
        theirs = set(other.run(range(250)).chosen("random"))
        assert len(one & theirs) < 0.5 * len(one)
    # A daemon started again numbers its frames from 0, at other times.
    again = World()
    for index in range(250):
        late = dataclasses.replace(result(index).frame, raw_ns=(index + 10_000) * PERIOD_NS)
        again.service.on_result(dataclasses.replace(result(index), frame=late))
    assert len(one & set(again.chosen("random"))) < 0.5 * len(one)


def test_every_comparison_is_on_record_once_with_all_that_it_found() -> None:
    world = World(random_share=0.0).run(range(200), every=2)
    rows = world.said["/camera/front/disagreement"]
    assert [row.frame_index for row in rows] == list(range(0, 200, 2))
    assert set(world.said) == {"/camera/front/disagreement", "/camera/front/selected"}
    agreed, apart = rows[1], rows[50]
    assert (agreed.worth, agreed.score, agreed.unmatched, agreed.choice) == (0, 0, 0, "low")
    assert (apart.model_sha256, apart.shadow_sha256, apart.boot_id) == ("p", "s", "boot")
    assert (apart.score, apart.unmatched, apart.flicker) == (pytest.approx(1 / 3), 1, 0.0)
    assert apart.worth == pytest.approx(1 / 3 + 1 / 2)
    assert apart.mid_raw_ns == 100 * PERIOD_NS


def test_the_highest_are_chosen_with_what_is_around_them() -> None:
    world = World(random_share=0.0).run(range(600), differ=100)
    rows = world.said["/camera/front/selected"]
    assert [row.frame_index for row in rows] == [100, 200, 300, 400, 500]
    assert {row.choice for row in rows} == {"score"}
    assert {(row.before_ns, row.after_ns, row.share) for row in rows} == {(AROUND_NS, AROUND_NS, 0)}
    assert rows[0].worth == pytest.approx(5 / 6)
    told = {r.frame_index: r.choice for r in world.said["/camera/front/disagreement"]}
    assert [index for index, choice in told.items() if choice == "score"] == world.chosen("score")


def test_a_frame_of_the_lot_is_chosen_once() -> None:
    world = World(random_share=1.0).run(range(300), differ=100)
    assert world.chosen("random") == list(range(300))
    assert world.chosen("score") == []
    assert {r.choice for r in world.said["/camera/front/disagreement"]} == {"random"}
    assert world.counters()["shadow.random"] == world.counters()["shadow.frames"] == 300


def test_what_is_not_valid_or_not_shadowed_plays_no_part() -> None:
    world = World(random_share=1.0)
    bad = dataclasses.replace(result(1), valid=False, output=None)
    world.service.on_result(bad)
    world.service.on_result(dataclasses.replace(result(2), slot="another"))
    world.service.on_result(result(3, shadow=True))
    assert not world.said
    wrong = dataclasses.replace(result(4, shadow=True), valid=False)
    world.service.on_result(result(4))
    world.service.on_shadow(result(4), wrong)
    assert world.counters()["shadow.not-compared"] == 1
    assert set(world.said) == {"/camera/front/selected"}


def test_health_counts_every_choice_and_says_nothing_without_a_shadow() -> None:
    world = World(random_share=0.1).run(range(400))
    counters = world.counters()
    judged = len(world.said["/camera/front/disagreement"])
    assert counters["shadow.frames"] == judged == 400
    assert sum(counters[f"shadow.{c}"] for c in ("random", "score", "low", "gap", "budget")) == 400
    assert counters["shadow.score"] == len(world.chosen("score")) > 0
    message = pb.Health()
    ShadowService("d", "b", (), lambda _: None).add_to(message)
    assert not message.counters
