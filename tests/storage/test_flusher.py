"""The flusher hands logs to threads: a log each while few wait, shares of them when many do, four threads at most."""

from __future__ import annotations

import pytest

from kbroker.storage.flusher import FLUSH_THREADS_MAX, SHARE, Flusher
from kbroker.turn import Turn
from tests.support.storage import ManualThreads


class Log:
    """A log that counts what the flusher does with it."""

    deleted = False

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.failures: list[BaseException] = []
        self.stopped: list[BaseException] = []
        self.error: BaseException | None = None

    def flush_begins(self):
        self.begun += 1
        return [self._sync]

    def _sync(self) -> None:
        if self.error is not None:
            raise self.error

    def flush_ended(self) -> bool:
        self.ended += 1
        return False

    def flush_again(self) -> bool:
        return False

    def flush_put_off(self) -> None:
        raise AssertionError("nothing is put off here")

    def flush_failed(self, error: BaseException) -> None:
        self.failures.append(error)

    def failed(self, error: BaseException) -> None:
        self.stopped.append(error)


def breaking(error: BaseException):
    """A method of a log that breaks a promise."""

    def breaks(*_: object) -> bool:
        raise error

    return breaks


class House:
    def __init__(self) -> None:
        self.turn = Turn()
        self.threads = ManualThreads()
        self.errors: list[BaseException] = []
        self.flusher = Flusher(self.turn, self.threads, self.errors.append, lambda call, error: False)

    def flush(self, logs: list[Log]) -> int:
        """Add them all; returns the hand-overs that begin at once."""
        for log in logs:
            self.flusher.add(log)
        self.turn.run()
        return len(self.threads.waiting)

    def settle(self) -> int:
        """Let the threads do all there is; returns the hand-overs that took."""
        count = 0
        while self.threads.step():
            count += 1
            self.turn.run()
        return count


def test_few_logs_get_a_thread_each():
    house, logs = House(), [Log() for _ in range(3)]

    assert 3 == house.flush(logs)


def test_no_more_threads_than_four_sync_and_the_rest_follows_as_they_end():
    house, logs = House(), [Log() for _ in range(6)]

    assert FLUSH_THREADS_MAX == house.flush(logs)
    assert 4 == sum(log.begun for log in logs)

    house.threads.step()
    house.turn.run()

    assert 5 == sum(log.begun for log in logs)
    assert 5 == house.settle()
    assert [(1, 1)] * 6 == [(log.begun, log.ended) for log in logs]
    assert house.flusher.idle


def test_many_logs_are_handed_over_in_shares():
    house, logs = House(), [Log() for _ in range(1000)]

    house.flush(logs)

    assert house.settle() < 100
    assert [(1, 1)] * 1000 == [(log.begun, log.ended) for log in logs]
    assert SHARE > FLUSH_THREADS_MAX


def test_a_failed_sync_fails_its_log_and_those_that_wait_and_not_those_that_went_well():
    house, logs = House(), [Log() for _ in range(6)]
    logs[1].error = OSError("a dead disk")
    house.flush(logs)

    house.settle()

    assert [logs[1].error] == house.errors
    assert (1, []) == (logs[0].ended, logs[0].failures)
    assert [logs[1].error] == logs[1].failures
    assert [logs[1].error] == logs[5].failures  # begun or not: nothing is tried again


@pytest.mark.parametrize("what", ["log", "threads"])
def test_where_a_flush_cannot_begin_all_its_logs_learn_so(what):
    """Whoever waits for them would wait for ever."""
    house, logs = House(), [Log() for _ in range(3)]
    broken = RuntimeError("can't start new thread")

    def breaks(*_) -> None:
        raise broken

    if what == "log":
        logs[0].flush_begins = breaks
    else:
        house.threads.run = breaks
    house.flush(logs)

    assert [broken] == house.errors
    assert [[broken]] * 3 == [log.failures for log in logs]
    assert house.flusher.idle


def group_of(house: House, count: int) -> list[Log]:
    """So many logs that one thread has got together, the first of many more."""
    logs = [Log() for _ in range(SHARE * count)]
    house.flush(logs)
    return logs[:count]


def test_a_log_that_breaks_at_the_end_of_its_flush_is_stopped_and_its_group_is_answered():
    house = House()
    before, broken, behind = group_of(house, 3)
    fault = AssertionError("a promise")
    broken.flush_ended = breaking(fault)

    house.settle()

    assert ([fault], [fault]) == (broken.stopped, broken.failures)
    assert [(1, []), (1, [])] == [(log.ended, log.stopped + log.failures) for log in (before, behind)]
    assert [] == house.errors  # the disk is well
    assert house.flusher.idle
    house.flush([behind])
    house.settle()
    assert 2 == behind.ended


def test_a_log_that_cannot_even_be_stopped_is_told_of_and_its_group_is_answered():
    house = House()
    told: list[BaseException] = []
    house.turn.on_broken = told.append
    broken, behind = group_of(house, 2)
    second = AssertionError("another promise")
    broken.flush_ended = breaking(AssertionError("a promise"))
    broken.failed = breaking(second)

    house.settle()

    assert ([second], 1) == (told, behind.ended)


def test_a_log_that_breaks_when_it_is_told_of_a_failed_sync_keeps_nobody_from_being_told():
    house, logs = House(), [Log() for _ in range(7)]
    dead, fault = OSError("a dead disk"), AssertionError("a promise")
    logs[0].error = dead
    logs[0].flush_failed = logs[5].flush_failed = breaking(fault)
    house.flush(logs)

    house.settle()

    assert [dead] == house.errors
    assert ([fault], [fault]) == (logs[0].stopped, logs[5].stopped)
    assert [[dead]] * 2 == [logs[4].failures, logs[6].failures]
    assert house.flusher.idle
