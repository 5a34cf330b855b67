"""Requests of group members as bytes, and the few fields of their answers. As `frames`: by hand, built before the clock."""

from __future__ import annotations

import struct
from typing import NamedTuple

from bench.frames import compact, frame, read_string, string

OFFSET_COMMIT, FIND_COORDINATOR, JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP = 8, 10, 11, 12, 13, 14
SESSION_MS = 1_800_000  # members that say nothing stay as long as a case lasts

NO_INSTANCE = struct.pack(">h", -1)
ERROR_AT = 4 + 4 + 4  # behind size, correlation id and throttle time


class Joined(NamedTuple):
    """An answer to JoinGroup."""

    error: int
    generation: int
    leader: str
    member_id: str


def find_coordinator(group: str) -> bytes:
    """FindCoordinator v2."""
    return frame(FIND_COORDINATOR, 2, string(group.encode()) + b"\0", flexible=False)


def join(group: str, member_id: str, topic: str, *, version: int = 5) -> bytes:
    """JoinGroup v3 or v5 of a consumer that subscribes to a topic."""
    subscription = struct.pack(">hi", 1, 1) + string(topic.encode()) + struct.pack(">ii", -1, 0)
    body = string(group.encode()) + struct.pack(">ii", SESSION_MS, SESSION_MS) + string(member_id.encode())
    body += NO_INSTANCE if version >= 5 else b""
    body += string(b"consumer") + struct.pack(">i", 1) + string(b"range") + _bytes(subscription)
    return frame(JOIN_GROUP, version, body, flexible=False)


def joined(answer: bytes) -> Joined:
    """What a JoinGroup v3 or v5 answer says, but for the members."""
    error, generation = struct.unpack_from(">hi", answer, ERROR_AT)
    _, at = read_string(answer, ERROR_AT + 6)
    leader, at = read_string(answer, at)
    member_id, _ = read_string(answer, at)
    return Joined(error, generation, leader, member_id)


def assignment(topic: str, partition: int) -> bytes:
    """A member's assignment: one partition."""
    return struct.pack(">hi", 1, 1) + string(topic.encode()) + struct.pack(">iii", 1, partition, -1)


def sync(group: str, generation: int, member_id: str, assignments: dict[str, bytes]) -> bytes:
    """SyncGroup v3; only the leader has assignments."""
    body = string(group.encode()) + struct.pack(">i", generation) + string(member_id.encode()) + NO_INSTANCE
    body += struct.pack(">i", len(assignments))
    body += b"".join(string(member.encode()) + _bytes(said) for member, said in assignments.items())
    return frame(SYNC_GROUP, 3, body, flexible=False)


def heartbeat(group: str, generation: int, member_id: str) -> bytes:
    """Heartbeat v3."""
    body = string(group.encode()) + struct.pack(">i", generation) + string(member_id.encode()) + NO_INSTANCE
    return frame(HEARTBEAT, 3, body, flexible=False)


def leave(group: str, member_id: str) -> bytes:
    """LeaveGroup v3 of one member."""
    body = string(group.encode()) + struct.pack(">i", 1) + string(member_id.encode()) + NO_INSTANCE
    return frame(LEAVE_GROUP, 3, body, flexible=False)


def error_of(answer: bytes) -> int:
    """The error code of a SyncGroup v3, Heartbeat v3, LeaveGroup v3 or FindCoordinator v2 answer."""
    return int(struct.unpack_from(">h", answer, ERROR_AT)[0])


def offset_commit(group: str, generation: int, member_id: str, topic: str, partitions: int) -> bytes:
    """OffsetCommit v8 for the first `partitions` of a topic."""
    body = compact(group.encode()) + struct.pack(">i", generation) + compact(member_id.encode()) + b"\0"
    body += b"\x02" + compact(topic.encode()) + bytes([partitions + 1])
    body += b"".join(struct.pack(">iqi", p, 1_000 + p, 0) + compact(b"") + b"\0" for p in range(partitions))
    return frame(OFFSET_COMMIT, 8, body + b"\0\0", flexible=True)


def offset_commit_answer(topic: str, partitions: int) -> bytes:
    """The OffsetCommit v8 answer without any error."""
    body = b"\0" + struct.pack(">i", 0) + b"\x02" + compact(topic.encode()) + bytes([partitions + 1])
    body += b"".join(struct.pack(">ih", p, 0) + b"\0" for p in range(partitions)) + b"\0\0"
    return struct.pack(">ii", len(body) + 4, 1) + body


def _bytes(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data
