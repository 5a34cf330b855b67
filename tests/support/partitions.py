"""A partition on a log directory in memory, driven by hand: what was appended, what was answered, in which order."""

from __future__ import annotations

import random
from typing import Any

from kbroker.config import TopicConfig
from kbroker.errors import ErrorCode
from kbroker.model import BrokerId
from kbroker.protocol.records import Record, RecordBatch, build_batch, decode_records, record, split_batches
from kbroker.replication.partition import Appended, Limits, Partition
from tests.support.memory_disk import MemoryDisk
from tests.support.storage import TOPIC_ID, TP, Broker, ManualClock, config, region_bytes

NODE = BrokerId(0)
LIMITS = Limits(decompressed_max=1 << 20, walk=True)
TIMEOUT_MS = 30_000


class Stand:
    """One partition, led by this broker; `Stand(disk)` again is the next start."""

    def __init__(
        self,
        disk: MemoryDisk | None = None,
        *,
        epoch: int = 0,
        fsync: bool = True,
        clock: ManualClock | None = None,
        topic: TopicConfig | None = None,
    ) -> None:
        self.disk = disk or MemoryDisk()
        self.broker = Broker(self.disk, fsync=fsync, clock=clock)
        self.clock = self.broker.clock
        self.broker.directory.random = random.Random(epoch)  # no start may make the names of another
        self.broker.directory.open(NODE, "cluster")
        topic = topic or config()
        self.log = self.broker.directory.log(TP, TOPIC_ID, topic)
        self.waiting: list[Partition] = []  # told that somebody waits
        self.partition = Partition(
            TP,
            TOPIC_ID,
            self.log,
            config=topic,
            limits=LIMITS,
            turn=self.broker.turn,
            clock=self.clock,
            on_waiting=self.waiting.append,
        )
        self.partition.lead(NODE, epoch, (NODE,), 1)
        self.answers: dict[str, ErrorCode] = {}  # who was answered, in which order and what

    def batch(self, *values: bytes, **fields: Any) -> memoryview:
        """A producer's bytes, in the time of the clock."""
        records = [record(value, key=b"k", timestamp=self.clock.now_ms) for value in values]
        return memoryview(bytearray(build_batch(records, **fields)))

    def send(
        self, name: str, *values: bytes, acks: int = -1, timeout_ms: int = TIMEOUT_MS, **fields: Any
    ) -> Appended:
        """Append one batch, as Produce does; its answer is noted under `name`."""
        appended = self.partition.append(self.batch(*(values or (name.encode(),)), **fields), acks)
        if acks:
            self.wait(name, appended, acks=acks, timeout_ms=timeout_ms)
        return appended

    def wait(self, name: str, appended: Appended, *, acks: int = -1, timeout_ms: int = TIMEOUT_MS) -> None:
        """Wait for what was appended. A second answer is a mistake of the partition's."""

        def waiter(error: ErrorCode) -> None:
            assert name not in self.answers, f"{name} is answered again"
            self.answers[name] = error

        self.partition.when(appended, acks, timeout_ms, waiter)

    def turn(self) -> None:
        """The end of a turn: written, and handed to the threads; nothing flushed yet."""
        self.broker.turn.run()

    def flush(self) -> None:
        """A thread has done its oldest piece of work, and the loop heard of it."""
        assert self.broker.threads.step(), "nothing to do in a thread"
        self.broker.turn.run()

    def settle(self) -> None:
        self.broker.settle()

    def crash(self, keep: str = "none", **again: Any) -> Stand:
        """The power goes; the next start."""
        self.disk.crash(keep)
        return Stand(self.disk, clock=self.clock, topic=self.partition.config, **again)

    def batches(self) -> list[RecordBatch]:
        """What is in the log, written or not yet visible."""
        found: list[RecordBatch] = []
        offset = self.log.start
        while (region := self.log.read(offset, up_to=self.log.written, max_bytes=1 << 20)) is not None:
            found += split_batches(memoryview(region_bytes(region)))
            offset = found[-1].last_offset + 1
        return found

    def records(self) -> list[Record]:
        return [each for batch in self.batches() for each in decode_records(batch)]

    def values(self) -> list[bytes | None]:
        return [each.value for each in self.records()]


class Bell:
    """A watcher that counts."""

    def __init__(self) -> None:
        self.rings = 0

    def partition_moved(self) -> None:
        self.rings += 1
