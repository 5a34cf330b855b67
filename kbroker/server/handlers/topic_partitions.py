"""DescribeTopicPartitions: topics with their partitions, a page at a time. Answered from the cluster's state in memory."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from itertools import islice
from typing import Any

from kbroker.cluster.names import INTERNAL_TOPICS, check_topic_name
from kbroker.cluster.state import Topic
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.metadata import (
    Cursor,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
    MetadataResponsePartition,
)
from kbroker.server.handlers.shared import TOPIC_OPERATIONS, reachable
from kbroker.server.rooms import Call, Rooms
from kbroker.server.slices import Large, Pace, Steps, in_slices

METADATA_NEWEST = 13  # as the Metadata of this version describes a partition


def handle_describe_topic_partitions(
    rooms: Rooms, call: Call, request: DescribeTopicPartitionsRequest
) -> DescribeTopicPartitionsResponse | Coroutine[Any, Any, Large[DescribeTopicPartitionsResponse]]:
    """DescribeTopicPartitions: v0.

    Topics by name (none named: all), each once, as many partitions as the request and `max.request.partition.size.limit`
    allow, one at least; the cursor says where the next page begins. A cursor whose topic is not among those named, or with
    a negative partition, is INVALID_REQUEST for each. Eligible leader replicas (KIP-966) are none: the leader is in sync.
    """
    names, cursor = _names(rooms, request), request.cursor
    if cursor is not None and (cursor.partition_index < 0 or _is_elsewhere(request)):
        return _refused(request)
    limit = max(
        1, min(request.response_partition_limit, rooms.settings.value("max.request.partition.size.limit"))
    )
    return in_slices(call, _described(_Page(rooms, call, limit), names, cursor))


def _described(
    page: _Page, names: Sequence[str], cursor: Cursor | None
) -> Steps[DescribeTopicPartitionsResponse]:
    pace = Pace()
    for name in names:
        begin = cursor.partition_index if cursor is not None and cursor.topic_name == name else 0
        if not page.add(name, begin):
            break
        if pace.over(1 + len(page.response.topics[-1].partitions)):
            yield None
    return page.response


def _names(rooms: Rooms, request: DescribeTopicPartitionsRequest) -> list[str]:
    """What is asked for, from the cursor on, in order."""
    asked: Iterable[str] = {each.name for each in request.topics} or rooms.cluster.state.topics
    begin = "" if request.cursor is None else request.cursor.topic_name
    return sorted(name for name in asked if name >= begin)


def _is_elsewhere(request: DescribeTopicPartitionsRequest) -> bool:
    """Whether the cursor's topic is none of those named."""
    assert request.cursor is not None
    return bool(request.topics) and all(each.name != request.cursor.topic_name for each in request.topics)


def _refused(request: DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse:
    return DescribeTopicPartitionsResponse(
        topics=[
            DescribeTopicPartitionsResponseTopic(name=each.name, error_code=ErrorCode.INVALID_REQUEST)
            for each in request.topics
        ]
    )


class _Page:
    """One answer while it fills."""

    def __init__(self, rooms: Rooms, call: Call, limit: int) -> None:
        self.response = DescribeTopicPartitionsResponse()
        self._state = rooms.cluster.state
        self._answers = rooms.topic_answers
        self._view = rooms.topic_answers.view(
            self._state, reachable(self._state, call.listener), METADATA_NEWEST
        )
        self._left = limit

    def add(self, name: str, begin: int) -> bool:
        """A topic from partition `begin` on; False: the page is full, its cursor is set."""
        if self._left == 0:
            self.response.next_cursor = Cursor(topic_name=name, partition_index=begin)
            return False
        topic = self._state.topics.get(name)
        if topic is None:
            self.response.topics.append(_missing(name))
            return True
        end = min(begin + self._left, len(topic.partitions))
        self.response.topics.append(self._described(topic, begin, end))
        self._left -= max(end - begin, 0)
        if end < len(topic.partitions):
            self.response.next_cursor = Cursor(topic_name=name, partition_index=end)
            return False
        return True

    def _described(self, topic: Topic, begin: int, end: int) -> DescribeTopicPartitionsResponseTopic:
        partitions = self._answers.partitions(topic, self._state, self._view)
        return DescribeTopicPartitionsResponseTopic(
            name=topic.name,
            topic_id=topic.id.bytes,
            is_internal=topic.name in INTERNAL_TOPICS,
            partitions=[_partition(each) for each in islice(partitions, begin, end)],
            topic_authorized_operations=TOPIC_OPERATIONS,
        )


def _partition(known: MetadataResponsePartition) -> DescribeTopicPartitionsResponsePartition:
    return DescribeTopicPartitionsResponsePartition(
        error_code=known.error_code,
        partition_index=known.partition_index,
        leader_id=known.leader_id,
        leader_epoch=known.leader_epoch,
        replica_nodes=known.replica_nodes,
        isr_nodes=known.isr_nodes,
        eligible_leader_replicas=[],
        last_known_elr=[],
        offline_replicas=known.offline_replicas,
    )


def _missing(name: str) -> DescribeTopicPartitionsResponseTopic:
    code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    try:
        check_topic_name(name)
    except KafkaError as error:
        code = error.code
    return DescribeTopicPartitionsResponseTopic(
        name=name,
        error_code=code,
        is_internal=name in INTERNAL_TOPICS,
        topic_authorized_operations=TOPIC_OPERATIONS,
    )
