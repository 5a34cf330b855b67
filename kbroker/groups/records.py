"""Groups and offsets as records of `__consumer_offsets`: to key and value bytes and back. Knows no log and no group.

Written as Kafka 4.3 does: offsets in version 4 (1 where the commit named a retention time), groups in version 3. Read in
every version there ever was. What cannot be read is `Unreadable`, with a reason that many records may share.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from kbroker.errors import ProtocolError
from kbroker.groups.events import GroupRecord, MemberRecord, Offset
from kbroker.protocol.codec import decode, encode_body
from kbroker.protocol.messages.group_records import (
    GROUP_METADATA,
    LEGACY_OFFSET_COMMIT,
    OFFSET_COMMIT,
    TYPES,
    GroupMetadataKey,
    GroupMetadataValue,
    MemberMetadata,
    OffsetCommitKey,
    OffsetCommitValue,
)
from kbroker.protocol.sliced import encode_in_slices
from kbroker.protocol.wire import ZERO_UUID

OFFSET_VERSION = 4
OFFSET_VERSION_THAT_EXPIRES = 1
GROUP_VERSION = 3

# Members that are written down in one go: a few milliseconds.
MEMBERS_PER_SLICE = 2000

_INT16 = Struct(">h")
_INT32 = Struct(">i")
_PLAIN_VALUE = Struct(">hqiBqBBB16s")  # an offset of version 4 without metadata: most are
_EMPTY_STRING = 1
_ONE_TAG, _TOPIC_ID, _UUID_BYTES = 1, 0, 16
_PLAIN = (OFFSET_VERSION, _EMPTY_STRING, _ONE_TAG, _TOPIC_ID, _UUID_BYTES)

Record = tuple[bytes, bytes | None]


class OffsetEntry(NamedTuple):
    """A partition's offset as the log tells it; None: it is forgotten."""

    group_id: str
    topic: str
    partition: int
    offset: Offset | None


class GroupEntry(NamedTuple):
    """A group as the log tells it; None: it is no more."""

    group_id: str
    record: GroupRecord | None


class Unreadable(NamedTuple):
    """A record that nobody here can read."""

    why: str


Entry = OffsetEntry | GroupEntry | Unreadable


# -- writing


class OffsetKeys:
    """The keys of a group's offsets."""

    __slots__ = ("_group_id", "_prefix", "_topic")

    def __init__(self, group_id: str) -> None:
        self._group_id = group_id
        self._topic: str | None = None
        self._prefix = b""

    def key(self, topic: str, partition: int) -> bytes:
        """The key of one; those of one topic, one after another, are cheap."""
        if topic != self._topic:
            whole = encode_body(OffsetCommitKey(group=self._group_id, topic=topic), 0)
            self._topic, self._prefix = topic, _INT16.pack(OFFSET_COMMIT) + whole[: -_INT32.size]
        return self._prefix + _INT32.pack(partition)


def offset_value(offset: Offset) -> bytes:
    """The value of a committed offset."""
    if not offset.metadata and offset.expire_ms < 0 and offset.topic_id != ZERO_UUID:
        return _PLAIN_VALUE.pack(
            OFFSET_VERSION,
            offset.offset,
            offset.leader_epoch,
            _EMPTY_STRING,
            offset.commit_ms,
            _ONE_TAG,
            _TOPIC_ID,
            _UUID_BYTES,
            offset.topic_id,
        )
    version = OFFSET_VERSION if offset.expire_ms < 0 else OFFSET_VERSION_THAT_EXPIRES
    value = OffsetCommitValue(
        offset=offset.offset,
        leader_epoch=offset.leader_epoch,
        metadata=offset.metadata,
        commit_timestamp=offset.commit_ms,
        expire_timestamp=offset.expire_ms,
        topic_id=offset.topic_id,
    )
    return bytes(_INT16.pack(version) + encode_body(value, version))


def group_key(group_id: str) -> bytes:
    """The key of a group's record."""
    return bytes(_INT16.pack(GROUP_METADATA) + encode_body(GroupMetadataKey(group=group_id), 0))


