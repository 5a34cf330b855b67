"""A member of a group, by the classic protocol: join, take part in the assignment, beat, commit, leave.

Partitions are divided by range, as Kafka's `RangeAssignor` does. What the others say about themselves is checked: a group
may hold anybody's clients.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from struct import Struct
from struct import error as struct_error

from kbroker.cli.client import groups
from kbroker.cli.client.admin import Place
from kbroker.cli.client.cluster import Cluster
from kbroker.cli.client.connection import ANSWER_SECONDS_MAX
from kbroker.cli.client.errors import ClientError, raise_error
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.groups import (
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    JoinGroupResponse,
    LeaveGroupRequest,
    MemberIdentity,
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)

PROTOCOL_TYPE, RANGE = "consumer", "range"
SESSION_TIMEOUT_MS = 45_000
REBALANCE_TIMEOUT_MS = 60_000
BEAT_EVERY_SECONDS = 3.0
LEAVE_SECONDS_MAX = 3.0  # Ctrl-C must not hang on a broker that is gone

_INT16, _INT32 = Struct(">h"), Struct(">i")

_REBALANCE = frozenset(
    {ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.ILLEGAL_GENERATION, ErrorCode.UNKNOWN_MEMBER_ID}
)


class Rebalance(Exception):
    """The group comes together again: what we were assigned does not hold any more."""


class Member:
    """Our place in a group. `async with`: it is left at the end."""

    def __init__(self, cluster: Cluster, group: str, topics: list[str]) -> None:
        self.group = group
        self.member_id = ""
        self.generation = -1
        self._cluster = cluster
        self._topics = topics

    async def __aenter__(self) -> Member:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.member_id:
            return
        request = LeaveGroupRequest(group_id=self.group, members=[MemberIdentity(member_id=self.member_id)])
        try:
            connection = await self._cluster.coordinator(self.group)
            await connection.ask(request, oldest=3, within=LEAVE_SECONDS_MAX)
        except (ClientError, KafkaError):
            return  # it notices within the session's timeout

    async def join(self) -> list[Place]:
        """Enter the group, or come back; the partitions that are ours now."""
        return await self._cluster.persist(self._join, also=_REBALANCE)

    async def _join(self) -> list[Place]:
        protocol = JoinGroupRequestProtocol(name=RANGE, metadata=subscription(self._topics))
        request = JoinGroupRequest(
            group_id=self.group,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            member_id=self.member_id,
            protocol_type=PROTOCOL_TYPE,
            protocols=[protocol],
        )
        connection = await self._cluster.coordinator(self.group, patient=True)
        within = REBALANCE_TIMEOUT_MS / 1000 + ANSWER_SECONDS_MAX  # it is answered when all have come
        answer = await connection.ask(request, within=within)
        if answer.error_code == ErrorCode.MEMBER_ID_REQUIRED:  # KIP-394: come back with the id you are given
            self.member_id = request.member_id = answer.member_id
            answer = await connection.ask(request, within=within)
        self._check(answer.error_code)
        raise_error(answer)
        self.member_id, self.generation = answer.member_id, answer.generation_id
        assignments = await self._divide(answer) if answer.leader == answer.member_id else {}
        sync = SyncGroupRequest(
            group_id=self.group,
            generation_id=self.generation,
            member_id=self.member_id,
            protocol_type=PROTOCOL_TYPE,
            protocol_name=RANGE,
            assignments=[
                SyncGroupRequestAssignment(member_id=member, assignment=assignment(places))
                for member, places in assignments.items()
            ],
        )
        answer = await connection.ask(sync, within=within)
        self._check(answer.error_code)
        raise_error(answer)
        return parse_assignment(answer.assignment)

    def _check(self, code: int) -> None:
        if code == ErrorCode.UNKNOWN_MEMBER_ID:
            self.member_id = ""
        if code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL:
            raise ClientError(
                f"group {self.group} has members that divide partitions otherwise than by {RANGE}; choose another --group"
            )

    async def _divide(self, joined: JoinGroupResponse) -> dict[str, list[Place]]:
        if joined.skip_assignment:
            return {}
        wanted = {member.member_id: parse_subscription(member.metadata) for member in joined.members}
        topics = sorted({topic for topics in wanted.values() for topic in topics})
        answer = await self._cluster.metadata(topics)
        counts = {topic.name or "": len(topic.partitions) for topic in answer.topics if not topic.error_code}
        return by_range(wanted, counts)

    async def beat(self) -> None:
        """Say that we are alive, again and again. Rebalance when the group wants us back."""
        while True:
            await asyncio.sleep(BEAT_EVERY_SECONDS)
            request = HeartbeatRequest(
                group_id=self.group, generation_id=self.generation, member_id=self.member_id
            )

            async def beat(request: HeartbeatRequest = request) -> None:
                raise_error(await (await self._cluster.coordinator(self.group)).ask(request))

            try:
                await self._cluster.persist(beat)
            except KafkaError as error:
                self._check(error.code)
                if error.code in _REBALANCE:
                    raise Rebalance from None
                raise

    async def commit(self, offsets: Mapping[Place, int]) -> None:
        """Tell the group how far we came. Rebalance when it is not ours to say any more."""
        try:
            await groups.commit(
                self._cluster, self.group, offsets, generation=self.generation, member_id=self.member_id
            )
        except KafkaError as error:
            if error.code in _REBALANCE:
                raise Rebalance from None
            raise


def by_range(wanted: Mapping[str, Iterable[str]], counts: Mapping[str, int]) -> dict[str, list[Place]]:
    """Of each topic every member that wants it gets a run of partitions; the first ones get one more."""
    given: dict[str, list[Place]] = {member: [] for member in wanted}
    members_of: dict[str, list[str]] = defaultdict(list)
    for member in sorted(wanted):
        for topic in set(wanted[member]):
            members_of[topic].append(member)
    for topic, members in sorted(members_of.items()):
        each, more = divmod(counts.get(topic, 0), len(members))
        first = 0
        for index, member in enumerate(members):
            last = first + each + (index < more)
            given[member] += [(topic, partition) for partition in range(first, last)]
            first = last
    return given


def subscription(topics: list[str]) -> bytes:
    """What a member says it wants: version 0 of the consumer protocol."""
    return _INT16.pack(0) + _INT32.pack(len(topics)) + b"".join(map(_text, topics)) + _INT32.pack(-1)


def assignment(places: list[Place]) -> bytes:
    """What a member gets."""
    topics: dict[str, list[int]] = defaultdict(list)
    for topic, partition in places:
        topics[topic].append(partition)
    out = _INT16.pack(0) + _INT32.pack(len(topics))
    for topic, partitions in topics.items():
        out += _text(topic) + _INT32.pack(len(partitions)) + b"".join(map(_INT32.pack, partitions))
    return out + _INT32.pack(-1)


def parse_subscription(data: bytes) -> list[str]:
    """The topics of a subscription of any version: what is newer stands behind. Nothing, if it is not one."""
    try:
        [count] = _INT32.unpack_from(data, 2)
        at, topics = 6, []
        for _ in range(min(count, len(data))):
            topic, at = _read_text(data, at)
            topics.append(topic)
        return topics
    except (struct_error, UnicodeDecodeError):
        return []


def parse_assignment(data: bytes) -> list[Place]:
    """The partitions of an assignment of any version. ClientError where it is not one."""
    if not data:
        return []
    try:
        [count] = _INT32.unpack_from(data, 2)
        at, places = 6, []
        for _ in range(min(count, len(data))):
            topic, at = _read_text(data, at)
            [partitions] = _INT32.unpack_from(data, at)
            at += 4
            for _ in range(min(partitions, len(data))):
                places.append((topic, _INT32.unpack_from(data, at)[0]))
                at += 4
        return places
    except (struct_error, UnicodeDecodeError):
        raise ClientError("the group's leader sent an assignment that cannot be read") from None


def _text(text: str) -> bytes:
    raw = text.encode()
    return _INT16.pack(len(raw)) + raw


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    [size] = _INT16.unpack_from(data, at)
    end = at + 2 + size
    if size < 0 or end > len(data):
        raise struct_error("text cut off")
    return data[at + 2 : end].decode(), end
