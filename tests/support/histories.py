"""Producers and consumers that go on through every crash and write down what they were told; and the check of it.

Threads with blocking sockets. A producer's values are unique; what was answered is `acked`, by partition and offset.
"""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict

from kbroker.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from kbroker.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from kbroker.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from kbroker.protocol.messages.producers import InitProducerIdRequest
from kbroker.protocol.records import RecordBatch, build_batch, decode_records, record, split_batches
from kbroker.testing.external import Wire
from tests.support.broker_process import BrokerProcess

PRODUCE, FETCH, LIST_OFFSETS, INIT_PRODUCER_ID, EPOCH_ENDS = 9, 11, 5, 4, 3
LATEST = -1
RETRY_S = 0.005
FETCH_BYTES = 4 << 20
# A batch's records and their size: most stay below what is copied until the turn's end, some are written at once.
RECORDS_MAX, PADS = 12, (0, 10, 100, 100, 2_000)

Where = tuple[int, int]  # partition, offset


def produce(wire: Wire, topic: str, partition: int, batch: bytes, *, acks: int = -1):
    """Send one batch, with acks=all if nothing else is said; the partition's answer."""
    data = TopicProduceData(
        name=topic, partition_data=[PartitionProduceData(index=partition, records=memoryview(batch))]
    )
    answer = wire.ask(ProduceRequest(acks=acks, timeout_ms=60_000, topic_data=[data]), PRODUCE)
    return answer.responses[0].partition_responses[0]


def fetch(wire: Wire, topic: str, partition: int, offset: int, wait_ms: int = 0):
    """One Fetch; the partition's answer."""
    asked = FetchPartition(partition=partition, fetch_offset=offset, partition_max_bytes=FETCH_BYTES)
    request = FetchRequest(
        max_wait_ms=wait_ms,
        min_bytes=1,
        max_bytes=FETCH_BYTES,
        topics=[FetchTopic(topic=topic, partitions=[asked])],
    )
    return wire.ask(request, FETCH).responses[0].partitions[0]


def batches_of(part) -> list[RecordBatch]:
    """The whole batches of a fetched partition; their CRCs are right."""
    batches = split_batches(memoryview(bytes(part.records or b"")))
    assert all(batch.crc_ok for batch in batches)
    return batches


def end_of(wire: Wire, topic: str, partition: int) -> tuple[int, int]:
    """Offset and leader epoch of a partition's end."""
    asked = ListOffsetsTopic(
        name=topic, partitions=[ListOffsetsPartition(partition_index=partition, timestamp=LATEST)]
    )
    part = wire.ask(ListOffsetsRequest(replica_id=-1, topics=[asked]), LIST_OFFSETS).topics[0].partitions[0]
    assert part.error_code == 0, part
    return part.offset, part.leader_epoch


def epoch_end(wire: Wire, topic: str, partition: int, epoch: int) -> int:
    """Where a leader epoch ended."""
    asked = OffsetForLeaderTopic(
        topic=topic, partitions=[OffsetForLeaderPartition(partition=partition, leader_epoch=epoch)]
    )
    answer = wire.ask(OffsetForLeaderEpochRequest(replica_id=-1, topics=[asked]), EPOCH_ENDS)
    return answer.topics[0].partitions[0].end_offset


