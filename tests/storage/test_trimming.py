"""A log's oldest segments go: what is kept until the new start is on the disk, and what must not keep it from that."""

from __future__ import annotations

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
