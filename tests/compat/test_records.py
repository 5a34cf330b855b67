"""Producing and reading back: every client, every codec, byte for byte."""

from __future__ import annotations

import pytest

from tests.compat import registry
from tests.compat.driver import Client, ClientFailed, Record
from tests.compat.scenario import assert_same, each_client, each_client_and_codec, sample
from tests.support.peers import Endpoint, Peer

MESSAGE_TOO_LARGE = 10


@each_client_and_codec("produce")
def test_what_a_client_produces_is_read_back_byte_for_byte(
    client: Client, codec: str, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic)
    records = sample(client)

    offsets = client.produce(at, topic, records, codec=codec)

    assert offsets in (list(range(20)), [None] * 20)  # some clients do not tell
    reader = client if "consume" in client.can else helper
    assert_same(records, reader.consume(at, topic, "earliest", 20), reader)


@each_client("consume")
def test_a_client_reads_what_every_other_client_wrote(
    client: Client, written: list[tuple[str, str, list[Record]]], at: Endpoint
) -> None:
    for topic, codec, records in written:
        if codec not in client.codecs or codec in registry.CLIENTS[client.name].cannot_read:
            continue
        read = client.consume(at, topic, "earliest", len(records))
        assert_same(records, read, client)


@each_client("produce", "tls")
def test_produce_and_consume_over_tls(client: Client, helper: Client, peer: Peer, topic: str) -> None:
    helper.create(peer.plain, topic)
    records = sample(client)

    client.produce(peer.tls, topic, records, codec=client.codecs[-1])

    reader = client if "consume" in client.can else helper
    assert_same(records, reader.consume(peer.tls, topic, "earliest", 20), reader)


@pytest.mark.parametrize("acks", [0, 1, -1], ids=["acks=0", "acks=1", "acks=all"])
@each_client("produce")
def test_each_kind_of_acknowledgement(
    client: Client, acks: int, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic)
    records = sample(client, 3)

    client.produce(at, topic, records, acks=acks)

    assert_same(records, helper.consume(at, topic, "earliest", 3), helper)


@each_client("idempotent")
def test_an_idempotent_producer(client: Client, helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic)
    records = sample(client, 30)

    client.produce(at, topic, records[:10], idempotent=True)
    client.produce(at, topic, records[10:], idempotent=True)

    assert_same(records, helper.consume(at, topic, "earliest", 30), helper)


@each_client("tiny")
def test_a_thousand_pipelined_requests_keep_their_order(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic)
    records = [Record(value=f"{number}".encode()) for number in range(1000)]

    client.produce(at, topic, records, tiny=True, acks=1)

    assert_same(records, helper.consume(at, topic, "earliest", 1000), helper)


@each_client("produce")
def test_a_record_near_the_limit_fits(client: Client, helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic)
    record = Record(key=b"large", value=b"x" * 1_000_000)

    client.produce(at, topic, [record])

    reader = client if "consume" in client.can else helper
    assert_same([record], reader.consume(at, topic, "earliest", 1), reader)


@each_client("produce")
def test_a_record_over_the_limit_is_refused_and_nothing_is_stored(
    client: Client, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic, max_message_bytes="100000")

    with pytest.raises(ClientFailed) as failed:
        client.produce(at, topic, [Record(value=b"x" * 150_000)])

    if "codes" in client.can:
        assert MESSAGE_TOO_LARGE == failed.value.code
    assert 0 == helper.offset(at, topic, "latest")
    client.produce(at, topic, [Record(value=b"x" * 90_000)])
    assert 1 == helper.offset(at, topic, "latest")


@pytest.fixture(scope="module")
def written(clients, peers) -> list[tuple[str, str, list[Record]]]:  # type: ignore[no-untyped-def]
    """(topic, codec, records) by every client that is installed, with each of its codecs in turn."""
    at = peers["usual"].get().plain
    topics = []
    for place, writer in enumerate(clients.installed("produce")):
        topic = f"written-by-{writer.name}"
        codec = writer.codecs[place % len(writer.codecs)]
        clients.get("confluent").create(at, topic)
        records = sample(writer, 40)
        writer.produce(at, topic, records[:25], codec=codec)
        writer.produce(at, topic, records[25:], codec="none")
        topics.append((topic, codec, records))
    return topics
