"""DescribeLogDirs: the log directory of this broker and what the partitions in it hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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


def handle_describe_log_dirs(
    rooms: Rooms, call: Call, request: DescribeLogDirsRequest
) -> DescribeLogDirsResponse:
    """DescribeLogDirs: v1-5.

    The one log directory; topics null: all partitions hosted here, empty: none. Partitions asked for that are not here
    are left out. A failed directory answers KAFKA_STORAGE_ERROR.
    Not done: moving partitions between directories, so no future ones.
    v2 flexible · v3 an error for the whole answer (KIP-784) · v4 space (KIP-827) · v5 cordoned directories (KIP-1066)
    """
    return DescribeLogDirsResponse(results=[_described(rooms, request)])


def _described(rooms: Rooms, request: DescribeLogDirsRequest) -> DescribeLogDirsResult:
    directory = rooms.directory
    result = DescribeLogDirsResult(log_dir=directory.path)
    try:
        result.usable_bytes = directory.disk.free_bytes(directory.path)
        result.total_bytes = directory.disk.total_bytes(directory.path)
    except OSError:
        result.error_code = ErrorCode.KAFKA_STORAGE_ERROR
    if directory.failed is not None:
        result.error_code = ErrorCode.KAFKA_STORAGE_ERROR
    if result.error_code:
        return result
    asked = _hosted(rooms) if request.topics is None else _hosted_of(rooms, request.topics)
    sizes = {(each.tp.topic, each.tp.partition): each.log.size for each in rooms.partitions}
    result.topics = [_topic(name, indexes, sizes) for name, indexes in asked if indexes]
    return result


def _hosted(rooms: Rooms) -> Iterator[tuple[str, list[int]]]:
    for topic in rooms.cluster.state.topics.values():
        yield (
            topic.name,
            [index for index, each in enumerate(topic.partitions) if rooms.node_id in each.replicas],
        )


def _hosted_of(rooms: Rooms, asked: Iterable[DescribableLogDirTopic]) -> Iterator[tuple[str, list[int]]]:
    wanted: dict[str, dict[int, None]] = {}  # each once, however often it is named
    for one in asked:
        wanted.setdefault(one.topic, {}).update(dict.fromkeys(one.partitions))
    for name, indexes in wanted.items():
        topic = rooms.cluster.state.topics.get(name)
        partitions = [] if topic is None else topic.partitions
        yield (
            name,
            [
                index
                for index in indexes
                if 0 <= index < len(partitions) and rooms.node_id in partitions[index].replicas
            ],
        )


def _topic(name: str, indexes: Iterable[int], sizes: dict[tuple[str, int], int]) -> DescribeLogDirsTopic:
    """A partition that nobody has touched since the start has no files yet."""
    return DescribeLogDirsTopic(
        name=name,
        partitions=[
            DescribeLogDirsPartition(partition_index=index, partition_size=sizes.get((name, index), 0))
            for index in indexes
        ],
    )
