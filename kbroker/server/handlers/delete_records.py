"""DeleteRecords: where the logs of partitions begin from now on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from kbroker.cluster.names import INTERNAL_TOPICS
from kbroker.errors import ErrorCode, KafkaError
from kbroker.observe import logs
from kbroker.protocol.messages.topics import (
    DeleteRecordsPartition,
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)
from kbroker.replication.partition import Partition
from kbroker.server.handlers.ends import CatchUp, is_behind
from kbroker.server.rooms import Call, Later, Rooms
from kbroker.server.slices import Awaited, Large, Pace, Steps, are_many, in_slices

log = logs.get_logger("server")


def handle_delete_records(
    rooms: Rooms, call: Call, request: DeleteRecordsRequest
) -> DeleteRecordsResponse | Later | Coroutine[Any, Any, Large[DeleteRecordsResponse]]:
    """DeleteRecords: v0-2.

    Records before an offset go (-1: all below the high watermark); the low watermark is the log's start afterwards.
    What the log holds now is waited for until it is below the high watermark: records that were answered before can be
    deleted. Answered when every new start is on the disk. Not those of a topic that is only compacted, nor of an internal
    one.
    v2 flexible
    """
    if are_many(request.topics):
        return in_slices(call, _delete_many_records(rooms, request))
    later = Later()

    def broke(error: BaseException) -> None:
        log.exception("delete records failed", error)
        later.fail(error)

    answer = _RecordsDeleted(later.fill, broke)
    answer.response.topics = [
        DeleteRecordsTopicResult(
            name=topic.name, partitions=[answer.of(rooms, topic.name, asked) for asked in topic.partitions]
        )
        for topic in request.topics
    ]
    answer.one_less()
    return later


def _delete_many_records(rooms: Rooms, request: DeleteRecordsRequest) -> Steps[DeleteRecordsResponse]:
    pace = Pace()
    ended: Awaited[DeleteRecordsResponse | BaseException] = Awaited()
    answer = _RecordsDeleted(ended, ended)
    for topic in request.topics:
        results: list[DeleteRecordsPartitionResult] = []
        answer.response.topics.append(DeleteRecordsTopicResult(name=topic.name, partitions=results))
        for asked in topic.partitions:
            results.append(answer.of(rooms, topic.name, asked))
            if pace.over():
                yield None
        if pace.over():
            yield None
    answer.one_less()
    yield ended
    if isinstance(ended.value, BaseException):
        raise ended.value
    return ended.value


class _RecordsDeleted:
    """An answer to DeleteRecords that waits for its partitions. `to` gets it, `fail` why there is none."""

    def __init__(
        self, to: Callable[[DeleteRecordsResponse], None], fail: Callable[[BaseException], None]
    ) -> None:
        self.response = DeleteRecordsResponse()
        self._to = to
        self._fail = fail
        self._left = 1  # for the list of partitions, which must be whole too

    def of(self, rooms: Rooms, topic: str, asked: DeleteRecordsPartition) -> DeleteRecordsPartitionResult:
        """One partition's result, to be filled in."""
        self._left += 1
        result = DeleteRecordsPartitionResult(partition_index=asked.partition_index, low_watermark=-1)

        def done(low_watermark: int, error: KafkaError | None) -> None:
            result.low_watermark = low_watermark
            result.error_code = error.code if error is not None else ErrorCode.NONE
            self.one_less()

        def delete() -> None:
            try:
                _partition_to_cut(rooms, topic, asked).delete_records(asked.offset, done)
            except KafkaError as error:
                done(-1, error)

        try:
            partition = _partition_to_cut(rooms, topic, asked)
        except KafkaError as error:
            done(-1, error)
        else:
            if is_behind(partition) and not 0 <= asked.offset <= partition.high_watermark:
                CatchUp(rooms.turn, [partition], delete, self._fail)
            else:
                delete()
        return result

    def one_less(self) -> None:
        """One partition is done."""
        self._left -= 1
        if not self._left:
            self._to(self.response)


def _partition_to_cut(rooms: Rooms, topic: str, asked: DeleteRecordsPartition) -> Partition:
    partition = rooms.partitions.get(topic, asked.partition_index)
    if partition is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    if topic in INTERNAL_TOPICS:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION)
    if partition.config.cleanup_policy == {"compact"}:
        raise KafkaError(ErrorCode.POLICY_VIOLATION)
    return partition
