"""What a Fetch holds while it waits: its partitions, not its request; and a large one has its connection to itself."""

from __future__ import annotations

import dataclasses
import gc
import random
from types import SimpleNamespace

import pytest

from kbroker.net.buffers import Budget, Buffers
from kbroker.protocol.frames import decode_response, encode_request
from kbroker.protocol.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic
from kbroker.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from kbroker.protocol.records import build_batch, decode_records, record, split_batches
from kbroker.server.apis import APIS
from kbroker.server.dispatch import Dispatcher, Peer
from kbroker.server.handlers.fetch import WAIT_MS_MAX, WAITING_PARTITIONS_MAX, handle_fetch
from kbroker.server.rooms import Call
from kbroker.server.sessions import FetchSessions
from kbroker.storage.log import COPIED_BATCH_BYTES_MAX
from tests.support.fake_net import Wire
from tests.support.rooms import CALLER, FakeConnection, House
from tests.support.storage import region_bytes

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


def wait(
    house: House,
    connection: FakeConnection,
    partitions: int,
    times: int = 1,
    max_bytes: int = 1 << 20,
    wait_ms: int = WAIT_MS,
):
    """A Fetch that names so many partitions, and each so often, and finds nothing in them."""
    asked = [
        FetchPartition(partition=index, fetch_offset=0, partition_max_bytes=max_bytes)
        for index in [*range(partitions)] * times
    ]
    request = FetchRequest(
        max_wait_ms=wait_ms, min_bytes=1, topics=[FetchTopic(topic="topic", partitions=asked)]
    )
    later = handle_fetch(house.rooms, Call(12, SimpleNamespace(**CALLER), connection), request)
    assert later.response is None
    return later


def test_nothing_of_its_request_is_kept(house):
    """Known by a number that no other request names: brokers that run beside this test have requests too."""
    max_bytes = 1_234_567

    later = wait(house, FakeConnection(), 10, times=50, max_bytes=max_bytes)

    gc.collect()
    named = [each for each in gc.get_objects() if isinstance(each, FetchPartition)]
    assert 0 == sum(each.partition_max_bytes == max_bytes for each in named)
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


@pytest.mark.parametrize("partitions", [1, PARTITIONS])
def test_no_client_that_has_gone_is_waited_for_longer_than_a_minute(house, partitions):
    """A connection that is not read from, for a large request or for many small ones, does not see its peer's end."""
    connection = FakeConnection()
    later = wait(house, connection, partitions, wait_ms=(1 << 31) - 1)

    house.broker.clock.advance(WAIT_MS_MAX - 1)
    assert later.response is None

    house.broker.clock.advance(1)
    assert partitions == len(later.response.responses[0].partitions)
    assert 0 == connection.paused


def test_a_connection_may_have_many_small_ones(house):
    connection = FakeConnection()

    wait(house, connection, WAITING_PARTITIONS_MAX)
    wait(house, connection, WAITING_PARTITIONS_MAX)

    assert 0 == connection.paused


def wires(house: House, count: int) -> list[Wire]:
    """Connections of one loop, whose requests are served in the house."""
    dispatcher = Dispatcher(house.rooms, APIS, start_task=lambda work, name: None)
    buffers = Buffers(Budget(-1))
    made = []
    for _ in range(count):
        wire = Wire(on_frame=dispatcher.on_frame, buffers=buffers, turn=house.broker.turn)
        wire.connection.context = Peer(CALLER["listener"], CALLER["principal"])
        made.append(wire)
    return made


def requests(*messages: FetchRequest | ProduceRequest) -> bytes:
    """These in one piece."""
    versions = {FetchRequest: 12, ProduceRequest: 9}
    return b"".join(part for each in messages for part in encode_request(each, versions[type(each)], 1, None))


def large(value: bytes) -> ProduceRequest:
    """A batch that is not copied: it is written from where it lies."""
    records = build_batch([record(value * COPIED_BATCH_BYTES_MAX)])
    data = TopicProduceData(name="data", partition_data=[PartitionProduceData(index=0, records=records)])
    return ProduceRequest(acks=-1, timeout_ms=5_000, topic_data=[data])


def test_a_session_that_goes_on_elsewhere_does_not_disturb_what_came_with_its_request(house):
    """What stands behind the request that waited is served then; not at once, in the buffer that others were lent."""
    house.create("data")
    before, after, *producers = wires(house, 4)
    asked = [
        FetchPartition(partition=index, fetch_offset=0, partition_max_bytes=1) for index in range(PARTITIONS)
    ]
    opening = FetchRequest(session_epoch=0, topics=[FetchTopic(topic="topic", partitions=asked)])
    before.arrive(requests(opening))
    [answer] = before.answers()
    session_id = decode_response(FetchResponse, 12, memoryview(answer))[1].session_id
    waiting = FetchRequest(session_id=session_id, session_epoch=1, max_wait_ms=WAIT_MS, min_bytes=1)
    before.arrive(requests(waiting, FetchRequest()))

    after.arrive(requests(large(b"a"), FetchRequest(session_id=session_id, session_epoch=2)))
    before.run()
    for value, producer in zip((b"b", b"c"), producers, strict=True):
        producer.sock.arrive(requests(large(value), large(value)))
        read, _ = producer.net.watched[producer.sock]
        read()  # all in one turn of the loop
    house.broker.settle()

    assert 3 == len(before.answers())
    found = house.partitions.get("data", 0).read(0, 1 << 20, at_least_one=True)
    batches = split_batches(memoryview(region_bytes(found)))
    assert [0, 1, 2, 3, 4] == [each.base_offset for each in batches]
    assert [b"a", b"b", b"b", b"c", b"c"] == [
        each.value[:1] for one in batches for each in decode_records(one)
    ]
