"""Drops for a rate are told in runs, and every frame in exactly one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from syncline.edge.drop_runs import DropRuns
from syncline.edge.job import Drop, DropReason


def rate(index: int, camera: str = "front", slot: str = "a") -> Drop:
    return Drop(slot, camera, index, index, DropReason.RATE)


def test_a_run_is_one_drop_from_its_first_frame() -> None:
    runs = DropRuns()
    assert [runs.step(rate(index)) for index in (3, 4, 5)] == [[], [], []]
    (told,) = runs.step(rate(7))
    assert (told.index, told.count, told.raw_ns) == (3, 3, 3)
    assert [(drop.index, drop.count) for drop in runs.flush()] == [(7, 1)]
    assert runs.flush() == []


def test_other_reasons_are_told_at_once() -> None:
    runs = DropRuns()
    runs.step(rate(3))
    late = Drop("a", "front", 4, 4, DropReason.LATE)
    assert runs.step(late) == [late]


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["front", "rear"]), st.booleans()),
        max_size=80,
    )
)
def test_every_frame_stands_in_exactly_one_drop(steps: list[tuple[str, str, bool]]) -> None:
    """Whatever is told, in whichever order slots, cameras, kept frames and health messages come."""
    runs, told, given_frames = DropRuns(), [], []
    numbers: dict[tuple[str, str], int] = {}
    for slot, camera, dropped in steps:
        index = numbers[slot, camera] = numbers.get((slot, camera), -1) + 1
        if dropped:
            given_frames.append((slot, camera, index))
            told += runs.step(rate(index, camera, slot))
        elif index % 3 == 0:
            told += runs.flush()
    told += runs.flush()
    frames = [(d.slot, d.camera, d.index + i) for d in told for i in range(d.count)]
    assert sorted(frames) == sorted(given_frames)
