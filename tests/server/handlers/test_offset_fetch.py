"""OffsetFetch: committed offsets of one group and of many, by name and by id, in each version."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbroker.errors import ErrorCode
from kbroker.groups.events import Offset
from kbroker.protocol.codec import decode, encode_body
from kbroker.protocol.messages.offsets import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
)
from kbroker.protocol.wire import ZERO_UUID
from kbroker.server.handlers.offset_fetch import handle_offset_fetch
from tests.support.fake_groups import FakeGroups
from tests.support.rooms import House

NO_SUCH_ID = bytes(range(16))


@pytest.fixture
def groups() -> FakeGroups:
    groups = FakeGroups()
    groups.offsets["group"] = {
        ("t", 1): Offset(7, 3, "hi", 1, -1, ZERO_UUID),
        ("t", 0): Offset(6, -1, "", 1, -1, ZERO_UUID),
        ("gone", 0): Offset(5, -1, "", 1, -1, ZERO_UUID),
    }
    return groups


@pytest.fixture
def house(tmp_path: Path, groups: FakeGroups) -> House:
    house = House(tmp_path, groups=groups)
    house.create("t", partitions=2)
    return house


async def fetch(house: House, request: OffsetFetchRequest, version: int) -> OffsetFetchResponse:
    answer = await house.ask(handle_offset_fetch, request, version=version)
    return decode(OffsetFetchResponse, version, encode_body(answer, version))


def seen(topics) -> list:
    return [
        (
            topic.name,
            [
                (each.partition_index, each.committed_offset, each.committed_leader_epoch, each.metadata)
                for each in topic.partitions
            ],
        )
        for topic in topics
    ]


def one(topics: list[tuple[str, list[int]]] | None, group_id: str = "group") -> OffsetFetchRequest:
    return OffsetFetchRequest(
        group_id=group_id,
        topics=None
        if topics is None
        else [OffsetFetchRequestTopic(name=name, partition_indexes=indexes) for name, indexes in topics],
    )


def named(
    topics: list[tuple[str | bytes, list[int]]] | None, group_id: str = "group"
) -> OffsetFetchRequestGroup:
    return OffsetFetchRequestGroup(
        group_id=group_id,
        topics=None
        if topics is None
        else [
            OffsetFetchRequestTopics(topic_id=topic, partition_indexes=indexes)
            if isinstance(topic, bytes)
            else OffsetFetchRequestTopics(name=topic, partition_indexes=indexes)
            for topic, indexes in topics
        ],
    )


@pytest.mark.parametrize("version", range(1, 8))
async def test_q46_what_was_committed_and_minus_one_where_nothing_was(house, version):
    answer = await fetch(house, one([("t", [1, 9]), ("nowhere", [0])]), version)

    epoch = 3 if version >= 5 else -1
    assert [("t", [(1, 7, epoch, "hi"), (9, -1, -1, "")]), ("nowhere", [(0, -1, -1, "")])] == seen(
        answer.topics
    )
    assert [0, 0, 0] == [each.error_code for topic in answer.topics for each in topic.partitions]


@pytest.mark.parametrize("version", range(2, 8))
async def test_q46_null_is_all_of_a_groups_offsets(house, version):
    answer = await fetch(house, one(None), version)

    epoch = 3 if version >= 5 else -1
    assert [("gone", [(0, 5, -1, "")]), ("t", [(0, 6, -1, ""), (1, 7, epoch, "hi")])] == seen(answer.topics)


async def test_no_topics_are_none(house):
    answer = await fetch(house, one([]), 7)

    assert [] == answer.topics


@pytest.mark.parametrize(("version", "whole", "each"), [(1, 0, [16]), (2, 16, []), (7, 16, [])])
async def test_a_group_of_another_coordinator_is_an_error_of_all(house, groups, version, whole, each):
    groups.fetch_error = ErrorCode.NOT_COORDINATOR

    answer = await fetch(house, one([("t", [1])]), version)

    assert whole == answer.error_code
    assert each == [found.error_code for topic in answer.topics for found in topic.partitions]


@pytest.mark.parametrize("version", (8, 9))
async def test_q46_many_groups_are_answered_from_v8_on(house, version):
    request = OffsetFetchRequest(
        groups=[named([("t", [1, 9])]), named(None), named(None, "nobody")], require_stable=True
    )

    answer = await fetch(house, request, version)

    assert ["group", "group", "nobody"] == [group.group_id for group in answer.groups]
    assert [
        [("t", [(1, 7, 3, "hi"), (9, -1, -1, "")])],
        [("gone", [(0, 5, -1, "")]), ("t", [(0, 6, -1, ""), (1, 7, 3, "hi")])],
        [],
    ] == [seen(group.topics) for group in answer.groups]


@pytest.mark.parametrize("version", (8, 9, 10))
async def test_a_group_that_is_named_too_often_is_refused(house, version):
    """Of 10 KB that name it 2,000 times the answer would be 2,000 times all its offsets."""
    request = OffsetFetchRequest(groups=[named(None)] * 11 + [named(None, "nobody")])

    answer = await fetch(house, request, version)

    assert [42] * 11 + [0] == [group.error_code for group in answer.groups]
    assert not any(group.topics for group in answer.groups)
    allowed = await fetch(house, OffsetFetchRequest(groups=[named(None)] * 10), version)
    assert [0] * 10 == [group.error_code for group in allowed.groups]


async def test_a_partition_that_is_named_too_often_is_refused(house):
    """Each time its metadata would be told, up to 4 KB."""
    answer = await fetch(house, one([("t", [1] * 11)]), 7)
    assert (42, []) == (answer.error_code, answer.topics)
    many = await fetch(house, OffsetFetchRequest(groups=[named([("t", [1] * 11)])]), 8)
    assert [42] == [group.error_code for group in many.groups]

    for allowed in ([1] * 10, [1, *range(50, 100)], [77] * 100):
        assert 0 == (await fetch(house, one([("t", allowed)]), 7)).error_code


async def test_a_group_is_refused_and_the_others_are_answered(house, groups):
    groups.fetch_error = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS

    answer = await fetch(house, OffsetFetchRequest(groups=[named([("t", [1])]), named(None)]), 9)

    assert [("group", 14, []), ("group", 14, [])] == [
        (group.group_id, group.error_code, group.topics) for group in answer.groups
    ]


async def test_from_v10_on_topics_have_ids(house, groups):
    known = house.state.topics["t"].id.bytes
    request = OffsetFetchRequest(groups=[named([(known, [1, 9]), (NO_SUCH_ID, [0])]), named(None)])

    answer = await fetch(house, request, 10)

    asked, everything = answer.groups
    assert [
        (known, [(1, 7, 0), (9, -1, 0)]),
        (NO_SUCH_ID, [(0, -1, ErrorCode.UNKNOWN_TOPIC_ID)]),
    ] == [
        (
            topic.topic_id,
            [(each.partition_index, each.committed_offset, each.error_code) for each in topic.partitions],
        )
        for topic in asked.topics
    ]
    assert [known] == [topic.topic_id for topic in everything.topics], "what is gone has no id to say"
    assert [("group", [("t", 1), ("t", 9)]), ("group", None)] == groups.asked
