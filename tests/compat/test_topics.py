"""Topics: listed, created, deleted and created again, unknown ones, records deleted, configs."""

from __future__ import annotations

import pytest

from tests.compat.driver import CALL_LIMIT_S, Client, ClientFailed, Record
from tests.compat.scenario import each_client, eventually
from tests.support.peers import Endpoint, Peer

UNKNOWN_TOPIC_OR_PARTITION = 3
TOPIC_ALREADY_EXISTS = 36


@each_client("metadata")
def test_metadata_names_the_broker_and_the_partitions(
    client: Client, helper: Client, peer: Peer, topic: str
) -> None:
    helper.create(peer.plain, topic, partitions=3)

    told = client.call("metadata", peer.plain, topics=[topic])

    assert [0, 1, 2] == sorted(told["topics"][topic])
    assert [["127.0.0.1", peer.port]] == [broker[1:] for broker in told["brokers"]]


@each_client("metadata")
def test_metadata_of_all_topics_names_a_hundred(client: Client, hundred: set[str], at: Endpoint) -> None:
    assert hundred <= set(client.call("metadata", at, topics=None)["topics"])


@pytest.fixture(scope="module")
def hundred(clients, peers) -> set[str]:  # type: ignore[no-untyped-def]
    """A hundred topics of two partitions."""
    at = peers["usual"].get().plain
    helper = clients.get("confluent")
    names = {f"hundred-{number}" for number in range(100)}
    for made in [helper.begin("create", at, topic=name, partitions=2, configs={}) for name in sorted(names)]:
        made.result(CALL_LIMIT_S)
    eventually(lambda: names - set(helper.call("metadata", at, topics=None)["topics"]), set())
    return names


@each_client("topics")
def test_a_topic_is_created_with_its_partitions_and_configs(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    client.create(at, topic, partitions=4, retention_ms="12345678")

    assert [0, 1, 2, 3] == sorted(helper.call("metadata", at, topics=[topic])["topics"][topic])
    assert "12345678" == helper.call("describe", at, topic=topic)["configs"]["retention.ms"]


@each_client("topics")
def test_a_topic_that_exists_is_not_created_again(client: Client, at: Endpoint, topic: str) -> None:
    client.create(at, topic)

    with pytest.raises(ClientFailed) as failed:
        client.create(at, topic)

    if "codes" in client.can:
        assert TOPIC_ALREADY_EXISTS == failed.value.code


@each_client("topics", "produce")
def test_a_topic_deleted_and_created_again_shows_nothing_old(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    client.create(at, topic)
    client.produce(at, topic, [Record(value=b"old")] * 5)

    client.call("delete", at, topic=topic)
    client.create(at, topic)
    client.produce(at, topic, [Record(value=b"new")])

    assert [b"new"] == [record.value for record in helper.consume(at, topic, "earliest", 1)]
    assert 1 == helper.offset(at, topic, "latest")
    if "consume" in client.can:
        assert [b"new"] == [record.value for record in client.consume(at, topic, "earliest", 1)]


@each_client("topics")
def test_deleting_an_unknown_topic_fails(client: Client, at: Endpoint, topic: str) -> None:
    with pytest.raises(ClientFailed) as failed:
        client.call("delete", at, topic=topic)

    if "codes" in client.can:
        assert UNKNOWN_TOPIC_OR_PARTITION == failed.value.code


@each_client("produce")
def test_producing_to_an_unknown_topic_creates_it(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    client.produce(at, topic, [Record(value=b"first")])

    assert [b"first"] == [record.value for record in helper.consume(at, topic, "earliest", 1)]


@each_client("produce")
def test_without_auto_creation_producing_to_an_unknown_topic_fails(
    client: Client, helper: Client, strict_peer: Peer, topic: str
) -> None:
    with pytest.raises(ClientFailed):
        client.produce(strict_peer.plain, topic, [Record(value=b"lost")], give_up_ms=3_000)

    assert topic not in helper.call("metadata", strict_peer.plain, topics=None)["topics"]


@each_client("delete_records")
def test_deleting_records_moves_the_start(client: Client, helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic)
    helper.produce(at, topic, [Record(value=f"{number}".encode()) for number in range(10)])

    low = client.call("delete_records", at, topic=topic, partition=0, offset=6)["low"]

    assert low in (6, None)  # some clients do not tell
    assert 6 == helper.offset(at, topic, "earliest")
    reader = client if "consume" in client.can else helper
    assert [b"6", b"7", b"8", b"9"] == [record.value for record in reader.consume(at, topic, "earliest", 4)]


@each_client("configs")
def test_configs_are_described_and_altered(client: Client, helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic, segment_bytes="2000000")

    before = client.call("describe", at, topic=topic)["configs"]
    client.call("alter", at, topic=topic, configs={"retention.ms": "7654321", "segment.bytes": "2000000"})

    assert ("2000000", "604800000", "delete") == (
        before["segment.bytes"],
        before["retention.ms"],
        before["cleanup.policy"],
    )

    def after() -> tuple[str, str]:
        told = client.call("describe", at, topic=topic)["configs"]
        return told["segment.bytes"], told["retention.ms"]

    eventually(after, ("2000000", "7654321"))
