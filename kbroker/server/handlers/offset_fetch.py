"""OffsetFetch: the offsets that groups committed."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from kbroker.errors import ErrorCode
from kbroker.groups.events import Fetched, Offset
from kbroker.protocol.messages.offsets import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)
from kbroker.protocol.wire import ZERO_UUID
from kbroker.server.handlers.shared import TIMES_MAX, named_too_often
from kbroker.server.rooms import Call, Rooms

NOTHING = Offset(-1, -1, "", -1, -1, ZERO_UUID)  # where nothing was committed

ERROR_OF_ALL_FROM = 2  # the answer has an error of its own; before, each partition has it
MANY_GROUPS_FROM = 8
TOPIC_IDS_FROM = 10


def handle_offset_fetch(rooms: Rooms, call: Call, request: OffsetFetchRequest) -> OffsetFetchResponse:
    """OffsetFetch: v1-10.

    For each partition asked for, that it exists or not: the offset committed, else -1 and no error. Where all of a
    group's are asked for: those that there are. A group or partitions that are named too often are refused. Member ids
    and epochs are not looked at: only groups of the kinds that are not here have epochs. `require_stable` changes
    nothing: without transactions no commit is ever pending.
    v2 null for all, error of the whole · v5 leader epochs (KIP-320) · v6 flexible · v7 require stable (KIP-447) · v8
    many groups (KIP-709) · v9 member epochs (KIP-848) · v10 topic ids
    """
    if call.version >= MANY_GROUPS_FROM:
        refused = named_too_often([asked.group_id for asked in request.groups])
        return OffsetFetchResponse(
            groups=[
                OffsetFetchResponseGroup(group_id=asked.group_id, error_code=ErrorCode.INVALID_REQUEST)
                if asked.group_id in refused
                else _group(rooms, call.version, asked)
                for asked in request.groups
            ]
        )
    return _one_group(rooms, call.version, request)


def _one_group(rooms: Rooms, version: int, request: OffsetFetchRequest) -> OffsetFetchResponse:
    asked = request.topics
    by_topic: Iterable[tuple[str, list[int]]]
    if asked is None:
        fetched = rooms.groups.fetch(request.group_id, None)
        by_topic = _by_topic(fetched)
    else:
        by_topic = [(topic.name, topic.partition_indexes) for topic in asked]
        fetched = _fetch(
            rooms, request.group_id, [(name, index) for name, indexes in by_topic for index in indexes]
        )
    error, of_each = fetched.error, ErrorCode.NONE
    if error is not ErrorCode.NONE:
        if version >= ERROR_OF_ALL_FROM:
            return OffsetFetchResponse(error_code=error)
        error, of_each = ErrorCode.NONE, error
    found = fetched.offsets
    topics = [
        OffsetFetchResponseTopic(
            name=name,
            partitions=[
                OffsetFetchResponsePartition(
                    partition_index=index,
                    committed_offset=offset.offset,
                    committed_leader_epoch=offset.leader_epoch,
                    metadata=offset.metadata,
                    error_code=of_each,
                )
                for index in indexes
                for offset in (found.get((name, index), NOTHING),)
            ],
        )
        for name, indexes in by_topic
    ]
    return OffsetFetchResponse(topics=topics, error_code=error)


def _fetch(rooms: Rooms, group_id: str, asked: list[tuple[str, int]]) -> Fetched:
    """The offsets of these partitions, if they are not named too often: each may have some KB of metadata."""
    fetched = rooms.groups.fetch(group_id, asked)
    found, most = fetched.offsets, TIMES_MAX * len(fetched.offsets)
    if len(asked) > most > 0 and sum(where in found for where in asked) > most:
        return Fetched(ErrorCode.INVALID_REQUEST, {})
    return fetched


def _by_topic(fetched: Fetched) -> Iterable[tuple[str, list[int]]]:
    """Partitions of all offsets that were found."""
    topics: dict[str, list[int]] = {}
    for name, index in sorted(fetched.offsets):
        topics.setdefault(name, []).append(index)
    return topics.items()


def _group(rooms: Rooms, version: int, asked: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup:
    by_id = version >= TOPIC_IDS_FROM
    if asked.topics is None:
        fetched = rooms.groups.fetch(asked.group_id, None)
        topics = _all_topics(rooms, by_id, fetched)
    else:
        wanted = [(topic, _name(rooms, by_id, topic)) for topic in asked.topics]
        fetched = _fetch(
            rooms,
            asked.group_id,
            [
                (name, index)
                for topic, name in wanted
                if name is not None
                for index in topic.partition_indexes
            ],
        )
        topics = [
            _topic(topic.name, topic.topic_id, name, topic.partition_indexes, fetched)
            for topic, name in wanted
        ]
    if fetched.error is not ErrorCode.NONE:
        return OffsetFetchResponseGroup(group_id=asked.group_id, error_code=fetched.error)
    return OffsetFetchResponseGroup(group_id=asked.group_id, topics=topics)


def _name(rooms: Rooms, by_id: bool, asked: OffsetFetchRequestTopics) -> str | None:
    """The name of a topic that is asked for; None: nobody knows its id."""
    if not by_id:
        return asked.name
    topic = rooms.cluster.state.topics_by_id.get(UUID(bytes=asked.topic_id))
    return None if topic is None else topic.name


def _all_topics(rooms: Rooms, by_id: bool, fetched: Fetched) -> list[OffsetFetchResponseTopics]:
    """Everything found. By id: of topics that exist, as the others have no id to name them by."""
    topics = []
    for name, indexes in _by_topic(fetched):
        topic_id = ZERO_UUID
        if by_id:
            topic = rooms.cluster.state.topics.get(name)
            if topic is None:
                continue
            topic_id = topic.id.bytes
        topics.append(_topic(name, topic_id, name, indexes, fetched))
    return topics


def _topic(
    name: str, topic_id: bytes, known_as: str | None, indexes: list[int], fetched: Fetched
) -> OffsetFetchResponseTopics:
    found = fetched.offsets
    error = ErrorCode.UNKNOWN_TOPIC_ID if known_as is None else ErrorCode.NONE
    return OffsetFetchResponseTopics(
        name=name,
        topic_id=topic_id,
        partitions=[
            OffsetFetchResponsePartitions(
                partition_index=index,
                committed_offset=offset.offset,
                committed_leader_epoch=offset.leader_epoch,
                metadata=offset.metadata,
                error_code=error,
            )
            for index in indexes
            for offset in (NOTHING if known_as is None else found.get((known_as, index), NOTHING),)
        ],
    )
