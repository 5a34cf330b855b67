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
from kbroker.replication.partition import Partition
from kbroker.server.rooms import Call, Rooms

NO_END = (-1, -1)


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
    partition = rooms.partitions.get(topic, asked.partition)
    if partition is None:
        return EpochEndOffset(error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, partition=asked.partition)
    try:
        partition.check_epoch(asked.current_leader_epoch)
    except KafkaError as error:
        return EpochEndOffset(error_code=error.code, partition=asked.partition)
    epoch, end = _end_of(partition, asked.leader_epoch)
    return EpochEndOffset(partition=asked.partition, leader_epoch=epoch, end_offset=end)


def _end_of(partition: Partition, epoch: int) -> tuple[int, int]:
    """The largest epoch not above `epoch` that the partition had, and where it ended; the log's end is its own's.

    The log knows of an epoch by its records. The current one counts before it has any: KIP-101 has the leader note
    its start when it begins to lead.
    """
    log, current = partition.log, partition.leader_epoch
    if epoch == current:
        return epoch, log.end
    if not 0 <= epoch < current:
        return NO_END
    last = log.epochs.last
    if epoch <= last:
        return log.epochs.end_of(epoch, log.end)
    return (last if last >= 0 else epoch), log.end