def group_value(record: GroupRecord) -> Generator[None, None, bytes]:
    """The value of a group's record; of one with many members in slices."""
    value = GroupMetadataValue(
        protocol_type=record.protocol_type,
        generation=record.generation,
        protocol=record.protocol,
        leader=record.leader,
        current_state_timestamp=record.state_timestamp_ms,
    )
    for number, member in enumerate(record.members, 1):
        value.members.append(
            MemberMetadata(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                rebalance_timeout=member.rebalance_timeout_ms,
                session_timeout=member.session_timeout_ms,
                subscription=member.subscription,
                assignment=member.assignment,
            )
        )
        if number % MEMBERS_PER_SLICE == 0:
            yield
    if len(record.members) < MEMBERS_PER_SLICE:
        body = encode_body(value, GROUP_VERSION)
    else:
        body = yield from encode_in_slices(value, GROUP_VERSION)
    return bytes(_INT16.pack(GROUP_VERSION) + body)


# -- reading


def read_record(key: bytes | None, value: bytes | None) -> Entry:
    """What a record says. Never raises."""
    if key is None or len(key) < _INT16.size:
        return Unreadable("no key type")
    (kind,) = _INT16.unpack_from(key)
    if kind not in TYPES:
        return Unreadable(f"key type {kind} is not known")
    try:
        if kind in (OFFSET_COMMIT, LEGACY_OFFSET_COMMIT):
            return _read_offset(key, value)
        return _read_group(key, value)
    except ProtocolError as error:
        return Unreadable(f"a record of key type {kind} is damaged: {error}")


def _version(value: bytes) -> int:
    if len(value) < _INT16.size:
        raise ProtocolError("no version")
    version: int = _INT16.unpack_from(value)[0]
    return version


@lru_cache(maxsize=1024)
def _names(before_partition: bytes) -> tuple[str, str]:
    """Group and topic of a key; a commit's records have the same, one after another."""
    read = decode(OffsetCommitKey, 0, before_partition + bytes(_INT32.size), _INT16.size)
    return read.group, sys.intern(read.topic)  # thousands of groups read the same topics


def _read_offset(key: bytes, value: bytes | None) -> OffsetEntry:
    group_id, topic = _names(key[: -_INT32.size])
    (partition,) = _INT32.unpack_from(key, len(key) - _INT32.size)
    return OffsetEntry(group_id, topic, partition, None if value is None else _read_value(value))


def _read_value(value: bytes) -> Offset:
    if len(value) == _PLAIN_VALUE.size:  # most are
        version, offset, leader_epoch, size, commit_ms, tags, tag, id_size, topic_id = _PLAIN_VALUE.unpack(
            value
        )
        if (version, size, tags, tag, id_size) == _PLAIN:
            return Offset(offset, leader_epoch, "", commit_ms, -1, topic_id)
    read = decode(OffsetCommitValue, _version(value), value, _INT16.size)
    return Offset(
        read.offset,
        read.leader_epoch,
        read.metadata,
        read.commit_timestamp,
        read.expire_timestamp,
        read.topic_id,
    )


def _read_group(key: bytes, value: bytes | None) -> GroupEntry:
    group_id = decode(GroupMetadataKey, 0, key, _INT16.size).group
    if value is None:
        return GroupEntry(group_id, None)
    read = decode(GroupMetadataValue, _version(value), value, _INT16.size)
    members = tuple(
        MemberRecord(
            member.member_id,
            member.group_instance_id,
            member.client_id,
            member.client_host,
            member.rebalance_timeout,  # -1 before version 1: the session's
            member.session_timeout,
            member.subscription,
            member.assignment,
        )
        for member in read.members
    )
    return GroupEntry(
        group_id,
        GroupRecord(
            read.protocol_type,
            read.generation,
            read.protocol,
            read.leader,
            read.current_state_timestamp,
            members,
        ),
    )
