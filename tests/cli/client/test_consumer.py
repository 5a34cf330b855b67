"""Reading assigned partitions."""

from __future__ import annotations

import contextlib

import pytest

from kbroker.cli.client.batches import encode_values
from kbroker.cli.client.cluster import Cluster
from kbroker.cli.client.consumer import Chunk, Consumer, Gap
from kbroker.cli.client.errors import ClientError
from kbroker.cli.client.producer import Body, Producer
from kbroker.cli.client.properties import parse_servers
from kbroker.protocol.messages.topics import DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic
from kbroker.testing import Broker


@pytest.fixture(scope="module")
def broker():
    with Broker() as running:
        yield running


@pytest.fixture
async def cluster(broker):
    async with Cluster(parse_servers(broker.bootstrap_servers)) as opened:
        yield opened


async def test_records_that_are_gone_are_passed_over_and_said(cluster, broker):
    topic = broker.create_topic("gone")
    async with Producer(cluster, topic) as producer:
        for number in range(10):
            await producer.send(0, Body(encode_values([b"%d" % number]), 1, (5, 5)))
    deleted = DeleteRecordsTopic(name=topic, partitions=[DeleteRecordsPartition(partition_index=0, offset=6)])
    await (await cluster.any()).ask(DeleteRecordsRequest(topics=[deleted], timeout_ms=60_000))

    seen = []
    async with contextlib.aclosing(Consumer(cluster, {(topic, 0): 2}).read()) as chunks:
        async for chunk in chunks:
            seen.append(chunk if isinstance(chunk, Gap) else [batch.base_offset for batch in chunk.batches])
            if isinstance(chunk, Chunk):
                break

    assert [Gap((topic, 0), 2, 6), [6, 7, 8, 9]] == seen


async def test_an_offset_that_is_not_there_yet_is_an_error(cluster, broker):
    topic = broker.create_topic("short")

    with pytest.raises(ClientError, match="short-0 has no offset 5 yet"):
        async with contextlib.aclosing(Consumer(cluster, {(topic, 0): 5}).read()) as chunks:
            await anext(chunks)


async def test_a_deleted_topic_ends_reading(cluster, broker):
    from kbroker.errors import ErrorCode, KafkaError

    topic = broker.create_topic("deleted")
    consumer = Consumer(cluster, {(topic, 0): 0})
    broker.delete_topic(topic)

    with pytest.raises(KafkaError) as failed:
        async with contextlib.aclosing(consumer.read()) as chunks:
            await anext(chunks)

    assert ErrorCode.UNKNOWN_TOPIC_OR_PARTITION == failed.value.code
