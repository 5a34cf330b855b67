"""Records of `__consumer_offsets`: the bytes that Kafka writes, and every version it ever wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.groups.events import GroupRecord, MemberRecord, Offset
from kbroker.groups.records import (
    MEMBERS_PER_SLICE,
    GroupEntry,
    OffsetEntry,
    OffsetKeys,
    Unreadable,
    group_key,
    group_value,
    offset_value,
    read_record,
)
from kbroker.protocol.codec import encode_body
from kbroker.protocol.messages.group_records import (
    GroupMetadataValue,
    MemberMetadata,
    OffsetCommitKey,
    OffsetCommitValue,
)

ID = bytes(range(16))
NO_ID = bytes(16)
KEY = b"\0\1" + b"\0\1g" + b"\0\1t" + b"\0\0\0\7"


def whole(steps):
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_the_key_of_an_offset():
    keys = OffsetKeys("g")

    assert KEY == keys.key("t", 7)
    assert b"\0\1\0\1g\0\2tu\0\0\0\0" == keys.key("tu", 0)
    assert KEY == keys.key("t", 7)


def test_an_offset_is_written_in_version_4_with_its_topic_id():
    offset = Offset(258, 3, "", 1000, -1, ID)

    value = offset_value(offset)

    assert (
        bytes.fromhex("0004 0000000000000102 00000003 01 00000000000003e8 01 00 10".replace(" ", "")) + ID
        == value
    )
    assert OffsetEntry("g", "t", 7, offset) == read_record(KEY, value)


def test_metadata_stands_between_epoch_and_time():
    offset = Offset(1, -1, "mine", 1000, -1, NO_ID)

    value = offset_value(offset)

    assert (
        bytes.fromhex("0004 0000000000000001 ffffffff 05 6d696e65 00000000000003e8 00".replace(" ", ""))
        == value
    )
    assert OffsetEntry("g", "t", 7, offset) == read_record(KEY, value)


def test_an_offset_with_a_time_to_expire_is_written_in_version_1():
    value = offset_value(Offset(1, 9, "m", 1000, 2000, ID))

    assert (
        bytes.fromhex("0001 0000000000000001 0001 6d 00000000000003e8 00000000000007d0".replace(" ", ""))
        == value
    )
    assert OffsetEntry("g", "t", 7, Offset(1, -1, "m", 1000, 2000, NO_ID)) == read_record(KEY, value)


@given(
    st.builds(
        Offset,
        offset=st.integers(0, 2**63 - 1),
        leader_epoch=st.integers(-1, 2**31 - 1),
        metadata=st.text(max_size=200),
        commit_ms=st.integers(0, 2**60),
        expire_ms=st.just(-1),
        topic_id=st.sampled_from([ID, NO_ID]),
    )
)
def test_what_is_packed_by_hand_is_what_the_codec_writes(offset):
    fields = dict(zip(("offset", "leader_epoch", "metadata", "commit_timestamp"), offset[:4], strict=True))

    value = offset_value(offset)

    assert b"\0\4" + encode_body(OffsetCommitValue(**fields, topic_id=offset.topic_id), 4) == value
    assert OffsetEntry("g", "t", 7, offset) == read_record(KEY, value)


@pytest.mark.parametrize("version", range(5))
@pytest.mark.parametrize("kind", [0, 1])
def test_every_version_of_an_offset_is_read(version, kind):
    written = OffsetCommitValue(
        offset=5, leader_epoch=2, metadata="m", commit_timestamp=7, expire_timestamp=9, topic_id=ID
    )
    key = bytes((0, kind)) + encode_body(OffsetCommitKey(group="g", topic="t", partition=7), 0)

    read = read_record(key, bytes((0, version)) + encode_body(written, version))

    epoch, expire, topic_id = (
        2 if version >= 3 else -1,
        9 if version == 1 else -1,
        ID if version == 4 else NO_ID,
    )
    assert OffsetEntry("g", "t", 7, Offset(5, epoch, "m", 7, expire, topic_id)) == read


MEMBER = MemberRecord("c-1", "i", "c", "/127.0.0.1", 60_000, 10_000, b"sub", b"ass")
GROUP = GroupRecord("consumer", 3, "range", "c-1", 1234, (MEMBER,))


def test_a_group_is_written_in_version_3():
    value = whole(group_value(GROUP))

    assert b"\0\2\0\1g" == group_key("g")
    assert (
        b"\0\3" + b"\0\x08consumer" + b"\0\0\0\3" + b"\0\5range" + b"\0\3c-1" + b"\0\0\0\0\0\0\4\xd2"
        b"\0\0\0\1"
        + b"\0\3c-1"
        + b"\0\1i"
        + b"\0\1c"
        + b"\0\x0a/127.0.0.1"
        + b"\0\0\xea\x60"
        + b"\0\0\x27\x10"
        b"\0\0\0\3sub" + b"\0\0\0\3ass"
    ) == value
    assert GroupEntry("g", GROUP) == read_record(group_key("g"), value)


def test_many_members_are_written_in_slices():
    members = tuple(MEMBER._replace(member_id=f"c-{number}") for number in range(2 * MEMBERS_PER_SLICE))
    large, pauses = GROUP._replace(members=members), 0
    steps = group_value(large)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value = end.value
            break
        pauses += 1

    assert 4 == pauses  # two to make them, two to encode them
    assert GroupEntry("g", large) == read_record(group_key("g"), value)


def test_an_empty_group_has_neither_protocol_nor_leader():
    empty = GroupRecord("consumer", 4, None, None, 1234, ())

    assert GroupEntry("g", empty) == read_record(group_key("g"), whole(group_value(empty)))


@pytest.mark.parametrize("version", range(5))
def test_every_version_of_a_group_is_read(version):
    member = MemberMetadata(
        member_id="c-1",
        group_instance_id="i",
        client_id="c",
        client_host="h",
        rebalance_timeout=5,
        session_timeout=6,
        subscription=b"s",
        assignment=b"a",
    )
    value = GroupMetadataValue(
        protocol_type="consumer",
        generation=1,
        protocol="range",
        leader="c-1",
        current_state_timestamp=8,
        members=[member],
    )

    read = read_record(group_key("g"), bytes((0, version)) + encode_body(value, version))

    members = (
        MemberRecord("c-1", "i" if version >= 3 else None, "c", "h", 5 if version else -1, 6, b"s", b"a"),
    )
    assert (
        GroupEntry("g", GroupRecord("consumer", 1, "range", "c-1", 8 if version >= 2 else -1, members))
        == read
    )


def test_tombstones():
    assert OffsetEntry("g", "t", 7, None) == read_record(KEY, None)
    assert GroupEntry("g", None) == read_record(group_key("g"), None)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (None, b"", "no key type"),
        (b"\0", b"", "no key type"),
        (b"\0\3\0\1g", b"", "key type 3 is not known"),
        (b"\xff\xff", None, "key type -1 is not known"),
        (KEY[:-1], b"", "key type 1 is damaged"),
        (KEY, b"", "no version"),
        (KEY, b"\0\4", "ends too early"),
        (KEY, b"\0\5" + bytes(30), "versions 0-4, not 5"),
        (KEY, b"\xff\xff", "versions 0-4, not -1"),
        (b"\0\2\0\1g", b"\0\3\0\1", "key type 2 is damaged"),
    ],
)
def test_what_cannot_be_read_says_why(key, value, why):
    read = read_record(key, value)

    assert isinstance(read, Unreadable)
    assert why in read.why


@given(st.binary(max_size=60), st.none() | st.binary(max_size=80))
def test_no_bytes_break_it(key, value):
    read_record(key, value)
    read_record(b"\0\1" + key, value)
    read_record(KEY, value and b"\0\4" + value)
    read_record(group_key("g"), value and b"\0\3" + value)
