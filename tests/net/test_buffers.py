from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


class Taker:
    """Takes from a budget; `has` grows when it gets something, at once or later."""

    def __init__(self, budget: Budget) -> None:
        self.budget, self.has, self.waits = budget, 0, False

    def take(self, size: int) -> bool:
        if self.budget.take(self, size):
            self.has += size
        else:
            self.waits = True
        return not self.waits

    def go_on(self, size: int) -> None:
        assert self.waits
        self.has += size
        self.waits = False

    def end(self) -> None:
        self.budget.give(self, self.has)
        self.has, self.waits = 0, False


def takers(budget: Budget, count: int) -> list[Taker]:
    return [Taker(budget) for _ in range(count)]


def test_what_is_there_is_given_and_what_comes_back_goes_to_those_who_wait_in_order():
    budget = Budget(100)
    first, over, third, fourth = takers(budget, 4)
    assert [True, True, False, False] == [
        taker.take(size) for taker, size in ((first, 60), (over, 50), (third, 30), (fourth, 30))
    ]

    first.end()

    assert [False, True] == [third.waits, fourth.waits]
    over.end()
    assert not fourth.waits
    assert 40 == budget.left


def test_one_taker_is_never_stopped_so_that_parts_of_frames_do_not_wait_for_one_another():
    budget = Budget(100)
    first, second = takers(budget, 2)
    first.take(50)
    second.take(50)

    assert [True, False, True, True] == [
        first.take(10),
        second.take(10),
        first.take(10),
        first.take(1000),
    ]

    first.end()

    assert not second.waits
    assert 40 == budget.left


def test_the_right_to_go_on_passes_to_whoever_waits_longest():
    budget = Budget(10)
    fits, over, third, fourth = takers(budget, 4)
    for taker in (fits, over, third, fourth):
        taker.take(8)
    assert [False, False, True, True] == [taker.waits for taker in (fits, over, third, fourth)]

    over.end()
    assert [False, True] == [third.waits, fourth.waits]
    fits.end()
    assert fourth.waits
    third.end()

    assert [8, 2] == [fourth.has, budget.left]


def test_who_ends_while_it_waits_gets_nothing_and_holds_nobody_up():
    budget = Budget(10)
    first, over, gone, last = takers(budget, 4)
    for taker in (first, over, gone, last):
        taker.take(8)

    gone.end()
    first.end()

    assert last.waits
    over.end()
    assert [0, 8] == [gone.has, last.has]
    last.end()
    assert (10, {}) == (budget.left, budget._waiting)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), max_size=80))
def test_somebody_can_always_go_on_and_everything_comes_back(steps):
    """Whatever is taken in whatever order: of those who hold something one never waits, and no more than the limit and
    one taker's part is out."""
    budget = Budget(50)
    hands = takers(budget, 6)
    for number, size in steps:
        taker = hands[number]
        if taker.waits:
            continue
        if size and taker.has < 60:
            taker.take(size)
        else:
            taker.end()
        if any(each.waits for each in hands):
            assert any(each.has and not each.waits for each in hands)
        assert sum(each.has for each in hands) <= 50 + 60 + 30
        assert 50 - sum(each.has for each in hands) == budget.left

    for _ in hands:
        for taker in hands:
            if not taker.waits:
                taker.end()

    assert [0] * 6 == [taker.has for taker in hands]
    assert 50 == budget.left


def test_without_limit_nobody_waits():
    budget = Budget(-1)

    assert all(Taker(budget).take(1 << 40) for _ in range(10))


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
