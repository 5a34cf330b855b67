"""Clients beyond their quotas are answered, told to wait, and not read from: on a fake wire with a clock that stands
still, then over real sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from kbroker.errors import ErrorCode
from kbroker.net.slots import Slot
from kbroker.protocol.frames import decode_response, encode_request
from kbroker.protocol.messages.metadata import MetadataRequest, MetadataResponse
from kbroker.protocol.messages.quotas import (
    AlterClientQuotasEntryData,
    AlterClientQuotasRequest,
    EntityData,
    OpData,
)
from kbroker.protocol.messages.topics import CreatableTopic, CreateTopicsRequest, DeleteTopicsRequest
from kbroker.protocol.records import build_batch, record
from kbroker.server.apis import Api
from kbroker.server.dispatch import Dispatcher, Peer
from kbroker.server.quotas import PRODUCE, REQUEST, Quotas, Windows
from kbroker.testing import Broker
from tests.support.fake_net import Wire
from tests.support.raw_client import RawClient, address_of, fetch_request, produce_request
from tests.support.storage import ManualClock

METADATA = 3
EVERYBODY = (("user", None),)


class Served:
    """A dispatcher whose only API is done by the test, on one fake connection."""

    def __init__(self, limits, serve):
        self.clock = ManualClock()
        self.quotas = Quotas(self.clock, windows=Windows(11, 1), mutation_windows=Windows(11, 1))
        self.quotas.load({EVERYBODY: limits})
        apis = {METADATA: Api(lambda rooms, call, request: serve(self, call), (0, 13), (0, 13))}
        dispatcher = Dispatcher(SimpleNamespace(quotas=self.quotas), apis, start_task=lambda work, name: None)
        self.wire = Wire(on_frame=dispatcher.on_frame, on_close=dispatcher.on_close)
        self.wire.connection.context = Peer("PLAINTEXT", "User:ANONYMOUS")

    def send(self, *numbers):
        """All in one piece."""
        self.wire.arrive(b"".join(b"".join(encode_request(MetadataRequest(), 9, n, "me")) for n in numbers))

    def told(self):
        """Correlation id and time to wait, of each answer."""
        answers = (decode_response(MetadataResponse, 9, memoryview(answer)) for answer in self.wire.answers())
        return [(number, response.throttle_time_ms) for number, response in answers]


def produces(size):
    def serve(house, call):
        house.quotas.produced(call, size)
        return MetadataResponse()

    return serve


def test_requests_behind_the_one_that_went_too_far_wait_also_where_they_came_with_it():
    house = Served({PRODUCE: 1000.0}, produces(11_000))

    house.send(1, 2)
    assert [(1, 1_000)] == house.told()
    house.clock.advance(999)
    house.wire.run()
    assert [(1, 1_000)] == house.told()
    house.clock.advance(1)
    house.wire.run()

    assert [(1, 1_000), (2, 12_000)] == house.told()


def test_whoever_else_has_paused_a_connection_still_has_when_its_wait_is_over():
    house = Served({PRODUCE: 1000.0}, produces(11_000))
    house.send(1)
    house.wire.connection.pause()

    house.clock.advance(1_000)
    assert not house.wire.net.reads(house.wire.sock)
    house.wire.connection.resume()

    assert house.wire.net.reads(house.wire.sock)


def test_a_connection_that_others_release_still_waits():
    house = Served({PRODUCE: 1000.0}, produces(11_000))
    house.wire.connection.pause()
    house.quotas.mutes.mute(house.wire.connection, 1.0, house.clock.monotonic())

    house.wire.connection.resume()

    assert not house.wire.net.reads(house.wire.sock)


def test_an_answer_that_comes_while_its_client_waits_says_how_long_is_left():
    slots = []

    def serve(house, call):
        house.quotas.produced(call, 11_000)
        slots.append(Slot())
        return slots[-1]

    house = Served({PRODUCE: 1000.0}, serve)
    house.send(1)
    house.clock.advance(400)

    house.wire.step(lambda: slots[0].fill(MetadataResponse()))

    assert [(1, 600)] == house.told()


def test_the_time_of_a_request_counts_where_somebody_has_a_quota_of_it():
    def serve(house, call):
        house.clock.advance(1_050)
        return MetadataResponse()

    house = Served({REQUEST: 10.0}, serve)

    house.send(1)

    assert [(1, 500)] == house.told()


def test_a_wait_goes_with_its_connection():
    house = Served({PRODUCE: 1000.0}, produces(11_000))
    house.send(1)

    house.wire.connection.close()

    assert [] == house.clock.timers


# -- over sockets


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as started:
        yield started


@pytest.fixture
def connect(broker):
    """Connections; quotas and connections end with the test.

    For what clients use time stands still, whatever the machine does meanwhile; what they wait they wait in real time.
    """
    opened = []
    began = time.monotonic()
    broker.call(lambda node: setattr(node.quotas, "now", lambda: began))

    def connect(**options) -> RawClient:
        opened.append(RawClient(address_of(broker.bootstrap_servers), **options))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()
    broker.call(lambda node: node.quotas.load({}))
    with RawClient(address_of(broker.bootstrap_servers)) as last:
        for type, name in (("client-id", "raw"), ("ip", None)):
            keys = ("producer_byte_rate", "consumer_byte_rate", "controller_mutation_rate")
            limit(
                last, (type, name), **dict.fromkeys(keys if type != "ip" else ("connection_creation_rate",))
            )


def limit(client, entity, **values):
    entry = AlterClientQuotasEntryData(
        entity=[EntityData(entity_type=entity[0], entity_name=entity[1])],
        ops=[OpData(key=key, value=value or 0.0, remove=value is None) for key, value in values.items()],
    )
    [answer] = client.ask(AlterClientQuotasRequest(entries=[entry]), 1).entries
    assert 0 == answer.error_code, answer.error_message


def batch(size):
    return build_batch([record(b"x" * (size - 100), timestamp=int(time.time() * 1000))])


CLIENT = ("client-id", "raw")


def test_a_producer_is_told_to_wait_and_served_afterwards(connect):
    client = connect()
    client.create("produced")
    limit(client, CLIENT, producer_byte_rate=1000)

    first = client.ask(produce_request("produced", batch(10_200)), 9)
    second = client.ask(produce_request("produced", batch(200)), 9)

    assert [True, True] == [0 < answer.throttle_time_ms < 2_000 for answer in (first, second)]
    assert [0, 1] == [answer.responses[0].partition_responses[0].base_offset for answer in (first, second)]


def test_another_client_is_not_told_to_wait(connect):
    client, other = connect(), connect(client_id="other")
    client.create("others")
    limit(client, CLIENT, producer_byte_rate=1000)
    client.ask(produce_request("others", batch(100_000)), 9)

    answer = other.ask(produce_request("others", batch(100_000)), 9)

    assert 0 == answer.throttle_time_ms


def test_lanes_are_left_for_clients_whose_requests_count(broker, connect):
    def lane():
        return broker.call(lambda node: any(each.context.lane is not None for each in node.connections._open))

    client = connect()
    client.create("lanes")
    client.ask(produce_request("lanes", batch(200)), 9)
    assert lane()

    limit(client, CLIENT, producer_byte_rate=10**9)
    assert not lane()
    client.ask(produce_request("lanes", batch(200)), 9)
    assert not lane()
    limit(client, CLIENT, producer_byte_rate=None)
    client.ask(produce_request("lanes", batch(200)), 9)
    assert lane()


@pytest.mark.parametrize("session", [True, False])
def test_a_reader_beyond_its_limit_gets_nothing_and_goes_on_where_it_was(connect, session):
    name = f"fetched-{session}"
    client = connect()
    client.create(name)
    client.ask(produce_request(name, batch(9_900)), 9)
    client.ask(produce_request(name, batch(300)), 9)
    limit(client, CLIENT, consumer_byte_rate=1000)

    first = client.ask(fetch_request(name, partition_max_bytes=1000, session_epoch=0 if session else -1), 12)
    asked = fetch_request(
        name, 1, session_id=first.session_id, session_epoch=1 if session else -1, max_wait_ms=5_000
    )
    second = client.ask(asked, 12)
    limit(client, CLIENT, consumer_byte_rate=None)
    asked.session_epoch += session
    third = client.ask(asked, 12)

    assert session == bool(first.session_id)
    assert [first.session_id] * 2 == [second.session_id, third.session_id]
    assert ([], True) == (second.responses, 0 < second.throttle_time_ms < 2_000)
    assert [True, True] == [bool(answer.responses[0].partitions[0].records) for answer in (first, third)]


def test_a_session_that_a_limit_cut_short_is_asked_for_again(broker, connect):
    client = connect()
    client.create("cut")
    client.ask(produce_request("cut", batch(9_900)), 9)
    limit(client, CLIENT, consumer_byte_rate=1000)
    client.ask(fetch_request("cut", session_epoch=-1), 12)
    client.ask(produce_request("cut", batch(300)), 9)

    answer = client.ask(fetch_request("cut", 1, session_epoch=0), 12)

    assert (0, [], True) == (answer.session_id, answer.responses, answer.throttle_time_ms > 0)


def new_topics(*partitions, prefix):
    return CreateTopicsRequest(
        topics=[
            CreatableTopic(name=f"{prefix}-{number}", num_partitions=count, replication_factor=1)
            for number, count in enumerate(partitions)
        ]
    )


def test_changes_of_partitions_beyond_the_limit_are_refused_in_strict_versions(connect):
    client = connect()
    limit(client, CLIENT, controller_mutation_rate=10)

    answer = client.ask(new_topics(112, 1, prefix="strict"), 7)

    assert [0, ErrorCode.THROTTLING_QUOTA_EXCEEDED] == [topic.error_code for topic in answer.topics]
    assert 0 < answer.throttle_time_ms <= 200


def test_changes_of_partitions_beyond_the_limit_are_done_in_older_versions(connect):
    client = connect()
    limit(client, CLIENT, controller_mutation_rate=10)

    created = client.ask(new_topics(111, 1, prefix="older"), 5)
    deleted = client.ask(DeleteTopicsRequest(topic_names=["older-1"]), 4)

    assert [0, 0, 0] == [topic.error_code for topic in [*created.topics, *deleted.responses]]
    assert 0 < created.throttle_time_ms <= 300
    assert 0 < deleted.throttle_time_ms <= 300


def test_an_address_that_connects_too_often_is_closed(connect):
    client = connect()
    limit(client, ("ip", None), connection_creation_rate=1)

    others = [connect() for _ in range(11)]

    assert others[-1].closed()
    others[0].create("connected")
    limit(client, ("ip", None), connection_creation_rate=None)
