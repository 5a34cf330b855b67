"""Requests that name very many partitions, topics or members: answered as smaller ones are, in slices, while others are
served; what comes behind them on their connection waits."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from kbroker.errors import ErrorCode
from kbroker.groups.events import Forgotten, Left
from kbroker.protocol.frames import decode_response
from kbroker.protocol.messages import RESPONSES
from kbroker.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic, ForgottenTopic
from kbroker.protocol.messages.groups import LeaveGroupRequest, MemberIdentity
from kbroker.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from kbroker.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from kbroker.protocol.messages.offsets import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from kbroker.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from kbroker.protocol.messages.topics import (
    CreatableTopic,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
    CreateTopicsRequest,
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
    DeleteTopicsRequest,
)
from kbroker.protocol.records import build_batch, decode_records, record, split_batches
from kbroker.replication.partition import WRITTEN
from kbroker.server.handlers.fetch import WAIT_MS_MAX
from kbroker.server.sessions import FetchSessions
from kbroker.server.slices import SLICE
from tests.support.fake_groups import FakeGroups
from tests.support.fake_net import Wire
from tests.support.rooms import House
from tests.support.served import Served, pieces
from tests.support.storage import batch, region_bytes

SLICES = 3
MANY = SLICES * SLICE + 5  # of which the topic has the first
THERE = 3
UNKNOWN = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@pytest.fixture
def house(tmp_path) -> House:
    one = House(tmp_path)
    one.open_disk()
    sessions = FetchSessions(2, clock=one.broker.clock, random=random.Random(1))
    one.rooms = dataclasses.replace(one.rooms, sessions=sessions)
    one.create("t", partitions=THERE)
    return one


@pytest.fixture
def served(house) -> Served:
    return Served(house)


def with_groups(house: House, groups: FakeGroups) -> Served:
    house.rooms = dataclasses.replace(house.rooms, groups=groups)
    return Served(house)


# -- ends, epochs, deletions


def list_offsets(count: int = MANY) -> ListOffsetsRequest:
    asked = [ListOffsetsPartition(partition_index=index, timestamp=-1) for index in range(count)]
    return ListOffsetsRequest(replica_id=-1, topics=[ListOffsetsTopic(name="t", partitions=asked)])


async def test_many_ends_are_told(served):
    served.house.produce("t", b"a", b"b", partition=1)

    [topic] = (await served.ask(list_offsets(), 7)).topics

    expected = [(0, 0), (0, 2), (0, 0)] + [(UNKNOWN, -1)] * (MANY - THERE)
    assert expected == [(each.error_code, each.offset) for each in topic.partitions]
    assert list(range(MANY)) == [each.partition_index for each in topic.partitions]
    assert 4 * SLICES <= served.pauses  # looked for, counted, told, encoded


async def test_topics_without_partitions_are_told_in_slices_too(served):
    topics = [ListOffsetsTopic(name=f"x{number}", partitions=[]) for number in range(MANY)]

    response = await served.ask(ListOffsetsRequest(replica_id=-1, topics=topics), 7)

    assert [(f"x{number}", []) for number in range(MANY)] == [
        (topic.name, topic.partitions) for topic in response.topics
    ]
    assert 3 * SLICES <= served.pauses  # looked for, told, encoded


async def test_many_ends_are_told_when_what_the_logs_hold_counts(tmp_path):
    house = House(tmp_path)
    house.open_disk(fsync=True)
    house.create("t", partitions=THERE)
    partition = house.partitions.get("t", 1)
    partition.append(memoryview(bytearray(batch(b"a").view)), WRITTEN)

    [topic] = (await Served(house).ask(list_offsets(), 7)).topics

    assert [0, 1, 0] == [each.offset for each in topic.partitions[:THERE]]


async def test_many_epochs_are_told(served):
    asked = [OffsetForLeaderPartition(partition=index, leader_epoch=0) for index in range(MANY)]
    request = OffsetForLeaderEpochRequest(topics=[OffsetForLeaderTopic(topic="t", partitions=asked)])

    [topic] = (await served.ask(request, 4)).topics

    assert [0] * THERE + [UNKNOWN] * (MANY - THERE) == [each.error_code for each in topic.partitions]
    assert SLICES <= served.pauses


async def test_records_of_many_partitions_are_deleted(served):
    served.house.produce("t", b"a", b"b", partition=1)
    asked = [DeleteRecordsPartition(partition_index=index, offset=-1) for index in range(MANY)]
    request = DeleteRecordsRequest(topics=[DeleteRecordsTopic(name="t", partitions=asked)])

    [topic] = (await served.ask(request, 2)).topics

    expected = [(0, 0), (0, 2), (0, 0)] + [(UNKNOWN, -1)] * (MANY - THERE)
    assert expected == [(each.error_code, each.low_watermark) for each in topic.partitions]
    assert 2 == served.house.partitions.get("t", 1).log.start
    assert SLICES <= served.pauses


@pytest.mark.parametrize("count", [THERE, MANY])
async def test_a_deletion_that_breaks_is_told_once(tmp_path, monkeypatch, caplog, count):
    house = House(tmp_path)
    house.open_disk(fsync=True)
    house.create("t", partitions=THERE)
    house.partitions.get("t", 1).append(memoryview(bytearray(batch(b"a").view)), WRITTEN)
    served = Served(house)
    asked = [DeleteRecordsPartition(partition_index=index, offset=-1) for index in range(count)]
    request = DeleteRecordsRequest(topics=[DeleteRecordsTopic(name="t", partitions=asked)])
    served.wire.arrive(*pieces(request, 2))
    get = house.partitions.get

    def broken(topic: str, index: int) -> Any:
        if index == 1:
            raise RuntimeError("broken")
        return get(topic, index)

    monkeypatch.setattr(house.partitions, "get", broken)
    await served.finish()

    assert not served.wire.connection.open
    assert 1 == caplog.text.count("RuntimeError: broken")


# -- metadata


def metadata(*names: str | None, **fields: Any) -> MetadataRequest:
    return MetadataRequest(topics=[MetadataRequestTopic(name=name) for name in names], **fields)


async def test_many_topics_are_described_each_once_in_the_order_asked(served):
    names = ["t", *(f"x{number}" for number in range(MANY)), "not/a/name"]

    response = await served.ask(metadata(*names, "t", allow_auto_topic_creation=False), 9)

    expected = [0] + [UNKNOWN] * MANY + [ErrorCode.INVALID_TOPIC_EXCEPTION]
    assert list(zip(names, expected, strict=True)) == [
        (each.name, each.error_code) for each in response.topics
    ]
    assert (THERE, 1) == (len(response.topics[0].partitions), len(response.brokers))
    assert SLICES <= served.pauses


async def test_of_many_topics_those_that_are_missing_are_created(served):
    response = await served.ask(metadata(*["t"] * MANY, "new", "/"), 9)

    assert [("t", 0), ("new", 0), ("/", ErrorCode.INVALID_TOPIC_EXCEPTION)] == [
        (each.name, each.error_code) for each in response.topics
    ]
    assert "new" in served.house.state.topics


async def test_a_request_of_many_topics_that_makes_no_sense_is_refused_as_a_whole(served):
    response = await served.ask(metadata(*["t"] * MANY, None), 12)

    assert ([ErrorCode.INVALID_REQUEST] * (MANY + 1), SLICES) <= (
        [each.error_code for each in response.topics],
        served.pauses,
    )


# -- groups


class Leaving(FakeGroups):
    """Each member leaves, but those of the events told."""

    def __init__(self, *errors: ErrorCode) -> None:
        super().__init__()
        self.errors_of_events = list(errors)

    def handle(self, group_id: str, event: Any) -> None:
        self.asked.append((group_id, event))
        error = self.errors_of_events.pop(0) if self.errors_of_events else ErrorCode.NONE
        left = [(each.member_id, each.instance_id, ErrorCode.NONE) for each in event.members]
        event.to(Left(error, () if error else tuple(left)))


def leave() -> LeaveGroupRequest:
    members = [MemberIdentity(member_id=f"m{number}", group_instance_id="i") for number in range(MANY)]
    return LeaveGroupRequest(group_id="g", members=members)


async def test_many_members_leave(house):
    served = with_groups(house, Leaving())

    response = await served.ask(leave(), 3)

    assert 0 == response.error_code
    assert [(f"m{number}", "i", 0) for number in range(MANY)] == [
        (each.member_id, each.group_instance_id, each.error_code) for each in response.members
    ]
    assert SLICES <= served.pauses


async def test_an_error_of_the_first_slice_is_that_of_all(house):
    response = await with_groups(house, Leaving(ErrorCode.NOT_COORDINATOR)).ask(leave(), 3)

    assert (ErrorCode.NOT_COORDINATOR, []) == (response.error_code, response.members)


async def test_an_error_of_another_slice_is_that_of_its_members(house):
    response = await with_groups(house, Leaving(ErrorCode.NONE, ErrorCode.NOT_COORDINATOR)).ask(leave(), 3)

    expected = [0] * SLICE + [ErrorCode.NOT_COORDINATOR] * SLICE + [0] * (MANY - 2 * SLICE)
    assert (0, expected) == (response.error_code, [each.error_code for each in response.members])


@pytest.mark.parametrize("error", [ErrorCode.NONE, ErrorCode.GROUP_ID_NOT_FOUND])
async def test_many_offsets_are_deleted(house, error):
    told = (ErrorCode.NONE, ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC, ErrorCode.NONE)
    served = with_groups(house, FakeGroups(Forgotten(error, () if error else told)))
    asked = [OffsetDeleteRequestPartition(partition_index=index) for index in range(MANY)]
    request = OffsetDeleteRequest(group_id="g", topics=[OffsetDeleteRequestTopic(name="t", partitions=asked)])

    response = await served.ask(request, 0)

    assert error == response.error_code
    expected = [] if error else [*told] + [UNKNOWN] * (MANY - THERE)
    assert expected == [each.error_code for topic in response.topics for each in topic.partitions]
    assert SLICES <= served.pauses


# -- produce


def produce(acks: int, **fields: Any) -> ProduceRequest:
    """A batch for each partition that there is, and none for the others."""
    asked = [
        PartitionProduceData(
            index=index, records=build_batch([record(b"%d" % index, timestamp=1)]) if index < THERE else None
        )
        for index in range(MANY)
    ]
    data = [TopicProduceData(name="t", partition_data=asked)]
    return ProduceRequest(acks=acks, timeout_ms=5_000, topic_data=data, **fields)


def stored(house: House, index: int) -> list[bytes]:
    found = house.partitions.get("t", index).read(0, 1 << 20, at_least_one=True)
    if found is None:
        return []
    batches = split_batches(memoryview(region_bytes(found)))
    return [each.value for one in batches for each in decode_records(one)]


@pytest.mark.parametrize("acks", [1, -1])
@pytest.mark.parametrize("fsync", [False, True])
async def test_batches_of_many_partitions_are_appended(tmp_path, acks, fsync):
    house = House(tmp_path)
    house.open_disk(fsync=fsync)
    house.create("t", partitions=THERE)
    served = Served(house)

    [topic] = (await served.ask(produce(acks), 8)).responses

    expected = [(0, 0)] * THERE + [(UNKNOWN, -1)] * (MANY - THERE)
    assert expected == [(each.error_code, each.base_offset) for each in topic.partition_responses]
    assert [[b"0"], [b"1"], [b"2"]] == [stored(house, index) for index in range(THERE)]
    assert SLICES <= served.pauses


@pytest.mark.parametrize(
    ("acks", "transaction", "error"),
    [
        (2, None, ErrorCode.INVALID_REQUIRED_ACKS),
        (1, "x", ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
    ],
)
async def test_a_request_of_many_that_is_refused_appends_nothing(served, acks, transaction, error):
    [topic] = (await served.ask(produce(acks, transactional_id=transaction), 8)).responses

    assert [error] * MANY == [each.error_code for each in topic.partition_responses]
    assert [] == stored(served.house, 0)


async def test_many_that_are_not_answered_close_the_connection_when_one_fails(served):
    served.begin(produce(0), 8)
    await served.finish()

    assert not served.wire.connection.open
    assert [b"0"] == stored(served.house, 0)


# -- fetch


def fetch(partitions: Any = range(MANY), **fields: Any) -> FetchRequest:
    asked = [
        FetchPartition(partition=index, fetch_offset=0, partition_max_bytes=1 << 20) for index in partitions
    ]
    given = {"max_wait_ms": 0, "min_bytes": 1, "topics": [FetchTopic(topic="t", partitions=asked)]}
    return FetchRequest(**(given | fields))


def told(response: Any) -> list[tuple[int, int, int]]:
    """Of each partition its number, error and first byte of records."""
    return [
        (each.partition_index, each.error_code, len(each.records))
        for topic in response.responses
        for each in topic.partitions
    ]


async def test_many_partitions_are_fetched(served):
    served.house.produce("t", b"a", partition=1)
    size = len(batch(b"a").view)

    response = await served.ask(fetch(), 11)

    there = [(0, 0, 0), (1, 0, size), (2, 0, 0)]
    assert there + [(index, UNKNOWN, 0) for index in range(THERE, MANY)] == told(response)
    assert 2 * SLICES <= served.pauses
    assert not served.house.partitions.get("t", 0)._watchers


@pytest.fixture
def wide(house) -> Served:
    """All partitions that are asked for are there."""
    house.create("w", partitions=MANY)
    return Served(house)


def waiting(**fields: Any) -> FetchRequest:
    request = fetch(**({"max_wait_ms": 500} | fields))
    request.topics[0].topic = "w"
    return request


async def turns(served: Served, count: int = 4 * SLICES) -> None:
    for _ in range(count):
        await served.step()


async def test_many_partitions_are_waited_for(wide):
    request = waiting()
    wide.begin(request, 11)
    await turns(wide)
    assert [] == wide.wire.answers()

    wide.house.produce("w", b"a", partition=MANY - 1)
    await wide.finish()

    size = len(batch(b"a").view)
    expected = [(index, 0, 0) for index in range(MANY - 1)] + [(MANY - 1, 0, size)]
    assert expected == told(wide.response(request, 11))


@pytest.mark.parametrize("turn", range(3 * SLICES))
async def test_records_that_come_between_two_slices_are_not_missed(wide, turn):
    request = waiting()
    wide.begin(request, 11)
    await turns(wide, turn)

    wide.house.produce("w", b"a", partition=SLICE + 1)
    await wide.finish()

    assert [(0, len(batch(b"a").view))] == [each[1:] for each in told(wide.response(request, 11)) if each[2]]


async def test_many_partitions_are_waited_for_no_longer_than_asked(wide):
    request = waiting()
    wide.begin(request, 11)
    await turns(wide)

    wide.house.broker.clock.advance(500)
    await wide.finish()

    assert [(index, 0, 0) for index in range(MANY)] == told(wide.response(request, 11))


async def test_a_session_of_many_goes_on(wide):
    opened = await wide.ask(waiting(session_epoch=0, max_wait_ms=0), 11)
    wide.house.produce("w", b"a", partition=7)
    size = len(batch(b"a").view)

    again = {"session_id": opened.session_id, "topics": [], "min_bytes": 1}
    wide.wire.arrive(*pieces(FetchRequest(session_epoch=1, **again), 11))
    [frame] = wide.wire.answers()
    small = decode_response(RESPONSES[1], 11, memoryview(frame))[1]
    wide.wire.sock.sent.clear()
    forgotten = [ForgottenTopic(topic="w", partitions=[*range(8, MANY)])]
    fewer = FetchRequest(
        max_wait_ms=0, session_epoch=2, forgotten_topics_data=forgotten, **(again | {"min_bytes": 0})
    )
    large = await wide.ask(fewer, 11)

    assert opened.session_id > 0
    assert MANY == len(told(opened))
    assert [[(7, 0, size)]] * 2 == [told(small), told(large)]
    session = wide.house.rooms.sessions.use(opened.session_id, 3, by_id=False)
    assert 8 == len(session.interests)


async def test_nobody_else_finds_a_session_whose_many_partitions_are_looked_at(wide):
    opening = waiting(session_epoch=0, max_wait_ms=0)
    opened = await wide.ask(opening, 11)
    wide.begin(waiting(session_id=opened.session_id, session_epoch=1), 11)
    await turns(wide, 2)

    def ask_elsewhere(wire: Wire, **fields: Any) -> Any:
        wire.arrive(*pieces(FetchRequest(topics=[], **fields), 11))
        [frame] = wire.answers()
        wire.sock.sent.clear()
        return decode_response(RESPONSES[1], 11, memoryview(frame))[1]

    found = ask_elsewhere(wide.other, session_id=opened.session_id, session_epoch=2)
    assert ErrorCode.FETCH_SESSION_ID_NOT_FOUND == found.error_code
    assert 1 == len(wide.house.rooms.sessions)  # its slot is taken

    await turns(wide)
    wide.house.broker.clock.advance(WAIT_MS_MAX)
    await wide.finish()
    assert opened.session_id == wide.response(opening, 11).session_id
    assert wide.house.rooms.sessions.use(opened.session_id, 2, by_id=False)


async def test_a_fetch_of_many_that_breaks_leaves_no_session(served, monkeypatch):
    request = fetch(session_epoch=0)
    served.begin(request, 11)
    sessions = served.house.rooms.sessions
    assert 1 == len(sessions)

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(served.house.rooms.partitions, "get", broken)
    await served.finish()

    assert (False, 0) == (served.wire.connection.open, len(sessions))


# -- changes of topics


async def test_many_topics_that_cannot_be_created_are_answered(served):
    topics = [CreatableTopic(name=f"x{number}", num_partitions=0) for number in range(MANY)]

    response = await served.ask(CreateTopicsRequest(topics=topics), 5)

    assert [(f"x{number}", ErrorCode.INVALID_PARTITIONS) for number in range(MANY)] == [
        (each.name, each.error_code) for each in response.topics
    ]
    assert 2 * SLICES <= served.pauses


async def test_many_topics_are_created_deleted_and_get_more_partitions(served):
    names = [f"x{number}" for number in range(SLICE + 5)]
    topics = [CreatableTopic(name=name, num_partitions=1, replication_factor=1) for name in names]
    created = await served.ask(CreateTopicsRequest(topics=topics), 5)
    assert [(name, 0) for name in names] == [(each.name, each.error_code) for each in created.topics]

    more = [CreatePartitionsTopic(name=name, count=2, assignments=None) for name in [*names, "y"]]
    grown = await served.ask(CreatePartitionsRequest(topics=more), 2)
    expected = [(name, 0) for name in names] + [("y", UNKNOWN)]
    assert expected == [(each.name, each.error_code) for each in grown.results]
    assert 2 == len(served.house.state.topics["x7"].partitions)

    deleted = await served.ask(DeleteTopicsRequest(topic_names=[*names, "y"]), 4)
    assert expected == [(each.name, each.error_code) for each in deleted.responses]
    assert ["t"] == list(served.house.state.topics)


async def test_many_deletions_are_refused_where_none_is_allowed(tmp_path):
    house = House(tmp_path, {"delete.topic.enable": "false"})
    house.open_disk()

    response = await Served(house).ask(DeleteTopicsRequest(topic_names=["t"] * MANY), 4)

    assert [ErrorCode.TOPIC_DELETION_DISABLED] * MANY == [each.error_code for each in response.responses]
