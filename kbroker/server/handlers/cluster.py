"""DescribeLogDirs: the log directory of this broker and what the partitions in it hold."""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Iterable, Sequence
from typing import Any

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.cluster import (
    DescribableLogDirTopic,
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)
from kbroker.server.rooms import Call, Rooms
from kbroker.server.slices import Large, Pace, Steps, in_slices


def handle_describe_log_dirs(
    rooms: Rooms, call: Call, request: DescribeLogDirsRequest
) -> DescribeLogDirsResponse | Coroutine[Any, Any, Large[DescribeLogDirsResponse]]:
    """DescribeLogDirs: v1-5.

    The one log directory; topics null: all partitions hosted here, empty: none. Partitions asked for that are not here
    are left out. A failed directory answers KAFKA_STORAGE_ERROR.
    Not done: moving partitions between directories, so no future ones.
    v2 flexible · v3 an error for the whole answer (KIP-784) · v4 space (KIP-827) · v5 cordoned directories (KIP-1066)
    """
    return in_slices(call, _described(rooms, request))


def _described(rooms: Rooms, request: DescribeLogDirsRequest) -> Steps[DescribeLogDirsResponse]:
    directory = rooms.directory
    result = DescribeLogDirsResult(log_dir=directory.path)
    try:
        result.usable_bytes = directory.disk.free_bytes(directory.path)
        result.total_bytes = directory.disk.total_bytes(directory.path)
    except OSError:
        result.error_code = ErrorCode.KAFKA_STORAGE_ERROR
    if directory.failed is not None:
        result.error_code = ErrorCode.KAFKA_STORAGE_ERROR
    response = DescribeLogDirsResponse(results=[result])
    if result.error_code:
        return response
    pace = Pace()
    asked = (
        [(topic.name, range(len(topic.partitions))) for topic in rooms.cluster.state.topics.values()]
        if request.topics is None
        else (yield from _each_once(request.topics, pace))
    )
    sizes = (yield from _sizes(rooms, pace)) if asked else {}
    for name, indexes in asked:
        partitions: list[DescribeLogDirsPartition] = []
        for index in indexes:
            if _is_hosted(rooms, name, index):
                # one that nobody has touched since the start has no files yet
                size = sizes.get((name, index), 0)
                partitions.append(DescribeLogDirsPartition(partition_index=index, partition_size=size))
            if pace.over():
                yield None
        if partitions:
            result.topics.append(DescribeLogDirsTopic(name=name, partitions=partitions))
        if pace.over():
            yield None
    return response


def _each_once(
    asked: Iterable[DescribableLogDirTopic], pace: Pace
) -> Generator[None, None, Sequence[tuple[str, Iterable[int]]]]:
    """Topics with their partitions, each once, however often it is named."""
    wanted: dict[str, dict[int, None]] = {}
    for one in asked:
        indexes = wanted.setdefault(one.topic, {})
        for index in one.partitions:
            indexes[index] = None
            if pace.over():
                yield
        if pace.over():
            yield
    return list(wanted.items())


def _sizes(rooms: Rooms, pace: Pace) -> Generator[None, None, dict[tuple[str, int], int]]:
    """Of the partitions that are open."""
    sizes = {}
    for each in rooms.partitions:
        sizes[each.tp.topic, each.tp.partition] = each.log.size
        if pace.over():
            yield
    return sizes


def _is_hosted(rooms: Rooms, name: str, index: int) -> bool:
    topic = rooms.cluster.state.topics.get(name)
    if topic is None or not 0 <= index < len(topic.partitions):
        return False
    return rooms.node_id in topic.partitions[index].replicas
