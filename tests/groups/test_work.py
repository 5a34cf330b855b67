"""Work in slices: one in each turn, whoever's it is."""

from __future__ import annotations

import pytest

from kbroker.groups.work import Work
from tests.support.storage import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def steps(done: list[str], name: str, count: int):
    for number in range(count):
        done.append(f"{name}{number}")
        if number < count - 1:
            yield


def test_the_first_slice_is_done_at_once_and_the_others_in_turns(clock):
    work, done = Work(clock), []

    work.take(steps(done, "a", 3))
    work.take(steps(done, "b", 2))
    assert ["a0", "b0"] == done

    seen = []
    while clock.timers:
        clock.advance(0)
        seen.append(done[2:])
    assert [["a1"], ["a1", "b1"], ["a1", "b1", "a2"]] == seen


def test_what_nobody_waits_for_begins_when_it_is_its_turn(clock):
    work, done = Work(clock), []

    for name in "abc":
        work.take_in_turn(steps(done, name, 2))
    assert ["a0"] == done

    while clock.timers:
        clock.advance(0)
    assert ["a0", "a1", "b0", "c0", "b1", "c1"] == done


def test_one_that_breaks_keeps_nobody_waiting(clock, caplog):
    def broken():
        yield
        raise RuntimeError("broken")

    work, done = Work(clock), []
    work.take(broken())
    work.take(steps(done, "a", 3))
    while clock.timers:
        clock.advance(0)

    assert ["a0", "a1", "a2"] == done
    assert "work on groups ended" in caplog.text
