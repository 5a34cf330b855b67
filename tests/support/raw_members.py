"""Members of a group, each on a connection of its own, request by request.

group = Group(connect, "group")
a, b = group.settled(2)            # joined and synced; a leads
b.send_join(); ...; b.receive()
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kbroker.protocol.messages.groups import (
    DescribeGroupsRequest,
    FindCoordinatorRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    LeaveGroupRequest,
    MemberIdentity,
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

MEMBER_ID_REQUIRED = 79
UNDER_WAY = {14, 15, 16}  # the coordinator is not there yet


def subscription(*topics: str) -> bytes:
    """What a consumer says when it joins: version 0, its topics, no user data. Kafka never answers others' joins."""
    names = b"".join(len(topic).to_bytes(2) + topic.encode() for topic in topics)
    return b"\0\0" + len(topics).to_bytes(4) + names + b"\xff\xff\xff\xff"


TOPICS, OTHERS = subscription("topics"), subscription("others")
LONG_MS = 60_000  # no session and no rebalance of a test ends by itself


class Member:
    """One of a group: its id and the generation it has heard of last."""

    def __init__(self, client: RawClient, group_id: str, instance_id: str | None = None) -> None:
        self.client = client
        self.group_id = group_id
        self.instance_id = instance_id
        self.member_id = ""
        self.generation = -1

    # JoinGroup

    def send_join(self, *, metadata: bytes = TOPICS, version: int = 9, **fields: Any) -> None:
        """Ask to join; `joined` takes the answer."""
        request = {
            "group_id": self.group_id,
            "session_timeout_ms": LONG_MS,
            "rebalance_timeout_ms": LONG_MS,
            "member_id": self.member_id,
            "group_instance_id": self.instance_id,
            "protocol_type": "consumer",
            "protocols": [JoinGroupRequestProtocol(name="range", metadata=metadata)],
            **fields,
        }
        self.client.send(JoinGroupRequest(**request), version)

    def joined(self) -> Any:
        """The answer to a join."""
        answer = self.client.receive()
        self.member_id = answer.member_id or self.member_id
        if answer.error_code == 0:
            self.generation = answer.generation_id
        return answer

    def join(self, **fields: Any) -> Any:
        """Join and wait for the answer; with the id that a new member is given first."""
        self.send_join(**fields)
        answer = self.joined()
        if answer.error_code == MEMBER_ID_REQUIRED:
            self.send_join(**fields)
            answer = self.joined()
        return answer

    def named(self) -> Member:
        """Take the id that a new member is given."""
        self.send_join()
        assert MEMBER_ID_REQUIRED == self.joined().error_code
        return self

    # SyncGroup

    def send_sync(self, assignments: dict[str, bytes] | None = None, protocol: str = "range") -> None:
        """Send a leader's assignments, or ask for one's own; `synced` takes the answer."""
        given = [
            SyncGroupRequestAssignment(member_id=m, assignment=a) for m, a in (assignments or {}).items()
        ]
        request = SyncGroupRequest(
            group_id=self.group_id,
            generation_id=self.generation,
            member_id=self.member_id,
            group_instance_id=self.instance_id,
            protocol_type="consumer",
            protocol_name=protocol,
            assignments=given,
        )
        self.client.send(request, 5)

    def synced(self) -> tuple[int, bytes]:
        """Error and assignment."""
        answer = self.client.receive()
        return answer.error_code, answer.assignment

    def sync(self, assignments: dict[str, bytes] | None = None) -> tuple[int, bytes]:
        self.send_sync(assignments)
        return self.synced()

    # the rest

    def beat(self, **fields: Any) -> int:
        """The error of a heartbeat."""
        request = {
            "group_id": self.group_id,
            "generation_id": self.generation,
            "member_id": self.member_id,
            "group_instance_id": self.instance_id,
            **fields,
        }
        code: int = self.client.ask(HeartbeatRequest(**request), 4).error_code
        return code

    def leave(self) -> int:
        member = MemberIdentity(member_id=self.member_id, group_instance_id=self.instance_id)
        answer = self.client.ask(LeaveGroupRequest(group_id=self.group_id, members=[member]), 5)
        code: int = answer.members[0].error_code
        return code

    def commit(
        self, topic: str, offset: int, *, metadata: str | None = "", epoch: int = -1, **fields: Any
    ) -> int:
        """The error of a commit for the topic's partition 0."""
        partition = OffsetCommitRequestPartition(
            partition_index=0,
            committed_offset=offset,
            committed_leader_epoch=epoch,
            committed_metadata=metadata,
        )
        request = {
            "group_id": self.group_id,
            "generation_id_or_member_epoch": self.generation,
            "member_id": self.member_id,
            "group_instance_id": self.instance_id,
            "topics": [OffsetCommitRequestTopic(name=topic, partitions=[partition])],
            **fields,
        }
        code: int = self.client.ask(OffsetCommitRequest(**request), 8).topics[0].partitions[0].error_code
        return code


class Group:
    """A group and its members."""

    def __init__(self, connect: Callable[[], RawClient], group_id: str) -> None:
        self.connect = connect
        self.group_id = group_id
        self.client = connect()
        self.find()

    def find(self) -> None:
        """Wait for the coordinator: Apache Kafka makes the topic of groups after it has answered, and both read it."""
        deadline = time.monotonic() + LIMIT_S
        asked = FindCoordinatorRequest(key=self.group_id)
        while UNDER_WAY & {self.client.ask(asked, 3).error_code, self._probe()}:
            assert time.monotonic() < deadline, "there is no coordinator"

    def _probe(self) -> int:
        code: int = self.describe().error_code
        return code

    def describe(self, version: int = 6) -> Any:
        """The group, as DescribeGroups shows it."""
        return self.client.ask(DescribeGroupsRequest(groups=[self.group_id]), version).groups[0]

    def committed(self) -> list[tuple[str, int, int, int, str]]:
        """Topic, partition, offset, leader epoch and metadata of everything committed."""
        asked = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=self.group_id, topics=None)])
        [group] = self.client.ask(asked, 8).groups
        assert 0 == group.error_code
        return [
            (
                topic.name,
                each.partition_index,
                each.committed_offset,
                each.committed_leader_epoch,
                each.metadata,
            )
            for topic in group.topics
            for each in topic.partitions
        ]

    def member(self, instance_id: str | None = None) -> Member:
        """One more, on a connection of its own. It has not joined."""
        return Member(self.connect(), self.group_id, instance_id)

    def settled(self, count: int, *, static: bool = False) -> list[Member]:
        """Members of a Stable group; the first leads."""
        members = [self.member(f"instance-{number}" if static else None) for number in range(count)]
        for at, member in enumerate(members):
            if not static:
                member.named()
            member.send_join()
            if at:  # what is there already learns of it and joins again
                self.until_rebalancing()
                for other in members[:at]:
                    other.send_join()
            for one in members[: at + 1]:
                assert 0 == one.joined().error_code
            self.sync_all(members[: at + 1])
        return members

    def until_rebalancing(self) -> None:
        """The coordinator has seen a join that waits."""
        deadline = time.monotonic() + LIMIT_S
        while self.describe().group_state != "PreparingRebalance":
            assert time.monotonic() < deadline, "the group does not rebalance"

    @staticmethod
    def sync_all(members: list[Member]) -> None:
        """The first assigns; each gets its member id."""
        members[0].send_sync({member.member_id: member.member_id.encode() for member in members})
        for member in members[1:]:
            member.send_sync()
        for member in members:
            assert (0, member.member_id.encode()) == member.synced()
