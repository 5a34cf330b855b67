"""OffsetCommit and OffsetDelete: what becomes of each partition, and what the group hears."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbroker.errors import ErrorCode
from kbroker.groups.events import Committed, Forgotten, Offset
from kbroker.protocol.codec import encode_body
from kbroker.protocol.messages.offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from kbroker.protocol.wire import ZERO_UUID
from kbroker.server.handlers.offsets import handle_offset_commit, handle_offset_delete
from tests.support.fake_groups import FakeGroups
from tests.support.rooms import House
from tests.support.storage import ManualClock

DONE = Committed(ErrorCode.NONE)
NO_SUCH_ID = bytes(range(16))


@pytest.fixture
def groups() -> FakeGroups:
    return FakeGroups(DONE)


@pytest.fixture
def house(tmp_path: Path, groups: FakeGroups) -> House:
    house = House(tmp_path, groups=groups, clock=ManualClock())
    house.create("t", partitions=3)
    return house


def partition(index: int, offset: int = 5, metadata: str | None = "", epoch: int = -1):
    return OffsetCommitRequestPartition(
        partition_index=index,
        committed_offset=offset,
        committed_leader_epoch=epoch,
        committed_metadata=metadata,
    )


def commit(*topics: OffsetCommitRequestTopic, **fields) -> OffsetCommitRequest:
    return OffsetCommitRequest(**{"group_id": "group", "topics": list(topics), **fields})


def topic(*partitions, name="t", topic_id=ZERO_UUID) -> OffsetCommitRequestTopic:
    return OffsetCommitRequestTopic(name=name, topic_id=topic_id, partitions=list(partitions))


def codes(answer) -> list[list[tuple[int, int]]]:
    return [[(each.partition_index, each.error_code) for each in topic.partitions] for topic in answer.topics]


@pytest.mark.parametrize("version", range(2, 11))
async def test_the_group_gets_offset_epoch_and_metadata(house, groups, version):
    by_id = version >= 10
    topic_id = house.state.topics["t"].id.bytes
    one = partition(1, 7, "hi", 3 if version >= 6 else -1)
    request = commit(
        topic(
            one, partition(0, 6, None), name="" if by_id else "t", topic_id=topic_id if by_id else ZERO_UUID
        ),
        generation_id_or_member_epoch=4,
        member_id="me",
        group_instance_id="i" if version >= 7 else None,
    )

    answer = await house.ask(handle_offset_commit, request, version=version)

    now = house.rooms.clock.now_ms
    assert (4, "me", "i" if version >= 7 else None) == (
        groups.event.generation,
        groups.event.member_id,
        groups.event.instance_id,
    )
    assert (
        ("t", 1, Offset(7, 3 if version >= 6 else -1, "hi", now, -1, topic_id)),
        ("t", 0, Offset(6, -1, "", now, -1, topic_id)),
    ) == groups.event.offsets
    assert [[(1, 0), (0, 0)]] == codes(answer)
    assert [topic_id if by_id else ZERO_UUID] == [each.topic_id for each in answer.topics]
    encode_body(answer, version)


async def test_a_retention_time_becomes_an_expiry(house, groups):
    await house.ask(handle_offset_commit, commit(topic(partition(0)), retention_time_ms=1000), version=4)

    assert house.rooms.clock.now_ms + 1000 == groups.event.offsets[0][2].expire_ms


async def test_a_retention_time_beyond_all_times_is_for_ever(house, groups):
    await house.ask(handle_offset_commit, commit(topic(partition(0)), retention_time_ms=2**63 - 1), version=2)

    assert 2**63 - 1 == groups.event.offsets[0][2].expire_ms


async def test_what_does_not_exist_is_refused_and_the_rest_is_committed(house, groups):
    request = commit(topic(partition(3), partition(1), partition(-1)), topic(partition(0), name="nowhere"))

    answer = await house.ask(handle_offset_commit, request, version=8)

    assert [[(3, 3), (1, 0), (-1, 3)], [(0, 3)]] == codes(answer)
    assert [("t", 1)] == [(name, index) for name, index, _ in groups.event.offsets]


async def test_an_id_that_nobody_knows_is_refused(house, groups):
    request = commit(topic(partition(0), name="", topic_id=NO_SUCH_ID), topic(partition(0), name=""))

    answer = await house.ask(handle_offset_commit, request, version=10)

    assert [[(0, 100)], [(0, 100)]] == codes(answer)
    assert [] == groups.asked, "there is nothing that the group would have to decide"


@pytest.mark.parametrize(
    ("metadata", "code"),
    [("x" * 4096, 0), ("x" * 4097, 12), ("é" * 4096, 0), ("\N{GRINNING FACE}" * 2048, 0), ("😀" * 2049, 12)],
)
async def test_q45_metadata_has_4096_characters_at_most_as_java_counts_them(house, groups, metadata, code):
    request = commit(topic(partition(0, metadata=metadata), partition(1)))

    answer = await house.ask(handle_offset_commit, request, version=8)

    assert [[(0, code), (1, 0)]] == codes(answer)
    assert (1 if code else 2) == len(groups.event.offsets)


@pytest.mark.parametrize(
    ("code", "version", "expected"),
    [
        (ErrorCode.UNKNOWN_MEMBER_ID, 8, 25),
        (ErrorCode.NOT_COORDINATOR, 8, 16),
        (ErrorCode.GROUP_ID_NOT_FOUND, 8, 22),
        (ErrorCode.GROUP_ID_NOT_FOUND, 9, 69),
    ],
)
async def test_what_the_group_refuses_is_refused_for_every_partition_there_is(
    house, groups, code, version, expected
):
    groups.answer = Committed(code)
    request = commit(topic(partition(0), partition(1, metadata="x" * 5000), partition(9)))

    answer = await house.ask(handle_offset_commit, request, version=version)

    assert [[(0, expected), (1, expected), (9, 3)]] == codes(answer)


async def test_the_group_without_a_name_keeps_offsets_too(house, groups):
    answer = await house.ask(handle_offset_commit, commit(topic(partition(0)), group_id=""), version=8)

    assert [[(0, 0)]] == codes(answer)
    assert [""] == [group_id for group_id, _ in groups.asked]


async def test_a_commit_is_answered_when_the_group_says_so(house, groups):
    groups.answer = None
    slot = handle_offset_commit(house.rooms, house.call(8), commit(topic(partition(0))))
    assert slot.response is None

    groups.tell(DONE)

    assert [[(0, 0)]] == codes(slot.response)


# -- OffsetDelete


def forget(*topics: tuple[str, list[int]], group_id="group") -> OffsetDeleteRequest:
    return OffsetDeleteRequest(
        group_id=group_id,
        topics=[
            OffsetDeleteRequestTopic(
                name=name,
                partitions=[OffsetDeleteRequestPartition(partition_index=index) for index in indexes],
            )
            for name, indexes in topics
        ],
    )


async def test_offsets_are_forgotten_one_by_one(house, groups):
    groups.answer = Forgotten(ErrorCode.NONE, (ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC, ErrorCode.NONE))

    answer = await house.ask(handle_offset_delete, forget(("t", [0, 7, 2]), ("nowhere", [0])), version=0)

    assert (("t", 0), ("t", 2)) == groups.event.partitions
    assert (0, [[(0, 86), (7, 3), (2, 0)], [(0, 3)]]) == (answer.error_code, codes(answer))
    encode_body(answer, 0)


async def test_a_group_that_is_not_there_has_no_topics_in_its_answer(house, groups):
    groups.answer = Forgotten(ErrorCode.GROUP_ID_NOT_FOUND)

    answer = await house.ask(handle_offset_delete, forget(("t", [0]), ("nowhere", [0])), version=0)

    assert (69, []) == (answer.error_code, answer.topics)


async def test_offsets_of_a_group_without_a_name_are_not_deleted(house, groups):
    answer = await house.ask(handle_offset_delete, forget(group_id=""), version=0)

    assert ErrorCode.INVALID_GROUP_ID == answer.error_code
    assert [] == groups.asked