class Worker:
    """A thread that works over a connection, and begins again on a new one whenever it breaks."""

    def __init__(self, broker: BrokerProcess, name: str) -> None:
        self.broker = broker
        self.name = name
        self.error: BaseException | None = None
        self.breaks = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End it; raises what it ran into."""
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), self.name
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        wire = None
        while not self._stopping.is_set() and self.error is None:
            try:
                if wire is None:
                    wire = self.broker.wire()
                self.step(wire)
            except OSError:
                self.breaks += 1
                if wire is not None:
                    wire.close()
                wire = None
                time.sleep(RETRY_S)
            except BaseException as error:
                self.error = error
        if wire is not None:
            wire.close()

    def step(self, wire: Wire) -> None:
        raise NotImplementedError


class Producer(Worker):
    """Writes `name:number` values to one partition, acks=all. What breaks half-way: an idempotent one sends the same
    batch with the same sequence until it is answered, a plain one goes on with new values."""

    def __init__(
        self, broker: BrokerProcess, topic: str, partition: int, name: str, *, idempotent: bool, seed: int
    ) -> None:
        super().__init__(broker, name)
        self.acked: dict[Where, bytes] = {}
        self.refused: list[int] = []  # error codes
        self.idempotent = idempotent
        self._topic = topic
        self._partition = partition
        self._random = random.Random(seed)
        self._id = (-1, -1)
        self._sequence = 0
        self._number = 0
        self._batch: bytes | None = None
        self._values: list[bytes] = []

    def step(self, wire: Wire) -> None:
        if self.idempotent and self._id[0] < 0:
            answer = wire.ask(InitProducerIdRequest(transactional_id=None), INIT_PRODUCER_ID)
            assert answer.error_code == 0
            self._id = (answer.producer_id, answer.producer_epoch)
        if self._batch is None or not self.idempotent:
            self._next_batch()
        assert self._batch is not None
        part = produce(wire, self._topic, self._partition, self._batch)
        if part.error_code:
            self.refused.append(part.error_code)
            time.sleep(RETRY_S)
            return
        for index, value in enumerate(self._values):
            assert self.acked.setdefault((self._partition, part.base_offset + index), value) == value
        self._sequence += len(self._values)
        self._batch = None

    def _next_batch(self) -> None:
        pad = b"." * self._random.choice(PADS)
        count = self._random.randint(1, RECORDS_MAX)
        self._values = [b"%s:%d:%s" % (self.name.encode(), self._number + n, pad) for n in range(count)]
        self._number += count
        identity = (
            {"producer_id": self._id[0], "producer_epoch": self._id[1], "base_sequence": self._sequence}
            if self.idempotent
            else {}
        )
        self._batch = build_batch(
            [record(value, timestamp=int(time.time() * 1000)) for value in self._values], **identity
        )


class Consumer(Worker):
    """Reads one partition from its beginning; `seen` is what it was given. A record that it saw may not vanish."""

    def __init__(self, broker: BrokerProcess, topic: str, partition: int) -> None:
        super().__init__(broker, f"consumer-{partition}")
        self.seen: dict[Where, bytes | None] = {}
        self._topic = topic
        self._partition = partition
        self._next = 0

    def step(self, wire: Wire) -> None:
        part = fetch(wire, self._topic, self._partition, self._next, wait_ms=50)
        assert part.error_code == 0, f"partition {self._partition} at {self._next}: error {part.error_code}"
        assert part.high_watermark >= self._next, "the watermark went below what was read"
        for batch in batches_of(part):
            for each in decode_records(batch):
                if each.offset >= self._next:
                    assert each.offset == self._next, "an offset was left out"
                    self.seen[self._partition, each.offset] = each.value
                    self._next += 1


class Load:
    """Producers and consumers on a topic's partitions."""

    def __init__(
        self, broker: BrokerProcess, topic: str, partitions: int, *, seed: int, each: int = 2
    ) -> None:
        self.broker, self.topic, self.partitions = broker, topic, partitions
        self.producers = [
            Producer(
                broker, topic, p, f"{kind}-{p}-{n}", idempotent=kind == "idem", seed=seed * 1000 + p * 10 + n
            )
            for p in range(partitions)
            for n, kind in enumerate(["idem", "plain"] * (each // 2))
        ]
        self.consumers = [Consumer(broker, topic, p) for p in range(partitions)]

    def __enter__(self) -> Load:
        for worker in [*self.producers, *self.consumers]:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        errors = []
        for worker in [*self.producers, *self.consumers]:
            try:
                worker.stop()
            except BaseException as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def check(self) -> int:
        """Everything that was promised is there. The broker serves. How many records were acknowledged."""
        stored: dict[Where, bytes | None] = {}
        wire = self.broker.wire()
        try:
            for partition in range(self.partitions):
                stored |= self._read(wire, partition)
        finally:
            wire.close()
        acked = {where: value for producer in self.producers for where, value in producer.acked.items()}
        lost = {where: value for where, value in acked.items() if stored.get(where) != value}
        assert not lost, f"{len(lost)} acknowledged records are lost or other ones: {sorted(lost)[:5]}"
        vanished = [
            where for each in self.consumers for where, v in each.seen.items() if stored.get(where) != v
        ]
        assert not vanished, f"{len(vanished)} records vanished after they were read: {sorted(vanished)[:5]}"
        self._check_once(stored)
        return len(acked)

    def _read(self, wire: Wire, partition: int) -> dict[Where, bytes | None]:
        """A partition's records; its offsets and epochs are without gaps and in order."""
        stored: dict[Where, bytes | None] = {}
        end, last_epoch = end_of(wire, self.topic, partition)
        offset, epoch = 0, -1
        starts: dict[int, int] = {}  # epoch -> its first offset
        while offset < end:
            part = fetch(wire, self.topic, partition, offset)
            assert part.error_code == 0, part
            batches = batches_of(part)
            assert batches, f"nothing at {offset} of partition {partition}, which ends at {end}"
            for batch in batches:
                assert batch.base_offset == offset, "offsets have a gap"
                assert batch.epoch >= epoch, "leader epochs go back"
                if batch.epoch > epoch:
                    epoch = batch.epoch
                    starts[epoch] = offset
                values = list(decode_records(batch))
                assert [each.offset for each in values] == list(range(offset, batch.next_offset))
                stored |= {(partition, each.offset): each.value for each in values}
                offset = batch.next_offset
        assert last_epoch >= epoch
        epochs = sorted(starts)
        ends = [starts[later] for later in epochs[1:]]
        assert ends == [epoch_end(wire, self.topic, partition, each) for each in epochs[:-1]]
        return stored

    def _check_once(self, stored: dict[Where, bytes | None]) -> None:
        """Idempotent producers' values are there once, in order, none left out between."""
        by_name: dict[str, list[int]] = defaultdict(list)
        for _, value in sorted(stored.items()):
            assert value is not None
            name, number, _ = value.decode().split(":")
            by_name[name].append(int(number))
        for producer in self.producers:
            numbers = by_name[producer.name]
            if producer.idempotent:
                assert numbers == list(range(len(numbers))), f"{producer.name}: repeated or left out"
            else:
                assert len(set(numbers)) == len(numbers), f"{producer.name}: a value is there twice"
