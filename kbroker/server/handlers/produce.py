"""Produce: batches in, as they came."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any

from kbroker.errors import ErrorCode, KafkaError
from kbroker.net.slots import Slot
from kbroker.protocol.messages.produce import (
    BatchIndexAndErrorMessage,
    LeaderIdAndEpoch,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from kbroker.protocol.validation import RecordsRejected, is_big
from kbroker.protocol.wire import Message
from kbroker.replication.partition import (
    COMMITTED,
    RECOMPRESSED_ON_LOOP_BYTES_MAX,
    WRITTEN,
    Appended,
    Partition,
    Recompression,
)
from kbroker.server.rooms import NO_RESPONSE, Call, Later, NoResponse, Pause, Rooms, breathe
from kbroker.server.slices import DECODED_TIMES, SLICE, Awaited, Large, Pace

FIRST_WITH_TOPIC_IDS = 13
ACKS_NONE, ACKS_LEADER, ACKS_ALL = 0, 1, -1
# The client id that may write to internal topics, as in Kafka: that of its brokers' and tools' own clients.
ADMIN_CLIENT_ID = "__admin_client"

Response = ProduceResponse | Later | NoResponse


def handle_produce(
    rooms: Rooms, call: Call, request: ProduceRequest
) -> Response | Coroutine[Any, Any, Response | Large[ProduceResponse]]:
    """Produce: v3-13 (0-2 are advertised, as Kafka 4 does, and closed).

    Batches are appended in request order. acks=1 answers once they are in the leader's file, acks=-1 once every
    in-sync replica has flushed them, acks=0 not at all; an error then closes the connection, which is all it can say.
    Not done: transactional batches (TRANSACTIONAL_ID_AUTHORIZATION_FAILED).
    v3 record batch v2 · v8 per-record errors (KIP-467) · v9 flexible · v10 the leader in errors (KIP-951) · v13 topic
    ids (KIP-516)
    """
    acks = request.acks
    topics = request.topic_data
    produce = _Produce(
        rooms,
        request,
        with_ids=call.version >= FIRST_WITH_TOPIC_IDS,
        internal=call.client_id == ADMIN_CLIENT_ID,
    )
    if rooms.quotas.active:
        rooms.quotas.produced(
            call, sum(len(_view(data)) for topic in topics for data in topic.partition_data)
        )
    if acks not in (ACKS_ALL, ACKS_NONE, ACKS_LEADER):
        produce.refused = KafkaError(ErrorCode.INVALID_REQUIRED_ACKS)
    elif request.transactional_id is not None:
        produce.refused = KafkaError(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    left = SLICE
    for topic in topics:
        left -= 1 + len(topic.partition_data)
    if left < 0:
        return _produce_slowly(call, request, produce, many=True)
    for topic in topics:
        for data in topic.partition_data:
            if produce.is_slow(topic, data):
                return _produce_slowly(call, request, produce, many=False)
    for topic in topics:
        answers = produce.answers_of(topic)
        for data in topic.partition_data:
            produce.append(topic, data, answers)
    return produce.answer()


def _view(data: PartitionProduceData) -> memoryview:
    """The records of a decoded request: a view of the frame; nothing where they are null."""
    return EMPTY if data.records is None else data.records  # type: ignore[return-value]  # decoded: never a Region


EMPTY = memoryview(b"")


def _produce_slowly(
    call: Call, request: ProduceRequest, produce: _Produce, *, many: bool
) -> Coroutine[Any, Any, Response | Large[ProduceResponse]]:
    """Big batches, or many: in slices, between which the loop serves others. Only this connection stops reading, now: what
    came behind it in the same read must not overtake it."""
    pause = Pause(call.connection, times=DECODED_TIMES if many else 1)
    if not pause.keeps_frame:  # its buffer is reused after this call
        for topic in request.topic_data:
            for data in topic.partition_data:
                if data.records is not None:
                    data.records = memoryview(bytearray(_view(data)))
    if many:
        return _produce_many(request, produce, pause)
    return _produce_big(request, produce, pause)


async def _produce_big(request: ProduceRequest, produce: _Produce, pause: Pause) -> Response:
    try:
        for topic in request.topic_data:
            answers = produce.answers_of(topic)
            for data in topic.partition_data:
                for work in produce.append_in_slices(topic, data, answers):
                    await (breathe() if work is None else produce.aside.do(work))
    finally:
        pause.end()
    return produce.answer()


async def _produce_many(
    request: ProduceRequest, produce: _Produce, pause: Pause
) -> NoResponse | Large[ProduceResponse]:
    """So many that looking for them, waiting for them and encoding the answer takes long, too."""
    try:
        pace = Pace()
        for topic in request.topic_data:
            answers = produce.answers_of(topic)
            if pace.over():
                await breathe()
            for data in topic.partition_data:
                for work in produce.append_in_slices(topic, data, answers):
                    await (breathe() if work is None else produce.aside.do(work))
                data.records = None  # a view of the frame, which must be let go before it is given back
                if pace.over():
                    await breathe()
        pause.drop_frame()
        if request.acks != ACKS_NONE:
            return Large(await produce.answer_to_many(), pause)
    except BaseException:
        pause.end()
        raise
    pause.end()
    produce.answer()  # nothing, or the error that closes the connection
    return NO_RESPONSE


class _Produce:
    """One request while its batches are appended."""

    __slots__ = (
        "_acks",
        "_failed",
        "_internal",
        "_partitions",
        "_timeout_ms",
        "_topics",
        "_waiting",
        "_with_ids",
        "aside",
        "refused",
    )

    def __init__(self, rooms: Rooms, request: ProduceRequest, *, with_ids: bool, internal: bool) -> None:
        self._partitions = rooms.partitions
        self.aside = rooms.aside
        self._timeout_ms = request.timeout_ms
        self._acks = request.acks
        self._with_ids = with_ids
        self._internal = internal  # may write to internal topics
        self._topics: list[TopicProduceResponse] = []
        self._waiting: list[tuple[Partition, Appended, PartitionProduceResponse]] = []
        self._failed: PartitionProduceResponse | None = None  # the first that was refused
        self.refused: KafkaError | None = None  # why nothing of the request is appended

    def answers_of(self, topic: TopicProduceData) -> list[PartitionProduceResponse]:
        """The list that this topic's answers go to."""
        answers: list[PartitionProduceResponse] = []
        self._topics.append(
            TopicProduceResponse(topic_id=topic.topic_id, partition_responses=answers)
            if self._with_ids
            else TopicProduceResponse(name=topic.name, partition_responses=answers)
        )
        return answers

    def append(
        self, topic: TopicProduceData, data: PartitionProduceData, answers: list[PartitionProduceResponse]
    ) -> None:
        """Append one partition's batch, or note why not."""
        answer = PartitionProduceResponse(index=data.index)
        answers.append(answer)
        partition = None
        try:
            if self.refused is not None:
                raise self.refused
            partition = self._find(topic, data.index)
            if partition is None:
                raise self._unknown(topic)
            self._took(partition, partition.append(_view(data), self._acks), answer)
        except KafkaError as error:
            self._refuse(answer, error, partition)

    def append_in_slices(
        self, topic: TopicProduceData, data: PartitionProduceData, answers: list[PartitionProduceResponse]
    ) -> Generator[Recompression | None, None, None]:
        """The same, with pauses; what is yielded is for a thread."""
        if not self.is_slow(topic, data):
            return self.append(topic, data, answers)
        answer = PartitionProduceResponse(index=data.index)
        answers.append(answer)
        partition = None
        try:
            partition = self._find(topic, data.index)
            if partition is None:
                raise self._unknown(topic)
            appended = yield from partition.append_in_slices(_view(data), self._acks)
            self._took(partition, appended, answer)
        except KafkaError as error:
            self._refuse(answer, error, partition)

    def is_slow(self, topic: TopicProduceData, data: PartitionProduceData) -> bool:
        """Whether the loop should breathe while this is appended."""
        if self.refused is not None:
            return False
        records = _view(data)
        if len(records) <= RECOMPRESSED_ON_LOOP_BYTES_MAX or is_big(records):
            return is_big(records)
        try:
            partition = self._find(topic, data.index)
        except KafkaError:  # `append` will say so
            return False
        return partition is not None and partition.is_slow(records)

    def _find(self, topic: TopicProduceData, index: int) -> Partition | None:
        if self._with_ids:
            found = self._partitions.by_id(topic.topic_id, index)
        else:
            found = self._partitions.get(topic.name, index)
        if found is not None and found.internal and not self._internal:
            raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION)
        return found

    def _unknown(self, topic: TopicProduceData) -> KafkaError:
        known = not self._with_ids or self._partitions.knows(topic.topic_id)
        return KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if known else ErrorCode.UNKNOWN_TOPIC_ID)

    def _took(self, partition: Partition, appended: Appended, answer: PartitionProduceResponse) -> None:
        answer.base_offset = appended.base
        answer.log_start_offset = partition.log.start
        answer.log_append_time_ms = appended.append_time_ms
        self._waiting.append((partition, appended, answer))

    def _refuse(
        self, answer: PartitionProduceResponse, error: KafkaError, partition: Partition | None = None
    ) -> None:
        if self._failed is None:
            self._failed = answer
        fill_refusal(answer, error, partition)

    def answer(self) -> Response:
        """What leaves: nothing, the response, or the response once the batches are durable."""
        acks = self._acks
        if acks == ACKS_NONE:
            if self._failed is not None:
                code = ErrorCode(self._failed.error_code)
                raise KafkaError(
                    code, self._failed.error_message or f"partition {self._failed.index}, acks=0"
                )
            return NO_RESPONSE
        response = ProduceResponse(responses=self._topics)
        if not self._waiting:
            return response
        later = Later()
        whole = _Answer(later, response, len(self._waiting))
        durability = COMMITTED if acks == ACKS_ALL else WRITTEN
        timeout_ms = self._timeout_ms
        for partition, appended, answer in self._waiting:
            partition.when(appended, durability, timeout_ms, _Wait(whole, answer))
        return later

    async def answer_to_many(self) -> ProduceResponse:
        """The response once the batches are durable, waited for with pauses."""
        ended: Awaited[Message] = Awaited()
        response = ProduceResponse(responses=self._topics)
        whole = _Answer(_Told(ended), response, len(self._waiting) + 1)
        durability = COMMITTED if self._acks == ACKS_ALL else WRITTEN
        pace = Pace()
        for partition, appended, answer in self._waiting:
            partition.when(appended, durability, self._timeout_ms, _Wait(whole, answer))
            if pace.over():
                await breathe()
        whole.one_less()
        await ended
        return response


