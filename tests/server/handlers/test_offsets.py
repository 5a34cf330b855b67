"""OffsetFetch while no group can commit: nothing is committed, for every group, partition and version."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbroker.protocol.codec import decode, encode_body
from kbroker.protocol.messages.offsets import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
)
from kbroker.server.handlers.offsets import handle_offset_fetch
from tests.support.rooms import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.mark.parametrize("version", range(1, 8))
async def test_one_group_has_committed_nothing(house: House, version: int):
    topics = [OffsetFetchRequestTopic(name="t", partition_indexes=[0, 3])]

    answer = await house.ask(
        handle_offset_fetch, OffsetFetchRequest(group_id="g", topics=topics), version=version
    )

    found = decode(OffsetFetchResponse, version, encode_body(answer, version))
    assert [("t", [(0, -1, 0, ""), (3, -1, 0, "")])] == [
        (
            topic.name,
            [
                (one.partition_index, one.committed_offset, one.error_code, one.metadata)
                for one in topic.partitions
            ],
        )
        for topic in found.topics
    ]


async def test_all_of_a_groups_offsets_are_none(house: House):
    answer = await house.ask(handle_offset_fetch, OffsetFetchRequest(group_id="g", topics=None), version=7)

    assert ([], 0) == (answer.topics, answer.error_code)


@pytest.mark.parametrize("version", (8, 9, 10))
async def test_many_groups_have_committed_nothing(house: House, version: int):
    """From v10 on a topic is asked for by id, and one that is not there is said to be so."""
    by_id = version >= 10
    topic = (
        OffsetFetchRequestTopics(topic_id=bytes(range(16)), partition_indexes=[1])
        if by_id
        else OffsetFetchRequestTopics(name="t", partition_indexes=[1])
    )
    request = OffsetFetchRequest(
        groups=[
            OffsetFetchRequestGroup(group_id="a", topics=[topic]),
            OffsetFetchRequestGroup(group_id="b", topics=None),
        ]
    )

    answer = await house.ask(handle_offset_fetch, request, version=version)

    found = decode(OffsetFetchResponse, version, encode_body(answer, version))
    assert [("a", 1), ("b", 0)] == [(group.group_id, len(group.topics)) for group in found.groups]
    one = found.groups[0].topics[0].partitions[0]
    assert (1, -1, 100 if by_id else 0) == (one.partition_index, one.committed_offset, one.error_code)
