"""DescribeTopicPartitions: topics in pages."""

import pytest

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.metadata import Cursor, DescribeTopicPartitionsRequest, TopicRequest
from kbroker.server.handlers.topic_partitions import handle_describe_topic_partitions
from tests.support.rooms import NODE, House


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    house.create("b", 2)
    house.create("a", 3)
    house.create("c")
    return house


async def ask(house, *names, limit=2000, cursor=None):
    request = DescribeTopicPartitionsRequest(
        topics=[TopicRequest(name=name) for name in names],
        response_partition_limit=limit,
        cursor=cursor and Cursor(topic_name=cursor[0], partition_index=cursor[1]),
    )
    return await house.ask(handle_describe_topic_partitions, request, version=0)


async def page(house, *names, **how):
    """What a page holds, and where the next begins."""
    response = await ask(house, *names, **how)
    held = [(each.name, [one.partition_index for one in each.partitions]) for each in response.topics]
    cursor = response.next_cursor
    return held, cursor and (cursor.topic_name, cursor.partition_index)


async def test_topics_are_listed_by_name_each_once(house):
    assert ([("a", [0, 1, 2]), ("b", [0, 1]), ("c", [0])], None) == await page(house)
    assert ([("a", [0, 1, 2]), ("c", [0])], None) == await page(house, "c", "a", "c")


@pytest.mark.parametrize(
    "limit, held, cursor",
    [
        (2, [("a", [0, 1])], ("a", 2)),
        (3, [("a", [0, 1, 2])], ("b", 0)),
        (4, [("a", [0, 1, 2]), ("b", [0])], ("b", 1)),
        (5, [("a", [0, 1, 2]), ("b", [0, 1])], None),
        (0, [("a", [0])], ("a", 1)),
        (-5, [("a", [0])], ("a", 1)),
    ],
)
async def test_a_page_ends_where_its_limit_is_reached(house, limit, held, cursor):
    assert (held, cursor) == await page(house, "a", "b", limit=limit)


@pytest.mark.parametrize("limit", range(1, 8))
async def test_pages_add_up_to_everything(house, limit):
    seen, cursor = [], None
    while True:
        held, cursor = await page(house, limit=limit, cursor=cursor)
        seen += [(name, index) for name, indexes in held for index in indexes]
        if cursor is None:
            break

    assert [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("c", 0)] == seen


async def test_the_brokers_own_limit_holds_too(tmp_path):
    house = House(tmp_path, {"max.request.partition.size.limit": "2"})
    house.create("a", 3)

    assert ([("a", [0, 1])], ("a", 2)) == await page(house)


@pytest.mark.parametrize("begin", [3, 9])
async def test_a_cursor_behind_a_topics_last_partition_goes_on_with_the_next(house, begin):
    assert ([("a", []), ("b", [0, 1])], None) == await page(house, "a", "b", cursor=("a", begin))


async def test_a_cursor_whose_topic_is_gone_goes_on_behind_it(house):
    house.delete("b")

    assert ([("c", [0])], None) == await page(house, cursor=("b", 1))


@pytest.mark.parametrize("cursor", [("a", -1), ("ab", 0), ("z", 0)])
async def test_a_cursor_that_cannot_be_is_refused(house, cursor):
    response = await ask(house, "a", "b", cursor=cursor)

    assert [("a", ErrorCode.INVALID_REQUEST), ("b", ErrorCode.INVALID_REQUEST)] == [
        (each.name, each.error_code) for each in response.topics
    ]


async def test_what_does_not_exist_is_said_and_takes_no_room(house):
    response = await ask(house, "no", "a b", "b", limit=2)

    assert [
        ("a b", ErrorCode.INVALID_TOPIC_EXCEPTION),
        ("b", ErrorCode.NONE),
    ] == [(each.name, each.error_code) for each in response.topics]
    assert "no" == response.next_cursor.topic_name
    [missing] = (await ask(house, "no")).topics
    assert ErrorCode.UNKNOWN_TOPIC_OR_PARTITION == missing.error_code


async def test_a_partition_shows_leader_and_replicas(house):
    [topic] = (await ask(house, "c")).topics

    assert house.state.topics["c"].id.bytes == topic.topic_id
    [partition] = topic.partitions
    assert (NODE, 0, [NODE], [NODE], [], [], []) == (
        partition.leader_id,
        partition.leader_epoch,
        partition.replica_nodes,
        partition.isr_nodes,
        partition.eligible_leader_replicas,
        partition.last_known_elr,
        partition.offline_replicas,
    )
