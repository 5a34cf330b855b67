"""Groups over a raw connection: a member and its commits, in a line each. Waits while the coordinator is being found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from kbroker.protocol.messages.groups import (
    FindCoordinatorRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)
from kbroker.protocol.messages.offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
)
from tests.support.raw_client import LIMIT_S, RawClient

# The group is being looked for or read: ask again.
NOT_YET = (14, 15, 16)
RETRY_S = 0.002
NO_TOPICS = b"\0\0\0\0\0\0\xff\xff\xff\xff"  # a subscription


def patiently(ask: Callable[[], Any], error: Callable[[Any], int]) -> Any:
    """Ask until there is a coordinator that knows the group."""
    deadline = time.monotonic() + LIMIT_S
    while error(answer := ask()) in NOT_YET:
        assert time.monotonic() < deadline, f"there is no coordinator: {answer}"
        time.sleep(RETRY_S)
    return answer


def find(raw: RawClient, group: str) -> None:
    """Find its coordinator; the topic of all groups is made."""
    asked = FindCoordinatorRequest(key_type=0, coordinator_keys=[group])
    found = patiently(lambda: raw.ask(asked, 4).coordinators[0], lambda answer: int(answer.error_code))
    assert 0 == found.error_code, found


def join(raw: RawClient, group: str, assignment: bytes = b"", session_ms: int = 60_000) -> Any:
    """A group of one member, Stable; the answer to its join."""
    find(raw, group)
    request = JoinGroupRequest(
        group_id=group,
        session_timeout_ms=session_ms,
        rebalance_timeout_ms=60_000,
        protocol_type="consumer",
        protocols=[JoinGroupRequestProtocol(name="range", metadata=NO_TOPICS)],
    )
    joined = patiently(lambda: raw.ask(request, 5), lambda answer: int(answer.error_code))
    assert 79 == joined.error_code, joined
    request.member_id = joined.member_id
    joined = raw.ask(request, 5)
    assert 0 == joined.error_code, joined
    sync = SyncGroupRequest(
        group_id=group,
        generation_id=joined.generation_id,
        member_id=joined.member_id,
        assignments=[SyncGroupRequestAssignment(member_id=joined.member_id, assignment=assignment)],
    )
    assert 0 == raw.ask(sync, 3).error_code
    return joined


def beat(raw: RawClient, group: str, joined: Any) -> int:
    """A heartbeat; its error."""
    request = HeartbeatRequest(group_id=group, generation_id=joined.generation_id, member_id=joined.member_id)
    return int(patiently(lambda: raw.ask(request, 4), lambda answer: int(answer.error_code)).error_code)


def commit(raw: RawClient, group: str, offsets: Mapping[tuple[str, int], int], joined: Any = None) -> int:
    """Commit by a member, or by nobody in particular; the one error of all partitions."""
    find(raw, group)
    topics: dict[str, list[OffsetCommitRequestPartition]] = {}
    for (topic, index), offset in offsets.items():
        part = OffsetCommitRequestPartition(
            partition_index=index, committed_offset=offset, committed_metadata="mine"
        )
        topics.setdefault(topic, []).append(part)
    request = OffsetCommitRequest(
        group_id=group,
        topics=[OffsetCommitRequestTopic(name=name, partitions=parts) for name, parts in topics.items()],
    )
    if joined is not None:
        request.generation_id_or_member_epoch, request.member_id = joined.generation_id, joined.member_id

    def error(answer: Any) -> int:
        [code] = {each.error_code for topic in answer.topics for each in topic.partitions}
        return int(code)

    return error(patiently(lambda: raw.ask(request, 8), error))


def committed(raw: RawClient, group: str) -> dict[tuple[str, int], int]:
    """All offsets of a group."""
    request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=group, topics=None)])
    found = patiently(lambda: raw.ask(request, 8).groups[0], lambda answer: int(answer.error_code))
    assert 0 == found.error_code, found
    return {
        (topic.name, each.partition_index): each.committed_offset
        for topic in found.topics
        for each in topic.partitions
    }
