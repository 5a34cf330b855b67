"""OffsetFetch: the offsets that groups committed. None yet: no group can commit before there are coordinators."""

from __future__ import annotations

from uuid import UUID

from kbroker.errors import ErrorCode
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
from kbroker.server.rooms import Call, Rooms

NOTHING_COMMITTED = -1
MANY_GROUPS_FROM = 8
TOPIC_IDS_FROM = 10


def handle_offset_fetch(rooms: Rooms, call: Call, request: OffsetFetchRequest) -> OffsetFetchResponse:
    """OffsetFetch: v1-10.

    For each partition asked for: offset -1 and no error, as Kafka answers where nothing was committed; for all of a
    group's: none. That is the truth while groups cannot commit, and what a consumer needs that assigns its partitions
    but names a group: librdkafka demands a group.id, asks here first, and crashes on a broker without this API.
    Not done: committed offsets; they come with the groups.
    v2 null for all, error of the whole · v5 leader epochs (KIP-320) · v6 flexible · v7 require stable (KIP-447) · v8
    many groups (KIP-709) · v9 member epochs (KIP-848) · v10 topic ids
    """
    if call.version >= MANY_GROUPS_FROM:
        return OffsetFetchResponse(groups=[_group(rooms, call.version, asked) for asked in request.groups])
    return OffsetFetchResponse(
        topics=[
            OffsetFetchResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetFetchResponsePartition(
                        partition_index=index, committed_offset=NOTHING_COMMITTED, metadata=""
                    )
                    for index in topic.partition_indexes
                ],
            )
            for topic in request.topics or ()
        ]
    )


def _group(rooms: Rooms, version: int, asked: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup:
    return OffsetFetchResponseGroup(
        group_id=asked.group_id, topics=[_topic(rooms, version, topic) for topic in asked.topics or ()]
    )


def _topic(rooms: Rooms, version: int, asked: OffsetFetchRequestTopics) -> OffsetFetchResponseTopics:
    error = ErrorCode.NONE
    if version >= TOPIC_IDS_FROM and UUID(bytes=asked.topic_id) not in rooms.cluster.state.topics_by_id:
        error = ErrorCode.UNKNOWN_TOPIC_ID
    return OffsetFetchResponseTopics(
        name=asked.name,
        topic_id=asked.topic_id,
        partitions=[
            OffsetFetchResponsePartitions(
                partition_index=index, committed_offset=NOTHING_COMMITTED, metadata="", error_code=error
            )
            for index in asked.partition_indexes
        ],
    )
