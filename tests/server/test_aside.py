"""Long work of handlers: in a thread, one piece at a time, in the order it came."""

from __future__ import annotations

import asyncio

import pytest

from kbroker.server.aside import Aside
from tests.support.storage import ManualThreads


async def turn() -> None:
    """Let every task come to where it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_piece_at_a_time_in_their_order():
    threads, done = ManualThreads(), []
    aside = Aside(threads)
    tasks = [asyncio.create_task(aside.do(lambda number=number: done.append(number))) for number in range(3)]
    await turn()

    assert 1 == len(threads.waiting)
    for number in range(3):
        assert threads.step()
        await turn()
        assert (list(range(number + 1)), number + 1) == (done, sum(task.done() for task in tasks))
    assert not threads.step()


async def test_whoever_asked_hears_what_it_raised_and_the_next_goes_on():
    threads, done = ManualThreads(), []
    aside = Aside(threads)
    failing = asyncio.create_task(aside.do(lambda: [][1]))
    following = asyncio.create_task(aside.do(lambda: done.append(1)))
    await turn()
    while threads.step():
        await turn()

    with pytest.raises(IndexError):
        await failing
    await following
    assert [1] == done


async def test_work_that_nobody_waits_for_any_more_is_left_out():
    threads, done = ManualThreads(), []
    aside = Aside(threads)
    tasks = [asyncio.create_task(aside.do(lambda number=number: done.append(number))) for number in range(3)]
    await turn()

    tasks[0].cancel()
    tasks[1].cancel()
    await turn()
    while threads.step():
        await turn()

    assert [0, 2] == done  # the first had begun
    await tasks[2]
