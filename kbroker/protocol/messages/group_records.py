"""What `__consumer_offsets` holds: keys and values of its records, by the type that stands before a key.

A key is an int16 type and the key's fields at version 0, a value an int16 version and the value's fields. Other kinds
of group have types of their own, from 3 on: a row in `TYPES` and two classes each.
"""

from __future__ import annotations

from typing import NamedTuple

from kbroker.protocol.wire import Message, Struct, array, binary, int32, int64, string, uuid


class OffsetCommitKey(Message, valid="0"):
    """Types 0 and 1: a partition that a group has come some way in."""

    group: str = string()
    topic: str = string()
    partition: int = int32()


class OffsetCommitValue(Message, valid="0-4", flexible=4):
    """How far."""

    offset: int = int64()
    leader_epoch: int = int32("3+", default=-1, ignorable=True)
    metadata: str = string()
    commit_timestamp: int = int64()
    expire_timestamp: int = int64("1", default=-1, ignorable=True)
    topic_id: bytes = uuid("4+", ignorable=True, tag=0)


class GroupMetadataKey(Message, valid="0"):
    """Type 2: a group of the classic kind."""

    group: str = string()


class MemberMetadata(Struct):
    member_id: str = string()
    group_instance_id: str | None = string("3+", nullable="3+", default=None, ignorable=True)
    client_id: str = string()
    client_host: str = string()
    rebalance_timeout: int = int32("1+", default=-1, ignorable=True)
    session_timeout: int = int32()
    subscription: bytes = binary()
    assignment: bytes = binary()


class GroupMetadataValue(Message, valid="0-4", flexible=4):
    """Its generation and members."""

    protocol_type: str = string()
    generation: int = int32()
    protocol: str | None = string(nullable="0+")
    leader: str | None = string(nullable="0+")
    current_state_timestamp: int = int64("2+", default=-1, ignorable=True)
    members: list[MemberMetadata] = array(MemberMetadata)


class RecordType(NamedTuple):
    """The classes of one type of record."""

    key: type[Message]
    value: type[Message]


LEGACY_OFFSET_COMMIT = 0  # read, as Kafka 0.8 wrote it; its values are version 0
OFFSET_COMMIT = 1
GROUP_METADATA = 2

TYPES: dict[int, RecordType] = {
    LEGACY_OFFSET_COMMIT: RecordType(OffsetCommitKey, OffsetCommitValue),
    OFFSET_COMMIT: RecordType(OffsetCommitKey, OffsetCommitValue),
    GROUP_METADATA: RecordType(GroupMetadataKey, GroupMetadataValue),
}
