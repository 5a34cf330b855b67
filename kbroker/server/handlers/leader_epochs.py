"""OffsetForLeaderEpoch: where a leader epoch ended in a partition's log."""

from __future__ import annotations

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.list_offsets import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
)
from kbroker.server.rooms import Call, Rooms


def handle_offset_for_leader_epoch(
    rooms: Rooms, call: Call, request: OffsetForLeaderEpochRequest
) -> OffsetForLeaderEpochResponse:
    """OffsetForLeaderEpoch: v2-4.

    Only the leader answers, and only a client that names no leader epoch (-1) or the current one.
    v2 current leader epoch (KIP-320) · v3 replica id (KIP-392) · v4 flexible
    """
    return OffsetForLeaderEpochResponse(
        topics=[
            OffsetForLeaderTopicResult(
                topic=topic.topic,
                partitions=[_answer(rooms, topic.topic, asked) for asked in topic.partitions],
            )
            for topic in request.topics
        ]
    )


def _answer(rooms: Rooms, topic: str, asked: OffsetForLeaderPartition) -> EpochEndOffset:
    try:
        partition = rooms.partitions.get(topic, asked.partition)
        if partition is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        partition.check_epoch(asked.current_leader_epoch)
    except KafkaError as error:
        return EpochEndOffset(error_code=error.code, partition=asked.partition)
    epoch, end = partition.end_of_epoch(asked.leader_epoch)
    return EpochEndOffset(partition=asked.partition, leader_epoch=epoch, end_offset=end)
