"""What a Fetch holds while it waits: its partitions, not its request; and a large one has its connection to itself."""

from __future__ import annotations

import dataclasses
import gc
import random
from types import SimpleNamespace

import pytest

from kbroker.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from kbroker.server.handlers.fetch import WAITING_PARTITIONS_MAX, handle_fetch
from kbroker.server.rooms import Call
from kbroker.server.sessions import FetchSessions
from tests.support.rooms import CALLER, FakeConnection, House

PARTITIONS = WAITING_PARTITIONS_MAX + 1
WAIT_MS = 500


@pytest.fixture
def house(tmp_path) -> House:
    one = House(tmp_path)
    one.open_disk()
    sessions = FetchSessions(10, clock=one.broker.clock, random=random.Random(1))
    one.rooms = dataclasses.replace(one.rooms, sessions=sessions)
    one.create("topic", partitions=PARTITIONS)
    return one


def wait(house: House, connection: FakeConnection, partitions: int, times: int = 1):
    """A Fetch that names so many partitions, and each so often, and finds nothing in them."""
    asked = [
        FetchPartition(partition=index, fetch_offset=0, partition_max_bytes=1 << 20)
        for index in [*range(partitions)] * times
    ]
    request = FetchRequest(
        max_wait_ms=WAIT_MS, min_bytes=1, topics=[FetchTopic(topic="topic", partitions=asked)]
    )
    later = handle_fetch(house.rooms, Call(12, SimpleNamespace(**CALLER), connection), request)
    assert later.response is None
    return later


def test_nothing_of_its_request_is_kept(house):
    gc.collect()
    before = sum(isinstance(each, FetchPartition) for each in gc.get_objects())

    later = wait(house, FakeConnection(), 10, times=100)

    gc.collect()
    assert before == sum(isinstance(each, FetchPartition) for each in gc.get_objects())
    house.produce("topic", b"a", partition=3)
    assert 10 == len(later.response.responses[0].partitions)


@pytest.mark.parametrize("end", ["records", "time", "lost"])
def test_its_connection_is_not_read_from_while_it_waits_for_many(house, end):
    connection = FakeConnection()
    later = wait(house, connection, PARTITIONS)
    assert 1 == connection.paused

    if end == "records":
        house.produce("topic", b"a")
    elif end == "time":
        house.broker.clock.advance(WAIT_MS)
    else:
        later.on_lost()

    assert 0 == connection.paused
    assert (end != "lost") == (later.response is not None)


def test_a_connection_may_have_many_small_ones(house):
    connection = FakeConnection()

    wait(house, connection, WAITING_PARTITIONS_MAX)
    wait(house, connection, WAITING_PARTITIONS_MAX)

    assert 0 == connection.paused
