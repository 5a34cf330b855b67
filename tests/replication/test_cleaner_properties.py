"""Compaction under any order of appends, rounds, deletions, waits, kills and power cuts: a reader who reads all of the log
has the same table of keys and values that a log without compaction would give.
"""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from kbroker.config import Settings
from kbroker.protocol.records import RecordBatch, build_batch, record
from kbroker.replication.cleaner import Cleaner
from kbroker.storage.cleaning import BYTES_PER_KEY
from kbroker.storage.log import PartitionLog
from tests.support.compacting import batches, records
from tests.support.memory_disk import Crashed, MemoryDisk
from tests.support.storage import TP, Broker, config

BACKOFF_MS = 1000
HORIZON_MS = 5000
CONFIG = config(
    cleanup_policy=("compact",),
    segment_bytes=700,
    index_interval_bytes=100,
    retention_ms=-1,
    file_delete_delay_ms=0,
    min_cleanable_dirty_ratio=0.0,
    delete_retention_ms=HORIZON_MS,
)
OF_A_PRODUCER = 5

KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"k" * 40, None])
VALUES = st.sampled_from([b"", b"v", b"w" * 90, None, None])
APPENDS = st.tuples(
    st.just("append"),
    st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=4),
    st.integers(0, 4),
    st.booleans(),
)
CUTS = st.sampled_from(["none", "torn", "all"])
EVENTS = st.one_of(
    APPENDS,
    APPENDS,
    APPENDS,
    st.tuples(st.just("roll")),
    st.tuples(st.just("compact"), st.integers(1, 3)),
    st.tuples(st.just("compact"), st.integers(1, 3)),
    st.tuples(st.just("wait"), st.sampled_from([1, HORIZON_MS // 2, HORIZON_MS])),
    st.tuples(st.just("cut"), st.integers(1, 60), CUTS),
    st.tuples(st.just("kill"), CUTS),
    st.tuples(st.just("stop")),
    st.tuples(st.just("delete_records"), st.floats(0, 1)),
    st.tuples(st.just("make_anew"), st.integers(1, 30) | st.none(), CUTS),
)


class Led:
    """A partition, as far as the cleaner looks at it."""

    def __init__(self, log: PartitionLog) -> None:
        self.tp = log.tp
        self.log = log
        self.config = log.config
        self.gone = None

    @property
    def last_stable_offset(self) -> int:
        return self.log.flushed


class Life:
    """A compacted log with its cleaner, and everything that was ever in it."""

    def __init__(self, buffer: int, seed: int) -> None:
        self.disk = MemoryDisk(seed=seed)
        self.random = random.Random(seed)
        self.settings = Settings.load(
            {
                "log.cleaner.backoff.ms": str(BACKOFF_MS),
                "log.cleaner.dedupe.buffer.size": str(buffer * BYTES_PER_KEY),
            }
        )
        self.clock: Any = None
        self.topic_id = 1
        self.history: dict[int, tuple[bytes | None, bytes | None]] = {}
        self.starts = {0}  # where the log may start: where it did, and where it was asked to
        self.sequence = 0
        self.last_of_producer = -1
        self.flushed = 0
        self.open()

    def open(self) -> None:
        self.broker = Broker(self.disk, clock=self.clock)
        self.broker.directory.random = self.random  # folders of one name are put aside more than once
        self.clock = self.broker.clock
        self.clock.timers.clear()
        self.broker.directory.open(0, "cluster")
        self.log = self.broker.directory.log(TP, UUID(int=self.topic_id), CONFIG)
        self.cleaner = Cleaner(
            [Led(self.log)],  # type: ignore[arg-type]
            self.broker.directory,
            settings=self.settings,
            clock=self.clock,
            threads=self.broker.threads,
            in_process=False,
        )
        self.cleaner.start()
        self.settle()

    def settle(self) -> None:
        self.broker.settle()
        self.flushed = max(self.flushed, self.log.flushed)

    # -- what happens

    def append(self, of: list[tuple[bytes | None, bytes | None]], codec: int, idempotent: bool) -> None:
        made = [record(value, key=key, timestamp=self.clock.now_ms) for key, value in of]
        fields: dict[str, int] = {"codec": codec}
        if idempotent:
            fields |= {"producer_id": OF_A_PRODUCER, "producer_epoch": 0, "base_sequence": self.sequence}
            self.sequence += len(of)
            self.last_of_producer = self.log.end + len(of) - 1
        self.history |= {self.log.end + at: each for at, each in enumerate(of)}
        self.log.append(RecordBatch(memoryview(bytearray(build_batch(made, **fields)))), 0)
        self.settle()

    def roll(self) -> None:
        self.log.roll()
        self.settle()

    def compact(self, looks: int) -> None:
        self.broker.directory.checkpoint()
        self.settle()
        for _ in range(looks):
            self.wait(BACKOFF_MS)

    def wait(self, ms: int) -> None:
        self.clock.advance(ms)
        self.settle()

    def delete_records(self, share: float) -> None:
        offset = self.log.start + int((self.log.flushed - self.log.start) * share)
        self.starts.add(offset)
        self.log.delete_before(offset, lambda error: self.starts.intersection_update({self.log.start}))
        self.settle()

    def stop(self) -> None:
        self.cleaner.stop()
        self.settle()
        self.broker.directory.close()
        self.open()

    def cut(self, after: int, keep: str) -> None:
        """The power goes in the middle of a round, or of what else is done then."""
        self.disk.crash_at = self.disk.operations + after
        try:
            self.roll()
            self.compact(2)
        except Crashed:
            pass
        self.kill(keep)

    def kill(self, keep: str) -> None:
        self.disk.crash(keep)
        self.open()
        assert self.log.end >= self.flushed
        assert not self.log.lost
        self.history = {offset: of for offset, of in self.history.items() if offset < self.log.end}
        known = self.log.producers.producers.get(OF_A_PRODUCER)
        self.last_of_producer = known.sent[-1].last_offset if known else -1
        self.sequence = known.sent[-1].last_sequence + 1 if known else 0

    def make_anew(self, after: int | None, keep: str) -> None:
        """The topic is deleted, and another one of its name made; the power may go in between."""
        self.history, self.starts, self.flushed = {}, {0}, 0
        self.sequence, self.last_of_producer = 0, -1
        self.topic_id += 1
        self.cleaner.stop()
        if after is not None:
            self.disk.crash_at = self.disk.operations + after
        try:
            self.broker.directory.delete(TP)
            self.broker.settle()
        except Crashed:
            pass
        self.disk.crash(keep)
        self.open()

    # -- what must hold

    def check(self) -> None:
        log = self.log
        assert log.start in self.starts
        found = [each for each in records(log) if each.offset >= log.start]
        offsets = [each.offset for each in found]
        assert offsets == sorted(set(offsets))
        assert {each.offset: (each.key, each.value) for each in found}.items() <= self.history.items()
        kept = [(offset, *of) for offset, of in sorted(self.history.items()) if offset >= log.start]
        assert table(kept) == table([(each.offset, each.key, each.value) for each in found])
        if self.last_of_producer >= 0:
            assert self.last_of_producer == log.producers.producers[OF_A_PRODUCER].sent[-1].last_offset
        ends = -1
        for one in batches(log):
            assert one.crc_ok
            assert one.base_offset > ends
            ends = one.last_offset


def table(of: list[tuple[int, bytes | None, bytes | None]]) -> dict[bytes, tuple[int, bytes]]:
    """What a reader has in the end: keys with their values, and where these were written."""
    made: dict[bytes, tuple[int, bytes]] = {}
    for offset, key, value in of:
        if key is not None:
            made.pop(key, None)
            if value is not None:
                made[key] = (offset, value)
    return made


@settings(max_examples=200, deadline=None)
@given(events=st.lists(EVENTS, min_size=5, max_size=40), buffer=st.integers(2, 12), seed=st.integers(0, 1000))
def test_a_reader_has_the_table_that_a_log_without_compaction_gives(events, buffer, seed):
    life = Life(buffer, seed)
    for what, *how in events:
        getattr(life, what)(*how)
        life.check()
