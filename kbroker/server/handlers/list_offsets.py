"""ListOffsets: where a partition begins and ends, and which offset a time has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from kbroker.errors import ErrorCode, KafkaError
from kbroker.observe import logs
from kbroker.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)
from kbroker.replication.partition import Partition
from kbroker.server.handlers.ends import CatchUp, is_behind
from kbroker.server.rooms import Call, Later, Pause, Rooms
from kbroker.server.slices import Awaited, Large, Pace, Steps, are_many, in_slices

log = logs.get_logger("server")

LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3  # v7, KIP-734
EARLIEST_LOCAL = -4  # v8, KIP-405
LATEST_TIERED = -5  # v9, KIP-1005
EARLIEST_PENDING_UPLOAD = -6  # v11, KIP-1023
FIRST_VERSION_WITH = {MAX_TIMESTAMP: 7, EARLIEST_LOCAL: 8, LATEST_TIERED: 9, EARLIEST_PENDING_UPLOAD: 11}

FIRST_WITH_EPOCHS = 4

UNKNOWN = -1


# Times that ask for nothing near the log's end.
NOT_OF_THE_END = (EARLIEST, EARLIEST_LOCAL, LATEST_TIERED, EARLIEST_PENDING_UPLOAD)


def handle_list_offsets(
    rooms: Rooms, call: Call, request: ListOffsetsRequest
) -> ListOffsetsResponse | Later | Coroutine[Any, Any, Large[ListOffsetsResponse]]:
    """ListOffsets: v1-11.

    latest is the high watermark; a time gives the first offset with that timestamp or a later one, or -1. Answered when
    the high watermark has passed what the log holds now: records that were answered before are in it. Nothing is
    tiered here: the earliest local offset is the log's start, the latest tiered one unknown.
    v2 isolation · v4 leader epochs (KIP-320) · v6 flexible · v7 max timestamp (KIP-734) · v8 earliest local (KIP-405) ·
    v9 latest tiered (KIP-1005) · v10 timeout (KIP-1075) · v11 earliest pending upload (KIP-1023)
    """
    if are_many(request.topics):
        return in_slices(call, _list_many(rooms, call, request))
    behind = _behind(rooms, request)
    if behind:
        return _Waiting(rooms, call, request, behind).later
    return _respond(rooms, call, request)


def _behind(rooms: Rooms, request: ListOffsetsRequest) -> list[Partition]:
    """The partitions whose end is asked for and does not count yet, each once."""
    found: dict[Partition, None] = {}
    for topic in request.topics:
        for asked in topic.partitions:
            if (partition := _if_behind(rooms, topic.name, asked)) is not None:
                found[partition] = None
    return list(found)


def _if_behind(rooms: Rooms, topic: str, asked: ListOffsetsPartition) -> Partition | None:
    if asked.timestamp not in NOT_OF_THE_END:
        with suppress(KafkaError):  # the answer will say it
            partition = rooms.partitions.get(topic, asked.partition_index)
            if partition is not None and is_behind(partition):
                return partition
    return None


def _list_many(rooms: Rooms, call: Call, request: ListOffsetsRequest) -> Steps[ListOffsetsResponse]:
    pace = Pace()
    behind: dict[Partition, None] = {}
    for topic in request.topics:
        for asked in topic.partitions:
            if (partition := _if_behind(rooms, topic.name, asked)) is not None:
                behind[partition] = None
            if pace.over():
                yield None
        if pace.over():
            yield None
    if behind:
        there: Awaited[BaseException | None] = Awaited()
        CatchUp(rooms.turn, behind, lambda: there(None), there)
        yield there
        if there.value is not None:
            raise there.value
    response = ListOffsetsResponse()
    for topic in request.topics:
        times = yield from pace.counted(asked.partition_index for asked in topic.partitions)
        answers: list[ListOffsetsPartitionResponse] = []
        response.topics.append(ListOffsetsTopicResponse(name=topic.name, partitions=answers))
        for asked in topic.partitions:
            double = times[asked.partition_index] > 1
            answers.append(_answer(rooms, call, topic.name, asked, double=double))
            if pace.over():
                yield None
        if pace.over():
            yield None
    return response


class _Waiting:
    """A request whose partitions' ends do not count yet. It may be large: its connection is not read from meanwhile."""

    def __init__(
        self, rooms: Rooms, call: Call, request: ListOffsetsRequest, behind: list[Partition]
    ) -> None:
        self.later = Later(self._read_on)
        self._rooms = rooms
        self._call = call
        self._request = request
        self._pause = Pause(call.connection, times=0)
        CatchUp(rooms.turn, behind, self._finish, self._broke)

    def _finish(self) -> None:
        self.later.fill(_respond(self._rooms, self._call, self._request))
        self._read_on()

    def _broke(self, error: BaseException) -> None:
        log.exception("list offsets failed", error)
        self._read_on()
        self.later.fail(error)

    def _read_on(self) -> None:
        self._pause.end()


def _respond(rooms: Rooms, call: Call, request: ListOffsetsRequest) -> ListOffsetsResponse:
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
