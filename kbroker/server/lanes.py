"""A lane: the straight path for a connection that sends one Produce after another to the same partition.

A producer's requests to a partition begin with the same bytes, but for the correlation id: header, acks, timeout, topic,
partition. A lane remembers them with what they meant, so a request that begins like the one before is not decoded again,
and its answer is packed from a template. Everything else, and every doubt, goes the common way. It saves half of what a
small request costs.
"""

from __future__ import annotations

from struct import Struct

from kbroker.errors import ErrorCode, KafkaError
from kbroker.net.connection import Connection
from kbroker.net.slots import Slot
from kbroker.protocol.frames import encode_response, flexible_from
from kbroker.protocol.messages.produce import (
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from kbroker.protocol.records import HEADER_BYTES
from kbroker.protocol.validation import BIG_RECORDS
from kbroker.replication.partition import RECOMPRESSED_ON_LOOP_BYTES_MAX, Appended, Partition
from kbroker.server.handlers.produce import FIRST_WITH_TOPIC_IDS, fill_refusal
from kbroker.server.rooms import Rooms

FIRST_WITH_LOG_START = 5
PRODUCE = 0

_THREE = Struct(">qqq")
_SIZE = Struct(">i")
_COUNT = Struct(">i")  # the number of records, last in a batch's header
_COUNT_AT = HEADER_BYTES - _COUNT.size
# in a frame without its size: key and version, correlation id, the rest
_CORRELATION_AT, _CORRELATION_END = 4, 8
# Flexible versions end with the (empty) tagged fields of partition, topic and request.
_TAGS = bytes(3)


class Lane:
    """One connection's way to one partition."""

    __slots__ = (
        "_acks",
        "_after",
        "_compact",
        "_like",
        "_like_size",
        "_partition",
        "_target",
        "_timeout_ms",
        "key_and_version",
    )

    def __init__(
        self,
        key_and_version: int,
        like: bytes,
        request: ProduceRequest,
        partition: Partition,
        *,
        version: int,
    ) -> None:
        topic = request.topic_data[0]
        self.key_and_version = key_and_version
        self._compact = version >= flexible_from(PRODUCE)
        self._after = _TAGS if self._compact else b""
        self._like = like  # the frame from behind the correlation id up to the size of the records
        self._like_size = len(like)
        self._partition = partition
        self._acks = request.acks
        self._timeout_ms = request.timeout_ms
        self._target = _Target(version, topic, topic.partition_data[0].index)

    def take(
        self, connection: Connection, buffer: memoryview, start: int, end: int, correlation_id: int
    ) -> bool:
        """Serve the frame, if it is one more of this lane's; False: not so, nothing was done."""
        at = start + _CORRELATION_END + self._like_size
        if at + HEADER_BYTES > end or buffer[start + _CORRELATION_END : at] != self._like:
            return False
        after = self._after
        stop = end - len(after)
        if self._compact:
            low, high = buffer[at], buffer[at + 1]
            if low < 0x80:
                size = low - 1
                at += 1
            elif high < 0x80:
                size = (low & 0x7F) + (high << 7) - 1
                at += 2
            else:
                size = (low & 0x7F) + ((high & 0x7F) << 7) + (buffer[at + 2] << 14) - 1
                at += 3  # up to 2 MiB; what is larger does not add up here, and goes the common way
            if buffer[stop:end] != after:
                return False
        else:
            size = _SIZE.unpack_from(buffer, at)[0]
            at += 4
        partition = self._partition
        if (
            at + size != stop
            or size < HEADER_BYTES
            or (size > RECOMPRESSED_ON_LOOP_BYTES_MAX and partition.is_slow(buffer[at:stop]))
            or _COUNT.unpack_from(buffer, at + _COUNT_AT)[0] > BIG_RECORDS
            or partition.gone is not None
        ):
            return False
        slot = Slot()
        slot.connection = connection
        slot.correlation_id = correlation_id
        target = self._target
        slot.version = target.version
        try:
            appended = partition.append(buffer[at:stop], self._acks)
        except KafkaError as error:
            slot.fill(target.refusal(error, partition))
        else:
            partition.when(
                appended, self._acks, self._timeout_ms, _Wait(slot, target, appended, partition.log.start)
            )
        connection.put(slot)
        return True


def lane_of(
    rooms: Rooms, version: int, request: ProduceRequest, buffer: memoryview, start: int, end: int
) -> Lane | None:
    """The lane that this frame opens: one batch for one partition that is led here. None: it is not that plain."""
    topics = request.topic_data
    if request.acks == 0 or request.transactional_id is not None or len(topics) != 1:
        return None
    topic = topics[0]
    if len(topic.partition_data) != 1:
        return None
    data = topic.partition_data[0]
    partition = (
        rooms.partitions.by_id(topic.topic_id, data.index)
        if version >= FIRST_WITH_TOPIC_IDS
        else rooms.partitions.get(topic.name, data.index)
    )
    if partition is None or data.records is None:
        return None
    size = len(data.records)
    if version >= flexible_from(PRODUCE):
        size_of_size = 1 if size + 1 < 1 << 7 else 2 if size + 1 < 1 << 14 else 3
        after = _TAGS
    else:
        size_of_size = _SIZE.size
        after = b""
    records_end = end - len(after)
    like_end = records_end - size - size_of_size
    if buffer[records_end - size : records_end] != data.records or buffer[records_end:end] != after:
        # tagged fields, or bytes behind the request: the records do not lie where a lane would look for them
        return None
    key_and_version = int.from_bytes(buffer[start : start + _CORRELATION_AT], "big")
    like = bytes(buffer[start + _CORRELATION_END : like_end])
    return Lane(key_and_version, like, request, partition, version=version)


class _Wait:
    """A batch's answer, while it is open; called once with NONE or the error that ended the wait."""

    __slots__ = ("_appended", "_slot", "_start", "_target")

    def __init__(self, slot: Slot, target: _Target, appended: Appended, start: int) -> None:
        self._slot = slot
        self._target = target
        self._appended = appended
        self._start = start

    def __call__(self, error: ErrorCode) -> None:
        slot = self._slot
        connection = slot.connection
        if connection is None or not connection.open:
            return
        if error:
            return slot.fill(self._target.refusal(KafkaError(error), None))
        slot.answer = self._target.pack(slot.correlation_id, self._appended, self._start)
        if not connection.marked:
            connection.mark()


class _Target:
    """Answers for one partition in one version.

    The layout stays declared once: an answer is encoded with known values, and packed from then on by where these went.
    """

    __slots__ = ("_after", "_before", "_head", "_index", "_pack", "_topic", "_with_start", "version")

    def __init__(self, version: int, topic: TopicProduceData, index: int) -> None:
        self.version = version
        self._topic = topic
        self._index = index
        known = 0x0123456789ABCDEF
        answer = PartitionProduceResponse(
            index=index, base_offset=known, log_append_time_ms=known + 1, log_start_offset=known + 2
        )
        frame = encode_response(self._response(answer), version, 0)
        assert isinstance(frame, bytes)
        self._with_start = version >= FIRST_WITH_LOG_START
        values = _THREE.pack(known, known + 1, known + 2)[: 24 if self._with_start else 16]
        at = frame.rindex(values)
        self._head, self._before, self._after = frame[:4], frame[8:at], frame[at + len(values) :]
        self._pack = Struct(
            f">4si{len(self._before)}s{'qqq' if self._with_start else 'qq'}{len(self._after)}s"
        ).pack

    def pack(self, correlation_id: int, appended: Appended, start: int) -> bytes:
        """The frame that says where a batch went."""
        _, base, _, append_time_ms = appended
        if self._with_start:
            return self._pack(
                self._head, correlation_id, self._before, base, append_time_ms, start, self._after
            )
        return self._pack(self._head, correlation_id, self._before, base, append_time_ms, self._after)

    def refusal(self, error: KafkaError, partition: Partition | None) -> ProduceResponse:
        """The response that says why not."""
        answer = PartitionProduceResponse(index=self._index)
        fill_refusal(answer, error, partition)
        return self._response(answer)

    def _response(self, answer: PartitionProduceResponse) -> ProduceResponse:
        topic, answers = self._topic, [answer]
        return ProduceResponse(
            responses=[
                TopicProduceResponse(topic_id=topic.topic_id, partition_responses=answers)
                if self.version >= FIRST_WITH_TOPIC_IDS
                else TopicProduceResponse(name=topic.name, partition_responses=answers)
            ]
        )
