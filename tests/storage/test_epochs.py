"""Leader epochs: where each began, and what a follower or client is told of where it ended."""

from __future__ import annotations

import pytest

from kbroker.storage.epochs import EpochCache


@pytest.mark.parametrize(
    ("asked", "answer"),
    [(-1, (-1, -1)), (8, (-1, -1)), (7, (7, 100)), (6, (4, 60)), (4, (4, 60)), (2, (2, 20)), (1, (1, 10))],
)
def test_end_of_an_epoch(asked: int, answer: tuple[int, int]) -> None:
    assert answer == EpochCache([(2, 10), (4, 20), (7, 60)]).end_of(asked, 100)


def test_a_new_epoch_takes_the_place_of_what_it_contradicts() -> None:
    cache = EpochCache([(2, 10), (4, 20)])
    cache.assign(5, 20)
    assert [(2, 10), (5, 20)] == cache.pairs
    assert 5 == cache.last


def test_truncation_and_deletion_forget_epochs() -> None:
    cache = EpochCache([(2, 10), (4, 20), (7, 60)])
    assert cache.truncate_to(60)
    assert not cache.truncate_to(60)
    assert cache.delete_before(30)
    assert [(4, 30)] == cache.pairs
    assert (4, -1) == (cache.epoch_at(30), cache.epoch_at(29))
