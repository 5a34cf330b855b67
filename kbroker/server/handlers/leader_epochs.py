"""OffsetForLeaderEpoch: where a leader epoch ended in a partition's log."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.list_offsets import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
)
from kbroker.server.rooms import Call, Rooms
from kbroker.server.slices import Large, Pace, Steps, are_many, in_slices


def handle_offset_for_leader_epoch(
    rooms: Rooms, call: Call, request: OffsetForLeaderEpochRequest
) -> OffsetForLeaderEpochResponse | Coroutine[Any, Any, Large[OffsetForLeaderEpochResponse]]:
    """OffsetForLeaderEpoch: v2-4.

    Only the leader answers, and only a client that names no leader epoch (-1) or the current one.
    v2 current leader epoch (KIP-320) · v3 replica id (KIP-392) · v4 flexible
    """
    if are_many(request.topics):
        return in_slices(call, _answer_many(rooms, request))
    return OffsetForLeaderEpochResponse(
        topics=[
            OffsetForLeaderTopicResult(
                topic=topic.topic,
                partitions=[_answer(rooms, topic.topic, asked) for asked in topic.partitions],
            )
            for topic in request.topics
        ]
    )


def _answer_many(rooms: Rooms, request: OffsetForLeaderEpochRequest) -> Steps[OffsetForLeaderEpochResponse]:
    pace = Pace()
    response = OffsetForLeaderEpochResponse()
    for topic in request.topics:
        answers: list[EpochEndOffset] = []
        response.topics.append(OffsetForLeaderTopicResult(topic=topic.topic, partitions=answers))
        for asked in topic.partitions:
            answers.append(_answer(rooms, topic.topic, asked))
            if pace.over():
                yield None
        if pace.over():
            yield None
    return response


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
