"""One timer for many sleepers."""

from __future__ import annotations

from math import inf

from kbroker.groups.alarms import HEAP_TIDY_MIN, Alarms
from tests.support.storage import ManualClock


class Sleeper:
    def __init__(self):
        self.armed_at = inf


class Bedroom:
    def __init__(self):
        self.clock = ManualClock()
        self.start = self.clock.monotonic()
        self.rung = []
        self.alarms = Alarms(self.clock, self.rung.append)

    def set(self, sleeper, seconds):
        self.alarms.set(sleeper, self.start + seconds)


def test_each_rings_at_its_time():
    room = Bedroom()
    early, late = Sleeper(), Sleeper()
    room.set(late, 5)
    room.set(early, 3)
    assert 1 == len(room.clock.timers)

    room.clock.advance(3_000)
    assert [early] == room.rung
    room.clock.advance(2_000)

    assert [early, late] == room.rung
    assert [] == room.clock.timers


def test_an_earlier_time_counts_and_rings_once():
    room = Bedroom()
    sleeper = Sleeper()
    room.set(sleeper, 5)
    room.set(sleeper, 1)

    for _ in range(10):
        room.clock.advance(1_000)

    assert [sleeper] == room.rung
    assert inf == sleeper.armed_at


def test_whoever_is_rung_may_set_anew():
    room = Bedroom()
    sleeper = Sleeper()
    room.alarms = Alarms(room.clock, lambda who: (room.rung.append(who), room.set(who, 9)))
    room.set(sleeper, 1)

    room.clock.advance(1_000)
    assert 1 == len(room.rung)
    room.clock.advance(8_000)

    assert 2 == len(room.rung)


def test_one_that_was_let_sleep_is_not_rung():
    room = Bedroom()
    sleeper = Sleeper()
    room.set(sleeper, 1)
    room.alarms.cancel(sleeper)
    room.alarms.cancel(sleeper)

    room.clock.advance(5_000)

    assert [] == room.rung


def test_what_is_no_longer_true_does_not_pile_up():
    room = Bedroom()
    sleeper = Sleeper()
    for number in range(10_000):
        room.set(sleeper, 20_000 - number)

    assert len(room.alarms._heap) <= HEAP_TIDY_MIN + 3


def test_after_a_stop_nobody_is_rung():
    room = Bedroom()
    room.set(Sleeper(), 1)
    room.alarms.stop()

    room.clock.advance(5_000)

    assert ([], []) == (room.rung, room.clock.timers)
