"""Sending records: partitions chosen as Kafka's producers do, one batch in flight per partition, resent until it is in.

With acks=all a producer id makes a batch that was sent twice count once. Knows nothing of where records come from.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from kbroker.cli.client.batches import wrap
from kbroker.cli.client.cluster import Cluster
from kbroker.cli.client.errors import ClientError, TooOld, code_of
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol import compression
from kbroker.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from kbroker.protocol.messages.producers import InitProducerIdRequest
from kbroker.protocol.records import NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE

ACKS_ALL = -1
TOPIC_NAMES = 12  # the last version of Produce that names topics
TIMEOUT_MS = 30_000
# Batches of one partition that wait to be sent; beyond it `send` waits.
QUEUED_MAX = 3
# Partitions of keys that are remembered: murmur2 is slow in Python, and keys come again.
KEYS_KEPT_MAX = 100_000
SEQUENCE_END = 1 << 31

_COMING = frozenset({ErrorCode.UNKNOWN_TOPIC_OR_PARTITION})  # a topic that was just created


class Body(NamedTuple):
    """Encoded records for one batch; `times` are the first record's and the latest."""

    encoded: bytes
    records: int
    times: tuple[int, int]


class Producer:
    """Sends to one topic. `async with`, which ends when everything is in."""

    def __init__(
        self, cluster: Cluster, topic: str, *, acks: int = ACKS_ALL, codec: int = compression.NONE
    ) -> None:
        self.topic = topic
        self.partitions = 0
        self.sent = 0  # records that are in
        self._cluster = cluster
        self._acks, self._codec = acks, codec
        self._producer = (NO_PRODUCER_ID, NO_PRODUCER_EPOCH)
        self._lines: dict[int, _Line] = {}
        self._next = 0
        self._by_key: dict[bytes, int] = {}

    async def __aenter__(self) -> Producer:
        topic = await self._cluster.persist(
            lambda: self._cluster.topic(self.topic, create=True), also=_COMING
        )
        self.partitions = len(topic.partitions)
        if self._acks == ACKS_ALL:
            self._producer = await self._identity()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                await self.flush()
        finally:
            for line in self._lines.values():
                line.task.cancel()
            await asyncio.gather(*(line.task for line in self._lines.values()), return_exceptions=True)

    def any_partition(self) -> int:
        """The partition for the next records without keys: each in turn."""
        self._next = (self._next + 1) % self.partitions
        return self._next

    def partition_of(self, key: bytes) -> int:
        """The partition of a key: Java's producers and ours agree."""
        found = self._by_key.get(key)
        if found is None:
            if len(self._by_key) >= KEYS_KEPT_MAX:
                self._by_key.clear()
            found = self._by_key[key] = (murmur2(key) & 0x7FFFFFFF) % self.partitions
        return found

    async def send(self, partition: int, body: Body) -> None:
        """Hand over a batch. What failed since is raised here or by `flush`."""
        line = self._lines.get(partition)
        if line is None:
            if not 0 <= partition < self.partitions:
                raise ClientError(
                    f"topic {self.topic} has no partition {partition}: it has {self.partitions}; what came before is "
                    f"sent (kbroker topic create {self.topic} --partitions N, before that, makes it with N of them)"
                )
            line = self._lines[partition] = _Line(partition)
            line.task = asyncio.create_task(
                self._deliver_all(line), name=f"records for partition {partition}"
            )
        while line.queue.full() and not line.task.done():
            line.room.clear()
            await line.room.wait()
        if line.task.done():
            await line.task  # raises
        line.queue.put_nowait(body)

    async def flush(self) -> None:
        """Wait until all is in."""
        for line in self._lines.values():
            empty = asyncio.create_task(line.queue.join())
            await asyncio.wait([empty, line.task], return_when=asyncio.FIRST_COMPLETED)
            empty.cancel()
            if line.task.done():
                await line.task  # raises

    async def _deliver_all(self, line: _Line) -> None:
        try:
            while True:
                body = await line.queue.get()
                line.room.set()
                await self._deliver(line, body)
                self.sent += body.records
                line.queue.task_done()
        finally:
            line.room.set()

    async def _deliver(self, line: _Line, body: Body) -> None:
        with_identity = self._producer[0] != NO_PRODUCER_ID
        batch = wrap(
            body.encoded,
            body.records,
            times=body.times,
            codec=self._codec,
            producer=self._producer,
            sequence=line.sequence if with_identity else NO_SEQUENCE,
        )
        await self._cluster.persist(lambda: self._send_one(line.partition, batch), also=_COMING)
        line.sequence = (line.sequence + body.records) % SEQUENCE_END

    async def _send_one(self, partition: int, batch: bytes) -> None:
        data = PartitionProduceData(index=partition, records=batch)
        request = ProduceRequest(
            acks=self._acks,
            timeout_ms=TIMEOUT_MS,
            topic_data=[TopicProduceData(name=self.topic, partition_data=[data])],
        )
        leader = await self._cluster.leader(self.topic, partition)
        if self._acks == 0:
            await leader.tell(request, newest=TOPIC_NAMES)
            return
        answer = await leader.ask(request, newest=TOPIC_NAMES)
        part = answer.responses[0].partition_responses[0]
        code = code_of(part.error_code)
        if code not in (ErrorCode.NONE, ErrorCode.DUPLICATE_SEQUENCE_NUMBER):
            raise KafkaError(code, part.error_message)

    async def _identity(self) -> tuple[int, int]:
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=TIMEOUT_MS)

        async def ask() -> tuple[int, int]:
            answer = await (await self._cluster.any()).ask(request, newest=5)
            if answer.error_code:
                raise KafkaError(code_of(answer.error_code), "no producer id")
            return answer.producer_id, answer.producer_epoch

        try:
            return await self._cluster.persist(ask)
        except TooOld:
            return NO_PRODUCER_ID, NO_PRODUCER_EPOCH
        except KafkaError as error:
            if error.code != ErrorCode.CLUSTER_AUTHORIZATION_FAILED:
                raise
            return NO_PRODUCER_ID, NO_PRODUCER_EPOCH  # may write, may not be idempotent


class _Line:
    """One partition's batches, in order."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.queue: asyncio.Queue[Body] = asyncio.Queue(QUEUED_MAX)
        self.room = asyncio.Event()
        self.sequence = 0
        self.task: asyncio.Task[None]


def murmur2(data: bytes) -> int:
    """The hash by which Kafka's producers choose a key's partition (32 bits, unsigned)."""
    length = len(data)
    mask, mixer = 0xFFFFFFFF, 0x5BD1E995
    value = (0x9747B28C ^ length) & mask
    whole = length & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * mixer & mask
        word = (word ^ word >> 24) * mixer & mask
        value = (value * mixer & mask) ^ word
    rest = data[whole:]
    if rest:
        value = (value ^ int.from_bytes(rest, "little")) * mixer & mask
    value = (value ^ value >> 13) * mixer & mask
    return value ^ value >> 15
