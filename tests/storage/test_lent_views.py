"""Batches that a log keeps in the buffer they came in, until that is used again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kbroker.protocol.records import RecordBatch, split_batches
from kbroker.seams import Buffer
from kbroker.storage.log import COPIED_BATCH_BYTES_MAX, PartitionLog
from tests.support.memory_disk import MemoryDisk, MemoryFile
from tests.support.storage import TOPIC_ID, TP, Broker, batch, config, region_bytes

LARGE = b"L" * (COPIED_BATCH_BYTES_MAX + 1)


class Observed:
    """Hears of a log what its partition would."""

    def __init__(self) -> None:
        self.cuts: list[int] = []

    def log_moved(self) -> None:
        """Nothing to learn."""

    def log_cut(self, end: int, error: BaseException) -> None:
        self.cuts.append(end)


@pytest.fixture
def disk() -> MemoryDisk:
    disk = MemoryDisk()
    disk.mkdir("/data")
    return disk


@pytest.fixture
def broker(disk: MemoryDisk) -> Broker:
    return Broker(disk)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pieces each write to a segment had."""
    pieces: list[int] = []
    append = MemoryFile.append

    def counted(self: MemoryFile, parts: Sequence[Buffer]) -> None:
        if self.path.endswith(".log"):
            pieces.append(len(parts))
        append(self, parts)

    monkeypatch.setattr(MemoryFile, "append", counted)
    return pieces


def reuse(*batches: RecordBatch) -> None:
    """What the next read does to the buffer they lie in."""
    for one in batches:
        one.view[:] = bytes(len(one.view))


def stored(log: PartitionLog) -> list[int]:
    """The base offsets of its batches, all whole."""
    region = log.read(log.start, up_to=log.end, max_bytes=1_000_000)
    assert region is not None
    batches = split_batches(memoryview(region_bytes(region)))
    assert all(one.crc_ok for one in batches)
    return [one.base_offset for one in batches]


def test_large_batches_of_one_buffer_are_written_with_one_call_before_it_is_used_again(
    broker: Broker, writes: list[int]
) -> None:
    log = broker.directory.log(TP, TOPIC_ID, config())
    batches = [batch(LARGE), batch(LARGE), batch(LARGE)]

    broker.turn.lend()
    for one in batches:
        log.append(one, 1)
    assert [] == writes
    broker.turn.take_back()
    reuse(*batches)

    assert [3] == writes
    assert 3 == log.written
    broker.settle()
    assert [0, 1, 2] == stored(log)


def test_where_nothing_is_lent_a_large_batch_is_written_at_once(broker: Broker, writes: list[int]) -> None:
    log = broker.directory.log(TP, TOPIC_ID, config())

    for one in (batch(LARGE), batch(LARGE)):
        log.append(one, 1)
        reuse(one)

    assert [1, 1] == writes
    assert [0, 1] == stored(log)


def test_small_batches_keep_their_place_among_large_ones(broker: Broker, writes: list[int]) -> None:
    log = broker.directory.log(TP, TOPIC_ID, config())
    batches = [batch(b"small"), batch(LARGE), batch(b"small"), batch(LARGE), batch(b"small")]

    broker.turn.lend()
    for one in batches:
        log.append(one, 1)
    broker.turn.take_back()
    reuse(*batches)
    broker.settle()

    assert [5] == writes
    assert [0, 1, 2, 3, 4] == stored(log)


def test_a_segment_that_is_full_in_between_is_written_before_the_next_begins(
    broker: Broker, writes: list[int]
) -> None:
    log = broker.directory.log(TP, TOPIC_ID, config(segment_bytes=2 * len(batch(LARGE).view)))
    batches = [batch(LARGE) for _ in range(5)]

    broker.turn.lend()
    for one in batches:
        log.append(one, 1)
    broker.turn.take_back()
    reuse(*batches)
    broker.settle()

    assert [2, 2, 1] == writes
    assert [0, 2, 4] == [segment.base for segment in log.segments]
    assert [0, 1] == stored(log)


def test_what_does_not_fit_on_the_disk_was_never_appended(disk: MemoryDisk, broker: Broker) -> None:
    log = broker.directory.log(TP, TOPIC_ID, config())
    observed = Observed()
    log.append(batch(b"before"), 1)
    broker.settle()
    log.observer = observed
    disk.capacity = disk.used() + len(LARGE)

    broker.turn.lend()
    log.append(batch(LARGE), 1)
    log.append(batch(LARGE), 1)
    assert 3 == log.end
    broker.turn.take_back()

    assert [1] == observed.cuts
    assert (1, 1) == (log.written, log.end)
    broker.settle()
    assert [0] == stored(log)


def test_a_log_that_breaks_writes_nothing_of_what_the_buffer_holds_next(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = broker.directory.log(TP, TOPIC_ID, config())
    one = batch(LARGE)

    def breaks(self: MemoryFile, parts: Sequence[Buffer]) -> None:
        raise ValueError("our own fault")

    broker.turn.lend()
    log.append(one, 1)
    with monkeypatch.context() as broken:
        broken.setattr(MemoryFile, "append", breaks)
        broker.turn.take_back()
    reuse(one)
    broker.settle()

    assert isinstance(log.broken, ValueError)
    assert (0, 0) == (log.written, log.segments[0].file.size)


def test_a_log_that_fails_leaves_the_others_their_batches(broker: Broker) -> None:
    class Failing:
        failed_with: BaseException | None = None

        def return_views(self) -> None:
            raise ValueError("our own fault")

        def failed(self, error: BaseException) -> None:
            self.failed_with = error

    failing = Failing()
    log = broker.directory.log(TP, TOPIC_ID, config())

    broker.turn.lend()
    assert broker.turn.borrowers is not None
    broker.turn.borrowers.append(failing)
    log.append(batch(LARGE), 1)
    broker.turn.take_back()

    assert isinstance(failing.failed_with, ValueError)
    assert 1 == log.written
