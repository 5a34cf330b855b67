"""DescribeLogDirs."""

import pytest

from kbroker.errors import DiskFailed, ErrorCode
from kbroker.protocol.messages.cluster import DescribableLogDirTopic, DescribeLogDirsRequest
from kbroker.server.handlers.cluster import handle_describe_log_dirs
from tests.support.rooms import PLAIN, House


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    house.open_disk()
    return house


async def log_dir(house, asked=None, *, version=5):
    topics = (
        None
        if asked is None
        else [DescribableLogDirTopic(topic=name, partitions=list(indexes)) for name, indexes in asked]
    )
    request = DescribeLogDirsRequest(topics=topics)
    [result] = (await house.ask(handle_describe_log_dirs, request, version=version)).results
    assert house.directory.path == result.log_dir
    return result


def sizes(result):
    return {
        (topic.name, each.partition_index): each.partition_size
        for topic in result.topics
        for each in topic.partitions
    }


@pytest.mark.parametrize("version", range(1, 6))
async def test_every_partition_is_shown_with_its_size(house, version):
    """Also those that nobody has touched yet: they have no files, and are not opened for the answer."""
    house.create("a", 2)
    house.create("b")
    house.produce("a", b"x" * 100, partition=1)

    result = await log_dir(house, version=version)

    assert ErrorCode.NONE == result.error_code
    shown = sizes(result)
    assert {("a", 0), ("a", 1), ("b", 0)} == set(shown)
    assert 0 == shown["a", 0] == shown["b", 0]
    assert house.partitions.get("a", 1).log.size == shown["a", 1] > 100
    assert 1 == len(house.partitions)


async def test_partitions_are_chosen_and_unknown_ones_left_out(house):
    house.create("a", 2)
    house.create("b")

    result = await log_dir(house, [("a", [1, 9, -1, 1]), ("no", [0]), ("b", [])])

    assert {("a", 1): 0} == sizes(result)
    assert ["a"] == [topic.name for topic in result.topics]


async def test_a_topic_that_is_named_twice_is_told_once(house):
    house.create("a", 2)

    result = await log_dir(house, [("a", [0]), ("a", [1, 0])])

    assert [("a", [0, 1])] == [
        (topic.name, [each.partition_index for each in topic.partitions]) for topic in result.topics
    ]


async def test_an_empty_list_asks_for_the_directory_alone(house):
    house.create("a")

    assert [] == (await log_dir(house, [])).topics


async def test_partitions_of_other_brokers_are_not_here(house):
    house.register(2, PLAIN)
    house.create("theirs", replicas=(2,))

    assert {} == sizes(await log_dir(house))


async def test_the_free_space_is_told(house):
    result = await log_dir(house)

    assert 0 < result.usable_bytes <= result.total_bytes
    assert not result.is_cordoned


async def test_a_failed_directory_says_so(house):
    house.create("a")
    house.directory.failed = DiskFailed("gone")

    result = await log_dir(house)

    assert (ErrorCode.KAFKA_STORAGE_ERROR, []) == (result.error_code, result.topics)
