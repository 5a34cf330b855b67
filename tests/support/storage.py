"""What storage tests need around a log directory: threads that wait to be run, a clock, batches."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from uuid import UUID

from kbroker.config import TopicConfig
from kbroker.model import TopicPartition
from kbroker.protocol.records import RecordBatch, build_batch, record
from kbroker.seams import Disk
from kbroker.storage.directory import LogDirectory
from kbroker.turn import Turn

TP = TopicPartition("orders", 0)
TOPIC_ID = UUID(int=0x1234)


class ManualClock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic(self) -> float:
        return self.now_ms / 1000

    def call_at(self, when: float, call: Callable[[], None]) -> Any:
        entry = (when, call)
        self.timers.append(entry)
        return _Timer(self, entry)

    def advance(self, ms: int) -> None:
        """Let time pass; timers fire in order."""
        self.now_ms += ms
        due = sorted(
            (entry for entry in self.timers if entry[0] <= self.monotonic()), key=lambda entry: entry[0]
        )
        for entry in due:
            self.timers.remove(entry)
            entry[1]()


class _Timer:
    def __init__(self, clock: ManualClock, entry: tuple[float, Callable[[], None]]) -> None:
        self._clock, self._entry = clock, entry

    def cancel(self) -> None:
        if self._entry in self._clock.timers:
            self._clock.timers.remove(self._entry)


class ManualThreads:
    """Work waits until the test lets it run; `done` follows at once, or later."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]]] = []

    def run(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        self.waiting.append((work, done))

    def step(self) -> bool:
        """Do the oldest piece of work. False when there is none."""
        if not self.waiting:
            return False
        work, done = self.waiting.pop(0)
        try:
            result = work()
        except Exception as error:
            done(None, error)
        else:
            done(result, None)
        return True


class Broker:
    """A log directory with its turn, clock and threads, driven by hand."""

    def __init__(
        self, disk: Disk, path: str = "/data", *, fsync: bool = True, clock: ManualClock | None = None
    ) -> None:
        self.disk = disk
        self.turn = Turn()
        self.clock = clock or ManualClock()
        self.threads = ManualThreads()
        self.directory = LogDirectory(
            path,
            disk=disk,
            clock=self.clock,
            turn=self.turn,
            threads=self.threads,
            random=random.Random(1),
            fsync=fsync,
        )

    def settle(self) -> None:
        """Run turns and threads until nothing is left."""
        for _ in range(1000):
            self.turn.run()
            if not self.threads.step() and not self.turn.busy:
                return
        raise AssertionError("it never settles")


def config(**values: Any) -> TopicConfig:
    return TopicConfig(**values)


def batch(*values: bytes, timestamp: int = 1000, **fields: Any) -> RecordBatch:
    """A batch with one record per value."""
    records = [record(value, timestamp=timestamp + number) for number, value in enumerate(values)]
    return RecordBatch(memoryview(bytearray(build_batch(records, **fields))))


def region_bytes(region: Any) -> bytes:
    """What a region would send."""
    view = memoryview(bytearray(len(region)))
    assert len(view) == region.file.read_into(view, region.at)
    return bytes(view)
