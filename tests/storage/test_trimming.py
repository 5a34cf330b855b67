"""A log's oldest segments go: what is kept until the new start is on the disk, and what must not keep it from that."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kbroker.storage.log import PartitionLog
from tests.support.memory_disk import MemoryDisk
from tests.support.storage import TOPIC_ID, TP, Broker, batch, config

RECORDS = 12
SEGMENT_BYTES = 200
CONFIG = config(segment_bytes=SEGMENT_BYTES, retention_ms=-1)  # a segment for each record
FOLDER = "/data/orders-0"


def opened(disk: MemoryDisk) -> tuple[Broker, PartitionLog]:
    broker = Broker(disk)
    broker.directory.open(0, "cluster")
    return broker, broker.directory.log(TP, TOPIC_ID, CONFIG)


def send(log: PartitionLog) -> None:
    log.append(batch(b"x" * 150), 0)


def filled(disk: MemoryDisk) -> tuple[Broker, PartitionLog]:
    broker, log = opened(disk)
    for _ in range(RECORDS):
        send(log)
    broker.settle()
    assert RECORDS == len(log.segments) == log.flushed
    return broker, log


def retain(broker: Broker, log: PartitionLog, retention_bytes: int) -> int:
    log.config = config(segment_bytes=SEGMENT_BYTES, retention_ms=-1, retention_bytes=retention_bytes)
    return log.retain(broker.clock.wall_ms(), log.end)


def names(disk: MemoryDisk, ending: str) -> list[str]:
    return [name for name in disk.list(FOLDER) if name.endswith(ending)]


# -- the power goes


@pytest.mark.parametrize("by", ["deletion", "retention"])
def test_segments_between_a_saved_start_and_a_later_one_stay_until_that_is_saved_too(by: str) -> None:
    for seed in range(30):
        disk = MemoryDisk(seed=seed)
        broker, log = filled(disk)
        saved: list[BaseException | None] = []
        log.delete_before(2, saved.append)
        broker.threads.step()  # the checkpoint that is written now has this start
        if by == "deletion":
            log.delete_before(7, lambda _: None)
        else:
            assert 7 == retain(broker, log, (RECORDS - 7) * log.segments[0].size)
        while not saved:
            broker.threads.step()
        assert ([None], 2, 7) == (saved, log.saved_start, log.start)
        disk.crash("torn")

        broker, log = opened(disk)
        broker.settle()

        assert (2, RECORDS) == (log.start, log.flushed)
        assert [] == names(disk, "-stray")


def test_all_goes_once_the_later_start_is_saved() -> None:
    disk = MemoryDisk()
    broker, log = filled(disk)
    log.delete_before(2, lambda _: None)
    broker.threads.step()
    log.delete_before(7, lambda _: None)
    broker.settle()

    assert (7, 7) == (log.saved_start, log.segments[0].base)
    assert RECORDS - 7 == len(names(disk, ".log"))


def test_a_log_that_began_anew_below_keeps_what_lies_below_the_start_it_had() -> None:
    disk = MemoryDisk()
    broker, log = filled(disk)
    log.delete_before(9, lambda _: None)
    broker.threads.step()
    log.restart_at(3)
    for _ in range(4):
        send(log)
    broker.settle()

    assert (3, 3, 7) == (log.start, log.saved_start, log.flushed)
    assert [3, 4, 5, 6] == [each.base for each in log.segments]


# -- what goes on meanwhile


def hold_flush(broker: Broker, log: PartitionLog) -> Callable[[], None]:
    """A flush that has begun, and ends when what is returned is called."""
    send(log)
    broker.turn.run()
    held = broker.threads.waiting.pop()
    assert log._in_flight is not None

    def end() -> None:
        broker.threads.waiting.append(held)
        broker.settle()

    return end


@pytest.mark.parametrize("by", ["deletion", "retention"])
def test_segments_go_though_there_is_always_a_flush_in_progress(by: str) -> None:
    disk = MemoryDisk()
    broker, log = filled(disk)
    end = hold_flush(broker, log)
    if by == "deletion":
        log.delete_before(7, lambda _: None)
    else:
        assert 7 == retain(broker, log, (RECORDS + 1 - 7) * log.segments[0].size)
    broker.settle()

    assert (7, 7, RECORDS) == (log.start, log.segments[0].base, log.flushed)
    end()
    assert RECORDS + 1 == log.flushed


def test_what_a_flush_in_progress_has_to_sync_is_on_the_disk_before_older_segments_go() -> None:
    """The snapshot of producers that was taken when the log rolled, the segment that it rolled to: the power goes."""
    for seed in range(30):
        disk = MemoryDisk(seed=seed)
        broker, log = opened(disk)
        for number in range(RECORDS):
            one = batch(b"x" * 150, producer_id=5, producer_epoch=0, base_sequence=number)
            assert log.check_sequence(one) is None
            log.append(one, 0)
            broker.settle()
        log.roll()
        hold_flush(broker, log)
        log.delete_before(RECORDS, lambda _: None)
        broker.settle()
        assert RECORDS == log.segments[0].base
        disk.crash("torn")

        broker, log = opened(disk)
        broker.settle()

        again = batch(b"x" * 150, producer_id=5, producer_epoch=0, base_sequence=RECORDS - 1)
        assert RECORDS == log.start
        assert RECORDS - 1 == log.check_sequence(again)


@pytest.mark.parametrize("when", ["before it is synced", "after that"])
def test_segments_stay_while_the_snapshot_of_their_producers_gives_way_to_newer_ones(when: str) -> None:
    disk = MemoryDisk()
    broker, log = filled(disk)
    end = hold_flush(broker, log)
    log.delete_before(7, lambda _: None)
    broker.threads.step()
    broker.threads.step()
    [(work, done)] = broker.threads.waiting  # it syncs the snapshots that there are...
    broker.threads.waiting = []
    if when == "after that":
        work()
        work = int
    end()
    for _ in range(3):
        send(log)  # ... and each of these rolls the log
        broker.settle()
    broker.threads.run(work, done)
    broker.settle()

    assert (7, 0) == (log.saved_start, log.segments[0].base)
    log.retain(broker.clock.wall_ms(), log.end)
    broker.settle()
    assert 7 == log.segments[0].base
