from __future__ import annotations

import random

import pytest

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.fetch import FetchPartition
from kbroker.server.sessions import EVICTION_SECONDS, FetchSessions
from tests.support.storage import ManualClock

TOO_LONG_MS = int(EVICTION_SECONDS * 1000) + 1


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def sessions(clock) -> FetchSessions:
    return FetchSessions(2, clock=clock, random=random.Random(1))


def refusal(sessions: FetchSessions, session_id: int, epoch: int, *, by_id: bool = False) -> ErrorCode:
    with pytest.raises(KafkaError) as raised:
        sessions.use(session_id, epoch, by_id=by_id)
    return raised.value.code


def test_sessions_have_ids_of_their_own_above_0(sessions):
    first, second = sessions.open(), sessions.open()

    assert first is not None
    assert second is not None
    assert 0 < first.id != second.id > 0


def test_epochs_go_up_by_one_and_wrap_to_1(sessions):
    session = sessions.open()
    for epoch in (1, 2, 3):
        assert session is sessions.use(session.id, epoch, by_id=False)
    assert ErrorCode.INVALID_FETCH_SESSION_EPOCH == refusal(sessions, session.id, 3)

    session.epoch = 0x7FFFFFFF
    sessions.use(session.id, 0x7FFFFFFF, by_id=False)

    assert session is sessions.use(session.id, 1, by_id=False)


def test_a_refused_request_leaves_the_session_where_it_was(sessions):
    session = sessions.open()
    session.follow("name", FetchPartition(partition=0))

    assert ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR == refusal(sessions, session.id, 1, by_id=True)
    assert ErrorCode.INVALID_FETCH_SESSION_EPOCH == refusal(sessions, session.id, 2)
    assert ErrorCode.FETCH_SESSION_ID_NOT_FOUND == refusal(sessions, session.id + 1, 1)

    assert session is sessions.use(session.id, 1, by_id=False)


def test_without_a_free_slot_there_is_no_session(sessions):
    assert None not in [sessions.open(), sessions.open()]

    assert sessions.open() is None


def test_a_slot_that_nobody_used_for_long_goes_to_the_next(sessions, clock):
    first, second = sessions.open(), sessions.open()
    clock.advance(TOO_LONG_MS)
    sessions.use(first.id, 1, by_id=False)

    third = sessions.open()

    assert third is not None
    assert ErrorCode.FETCH_SESSION_ID_NOT_FOUND == refusal(sessions, second.id, 1)
    assert first is sessions.use(first.id, 2, by_id=False)
    assert sessions.open() is None


def test_a_session_that_waits_is_not_replaced(sessions, clock):
    first, _ = sessions.open(), sessions.open()
    first.on_ready = object()
    clock.advance(TOO_LONG_MS)

    assert sessions.open() is None


def test_a_closed_session_frees_its_slot(sessions):
    first, _ = sessions.open(), sessions.open()

    sessions.close(first.id)
    sessions.close(first.id)

    assert 1 == len(sessions)
    assert sessions.open() is not None
