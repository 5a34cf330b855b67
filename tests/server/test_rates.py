"""Rates against a twin that remembers everything; buckets; how long a wait is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.server.rates import Bucket, Rate, wait_of

WINDOWS, SECONDS = 11, 1.0


class Twin:
    """Every event for ever; windows are cut anew for each question."""

    def __init__(self, windows: int, seconds: float) -> None:
        self._windows, self._seconds = windows, seconds
        self._events: list[tuple[float, float]] = []

    def record(self, amount: float, now: float) -> None:
        self._events.append((now, amount))

    def _live(self, now: float) -> list[list[tuple[float, float]]]:
        """Windows, as they were when each event came: a window that had gone by then is not gone on with."""
        cut: list[list[tuple[float, float]]] = []
        for at, amount in self._events:
            if not cut or at - cut[-1][0][0] >= self._seconds or at - cut[-1][-1][0] >= self._span:
                cut.append([])
            cut[-1].append((at, amount))
        return [window for window in cut if now - window[-1][0] < self._span]

    @property
    def _span(self) -> float:
        return self._windows * self._seconds

    def value(self, now: float) -> float:
        live = self._live(now)
        elapsed = now - live[0][0][0] if live else 0.0
        while elapsed < (self._windows - 1) * self._seconds:
            elapsed += self._seconds
        return sum(amount for window in live for _, amount in window) / max(elapsed, 0.001)


STEPS = st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 1000)), max_size=60)


@given(STEPS, st.sampled_from([(11, 1), (1, 1), (3, 2)]), st.integers(0, 30_000))
def test_a_rate_is_what_a_twin_says_that_forgets_nothing(steps, windows, later):
    rate, twin = Rate(*windows), Twin(*windows)
    now = 1_000_000  # milliseconds, whole: both count in the same steps
    for wait, amount in steps:
        now += wait
        rate.record(amount, now / 1000)
        twin.record(amount, now / 1000)
        assert pytest.approx(twin.value(now / 1000)) == rate.value(now / 1000)

    now += later
    assert pytest.approx(twin.value(now / 1000)) == rate.value(now / 1000)


def test_a_start_may_be_a_burst_of_all_windows_but_one():
    rate = Rate(WINDOWS, SECONDS)

    rate.record(1000, 50.0)

    assert 100.0 == rate.value(50.0)


def test_what_is_older_than_all_windows_is_forgotten():
    rate = Rate(WINDOWS, SECONDS)
    rate.record(1000, 50.0)

    assert [1000 / 10.999, 0.0] == [pytest.approx(rate.value(60.999)), rate.value(61.0)]


def test_what_is_taken_back_was_never_there():
    rate = Rate(WINDOWS, SECONDS)
    rate.record(1000, 50.0)
    rate.record(-1000, 50.0)

    assert 0.0 == rate.value(50.0)


@given(STEPS)
def test_a_rate_keeps_no_more_than_its_windows(steps):
    rate = Rate(WINDOWS, SECONDS)
    now = 0.0
    for wait, amount in steps * 5:
        now += wait / 1000
        rate.record(amount, now)
        assert len(rate._samples) <= WINDOWS + 1


@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_a_client_that_waits_is_down_at_its_limit(amount, limit):
    """The wait is such that what was used, spread over the windows and the wait, is the limit."""
    rate = Rate(WINDOWS, SECONDS)
    rate.record(amount, 10.0)

    wait = wait_of(rate, limit, 10.0)

    if wait:
        assert pytest.approx(limit) == amount / (10 + wait)
    else:
        assert amount / 10 <= limit


def test_a_bucket_begins_full_and_allows_a_debt():
    bucket = Bucket(2.0, 11, 0.0)

    bucket.take(100, 0.0)

    assert [-78.0, 39.0] == [bucket.left(0.0), bucket.wait(0.0)]


def test_tokens_come_at_their_rate_up_to_the_burst():
    bucket = Bucket(2.0, 11, 0.0)
    bucket.take(30, 0.0)

    assert [-8.0, 0.0, 22.0] == [bucket.left(0.0), bucket.left(4.0), bucket.left(1000.0)]
    assert bucket.is_full(1000.0)


def test_another_rate_takes_the_debt_over():
    bucket = Bucket(1.0, 11, 0.0)
    bucket.take(21, 0.0)

    bucket.change_rate(5.0, 11, 0.0)

    assert 2.0 == bucket.wait(0.0)
