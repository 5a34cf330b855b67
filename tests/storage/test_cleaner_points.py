"""`cleaner-offset-checkpoint`: it never says of a log what was true of a deleted one of its name."""

from __future__ import annotations

import errno
from uuid import UUID

import pytest

from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import TopicPartition
from kbroker.protocol.records import RecordBatch, build_batch, record
from kbroker.storage.cleaner_points import AGAIN_SECONDS, CLEANER_FILE
from kbroker.storage.log import PartitionLog
from tests.support.compacting import NOW_MS, compact, job, records
from tests.support.memory_disk import MemoryDisk
from tests.support.storage import TOPIC_ID, TP, Broker, config

OTHER = TopicPartition("invoices", 0)
AGAIN_ID = UUID(int=0x9999)  # of the topic made anew
CONFIG = config(
    segment_bytes=400, retention_ms=-1, cleanup_policy=frozenset({"compact"}), file_delete_delay_ms=0
)


def opened(disk: MemoryDisk) -> Broker:
    broker = Broker(disk)
    broker.directory.open(0, "cluster")
    return broker


def put(log: PartitionLog, key: bytes, value: bytes | None) -> None:
    raw = build_batch([record(value, key=key, timestamp=1000)])
    log.append(RecordBatch(memoryview(bytearray(raw))), 0)


def compacted(disk: MemoryDisk) -> Broker:
    """A directory with a log that is compacted up to 24."""
    broker = opened(disk)
    log = broker.directory.log(TP, TOPIC_ID, CONFIG)
    for number in range(30):
        put(log, b"k%d" % (number % 3), b"v" * 50)
        broker.settle()
    compact(broker, log)
    broker.directory.cleaned.move(TP, 24)
    broker.settle()
    return broker


def full(disk: MemoryDisk) -> None:
    disk.fail = lambda what, path: errno.ENOSPC if what in ("create", "append") else None


def full_for_points(disk: MemoryDisk) -> None:
    disk.fail = lambda what, path: errno.ENOSPC if what == "append" and CLEANER_FILE in path else None


def points(disk: MemoryDisk) -> dict[TopicPartition, int]:
    """What the next start reads."""
    return dict(opened(disk).directory.cleaned.offsets)


def make_anew(broker: Broker) -> PartitionLog:
    log = broker.directory.log(TP, AGAIN_ID, CONFIG)
    put(log, b"secret", b"s")
    put(log, b"secret", None)
    for number in range(40):
        put(log, b"x%d" % number, b"v" * 50)
    return log


@pytest.mark.parametrize("end", ["stop", "none", "torn", "all"])
def test_a_topic_made_anew_is_not_taken_for_clean_though_the_disk_was_full_when_it_was_deleted(end):
    disk = MemoryDisk()
    broker = compacted(disk)
    full(disk)
    broker.directory.delete(TP)
    broker.settle()
    disk.fail = None
    make_anew(broker)
    broker.settle()
    if end == "stop":
        broker.directory.close()
    else:
        disk.crash(end)

    broker = opened(disk)
    log = broker.directory.log(TP, AGAIN_ID, CONFIG)
    broker.settle()
    first = broker.directory.cleaned.offsets.get(TP, 0)
    for now_ms in (NOW_MS, NOW_MS + 10_000):  # the second one is behind delete.retention.ms
        compact(broker, log, job(log, first_dirty=first, now_ms=now_ms))

    assert 0 == first
    assert [] == [each.value for each in records(log) if each.key == b"secret"]


@pytest.mark.parametrize("steps", range(4))
def test_no_older_content_takes_the_place_of_what_a_new_log_needs(steps):
    """The first step of a thread has the content from before the deletion."""
    for seed in range(10):
        disk = MemoryDisk(seed=seed)
        broker = compacted(disk)
        broker.directory.cleaned.move(OTHER, 7)
        broker.directory.delete(TP)
        for _ in range(steps):
            broker.threads.step()
        log = make_anew(broker)
        while log.flushed < log.end:
            broker.turn.run()
            broker.threads.step()
        disk.crash("torn")

        assert points(disk).get(TP) is None


def test_where_it_cannot_be_said_the_new_log_takes_nothing():
    disk = MemoryDisk()
    broker = compacted(disk)
    full_for_points(disk)
    broker.directory.delete(TP)
    broker.settle()
    log = broker.directory.log(TP, AGAIN_ID, CONFIG)
    with pytest.raises(KafkaError) as caught:
        put(log, b"k", b"v")
    disk.fail = None
    broker.clock.advance(2000)
    put(log, b"k", b"v")
    broker.settle()

    assert ErrorCode.KAFKA_STORAGE_ERROR == caught.value.code
    assert 1 == log.flushed
    disk.crash("none")
    assert {} == points(disk)


def test_a_file_that_could_not_be_read_says_nothing_of_a_new_log_at_the_start_after():
    disk = MemoryDisk()
    compacted(disk).directory.delete(TP)
    disk.crash("none")
    broker = opened(disk)
    read, disk.read = disk.read, unreadable(disk)
    assert {} == broker.directory.cleaned.offsets
    disk.read = read

    broker.directory.delete(TP)
    make_anew(broker)
    broker.settle()
    disk.crash("none")

    assert {} == points(disk)


def unreadable(disk: MemoryDisk):
    read = disk.read

    def reading(path: str) -> bytes:
        if CLEANER_FILE in path:
            raise OSError(errno.EMFILE, "too many open files", path)
        return read(path)

    return reading


def test_what_could_not_be_written_is_written_later():
    disk = MemoryDisk()
    broker = compacted(disk)
    full_for_points(disk)
    broker.directory.cleaned.move(TP, 27)
    broker.directory.cleaned.move(TP, 28)
    broker.settle()
    disk.fail = None
    broker.clock.advance(int(AGAIN_SECONDS * 1000))
    broker.settle()
    disk.crash("none")

    assert {TP: 28} == points(disk)


def test_nothing_is_written_later_in_a_directory_that_was_let_go_of():
    disk = MemoryDisk()
    broker = compacted(disk)
    full_for_points(disk)
    broker.directory.cleaned.move(TP, 27)
    broker.settle()
    disk.fail = None
    broker.directory.close()

    broker.clock.advance(int(AGAIN_SECONDS * 1000))
    broker.settle()

    assert {TP: 24} == points(disk)


def test_a_failed_sync_of_the_folder_fails_the_directory():
    disk = MemoryDisk()
    broker = compacted(disk)
    disk.fail = lambda what, path: errno.EIO if (what, path) == ("sync_dir", "/data") else None
    broker.directory.cleaned.move(TP, 27)
    broker.settle()

    assert broker.directory.failed is not None
