"""Requests that ask for much: how often the loop breathes, and what that changes (nothing)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from kbroker.errors import ErrorCode
from kbroker.groups.events import Committed, Described, Listed, MemberView, Offset
from kbroker.net.slots import Slot
from kbroker.protocol.frames import decode_response
from kbroker.protocol.messages.cluster import DescribeClusterRequest, DescribeClusterResponse
from kbroker.protocol.messages.configs import ListConfigResourcesRequest
from kbroker.protocol.messages.groups import (
    Coordinator,
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
    ListGroupsRequest,
)
from kbroker.protocol.messages.metadata import (
    DescribeTopicPartitionsRequest,
    MetadataRequest,
    MetadataResponse,
    MetadataResponseTopic,
)
from kbroker.protocol.messages.offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from kbroker.protocol.sliced import ELEMENTS_PER_SLICE
from kbroker.protocol.wire import ZERO_UUID
from kbroker.server.handlers.configs import handle_list_config_resources
from kbroker.server.handlers.coordinators import handle_find_coordinator
from kbroker.server.handlers.group_views import (
    handle_delete_groups,
    handle_describe_groups,
    handle_list_groups,
)
from kbroker.server.handlers.offset_fetch import handle_offset_fetch
from kbroker.server.handlers.offsets import handle_offset_commit
from kbroker.server.handlers.topic_partitions import handle_describe_topic_partitions
from kbroker.server.rooms import Call, Pause
from kbroker.server.slices import SLICE, Awaited, Large, Pace, in_slices
from tests.server.test_dispatch import House as DispatchHouse
from tests.support.fake_groups import FakeGroups
from tests.support.fake_net import Wire
from tests.support.rooms import CALLER, FakeConnection, House

MANY = [f"group-{number}" for number in range(3 * SLICE + 5)]


def call(connection: Any = None) -> Call:
    return Call(0, SimpleNamespace(**CALLER), connection)


def taken(work) -> tuple[Any, int]:
    """What a handler answers in the end, and how often the loop had its turn before."""
    pauses = 0
    while True:
        try:
            work.send(None)
        except StopIteration as end:
            return end.value.response, pauses
        pauses += 1


# -- what a generator is for


def test_what_needs_no_pause_is_answered_at_once():
    def steps():
        return MetadataResponse(controller_id=3)
        yield

    connection = FakeConnection()

    assert MetadataResponse(controller_id=3) == in_slices(call(connection), steps())
    assert 0 == connection.paused


async def test_a_connection_is_not_read_from_until_the_answer_is_encoded():
    def steps():
        yield None
        return MetadataResponse()

    connection = FakeConnection()
    work = in_slices(call(connection), steps())
    assert 1 == connection.paused

    large = await work
    assert 1 == connection.paused

    large.end()
    assert 0 == connection.paused


async def test_steps_that_fail_let_the_connection_be_read_again():
    def steps():
        yield None
        raise RuntimeError("broken")

    connection = FakeConnection()
    with pytest.raises(RuntimeError):
        await in_slices(call(connection), steps())

    assert 0 == connection.paused


async def test_steps_that_are_given_up_come_to_their_end():
    """A compiled generator that is only dropped does not."""
    ended: list[str] = []

    def steps():
        try:
            yield asyncio.get_running_loop().create_future()
        finally:
            ended.append("closed")

    waiting = steps()
    task = asyncio.ensure_future(in_slices(call(), waiting))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ["closed"] == ended
    assert waiting.gi_frame is None


async def test_steps_may_wait_for_what_they_asked_for():
    def steps():
        ended: Awaited[int] = Awaited()
        asyncio.get_running_loop().call_soon(ended, 5)
        yield ended
        return MetadataResponse(controller_id=ended.value)

    large = await in_slices(call(), steps())

    assert 5 == large.response.controller_id


def test_very_many_things_are_counted_with_pauses():
    counted: list[dict[str, int]] = []

    def steps():
        counted.append((yield from Pace().counted(["a", "b"] * (SLICE + 5))))

    assert 2 == len(list(steps()))
    assert [{"a": SLICE + 5, "b": SLICE + 5}] == counted


async def test_requests_behind_one_in_slices_wait_and_those_of_others_do_not():
    def handler(call, request):
        if isinstance(request, DescribeClusterRequest):
            return DescribeClusterResponse()

        def steps():
            yield None
            yield None
            return MetadataResponse(topics=[MetadataResponseTopic(name="t")] * 3 * ELEMENTS_PER_SLICE)

        return in_slices(call, steps())

    house = DispatchHouse(handler)
    house.send(MetadataRequest(), 9, 1)
    house.send(DescribeClusterRequest(), 1, 2)
    assert [MetadataRequest] == [type(request) for _, request in house.calls]

    await asyncio.gather(*house.tasks)
    house.wire.run()

    assert [MetadataRequest, DescribeClusterRequest] == [type(request) for _, request in house.calls]
    first, second = house.wire.answers()
    assert 3 * ELEMENTS_PER_SLICE == len(decode_response(MetadataResponse, 9, memoryview(first))[1].topics)
    assert 2 == decode_response(DescribeClusterResponse, 1, memoryview(second))[0]


async def test_an_answer_for_a_connection_that_ended_is_not_encoded_to_its_end():
    connection = Wire().connection
    connection.close()
    slot = Slot()
    slot.bind(connection, 4, 1)

    await Large(FindCoordinatorResponse(coordinators=[Coordinator()]), Pause(None)).fill(slot)

    assert slot.answer is None


# -- the handlers that have one


@pytest.fixture
def groups() -> FakeGroups:
    groups = FakeGroups()
    groups.listed = ErrorCode.NONE, [Listed(name, "", "Empty", "classic") for name in MANY]
    return groups


@pytest.fixture
def house(tmp_path, groups) -> House:
    house = House(tmp_path, groups=groups)
    house.create("t", partitions=3 * SLICE + 5)
    return house


def ask(house, handler, request, version) -> tuple[Any, int]:
    return taken(handler(house.rooms, house.call(version), request))


def test_many_groups_are_described_in_slices(house):
    response, pauses = ask(house, handle_describe_groups, DescribeGroupsRequest(groups=MANY), 6)

    assert 3 == pauses
    assert MANY == [each.group_id for each in response.groups]


def test_members_count_as_groups_do(house, groups):
    members = (MemberView("m", None, "c", "/h", b"", b""),) * SLICE
    groups.described = {name: Described(ErrorCode.NONE, "Stable", "", "", members) for name in "abcd"}

    response, pauses = ask(house, handle_describe_groups, DescribeGroupsRequest(groups=list("abcd")), 6)

    assert (4, 4) == (len(response.groups), pauses)


def test_many_groups_are_listed_in_slices(house):
    response, pauses = ask(house, handle_list_groups, ListGroupsRequest(states_filter=["Empty"]), 4)

    assert 3 == pauses
    assert MANY == [each.group_id for each in response.groups]


async def test_many_groups_are_deleted_slice_by_slice(house, groups):
    request = DeleteGroupsRequest(groups_names=[*MANY, MANY[0]])
    groups.errors = {MANY[1]: ErrorCode.NON_EMPTY_GROUP}

    response = await house.ask(handle_delete_groups, request, version=2)

    assert 4 == len(groups.asked)
    assert MANY == [each.group_id for each in response.results]
    assert ErrorCode.NON_EMPTY_GROUP == response.results[1].error_code


def test_many_coordinators_are_found_in_slices(house):
    house.create("__consumer_offsets")
    request = FindCoordinatorRequest(key_type=0, coordinator_keys=MANY)

    response, pauses = ask(house, handle_find_coordinator, request, 4)

    assert 3 == pauses
    assert MANY == [each.key for each in response.coordinators]


async def test_many_coordinators_are_found_when_the_topic_had_to_be_made(house):
    request = FindCoordinatorRequest(key_type=0, coordinator_keys=MANY)

    response = await house.ask(handle_find_coordinator, request, version=4)

    assert MANY == [each.key for each in response.coordinators]


def test_offsets_of_many_groups_are_fetched_in_slices(house, groups):
    groups.offsets = {name: {("t", 0): Offset(7, -1, "", 1, -1, ZERO_UUID)} for name in MANY}
    request = OffsetFetchRequest(
        groups=[
            OffsetFetchRequestGroup(
                group_id=name, topics=[OffsetFetchRequestTopics(name="t", partition_indexes=[0])]
            )
            for name in MANY
        ]
    )

    response, pauses = ask(house, handle_offset_fetch, request, 8)

    assert 9 <= pauses  # a group, its offset and its answer count
    assert MANY == [each.group_id for each in response.groups]


@pytest.mark.parametrize("version", [7, 8, 10])
def test_many_offsets_of_a_group_are_fetched_in_slices(house, groups, version):
    partitions = range(3 * SLICE)
    groups.offsets["g"] = {
        ("t", index): Offset(index, -1, "", 1, -1, ZERO_UUID) for index in reversed(partitions)
    }
    of_group = OffsetFetchRequestGroup(group_id="g", topics=None)
    request = OffsetFetchRequest(group_id="g", topics=None, groups=[of_group] if version > 7 else [])

    response, pauses = ask(house, handle_offset_fetch, request, version)

    [topic] = response.groups[0].topics if version > 7 else response.topics
    assert list(partitions) == [each.partition_index for each in topic.partitions]
    assert list(partitions) == [each.committed_offset for each in topic.partitions]
    assert 6 <= pauses


async def test_many_offsets_are_committed_in_slices(house, groups):
    groups.answer = Committed(ErrorCode.NONE)
    partitions = [
        OffsetCommitRequestPartition(partition_index=index, committed_offset=index)
        for index in (*range(3 * SLICE + 5), 9 * SLICE)
    ]
    house.rooms = house.rooms_with(groups=groups, clock=house.clock)
    request = OffsetCommitRequest(
        group_id="g", topics=[OffsetCommitRequestTopic(name="t", partitions=partitions)]
    )
    work = handle_offset_commit(house.rooms, house.call(8), request)

    response, pauses = taken(work)

    assert 3 == pauses
    assert [(("t", 0), 0), (("t", SLICE), SLICE)] == [
        ((topic, index), offset.offset) for topic, index, offset in groups.event.offsets[::SLICE][:2]
    ]
    errors = [each.error_code for each in response.topics[0].partitions]
    assert [ErrorCode.NONE] * (3 * SLICE + 5) + [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION] == errors


async def test_an_error_of_a_large_commit_is_that_of_each_partition_that_there_is(house, groups):
    groups.answer = Committed(ErrorCode.ILLEGAL_GENERATION)
    house.rooms = house.rooms_with(groups=groups, clock=house.clock)
    partitions = [OffsetCommitRequestPartition(partition_index=index) for index in (9 * SLICE, *range(SLICE))]
    request = OffsetCommitRequest(
        group_id="g", topics=[OffsetCommitRequestTopic(name="t", partitions=partitions)]
    )

    response = await house.ask(handle_offset_commit, request, version=8)

    errors = [each.error_code for each in response.topics[0].partitions]
    assert [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION] + [ErrorCode.ILLEGAL_GENERATION] * SLICE == errors


def test_many_resources_are_listed_in_slices(house):
    for number in range(SLICE):
        house.create(f"more-{number}")

    response, pauses = ask(
        house, handle_list_config_resources, ListConfigResourcesRequest(resource_types=[2]), 1
    )

    assert (SLICE + 1, 1) == (len(response.config_resources), pauses)


def test_a_large_page_of_partitions_is_made_in_slices(house):
    house.create("u", partitions=SLICE)
    request = DescribeTopicPartitionsRequest(topics=[], response_partition_limit=5 * SLICE)
    house.settings.apply_dynamic("", {"max.request.partition.size.limit": str(5 * SLICE)})

    response, pauses = ask(house, handle_describe_topic_partitions, request, 0)

    assert ["t", "u"] == [each.name for each in response.topics]
    assert 1 <= pauses
