"""Quotas of clients, asked byte by byte: what is refused, what is found, who has to wait, on kbroker and on Kafka alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from kbroker.protocol.messages.quotas import (
    AlterClientQuotasEntryData,
    AlterClientQuotasRequest,
    ComponentData,
    DescribeClientQuotasRequest,
    EntityData,
    OpData,
)
from kbroker.protocol.messages.topics import CreatableTopic, CreateTopicsRequest
from kbroker.protocol.records import build_batch, record
from tests.compat.scenario import eventually
from tests.support.peers import Peer
from tests.support.raw_client import RawClient, address_of, fetch_request, produce_request

INVALID_REQUEST, THROTTLING_QUOTA_EXCEEDED = 42, 89
PRODUCE, FETCH, MUTATION = "producer_byte_rate", "consumer_byte_rate", "controller_mutation_rate"
LIMIT = 1000.0

Entity = tuple[tuple[str, str | None], ...]


class Asking(RawClient):
    """One client, by the name of its topic; its quotas."""

    def alter(self, entity: Entity, values: dict[str, float | None]) -> int:
        """Error code."""
        entry = AlterClientQuotasEntryData(
            entity=[EntityData(entity_type=type, entity_name=name) for type, name in entity],
            ops=[OpData(key=key, value=value or 0.0, remove=value is None) for key, value in values.items()],
        )
        [answer] = self.ask(AlterClientQuotasRequest(entries=[entry]), 1).entries
        return int(answer.error_code)

    def quotas(self, *filters: tuple[str, int, str | None]) -> dict[Entity, dict[str, float]]:
        """What is found with a strict filter."""
        asked = [ComponentData(entity_type=type, match_type=kind, match=name) for type, kind, name in filters]
        found = self.ask(DescribeClientQuotasRequest(components=asked, strict=True), 1)
        assert found.error_code == 0
        return {
            tuple((part.entity_type, part.entity_name) for part in entry.entity): {
                value.key: value.value for value in entry.values
            }
            for entry in found.entries
        }

    def limit(self, **values: float) -> None:
        """Give this client a quota, and wait until it is known."""
        entity = (("client-id", self.client_id),)
        assert self.alter(entity, dict(values)) == 0
        eventually(lambda: self.quotas(("client-id", 0, self.client_id)), {entity: values})


@pytest.fixture
def connect(peer: Peer, topic: str) -> Iterator[Callable[[], Asking]]:
    """Connections of one client that nobody else is."""
    opened: list[Asking] = []

    def connect() -> Asking:
        opened.append(Asking(address_of(peer.plain.servers), client_id=topic))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


@pytest.fixture
def client(connect: Callable[[], Asking]) -> Asking:
    """One of them."""
    return connect()


def batch(size: int) -> bytes:
    return build_batch([record(b"x" * (size - 100), timestamp=int(time.time() * 1000))])


ANNE, APP, HERE = ("user", "anne"), ("client-id", "app"), ("ip", "127.0.0.9")


@pytest.mark.parametrize(
    ("entity", "key", "value", "error"),
    [
        ((ANNE,), PRODUCE, 1e9, 0),
        ((ANNE, APP), "request_percentage", 150.5, 0),
        ((ANNE,), PRODUCE, 1000.5, INVALID_REQUEST),
        ((ANNE,), PRODUCE, 0.0, INVALID_REQUEST),
        ((ANNE,), PRODUCE, 1e19, INVALID_REQUEST),
        ((ANNE,), "connection_creation_rate", 1.0, INVALID_REQUEST),
        ((ANNE,), "nothing", 1.0, INVALID_REQUEST),
        ((ANNE,), "nothing", None, 0),
        ((HERE,), "connection_creation_rate", 1000.0, 0),
        ((HERE,), PRODUCE, 1000.0, INVALID_REQUEST),
        ((HERE, ANNE), "connection_creation_rate", 1000.0, INVALID_REQUEST),
        ((("user", ""),), PRODUCE, 1000.0, INVALID_REQUEST),
        ((("team", "x"),), PRODUCE, 1000.0, INVALID_REQUEST),
        ((), PRODUCE, 1000.0, INVALID_REQUEST),
    ],
)
def test_a_change_is_taken_or_refused(
    entity: Entity, key: str, value: float | None, error: int, client: Asking
) -> None:
    assert error == client.alter(entity, {key: value})


def test_quotas_are_found_by_their_entity_and_removed(client: Asking, topic: str) -> None:
    name, default = ("user", topic), ("client-id", None)
    for entity, value in (((name,), 1.0), ((default, name), 2.0)):
        assert client.alter(entity, {PRODUCE: value, FETCH: value + 10}) == 0

    eventually(lambda: client.quotas(("user", 0, topic)), {(name,): {PRODUCE: 1.0, FETCH: 11.0}})
    found = client.quotas(("user", 0, topic), ("client-id", 1, None))
    assert {(default, name): {PRODUCE: 2.0, FETCH: 12.0}} == found
    assert client.alter((name,), {PRODUCE: None, FETCH: None}) == 0
    eventually(lambda: client.quotas(("user", 0, topic)), {})


# The rate is that of the last 10 to 11 seconds, by the time since a window began: limits are passed by more than that
# second, so that it is the same whenever a request comes.


def test_a_producer_beyond_its_limit_is_served_and_told_to_wait(
    client: Asking, connect: Callable[[], Asking], topic: str
) -> None:
    client.create(topic)
    client.limit(producer_byte_rate=LIMIT)

    answer = client.ask(produce_request(topic, batch(10_400)), 9)
    again = connect().ask(produce_request(topic, batch(1_500)), 9)

    assert 0 == answer.responses[0].partition_responses[0].error_code
    assert 200 <= answer.throttle_time_ms <= 1_000
    assert answer.throttle_time_ms < again.throttle_time_ms <= 2_000


def test_a_reader_beyond_its_limit_gets_nothing_and_is_told_to_wait(
    client: Asking, connect: Callable[[], Asking], topic: str
) -> None:
    client.create(topic)
    for size in (9_000, 3_500):
        client.ask(produce_request(topic, batch(size)), 9)
    client.limit(consumer_byte_rate=LIMIT)

    first = client.ask(fetch_request(topic, partition_max_bytes=1000, session_epoch=0), 12)
    second = client.ask(fetch_request(topic, 1, session_id=first.session_id, session_epoch=1), 12)
    other = connect().ask(fetch_request(topic, 1, session_epoch=0), 12)

    assert 0 == first.throttle_time_ms
    assert first.responses[0].partitions[0].records
    assert (first.session_id, []) == (second.session_id, second.responses)
    assert 500 <= second.throttle_time_ms <= 3_000
    assert (0, []) == (other.session_id, other.responses)
    assert 500 <= other.throttle_time_ms <= 3_000


def test_changes_of_partitions_beyond_the_limit_are_refused(client: Asking, topic: str) -> None:
    client.limit(controller_mutation_rate=1.0)
    wanted = [
        CreatableTopic(name=f"{topic}-{number}", num_partitions=count, replication_factor=1)
        for number, count in enumerate((16, 1))
    ]

    answer = client.ask(CreateTopicsRequest(topics=wanted, timeout_ms=10_000), 7)

    codes = {each.name: each.error_code for each in answer.topics}
    assert {f"{topic}-0": 0, f"{topic}-1": THROTTLING_QUOTA_EXCEEDED} == codes
    assert 500 <= answer.throttle_time_ms <= 5_000
