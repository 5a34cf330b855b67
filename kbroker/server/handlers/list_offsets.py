"""ListOffsets: where a partition begins and ends, and which offset a time has."""

from __future__ import annotations

from collections import Counter

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)
from kbroker.replication.partition import Partition
from kbroker.server.rooms import Call, Rooms

LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3  # v7, KIP-734
EARLIEST_LOCAL = -4  # v8, KIP-405
LATEST_TIERED = -5  # v9, KIP-1005
EARLIEST_PENDING_UPLOAD = -6  # v11, KIP-1023
FIRST_VERSION_WITH = {MAX_TIMESTAMP: 7, EARLIEST_LOCAL: 8, LATEST_TIERED: 9, EARLIEST_PENDING_UPLOAD: 11}

FIRST_WITH_EPOCHS = 4

UNKNOWN = -1


def handle_list_offsets(rooms: Rooms, call: Call, request: ListOffsetsRequest) -> ListOffsetsResponse:
    """ListOffsets: v1-11.

    latest is the high watermark; a time gives the first offset with that timestamp or a later one, or -1. Nothing is
    tiered here: the earliest local offset is the log's start, the latest tiered one unknown.
    v2 isolation · v4 leader epochs (KIP-320) · v6 flexible · v7 max timestamp (KIP-734) · v8 earliest local (KIP-405) ·
    v9 latest tiered (KIP-1005) · v10 timeout (KIP-1075) · v11 earliest pending upload (KIP-1023)
    """
    topics = []
    for topic in request.topics:
        times = Counter(asked.partition_index for asked in topic.partitions)
        topics.append(
            ListOffsetsTopicResponse(
                name=topic.name,
                partitions=[
                    _answer(rooms, call, topic.name, asked, double=times[asked.partition_index] > 1)
                    for asked in topic.partitions
                ],
            )
        )
    return ListOffsetsResponse(topics=topics)


def _answer(
    rooms: Rooms, call: Call, topic: str, asked: ListOffsetsPartition, *, double: bool
) -> ListOffsetsPartitionResponse:
    answer = ListOffsetsPartitionResponse(partition_index=asked.partition_index)
    try:
        if double:
            raise KafkaError(ErrorCode.INVALID_REQUEST)
        partition = rooms.partitions.get(topic, asked.partition_index)
        if partition is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        partition.check_epoch(asked.current_leader_epoch)
        found = _find(partition, asked.timestamp, call.version)
    except KafkaError as error:
        answer.error_code = error.code
    else:
        if found is not None:
            answer.offset, answer.timestamp, epoch = found
            if call.version >= FIRST_WITH_EPOCHS:
                answer.leader_epoch = epoch
    return answer


def _find(partition: Partition, timestamp: int, version: int) -> tuple[int, int, int] | None:
    """Offset, timestamp and leader epoch that answer for `timestamp`; None: there is no such record."""
    if timestamp < EARLIEST and version < FIRST_VERSION_WITH.get(timestamp, 1 << 15):
        raise KafkaError(ErrorCode.UNSUPPORTED_VERSION)
    log = partition.log
    if timestamp == LATEST:
        return partition.last_stable_offset, UNKNOWN, partition.leader_epoch
    if timestamp in (EARLIEST, EARLIEST_LOCAL):
        return log.start, UNKNOWN, partition.epoch_at(log.start)
    if timestamp == MAX_TIMESTAMP:
        return log.max_timestamp(up_to=partition.high_watermark)
    if timestamp in (LATEST_TIERED, EARLIEST_PENDING_UPLOAD):
        return None
    return log.find_time(timestamp, up_to=partition.high_watermark)
