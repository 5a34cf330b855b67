"""The smallest request of each API of groups, for the test of every version. Each finds what it needs in place.

A group is made when a request needs one: `at.group` has a member, or has only committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from kbroker.protocol.messages.groups import (
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    FindCoordinatorRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    LeaveGroupRequest,
    ListGroupsRequest,
    MemberIdentity,
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)
from kbroker.protocol.messages.offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)
from kbroker.protocol.wire import Message
from tests.support.raw import RawClient, error_codes

LIMIT_S = 60.0
UNDER_WAY = {14, 15, 16}  # the coordinator is not there yet
MEMBER_ID_REQUIRED = 79
NAMED_MEMBERS_FROM = 3  # LeaveGroup
MANY_GROUPS_FROM = 8  # OffsetFetch
TOPIC_IDS_FROM = 10  # OffsetCommit, OffsetFetch


class At(Protocol):
    """A topic made for the request; the group has its name."""

    name: str
    id: bytes
    ask: RawClient
    member: tuple[str, int] | None


def _asked(at: At, request: Message, version: int) -> object:
    """The answer once there is a coordinator."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        answer = at.ask(request, version)
        if not UNDER_WAY & set(error_codes(answer)) or time.monotonic() > deadline:
            return answer
        time.sleep(0.02)


def _join(at: At, member_id: str) -> JoinGroupRequest:
    return JoinGroupRequest(
        group_id=at.name,
        session_timeout_ms=30_000,
        rebalance_timeout_ms=30_000,
        member_id=member_id,
        protocol_type="consumer",
        protocols=[JoinGroupRequestProtocol(name="range", metadata=b"\0\0\0\0\0\0\xff\xff\xff\xff")],
    )


def _sync(at: At, version: int, member_id: str, generation: int) -> SyncGroupRequest:
    named = {"protocol_type": "consumer", "protocol_name": "range"} if version >= 5 else {}
    return SyncGroupRequest(
        group_id=at.name,
        generation_id=generation,
        member_id=member_id,
        assignments=[SyncGroupRequestAssignment(member_id=member_id, assignment=b"\0\0")],
        **named,
    )


def member(at: At) -> tuple[str, int]:
    """The only member of the group, and the generation; it joins when first asked for."""
    if at.member is None:
        _asked(at, FindCoordinatorRequest(key=at.name), 3)
        given = _asked(at, _join(at, ""), 5)
        assert MEMBER_ID_REQUIRED == given.error_code  # type: ignore[attr-defined]
        joined = at.ask(_join(at, given.member_id), 5)  # type: ignore[attr-defined]
        assert 0 == joined.error_code
        at.member = joined.member_id, joined.generation_id
        assert 0 == at.ask(_sync(at, 3, *at.member), 3).error_code
    return at.member


def committed(at: At) -> str:
    """The group, without members, with an offset."""
    _asked(at, FindCoordinatorRequest(key=at.name), 3)
    assert {0} == set(error_codes(_asked(at, _commit(8, at), 8)))
    return at.name


def _join_again(version: int, at: At) -> Message:
    member_id, _ = member(at)
    return _join(at, member_id)


def _heartbeat(version: int, at: At) -> Message:
    member_id, generation = member(at)
    return HeartbeatRequest(group_id=at.name, generation_id=generation, member_id=member_id)


def _leave(version: int, at: At) -> Message:
    member_id, _ = member(at)
    if version < NAMED_MEMBERS_FROM:
        return LeaveGroupRequest(group_id=at.name, member_id=member_id)
    return LeaveGroupRequest(group_id=at.name, members=[MemberIdentity(member_id=member_id)])


def _describe(version: int, at: At) -> Message:
    member(at)
    return DescribeGroupsRequest(groups=[at.name], include_authorized_operations=version >= 3)


def _list(version: int, at: At) -> Message:
    committed(at)
    return ListGroupsRequest(
        states_filter=["empty"] if version >= 4 else [], types_filter=["classic"] if version >= 5 else []
    )


def _commit(version: int, at: At) -> Message:
    topic = {"topic_id": at.id} if version >= TOPIC_IDS_FROM else {"name": at.name}
    partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=1, committed_metadata="hi")
    return OffsetCommitRequest(
        group_id=at.name, topics=[OffsetCommitRequestTopic(**topic, partitions=[partition])]
    )


def _first_commit(version: int, at: At) -> Message:
    _asked(at, FindCoordinatorRequest(key=at.name), 3)
    return _commit(version, at)


def _fetch(version: int, at: At) -> Message:
    group_id = committed(at)
    if version < MANY_GROUPS_FROM:
        topics = [OffsetFetchRequestTopic(name=at.name, partition_indexes=[0])]
        return OffsetFetchRequest(group_id=group_id, topics=topics)
    topic = {"topic_id": at.id} if version >= TOPIC_IDS_FROM else {"name": at.name}
    asked = OffsetFetchRequestGroup(
        group_id=group_id, topics=[OffsetFetchRequestTopics(**topic, partition_indexes=[0])]
    )
    return OffsetFetchRequest(groups=[asked])


def _forget(version: int, at: At) -> Message:
    topic = OffsetDeleteRequestTopic(
        name=at.name, partitions=[OffsetDeleteRequestPartition(partition_index=0)]
    )
    return OffsetDeleteRequest(group_id=committed(at), topics=[topic])


REQUESTS: dict[int, Callable[[int, At], Message]] = {
    8: _first_commit,
    9: _fetch,
    10: lambda version, at: (
        FindCoordinatorRequest(key=at.name)
        if version < 4
        else FindCoordinatorRequest(coordinator_keys=[at.name])
    ),
    11: _join_again,
    12: _heartbeat,
    13: _leave,
    14: lambda version, at: _sync(at, version, *member(at)),
    15: _describe,
    16: _list,
    42: lambda version, at: DeleteGroupsRequest(groups_names=[committed(at)]),
    47: _forget,
}
