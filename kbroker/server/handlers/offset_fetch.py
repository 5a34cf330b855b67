"""OffsetFetch: the offsets that groups committed."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any
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
from kbroker.server.slices import SLICE, Large, Pace, Steps, in_slices

NOTHING = Offset(-1, -1, "", -1, -1, ZERO_UUID)  # where nothing was committed

ERROR_OF_ALL_FROM = 2  # the answer has an error of its own; before, each partition has it
MANY_GROUPS_FROM = 8
TOPIC_IDS_FROM = 10


def handle_offset_fetch(
    rooms: Rooms, call: Call, request: OffsetFetchRequest
) -> OffsetFetchResponse | Coroutine[Any, Any, Large[OffsetFetchResponse]]:
    """OffsetFetch: v1-10.

    For each partition asked for, that it exists or not: the offset committed, else -1 and no error. Where all of a
    group's are asked for: those that there are. A group or partitions that are named too often are refused. Member ids
    and epochs are not looked at: only groups of the kinds that are not here have epochs. `require_stable` changes
    nothing: without transactions no commit is ever pending.
    v2 null for all, error of the whole · v5 leader epochs (KIP-320) · v6 flexible · v7 require stable (KIP-447) · v8
    many groups (KIP-709) · v9 member epochs (KIP-848) · v10 topic ids
    """
    if call.version >= MANY_GROUPS_FROM:
        return in_slices(call, _many_groups(rooms, call.version, request))
    return in_slices(call, _one_group(rooms, call.version, request))


def _many_groups(rooms: Rooms, version: int, request: OffsetFetchRequest) -> Steps[OffsetFetchResponse]:
    refused = named_too_often([asked.group_id for asked in request.groups])
    response = OffsetFetchResponse()
    pace = Pace()
    for asked in request.groups:
        if asked.group_id in refused:
            group = OffsetFetchResponseGroup(group_id=asked.group_id, error_code=ErrorCode.INVALID_REQUEST)
        else:
            group = yield from _group(rooms, version, asked, pace)
        response.groups.append(group)
        if pace.over():
            yield None
    return response


def _one_group(rooms: Rooms, version: int, request: OffsetFetchRequest) -> Steps[OffsetFetchResponse]:
    asked, pace = request.topics, Pace()
    if asked is None:
        fetched = yield from pace.all_of(rooms.groups.fetching(request.group_id, None))
        by_topic = yield from _by_topic(fetched)
    else:
        by_topic = [(topic.name, topic.partition_indexes) for topic in asked]
        fetched = yield from _fetch(
            rooms, request.group_id, [(name, index) for name, indexes in by_topic for index in indexes], pace
        )
    error, of_each = fetched.error, ErrorCode.NONE
    if error is not ErrorCode.NONE:
        if version >= ERROR_OF_ALL_FROM:
            return OffsetFetchResponse(error_code=error)
        error, of_each = ErrorCode.NONE, error
    found = fetched.offsets
    topics = []
    for name, indexes in by_topic:
        topics.append(topic := OffsetFetchResponseTopic(name=name))
        for at in range(0, len(indexes), SLICE):
            some = indexes[at : at + SLICE]
            topic.partitions += [
                OffsetFetchResponsePartition(
                    partition_index=index,
                    committed_offset=offset.offset,
                    committed_leader_epoch=offset.leader_epoch,
                    metadata=offset.metadata,
                    error_code=of_each,
                )
                for index in some
                for offset in (found.get((name, index), NOTHING),)
            ]
            if pace.over(len(some)):
                yield None
    return OffsetFetchResponse(topics=topics, error_code=error)


def _fetch(
    rooms: Rooms, group_id: str, asked: list[tuple[str, int]], pace: Pace
) -> Generator[None, None, Fetched]:
    """The offsets of these partitions, if they are not named too often: each may have some KB of metadata."""
    fetched = yield from pace.all_of(rooms.groups.fetching(group_id, asked))
    found, most = fetched.offsets, TIMES_MAX * len(fetched.offsets)
    if len(asked) > most > 0 and sum(where in found for where in asked) > most:
        return Fetched(ErrorCode.INVALID_REQUEST, {})
    return fetched


def _by_topic(fetched: Fetched) -> Generator[None, None, list[tuple[str, list[int]]]]:
    """Partitions of all offsets that were found, in order."""
    topics: dict[str, list[int]] = {}
    for number, (name, index) in enumerate(fetched.offsets, 1):
        topics.setdefault(name, []).append(index)
        if number % SLICE == 0:
            yield None
    return [(name, sorted(topics[name])) for name in sorted(topics)]


def _group(
    rooms: Rooms, version: int, asked: OffsetFetchRequestGroup, pace: Pace
) -> Generator[None, None, OffsetFetchResponseGroup]:
    by_id = version >= TOPIC_IDS_FROM
    # id and name as the answer says them, the name where it is known, partitions
    wanted: list[tuple[bytes, str, str | None, list[int]]] = []
    if asked.topics is None:
        fetched = yield from pace.all_of(rooms.groups.fetching(asked.group_id, None))
        by_topic = yield from _by_topic(fetched)
        for name, indexes in by_topic:
            topic = rooms.cluster.state.topics.get(name) if by_id else None
            # by id: of topics that exist, as the others have no id to name them by
            if topic is not None or not by_id:
                wanted.append((ZERO_UUID if topic is None else topic.id.bytes, name, name, indexes))
    else:
        wanted += [
            (each.topic_id, each.name, _name(rooms, by_id, each), each.partition_indexes)
            for each in asked.topics
        ]
        partitions = [
            (known_as, index)
            for _, _, known_as, indexes in wanted
            if known_as is not None
            for index in indexes
        ]
        fetched = yield from _fetch(rooms, asked.group_id, partitions, pace)
    if fetched.error is not ErrorCode.NONE:
        return OffsetFetchResponseGroup(group_id=asked.group_id, error_code=fetched.error)
    group = OffsetFetchResponseGroup(group_id=asked.group_id)
    for topic_id, name, known_as, indexes in wanted:
        answer = OffsetFetchResponseTopics(name=name, topic_id=topic_id)
        group.topics.append(answer)
        yield from _partitions(answer, known_as, indexes, fetched, pace)
    return group


def _name(rooms: Rooms, by_id: bool, asked: OffsetFetchRequestTopics) -> str | None:
    """The name of a topic that is asked for; None: nobody knows its id."""
    if not by_id:
        return asked.name
    topic = rooms.cluster.state.topics_by_id.get(UUID(bytes=asked.topic_id))
    return None if topic is None else topic.name


def _partitions(
    answer: OffsetFetchResponseTopics,
    known_as: str | None,
    indexes: list[int],
    fetched: Fetched,
    pace: Pace,
) -> Generator[None, None, None]:
    found = fetched.offsets
    error = ErrorCode.UNKNOWN_TOPIC_ID if known_as is None else ErrorCode.NONE
    for at in range(0, len(indexes), SLICE):
        some = indexes[at : at + SLICE]
        answer.partitions += [
            OffsetFetchResponsePartitions(
                partition_index=index,
                committed_offset=offset.offset,
                committed_leader_epoch=offset.leader_epoch,
                metadata=offset.metadata,
                error_code=error,
            )
            for index in some
            for offset in (NOTHING if known_as is None else found.get((known_as, index), NOTHING),)
        ]
        if pace.over(len(some)):
            yield None
