"""Idempotent producers: a retry is recognised, a gap is refused, an old epoch is fenced."""

from __future__ import annotations

import pytest

from kbroker.errors import ErrorCode, KafkaError
from kbroker.storage.producers import ProducerStates

LAST = 2**31 - 1


def sent(*firsts: int, epoch: int = 0, count: int = 1) -> ProducerStates:
    states = ProducerStates()
    for number, first in enumerate(firsts):
        states.took(7, epoch, first, 100 + number * count, count - 1, 1000, 0)
    return states


def refused(states: ProducerStates, epoch: int, first: int, count: int = 1) -> ErrorCode:
    with pytest.raises(KafkaError) as caught:
        states.check(7, epoch, first, count)
    return caught.value.code


def test_an_unknown_producer_may_start_anywhere() -> None:
    assert ProducerStates().check(7, 3, 55, 2) is None


def test_a_repeated_batch_gets_its_old_offset_among_the_last_five() -> None:
    states = sent(0, 1, 2, 3, 4, 5)
    assert [101, 102, 103, 104, 105] == [states.check(7, 0, first, 1) for first in range(1, 6)]
    assert ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER == refused(states, 0, 0)


def test_a_batch_must_follow_the_last_one() -> None:
    states = sent(0, 1)
    assert states.check(7, 0, 2, 1) is None
    assert ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER == refused(states, 0, 3)
    assert ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER == refused(states, 0, 1, count=2)


def test_epochs_only_rise_and_a_new_one_starts_at_zero() -> None:
    states = sent(0, 1, epoch=4)
    assert ErrorCode.INVALID_PRODUCER_EPOCH == refused(states, 3, 2)
    assert ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER == refused(states, 5, 2)
    assert states.check(7, 5, 0, 1) is None


def test_sequences_go_on_at_zero_after_the_largest() -> None:
    states = sent(LAST - 1, count=2)
    assert states.check(7, 0, 0, 3) is None
    assert sent(LAST, count=3).check(7, 0, 2, 1) is None


def test_a_snapshot_keeps_the_newest_batch() -> None:
    states = ProducerStates.decode(sent(0, 1, 2).encode())
    assert 102 == states.check(7, 0, 2, 1)
    assert states.check(7, 0, 3, 1) is None


def test_a_torn_snapshot_is_refused() -> None:
    raw = sent(0, 1).encode()
    for broken in (raw[:-1], raw[:3], b"", raw[:-1] + b"\0\0", b"\0\2" + raw[2:]):
        with pytest.raises(ValueError, match="snapshot"):
            ProducerStates.decode(broken)


def test_producers_are_forgotten_by_their_last_time() -> None:
    states = sent(0)
    states.expire(1000)
    assert states.producers
    states.expire(1001)
    assert not states.producers


def test_taking_back_restores_what_was_known() -> None:
    states = sent(0, 1)
    states.settled()
    before = dict(states.producers)
    states.took(7, 0, 2, 102, 0, 1000, 0)
    states.took(8, 0, 0, 103, 0, 1000, 0)
    states.take_back()
    assert before == states.producers
