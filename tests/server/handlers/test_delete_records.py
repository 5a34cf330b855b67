"""DeleteRecords, against what Kafka 4.3 answers."""

import pytest

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.topics import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
)
from kbroker.replication.partition import WRITTEN
from kbroker.server.handlers.delete_records import handle_delete_records
from tests.support.rooms import House
from tests.support.storage import batch

TEN = tuple(b"%d" % number for number in range(10))
REFUSED = -1


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    house.open_disk()
    house.create("t", 2)
    house.produce("t", *TEN)
    return house


async def delete(house, *partitions, topic="t", version=2):
    asked = [DeleteRecordsPartition(partition_index=index, offset=offset) for index, offset in partitions]
    request = DeleteRecordsRequest(topics=[DeleteRecordsTopic(name=topic, partitions=asked)])
    answering = house.ask(handle_delete_records, request, version=version)
    response = await answering
    house.broker.settle()
    [answer] = response.topics
    return [(each.partition_index, each.error_code, each.low_watermark) for each in answer.partitions]


@pytest.mark.parametrize("version", range(3))
async def test_records_below_an_offset_go(house, version):
    assert [(0, ErrorCode.NONE, 3)] == await delete(house, (0, 3), version=version)
    assert 3 == house.partitions.get("t", 0).log.start


async def test_minus_one_means_the_high_watermark(house):
    assert [(0, ErrorCode.NONE, 10)] == await delete(house, (0, -1))


async def test_the_start_never_goes_back(house):
    await delete(house, (0, 5))

    assert [(0, ErrorCode.NONE, 5)] == await delete(house, (0, 1))


@pytest.mark.parametrize("offset", [11, -2, 2**63 - 1])
async def test_offsets_that_are_not_there_are_out_of_range(house, offset):
    assert [(0, ErrorCode.OFFSET_OUT_OF_RANGE, REFUSED)] == await delete(house, (0, offset))


async def test_an_empty_partition_has_nothing_to_delete(house):
    assert [(1, ErrorCode.NONE, 0), (1, ErrorCode.NONE, 0)] == await delete(house, (1, 0), (1, -1))


@pytest.mark.parametrize("topic, index", [("t", 7), ("t", -1), ("no", 0), ("a b", 0)])
async def test_what_is_not_here_is_unknown(house, topic, index):
    expected = [(index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, REFUSED)]

    assert expected == await delete(house, (index, 0), topic=topic)


async def test_an_internal_topic_that_is_not_there_is_unknown(house):
    expected = [(0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, REFUSED)]

    assert expected == await delete(house, (0, 0), topic="__consumer_offsets")


async def test_internal_topics_keep_their_records(house):
    house.create("__consumer_offsets")

    expected = [(0, ErrorCode.INVALID_TOPIC_EXCEPTION, REFUSED)]
    assert expected == await delete(house, (0, 0), topic="__consumer_offsets")


@pytest.mark.parametrize(
    "policy, expected", [("compact", (44, REFUSED)), ("compact,delete", (0, 0)), ("delete", (0, 0))]
)
async def test_a_topic_that_is_only_compacted_keeps_its_records(house, policy, expected):
    house.create("c", configs={"cleanup.policy": policy})

    assert [(0, *expected)] == await delete(house, (0, 0), topic="c")


async def test_only_the_leader_deletes(house):
    house.partitions.get("t", 0).is_leader = False

    assert [(0, ErrorCode.NOT_LEADER_OR_FOLLOWER, REFUSED)] == await delete(house, (0, 3))


@pytest.mark.parametrize("offset", [-1, 11])
async def test_what_was_written_before_can_be_deleted(house, offset):
    house.partitions.get("t", 0).append(memoryview(bytearray(batch(b"new").view)), WRITTEN)

    assert [(0, ErrorCode.NONE, 11)] == await delete(house, (0, offset))


async def test_a_topic_that_goes_while_its_records_are_waited_for_is_not_known(house):
    partition = house.partitions.get("t", 0)
    partition.append(memoryview(bytearray(batch(b"new").view)), WRITTEN)
    asked = [DeleteRecordsPartition(partition_index=0, offset=-1)]
    request = DeleteRecordsRequest(topics=[DeleteRecordsTopic(name="t", partitions=asked)])

    later = handle_delete_records(house.rooms, house.call(2), request)
    house.delete("t")
    house.broker.settle()

    [topic] = later.response.topics
    assert ErrorCode.UNKNOWN_TOPIC_OR_PARTITION == topic.partitions[0].error_code