def fill_refusal(
    answer: PartitionProduceResponse, error: KafkaError, partition: Partition | None = None
) -> None:
    """Say in `answer` why nothing was appended, and where the leader is if it is not this broker."""
    answer.error_code = error.code
    answer.error_message = error.message
    answer.base_offset = -1
    if isinstance(error, RecordsRejected):
        answer.record_errors = [
            BatchIndexAndErrorMessage(batch_index=index, batch_index_error_message=why)
            for index, why in error.record_errors
        ]
    if error.code == ErrorCode.NOT_LEADER_OR_FOLLOWER and partition is not None:
        answer.current_leader = LeaderIdAndEpoch(
            leader_id=partition.leader, leader_epoch=partition.leader_epoch
        )


class _Answer:
    """A response that waits for its partitions."""

    __slots__ = ("later", "left", "response")

    def __init__(self, later: Later, response: ProduceResponse, left: int) -> None:
        self.later = later
        self.response = response
        self.left = left

    def one_less(self) -> None:
        """One more of them is there."""
        self.left -= 1
        if not self.left:
            self.later.fill(self.response)


class _Told(Slot):
    """A slot of nobody's: whoever waits for the response is told of it."""

    __slots__ = ("_to",)

    def __init__(self, to: Callable[[Message], None]) -> None:
        super().__init__()
        self._to = to

    def fill(self, response: Message) -> None:
        """Here it is."""
        self._to(response)


class _Wait:
    """One partition's part of a response, while it is open; called once with NONE or the error that ended the wait."""

    __slots__ = ("_answer", "_whole")

    def __init__(self, whole: _Answer, answer: PartitionProduceResponse) -> None:
        self._whole = whole
        self._answer = answer

    def __call__(self, error: ErrorCode) -> None:
        if error:
            answer = self._answer
            answer.error_code = error
            answer.base_offset = answer.log_append_time_ms = answer.log_start_offset = -1
        whole = self._whole  # `one_less`, in line: each partition of each request passes here
        whole.left -= 1
        if not whole.left:
            whole.later.fill(whole.response)
