"""A partition's log against a plain list: whatever is done to it, it holds the same batches."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kbroker.protocol.records import split_batches
from tests.support.memory_disk import MemoryDisk
from tests.support.storage import TOPIC_ID, TP, Broker, batch, config, region_bytes

CONFIG = {
    "segment_bytes": 1200,
    "index_interval_bytes": 150,
    "segment_index_bytes": 96,
    "retention_ms": -1,
    "file_delete_delay_ms": 0,
}


class LogMachine(RuleBasedStateMachine):
    """The model: a list of (base offset, last offset, epoch, bytes)."""

    @initialize(fsync=st.booleans(), seed=st.integers(0, 1000))
    def start(self, fsync: bool, seed: int) -> None:
        self.disk = MemoryDisk(seed=seed)
        self.fsync = fsync
        self.config = config(**CONFIG)
        self.batches: list[tuple[int, int, int, bytes]] = []
        self.epoch = 0
        self.first = 0
        self.timestamp = 1_700_000_000_000
        self.flushed_at_least = 0
        self.restarts = 0
        self._open()

    def _open(self) -> None:
        self.broker = Broker(self.disk, fsync=self.fsync)
        self.broker.directory.open(0, "cluster")
        self.log = self.broker.directory.log(TP, TOPIC_ID, self.config)
        self.broker.settle()

    @property
    def end(self) -> int:
        return self.batches[-1][1] + 1 if self.batches else self.first

    @rule(count=st.integers(1, 4), size=st.sampled_from([1, 30, 300]), pid=st.sampled_from([-1, 5, 6]))
    def append(self, count: int, size: int, pid: int) -> None:
        self.timestamp += 10
        known = self.log.producers.producers.get(pid)
        sequence = 0 if known is None else (known.sent[-1].last_sequence + 1 if known.sent else 0)
        fields = {} if pid < 0 else {"producer_id": pid, "producer_epoch": 0, "base_sequence": sequence}
        one = batch(*[b"x" * size] * count, timestamp=self.timestamp, **fields)
        base = self.log.append(one, self.epoch)
        assert self.end == base
        self.batches.append((base, base + count - 1, self.epoch, bytes(one.view)))

    @rule()
    def settle(self) -> None:
        self.broker.settle()
        assert self.log.end == self.log.written == self.log.flushed

    @rule()
    def write_only(self) -> None:
        self.broker.turn.run()

    @rule()
    def new_epoch(self) -> None:
        self.epoch += 1

    @rule()
    def roll(self) -> None:
        self.log.roll()

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.batches)))
        offset = self.batches[at][0] if at < len(self.batches) else self.end
        if offset < self.first:
            offset = self.first
            at = next((n for n, one in enumerate(self.batches) if one[0] >= offset), len(self.batches))
            if at < len(self.batches):
                offset = self.batches[at][0]
        got = self.log.truncate_to(offset)
        self.batches = [one for one in self.batches if one[1] < offset]
        assert got == self.log.end == max(self.end, self.first)
        if self.end < self.first:  # the log's start lay in the batch that went
            self.batches = []
        if not self.batches:
            self.first = self.log.end
        self.epoch += 1
        self.broker.settle()

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def delete_before(self, data: st.DataObject) -> None:
        self.broker.settle()
        offset = data.draw(st.integers(self.first, self.end))
        answers: list[BaseException | None] = []
        self.log.delete_before(offset, answers.append)
        self.broker.settle()
        assert [None] == answers
        self.first = max(self.first, offset)

    @rule(keep=st.integers(0, 4000))
    def retain_by_size(self, keep: int) -> None:
        self.broker.settle()
        self.log.config = config(**{**CONFIG, "retention_bytes": keep})
        before = self.log.size
        self.log.retain(self.broker.clock.wall_ms(), self.log.end)
        self.broker.settle()
        assert self.log.size <= before
        assert self.log.size >= min(before, keep) or self.first > 0
        self.first = max(self.first, self.log.start)
        self.log.config = self.config

    @rule()
    def checkpoint(self) -> None:
        self.broker.directory.checkpoint()
        self.broker.settle()

    @rule()
    def clean_restart(self) -> None:
        self.broker.settle()
        self.broker.directory.close()
        self.disk.crash("none" if self.fsync else "all")
        self._open()
        assert self.log.flushed == self.log.end
        self._same_as_the_model()

    @rule(keep=st.sampled_from(["none", "torn", "all"]))
    def crash(self, keep: str) -> None:
        if not self.fsync:
            keep = "all"
        flushed, written = self.log.flushed, self.log.written
        self.disk.crash(keep)
        self._open()
        assert flushed <= self.log.end <= written
        if keep == "all":
            assert written == self.log.end
        self.batches = [one for one in self.batches if one[1] < self.log.end]
        self._same_as_the_model()

    def _same_as_the_model(self) -> None:
        if not self.batches:
            self.first = max(self.first, self.log.end)
        assert max(self.end, self.first) == self.log.end
        assert self.first >= self.log.start
        self.first = self.log.start
        self.broker.settle()
        scratch = _from_scratch(self.batches)
        for pid, (sequence, offset) in scratch.items():
            newest = self.log.producers.producers[pid].sent[-1]
            assert (sequence, offset) == (newest.last_sequence, newest.last_offset)
        self.reads()

    @invariant()
    def order(self) -> None:
        log = self.log
        assert log.start <= log.flushed <= log.written <= log.end
        assert self.end == log.end or not self.batches

    @invariant()
    def epochs(self) -> None:
        expected: list[tuple[int, int]] = []
        for base, last, epoch, _ in self.batches:
            if last >= self.first and (not expected or expected[-1][0] < epoch):
                expected.append((epoch, max(base, self.first)))
        pairs = self.log.epochs.pairs
        if expected:
            assert expected == [pair for pair in pairs if pair[0] >= expected[0][0]] or self._cut_start(
                expected, pairs
            )

    def _cut_start(self, expected: list[tuple[int, int]], pairs: list[tuple[int, int]]) -> bool:
        """The first epoch may be remembered from before the log's start."""
        tail = pairs[-len(expected) :]
        return tail[1:] == expected[1:] and tail[0][0] == expected[0][0] and tail[0][1] <= expected[0][1]

    @rule()
    def reads(self) -> None:
        log = self.log
        written = [one for one in self.batches if one[1] < log.written]
        for number, (base, last, _, _) in enumerate(written):
            for offset in {base, last}:
                if offset < log.start:
                    continue
                for max_bytes in (1, 700, 10_000):
                    region = log.read(offset, up_to=log.written, max_bytes=max_bytes)
                    assert region is not None
                    raw = region_bytes(region)
                    expected = b""
                    for one in written[number:]:
                        if expected and len(expected) + len(one[3]) > max_bytes:
                            break
                        expected += one[3]
                    assert raw
                    assert expected.startswith(raw)
                    assert [one[0] for one in written[number:]][: len(split_batches(memoryview(raw)))] == [
                        one.base_offset for one in split_batches(memoryview(raw))
                    ]
        assert log.read(log.written, up_to=log.written, max_bytes=100) is None


