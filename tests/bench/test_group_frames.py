"""The bench's hand-made requests of groups mean what they say to an independent decoder, and its readers read answers."""

from __future__ import annotations

import pytest

from bench import group_frames as gf
from kbroker.protocol.frames import encode_response
from kbroker.protocol.messages.groups import (
    HeartbeatResponse,
    JoinGroupResponse,
    JoinGroupResponseMember,
    LeaveGroupResponse,
    SyncGroupResponse,
)
from kbroker.protocol.messages.offsets import (
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from tests.bench.test_frames import decoded


@pytest.mark.parametrize("version", [3, 5])
def test_a_join_subscribes_to_its_topic(version):
    request = decoded(gf.join("group", "me", "some-topic", version=version))

    assert ("group", "me", "consumer", None) == (
        request.group_id,
        request.member_id,
        request.protocol_type,
        request.group_instance_id,
    )
    [protocol] = request.protocols
    assert "range" == protocol.name
    assert b"\0\1\0\0\0\1\0\x0asome-topic\xff\xff\xff\xff\0\0\0\0" == protocol.metadata


def test_the_other_requests_of_a_member_decode():
    synced = decoded(gf.sync("group", 3, "me", {"me": b"mine", "you": b"yours"}))
    assert (3, "me", [("me", b"mine"), ("you", b"yours")]) == (
        synced.generation_id,
        synced.member_id,
        [(each.member_id, each.assignment) for each in synced.assignments],
    )
    beat = decoded(gf.heartbeat("group", 3, "me"))
    assert ("group", 3, "me") == (beat.group_id, beat.generation_id, beat.member_id)
    assert ["me"] == [member.member_id for member in decoded(gf.leave("group", "me")).members]
    assert ("group", 0) == (
        decoded(gf.find_coordinator("group")).key,
        decoded(gf.find_coordinator("g")).key_type,
    )


def test_a_commit_is_of_so_many_partitions():
    request = decoded(gf.offset_commit("group", 3, "me", "some-topic", 10))

    assert ("group", 3, "me") == (
        request.group_id,
        request.generation_id_or_member_epoch,
        request.member_id,
    )
    [topic] = request.topics
    assert ("some-topic", list(range(10))) == (
        topic.name,
        [each.partition_index for each in topic.partitions],
    )


def test_a_commits_answer_is_the_one_that_the_load_expects():
    partitions = [OffsetCommitResponsePartition(partition_index=index) for index in range(10)]
    answer = OffsetCommitResponse(
        topics=[OffsetCommitResponseTopic(name="some-topic", partitions=partitions)]
    )

    assert encode_response(answer, 8, 1) == gf.offset_commit_answer("some-topic", 10)


@pytest.mark.parametrize("version", [3, 5])
def test_a_joins_answer_is_read(version):
    members = [JoinGroupResponseMember(member_id="me", metadata=b"topics")]
    answer = JoinGroupResponse(
        error_code=0, generation_id=3, protocol_name="range", leader="you", member_id="me", members=members
    )

    assert gf.Joined(0, 3, "you", "me") == gf.joined(encode_response(answer, version, 1))


@pytest.mark.parametrize("answer", [SyncGroupResponse, HeartbeatResponse, LeaveGroupResponse])
def test_errors_of_answers_are_read(answer):
    assert 27 == gf.error_of(encode_response(answer(error_code=27), 3, 1))
