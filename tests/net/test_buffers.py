from __future__ import annotations

import pytest

from kbroker.net.buffers import (
    LAZY_SIZE_MIN,
    POOL_BUFFER_SIZE_MAX,
    POOL_BUFFER_SIZE_MIN,
    POOL_BUFFERS_MAX,
    SHARED_SIZE,
    Budget,
    Buffers,
    own_limit,
)


class Asker:
    """Takes from a budget, and takes again when called back."""

    def __init__(self, budget: Budget, size: int) -> None:
        self.budget, self.size, self.has = budget, size, False

    def ask(self) -> None:
        self.has = self.budget.take(self.size, self.ask)


def test_what_is_there_is_given_in_order_and_the_rest_waits():
    budget = Budget(100)
    askers = [Asker(budget, size) for size in (60, 50, 30)]
    for asker in askers:
        asker.ask()
    assert [True, False, True] == [asker.has for asker in askers]

    budget.give(60)

    assert [True, True, True] == [asker.has for asker in askers]
    assert 20 == budget.left


def test_more_than_all_goes_alone():
    budget = Budget(100)
    large, small = Asker(budget, 1000), Asker(budget, 1)
    large.ask()
    small.ask()
    assert (True, False) == (large.has, small.has)

    budget.give(1000)

    assert (True, 99) == (small.has, budget.left)


def test_a_large_one_in_front_is_not_overtaken_by_those_called_back():
    budget = Budget(100)
    first, large, small = Asker(budget, 90), Asker(budget, 95), Asker(budget, 20)
    for asker in (first, large, small):
        asker.ask()

    budget.give(90)

    assert (True, False) == (large.has, small.has)


def test_one_that_gives_back_while_it_is_called_back_wakes_the_next():
    budget = Budget(10)
    budget.take(10, lambda: None)
    woken: list[int] = []

    def at_once(number: int) -> None:
        woken.append(number)
        if budget.take(10, lambda: at_once(number)):
            budget.give(10)

    for number in range(4):
        assert not budget.take(10, lambda number=number: at_once(number))

    budget.give(10)

    assert [0, 1, 2, 3] == woken
    assert 10 == budget.left


def test_without_limit_nobody_waits():
    budget = Budget(-1)

    assert all(budget.take(1 << 40, lambda: None) for _ in range(10))


@pytest.mark.parametrize(
    "memory, limit", [(64 << 20, 128 << 20), (1 << 30, 256 << 20), (2 << 30, 512 << 20), (64 << 30, 1 << 30)]
)
def test_requests_take_a_share_of_the_machines_memory_within_bounds(memory, limit):
    assert limit == own_limit(memory)


@pytest.mark.parametrize("size", [1, LAZY_SIZE_MIN - 1, LAZY_SIZE_MIN, SHARED_SIZE, 5 << 20])
def test_a_buffer_is_as_large_as_asked_and_writable(size):
    buffers = Buffers(Budget(-1))

    buffer = buffers.take(size)
    memoryview(buffer)[size - 1 : size] = b"x"

    assert len(buffer) >= size
    assert b"x" == bytes(buffer[size - 1 : size])


def test_a_large_buffer_is_used_again():
    buffers = Buffers(Budget(-1))
    first = buffers.take(SHARED_SIZE)
    buffers.give(first)

    assert buffers.take(POOL_BUFFER_SIZE_MIN // 2) is first
    assert buffers.take(POOL_BUFFER_SIZE_MIN // 2) is not first


def test_a_buffer_of_which_somebody_holds_a_view_is_not_used_again():
    buffers = Buffers(Budget(-1))
    first = buffers.take(SHARED_SIZE)
    view = memoryview(first)[:10]
    buffers.give(first)

    assert buffers.take(SHARED_SIZE) is not first
    view.release()
    assert buffers.take(SHARED_SIZE) is first


def test_few_buffers_and_none_too_large_are_kept():
    buffers = Buffers(Budget(-1))
    for buffer in [buffers.take(SHARED_SIZE) for _ in range(POOL_BUFFERS_MAX + 5)]:
        buffers.give(buffer)
    buffers.give(buffers.take(POOL_BUFFER_SIZE_MAX + 1))

    assert POOL_BUFFERS_MAX == len(buffers._free)
    assert all(len(buffer) <= POOL_BUFFER_SIZE_MAX for buffer in buffers._free)
