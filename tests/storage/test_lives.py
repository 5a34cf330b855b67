"""Lives of a log, each with chance's own course: nothing acknowledged is lost, moved or there twice.

Idempotent producers send, and send again what was not acknowledged; segments roll and go, the disk is full or nothing
can be opened for a while, threads take their time, and every life ends in a clean stop or a power cut.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.records import RecordBatch, split_batches
from tests.support.memory_disk import Crashed, MemoryDisk
from tests.support.storage import TOPIC_ID, TP, Broker, ManualClock, batch, config, region_bytes

STEPS = 400  # of one log, in as many lives as it comes to
PRODUCERS = 3
IN_FLIGHT = 4  # batches of a producer

# What chance has found, by what was wrong then. Each is nothing but chance again once a log does other things here.
FOUND = {
    "a flush that began anew forgot the name of the folder": 4,
    "deleted records came back": 12,
    "a retry could not be looked for once, and never was again": 106,
    "all snapshots were beyond the end that was left": 721,
    "a snapshot of another history came back": 1364,
    "a snapshot of another history came back and a retry was answered by it": 1916,
    "deleted records were served again where all others were lost": 200065,
    "a snapshot that a power cut took was not made anew before its batches were deleted": 5022443,
}


class Producer:
    """Sends its batches in order, and again from the first unacknowledged one on when any has failed."""

    def __init__(self, producer_id: int) -> None:
        self.id = producer_id
        self.next = 0
        self.open: list[tuple[int, int, int]] = []  # not acknowledged: (sequence, records, size of each)
        self.sent = 0  # so many of them, in this life

    def acknowledged(self, sequence: int) -> None:
        """This batch need not be sent again."""
        for number, one in enumerate(self.open):
            if one[0] == sequence:
                del self.open[number]
                self.sent -= number < self.sent
                return


class Lives:
    """One log, what its producers were told, and what chance does with it."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.disk = MemoryDisk(seed=seed)
        self.clock = ManualClock()
        self.config = config(
            segment_bytes=chance.choice([400, 700, 1500]),
            index_interval_bytes=chance.choice([1, 150, 400]),
            segment_index_bytes=chance.choice([96, 1000]),
            retention_ms=-1,
            retention_bytes=chance.choice([-1, -1, 2500]),
            file_delete_delay_ms=chance.choice([0, 60_000]),
        )
        self.faults = chance.random() < 0.5  # other than power cuts
        self.producers = [Producer(number) for number in range(PRODUCERS)]
        self.acked: dict[tuple[int, int], int] = {}  # (producer, sequence) -> offset
        self.given: dict[
            tuple[int, int], int
        ] = {}  # the newest offset that each was given, acknowledged or not
        self.start = 0  # an acknowledged log start
        self.life = -1
        self._cut_at(400)
        self._lives(self._open)

    # -- lives

    def _lives(self, act: Callable[[], None]) -> None:
        """Do this; where the power goes, the next life begins, in as many attempts as it takes."""
        while True:
            try:
                return act()
            except Crashed:
                self.disk.no_descriptors = None
                self.disk.crash(self.chance.choice(["none", "torn", "torn", "all"]))
                self._cut_at(300)
                act = self._open

    def _cut_at(self, within: int) -> None:
        """The power may go before one of the next changes to the disk."""
        if self.chance.random() < 0.5:
            self.disk.crash_at = self.disk.operations + self.chance.randint(1, within)

    def _open(self) -> None:
        self.life += 1
        self.clock.timers.clear()
        self.broker = Broker(self.disk, clock=self.clock)
        self.broker.directory.random = random.Random(self.life)  # no life may make the names of another
        self.broker.directory.open(0, "cluster")
        self.log = self.broker.directory.log(TP, TOPIC_ID, self.config)
        self.log.observer = self
        self.waiting: list[
            tuple[Producer, int, int, int]
        ] = []  # for a flush: producer, sequence, offset, end
        self.ended: list[
            tuple[Callable[..., None], Any, BaseException | None]
        ] = []  # in threads; nobody knows yet
        self.deleting = False
        for producer in self.producers:
            producer.sent = 0
        self.check()

    def log_moved(self) -> None:
        """What is flushed is acknowledged."""
        for one in [one for one in self.waiting if one[3] <= self.log.flushed]:
            producer, sequence, offset, _ = one
            assert offset == self.acked.setdefault((producer.id, sequence), offset), "acknowledged twice"
            self.waiting.remove(one)
            producer.acknowledged(sequence)

    def log_cut(self, end: int, error: BaseException) -> None:
        """What was appended from there on has failed."""
        for one in [one for one in self.waiting if one[3] > end]:
            self.waiting.remove(one)
            one[0].sent = 0

    # -- steps

    def step(self) -> None:
        weights = {
            self.produce: 40,
            self.turn: 20,
            self.work: 14,
            self.deliver: 14,
            self.checkpoint: 3,
            self.delete_before: 1.5,
            self.retain: 1.5,
            self.wait: 2,
            self.roll: 0.5,
            self.full_disk: 0.5 * self.faults,
            self.no_descriptors: 0.5 * self.faults,
            self.power_cut: 0.5,
            self.settle: 0.3,
            self.stop: 0.15,
        }
        (act,) = self.chance.choices(list(weights), list(weights.values()))
        self._lives(act)
        log = self.log
        assert log.broken is None
        assert log.flushed <= log.written <= log.end

    def produce(self) -> None:
        producer = self.chance.choice(self.producers)
        if producer.sent == len(producer.open):
            if len(producer.open) == IN_FLIGHT:
                producer.sent = 0  # an answer did not come in time: all again
                return
            count = self.chance.choice([1, 1, 2, 3])
            producer.open.append((producer.next, count, self.chance.choice([5, 10, 60, 200, 9000])))
            producer.next += count
        self._send(producer, *producer.open[producer.sent])

    def _send(self, producer: Producer, sequence: int, count: int, size: int) -> None:
        one = batch(
            *[b"x" * size] * count,
            timestamp=self.clock.now_ms,
            producer_id=producer.id,
            producer_epoch=0,
            base_sequence=sequence,
        )
        log, sent = self.log, producer.sent
        producer.sent = 0
        try:
            offset = log.check_sequence(one)
            if offset is None:
                offset = log.append(one, self.life)
        except OSError:
            return
        except KafkaError as error:
            if error.code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER:
                # one before it has failed; or its records are deleted, and nothing tells of them any more
                gone = self.given.get((producer.id, sequence), log.start) < log.start
                if sequence == producer.open[0][0] and not gone:
                    raise
            elif error.code != ErrorCode.KAFKA_STORAGE_ERROR:
                raise
            return
        producer.sent = sent + 1
        self.given[producer.id, sequence] = offset
        self.waiting.append((producer, sequence, offset, offset + count))
        self.log_moved()

    def turn(self) -> None:
        self.broker.turn.run()

    def work(self) -> None:
        """A thread does a piece of work, not always the oldest. The loop does not know yet."""
        waiting = self.broker.threads.waiting
        if waiting:
            work, done = waiting.pop(self.chance.randrange(len(waiting)))
            try:
                self.ended.append((done, work(), None))
            except Exception as error:
                self.ended.append((done, None, error))

    def deliver(self) -> None:
        """The loop hears of it."""
        if self.ended:
            done, result, error = self.ended.pop(0)
            done(result, error)

    def checkpoint(self) -> None:
        self.broker.directory.checkpoint()

    def delete_before(self) -> None:
        log = self.log
        if log.flushed > log.start and not self.deleting:
            start, life = self.chance.randint(log.start + 1, log.flushed), self.life
            self.deleting = True

            def done(error: BaseException | None) -> None:
                self.deleting = self.deleting and life != self.life
                if error is None:
                    self.start = max(self.start, start)

            log.delete_before(start, done)

    def retain(self) -> None:
        self.log.retain(self.clock.now_ms, self.log.flushed)

    def wait(self) -> None:
        self.clock.advance(self.chance.choice([1, 1500]))

    def roll(self) -> None:
        try:
            self.log.roll()
        except KafkaError as error:
            if error.code != ErrorCode.KAFKA_STORAGE_ERROR:
                raise

    def full_disk(self) -> None:
        full = self.disk.fail is not None
        self.disk.fail = (
            None if full else lambda what, _: errno.ENOSPC if what in ("append", "create") else None
        )

    def no_descriptors(self) -> None:
        self.disk.no_descriptors = errno.EMFILE if self.disk.no_descriptors is None else None

    def power_cut(self) -> None:
        raise Crashed("now")

    def settle(self) -> None:
        self.disk.fail, self.disk.no_descriptors = None, None
        while self.ended:
            self.deliver()
        self.broker.settle()
        assert self.broker.directory.failed is None
        self.check()

    def stop(self) -> None:
        """A clean stop, and a power cut right after it."""
        self.settle()
        self.broker.directory.save(lambda: None)
        self.broker.settle()
        self.broker.directory.close()
        raise Crashed("stopped")

    # -- what holds

    def check(self) -> None:
        log = self.log
        assert self.start <= log.start <= log.end
        assert not log.lost
        there: dict[tuple[int, int], int] = {}
        batches = self._batches()
        expected = batches[0].base_offset if batches else log.start
        for one in batches:
            assert expected == one.base_offset
            expected = one.next_offset
            key = one.producer_id, one.base_sequence
            assert one.base_offset == there.setdefault(key, one.base_offset), f"{key} is there twice"
        missing = {key: at for key, at in self.acked.items() if at >= log.start and there.get(key) != at}
        assert not missing, f"{log.start}..{log.end} has not, or elsewhere, what was acknowledged: {missing}"

    def _batches(self) -> list[RecordBatch]:
        found: list[RecordBatch] = []
        offset = self.log.start
        while (region := self.log.read(offset, up_to=self.log.written, max_bytes=1 << 20)) is not None:
            found += split_batches(memoryview(region_bytes(region)))
            offset = found[-1].next_offset
        return found


def live(seed: int) -> None:
    """All the lives of one log."""
    lives = Lives(seed)
    for _ in range(STEPS):
        lives.step()
    lives.disk.crash_at = None
    lives.settle()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_nothing_acknowledged_is_lost_in_any_life(seed: int) -> None:
    live(seed)


@pytest.mark.parametrize("seed", FOUND.values(), ids=FOUND.keys())
def test_what_was_lost_once_is_kept(seed: int) -> None:
    live(seed)