def _from_scratch(batches: list[tuple[int, int, int, bytes]]) -> dict[int, tuple[int, int]]:
    newest: dict[int, tuple[int, int]] = {}
    for _, _, _, raw in batches:
        for one in split_batches(memoryview(raw)):
            if one.producer_id >= 0:
                newest[one.producer_id] = (one.last_sequence, one.last_offset)
    return newest


LogMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestLogAgainstAList = LogMachine.TestCase


def test_read_stops_below_up_to_even_in_the_middle_of_a_batch() -> None:
    broker = Broker(MemoryDisk())
    broker.directory.open(0, "cluster")
    log = broker.directory.log(TP, TOPIC_ID, config())
    for _ in range(3):
        log.append(batch(b"a", b"b"), 0)
    broker.settle()

    assert 2 * len(log.read(0, up_to=2, max_bytes=10_000) or b"") == len(
        log.read(0, up_to=5, max_bytes=10_000) or b""
    )
    assert log.read(4, up_to=5, max_bytes=10_000) is None


@pytest.mark.parametrize("up_to", [1, 3, 6])
def test_a_first_batch_larger_than_the_limit_comes_only_when_asked_for(up_to: int) -> None:
    broker = Broker(MemoryDisk())
    broker.directory.open(0, "cluster")
    log = broker.directory.log(TP, TOPIC_ID, config())
    for _ in range(6):
        log.append(batch(b"a" * 500), 0)
    broker.settle()

    assert log.read(0, up_to=up_to, max_bytes=10, min_one=False) is None
    assert log.read(0, up_to=up_to, max_bytes=10) is not None
