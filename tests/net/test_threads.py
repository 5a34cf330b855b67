"""Blocking work in threads: every end is delivered on the loop, once; what fails keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from kbroker.net.loop import LoopNet, new_loop
from kbroker.net.threads import Bell, LoopThreads
from kbroker.turn import Turn

WAIT_S = 60


class House:
    """A loop with threads."""

    def __init__(self, *, plain: bool) -> None:
        self.turn = Turn()
        if plain:  # as on systems without epoll
            self.loop = asyncio.new_event_loop()
            self.net = LoopNet(self.loop, self.turn)
        else:
            self.loop, self.net = new_loop(self.turn)
        self.heard: list[tuple[object, BaseException | None]] = []

    def run(
        self, story: Callable[[LoopThreads], None], *, until: int
    ) -> list[tuple[object, BaseException | None]]:
        """Let `story` begin work on the loop; returns the ends when `until` of them came."""

        async def main() -> None:
            self.enough = asyncio.Event()
            self.until = until
            threads = LoopThreads(self.net)
            try:
                story(threads)
                await asyncio.wait_for(self.enough.wait(), WAIT_S)
            finally:
                threads.stop()

        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(main())
        return self.heard

    def done(self, result: object, error: BaseException | None) -> None:
        self.heard.append((result, error))
        if len(self.heard) == self.until:
            self.enough.set()


@pytest.fixture(params=["inside the selector", "by add_reader"])
def house(request) -> House:
    return House(plain=request.param == "by add_reader")


def test_the_end_of_work_is_delivered_on_the_loops_thread(house: House):
    where = []

    def done(result: object, error: BaseException | None) -> None:
        where.append(threading.current_thread())
        house.done(result, error)

    heard = house.run(lambda threads: threads.run(threading.current_thread, done), until=1)

    assert [threading.current_thread()] == where
    assert heard[0][0] is not threading.current_thread()


def test_every_piece_of_work_ends_once(house: House):
    def story(threads: LoopThreads) -> None:
        for number in range(500):
            threads.run(lambda number=number: number, house.done)

    heard = house.run(story, until=500)

    assert list(range(500)) == sorted(result for result, _ in heard)


def test_work_begun_by_an_end_ends_too(house: House):
    def story(threads: LoopThreads) -> None:
        def again(result: int, error: BaseException | None) -> None:
            house.done(result, error)
            if result < 200:
                threads.run(lambda: result + 1, again)

        threads.run(lambda: 1, again)

    heard = house.run(story, until=200)

    assert list(range(1, 201)) == [result for result, _ in heard]


def test_failed_work_tells_its_error(house: House):
    heard = house.run(lambda threads: threads.run(lambda: 1 // 0, house.done), until=1)

    assert isinstance(heard[0][1], ZeroDivisionError)


def test_where_the_system_gives_no_more_threads_those_that_are_there_do_the_work(house: House, monkeypatch):
    def story(threads: LoopThreads) -> None:
        threads.run(lambda: 0, house.done)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", lambda thread: refuse())
            for number in range(1, 10):
                threads.run(lambda number=number: number, house.done)

    def refuse() -> None:
        raise RuntimeError("can't start new thread")

    assert list(range(10)) == sorted(result for result, _ in house.run(story, until=10))


def test_an_end_that_fails_keeps_no_other_waiting(house: House):
    def breaks(result: object, error: BaseException | None) -> None:
        raise RuntimeError("a broken promise")

    def story(threads: LoopThreads) -> None:
        threads.run(lambda: 1, breaks)
        threads.run(lambda: 2, house.done)

    assert [(2, None)] == house.run(story, until=1)


def test_an_end_may_ask_for_a_turn(house: House):
    """What a flush moved is settled in the same wake-up, without anything else happening on the loop."""

    class Settler:
        def settle(self) -> None:
            house.done("settled", None)

        def failed(self, error: BaseException) -> None:
            house.done(None, error)

    def story(threads: LoopThreads) -> None:
        threads.run(lambda: None, lambda result, error: house.turn.settle(Settler()))

    assert [("settled", None)] == house.run(story, until=1)


def test_a_stop_drops_what_nobody_began_and_waits_no_longer_than_it_may(house: House, monkeypatch):
    monkeypatch.setattr("kbroker.net.threads.STOP_SECONDS_MAX", 0)
    begun, go, over, ran = threading.Event(), threading.Event(), threading.Event(), []

    def hangs() -> None:
        begun.set()
        go.wait(WAIT_S)
        ran.append("first")
        over.set()

    async def main() -> None:
        threads = LoopThreads(house.net, threads_max=1)
        threads.run(hangs, lambda result, error: ran.append("delivered"))
        assert begun.wait(WAIT_S)
        threads.run(lambda: ran.append("second"), lambda result, error: None)
        threads.stop()
        threads.stop()
        go.set()
        assert over.wait(WAIT_S)
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=lambda: house.loop) as runner:
        runner.run(main())

    assert ["first"] == ran


def test_a_closed_bell_rings_no_other_file():
    bell = Bell()
    bell.ring()
    bell.heard()
    bell.heard()
    bell.close()
    bell.close()

    bell.ring()

    assert -1 == bell.fileno()
