"""OffsetCommit, OffsetDelete: offsets that groups keep, and forget. Reading them: `offset_fetch`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any
from uuid import UUID

from kbroker.cluster.state import ClusterState, Topic
from kbroker.errors import ErrorCode
from kbroker.groups.events import Commit, Committed, ForgetOffsets, Forgotten, Offset
from kbroker.protocol.messages.offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from kbroker.protocol.wire import ZERO_UUID
from kbroker.server.handlers.pending import Pending
from kbroker.server.rooms import Call, Later, Rooms
from kbroker.server.slices import SLICE, Awaited, Large, Pace, Steps, are_many, in_slices

GROUP_NOT_FOUND_FROM = (
    9  # OffsetCommit says that a group is not there; before, that the generation is not its own
)
TOPIC_IDS_FROM = 10
INT64_MAX = 2**63 - 1
KEPT_AS_USUAL = -1  # a retention time, and an expiry: as the broker's retention says


def handle_offset_commit(
    rooms: Rooms, call: Call, request: OffsetCommitRequest
) -> OffsetCommitResponse | Later | Coroutine[Any, Any, Large[OffsetCommitResponse]]:
    """OffsetCommit: v2-10.

    Answered when the offsets are on disk. Partitions that do not exist and metadata that is too long are refused one by
    one, and the rest is committed; the group accepts all of that or nothing. The group id may be empty.
    v2-v4 retention time · v6 leader epochs (KIP-320) · v7 instance ids (KIP-345) · v8 flexible · v9 GROUP_ID_NOT_FOUND
    (KIP-848) · v10 topic ids
    """
    made = _Made(rooms, call.version, request)
    if are_many(request.topics):
        return in_slices(call, _commit_many(rooms, call.version, request, made))
    for _ in made.steps():
        pass
    if not made.known:
        return made.response
    to = Pending(partial(_committed, made.response, made.known), call.version)
    rooms.groups.commit(request.group_id, _commit(request, made, to))
    return to.outcome()


def _commit_many(
    rooms: Rooms, version: int, request: OffsetCommitRequest, made: _Made
) -> Steps[OffsetCommitResponse]:
    yield from made.steps()
    if made.known:
        ended: Awaited[Committed] = Awaited()
        rooms.groups.commit(request.group_id, _commit(request, made, ended))
        yield ended
        _committed(made.response, made.known, ended.value, version)
    return made.response


def _commit(request: OffsetCommitRequest, made: _Made, to: Callable[[Committed], None]) -> Commit:
    return Commit(
        to,
        request.generation_id_or_member_epoch,
        request.member_id,
        request.group_instance_id,
        tuple(made.offsets),
    )


class _Made:
    """What a request is made into: offsets to commit, and the answer, which the group may change."""

    def __init__(self, rooms: Rooms, version: int, request: OffsetCommitRequest) -> None:
        self.response = OffsetCommitResponse()
        self.known: list[OffsetCommitResponsePartition] = []  # what the group decides about
        self.offsets: list[tuple[str, int, Offset]] = []
        self._rooms = rooms
        self._version = version
        self._request = request

    def steps(self) -> Generator[None, None, None]:
        """Make it, pausing now and then."""
        rooms, version, request = self._rooms, self._version, self._request
        known, offsets, left = self.known, self.offsets, SLICE
        metadata_max = rooms.settings.offset_metadata_max_bytes
        now_ms = rooms.clock.wall_ms()
        retention_ms = request.retention_time_ms
        expire_ms = min(now_ms + retention_ms, INT64_MAX) if retention_ms != KEPT_AS_USUAL else KEPT_AS_USUAL
        for asked in request.topics:
            topic = _topic_of(rooms.cluster.state, version, asked)
            count = 0 if topic is None else len(topic.partitions)
            # Also where the client names the topic: one made anew must not get what its predecessor's consumers committed.
            topic_id = ZERO_UUID if topic is None else topic.id.bytes
            answers: list[OffsetCommitResponsePartition] = []
            left -= 1
            if left <= 0:
                left = SLICE
                yield
            self.response.topics.append(
                OffsetCommitResponseTopic(name=asked.name, topic_id=asked.topic_id, partitions=answers)
            )
            for each in asked.partitions:
                left -= 1
                if left <= 0:
                    left = SLICE
                    yield
                index = each.partition_index
                answer = OffsetCommitResponsePartition(partition_index=index)
                answers.append(answer)
                if topic is None or not 0 <= index < count:
                    answer.error_code = _why_unknown(version, topic)
                    continue
                known.append(answer)
                metadata = each.committed_metadata or ""
                if len(metadata) * 2 > metadata_max and characters(metadata) > metadata_max:
                    answer.error_code = ErrorCode.OFFSET_METADATA_TOO_LARGE
                    continue
                offset = Offset(
                    each.committed_offset,
                    each.committed_leader_epoch,
                    metadata,
                    now_ms,
                    expire_ms,
                    topic_id,
                )
                offsets.append((topic.name, index, offset))


def _topic_of(state: ClusterState, version: int, asked: OffsetCommitRequestTopic) -> Topic | None:
    if version < TOPIC_IDS_FROM:
        return state.topics.get(asked.name)
    return state.topics_by_id.get(UUID(bytes=asked.topic_id))


def _why_unknown(version: int, topic: Topic | None) -> ErrorCode:
    if topic is None and version >= TOPIC_IDS_FROM:
        return ErrorCode.UNKNOWN_TOPIC_ID
    return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def characters(text: str) -> int:
    """How long a text is for Kafka: in UTF-16 units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def _committed(
    response: OffsetCommitResponse,
    known: list[OffsetCommitResponsePartition],
    committed: Committed,
    version: int,
) -> OffsetCommitResponse:
    error = committed.error
    if error is not ErrorCode.NONE:
        if error is ErrorCode.GROUP_ID_NOT_FOUND and version < GROUP_NOT_FOUND_FROM:
            error = ErrorCode.ILLEGAL_GENERATION
        for answer in known:
            answer.error_code = error
    return response


def handle_offset_delete(
    rooms: Rooms, call: Call, request: OffsetDeleteRequest
) -> OffsetDeleteResponse | Later | Coroutine[Any, Any, Large[OffsetDeleteResponse]]:
    """OffsetDelete: v0.

    Offsets of topics that a live group subscribes to are refused; one that was never committed is forgotten too.
    Answered when that is durable. v0 KIP-496
    """
    if not request.group_id:
        return OffsetDeleteResponse(error_code=ErrorCode.INVALID_GROUP_ID)
    made = _Deleted(rooms, request)
    if are_many(request.topics):
        return in_slices(call, _delete_many(rooms, request, made))
    for _ in made.steps():
        pass
    to = Pending(partial(_forgotten, made.topics, made.known), call.version)
    rooms.groups.forget(request.group_id, ForgetOffsets(to, tuple(made.partitions)))
    return to.outcome()


def _delete_many(rooms: Rooms, request: OffsetDeleteRequest, made: _Deleted) -> Steps[OffsetDeleteResponse]:
    yield from made.steps()
    ended: Awaited[Forgotten] = Awaited()
    rooms.groups.forget(request.group_id, ForgetOffsets(ended, tuple(made.partitions)))
    yield ended
    error, answers = ended.value
    if error is not ErrorCode.NONE:
        return OffsetDeleteResponse(error_code=error)
    for at in range(0, len(answers), SLICE):
        for answer, each in zip(made.known[at : at + SLICE], answers[at : at + SLICE], strict=True):
            answer.error_code = each
        yield None
    return OffsetDeleteResponse(topics=made.topics)


class _Deleted:
    """What a request is made into: partitions to forget, and the answer, which the group may change."""

    def __init__(self, rooms: Rooms, request: OffsetDeleteRequest) -> None:
        self.topics: list[OffsetDeleteResponseTopic] = []
        self.known: list[OffsetDeleteResponsePartition] = []  # what the group decides about
        self.partitions: list[tuple[str, int]] = []
        self._rooms = rooms
        self._request = request

    def steps(self) -> Generator[None, None, None]:
        """Make it, pausing now and then."""
        topics, pace = self._rooms.cluster.state.topics, Pace()
        for asked in self._request.topics:
            topic = topics.get(asked.name)
            count = 0 if topic is None else len(topic.partitions)
            answers: list[OffsetDeleteResponsePartition] = []
            self.topics.append(OffsetDeleteResponseTopic(name=asked.name, partitions=answers))
            for each in asked.partitions:
                index = each.partition_index
                answer = OffsetDeleteResponsePartition(partition_index=index)
                answers.append(answer)
                if 0 <= index < count:
                    self.known.append(answer)
                    self.partitions.append((asked.name, index))
                else:
                    answer.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                if pace.over():
                    yield
            if pace.over():
                yield


def _forgotten(
    topics: list[OffsetDeleteResponseTopic],
    known: list[OffsetDeleteResponsePartition],
    forgotten: Forgotten,
    version: int,
) -> OffsetDeleteResponse:
    if forgotten.error is not ErrorCode.NONE:
        return OffsetDeleteResponse(error_code=forgotten.error)
    for answer, error in zip(known, forgotten.partitions, strict=True):
        answer.error_code = error
    return OffsetDeleteResponse(topics=topics)
