"""When the disk fails: what is answered, what is taken back, what goes on, what the next start finds."""

from __future__ import annotations

import contextlib
import errno
import struct
from functools import partial
from typing import Any

import pytest

from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import TopicPartition
from kbroker.protocol.records import CONTROL, RecordBatch, split_batches
from kbroker.storage.log import PartitionLog
from tests.support.memory_disk import MemoryDisk
from tests.support.storage import TOPIC_ID, TP, Broker, batch, config, region_bytes

OTHER = TopicPartition("orders", 1)


class Watcher:
    """Notes what a Partition would be told."""

    def __init__(self, log: PartitionLog) -> None:
        self.cuts: list[tuple[int, BaseException]] = []
        self.fault: BaseException | None = None  # what it makes of a move
        log.observer = self

    def log_moved(self) -> None:
        if self.fault is not None:
            raise self.fault

    def log_cut(self, end: int, error: BaseException) -> None:
        self.cuts.append((end, error))


def failing(what: str, code: int, part: str = ".log") -> Any:
    """A disk that fails one kind of operation on the data files."""
    return lambda operation, path: code if operation == what and path.endswith(part) else None


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


@pytest.fixture
def broker(disk: MemoryDisk) -> Broker:
    broker = Broker(disk)
    broker.directory.open(0, "cluster")
    return broker


@pytest.fixture
def log(broker: Broker) -> PartitionLog:
    """Ten records are flushed."""
    log = broker.directory.log(TP, TOPIC_ID, config())
    for number in range(5):
        log.append(
            batch(b"a", b"b", producer_id=4, producer_epoch=0, base_sequence=2 * number), epoch=number // 3
        )
    broker.settle()
    return log


def next_one(log: PartitionLog, *values: bytes) -> Any:
    sequence = log.producers.producers[4].sent[-1].last_sequence + 1
    return batch(*values, producer_id=4, producer_epoch=0, base_sequence=sequence)


@pytest.mark.parametrize("size", [10, 50_000], ids=["small", "large"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_failed_write_takes_back_log_epochs_and_producers(
    disk: MemoryDisk, broker: Broker, log: PartitionLog, size: int, code: int
) -> None:
    watcher = Watcher(log)
    before = (log.producers.producers[4], log.epochs.pairs, log.size)
    disk.fail = failing("append", code)

    log.append(next_one(log, b"x"), 7)
    if size > 10:
        with pytest.raises(KafkaError) as caught:
            log.append(next_one(log, b"x" * size), 7)
        assert ErrorCode.KAFKA_STORAGE_ERROR == caught.value.code
    broker.settle()

    assert [10] == [end for end, _ in watcher.cuts]
    assert (10, 10, 10) == (log.flushed, log.written, log.end)
    assert before == (log.producers.producers[4], log.epochs.pairs, log.size)
    region = log.read(8, up_to=10, max_bytes=1000)
    assert region is not None
    assert [8] == [one.base_offset for one in split_batches(memoryview(region_bytes(region)))]


def raising(error: BaseException) -> Any:
    """When the end of a turn, or a write, is asked for."""

    def raises(operation: str = "append", path: str = "") -> None:
        if operation == "append":
            raise error

    return raises


@pytest.mark.parametrize("size", [10, 50_000], ids=["small", "large"])
def test_a_batch_for_which_there_is_no_memory_leaves_the_log_as_it_was(
    disk: MemoryDisk, broker: Broker, log: PartitionLog, size: int
) -> None:
    watcher = Watcher(log)
    before = (log.producers.producers[4], log.epochs.pairs, log.size)
    if size > 10:
        disk.fail = raising(MemoryError())
    else:
        broker.turn.wake = raising(MemoryError())
    with pytest.raises(KafkaError, match="out of memory") as caught:
        log.append(next_one(log, b"x" * size), 7)
    disk.fail = broker.turn.wake = None
    broker.settle()

    assert ErrorCode.KAFKA_STORAGE_ERROR == caught.value.code
    assert [10] == [end for end, _ in watcher.cuts]
    assert (10, 10, 10) == (log.flushed, log.written, log.end)
    assert before == (log.producers.producers[4], log.epochs.pairs, log.size)
    broker.clock.advance(1000)
    assert 10 == log.append(next_one(log, b"y"), 1)
    broker.settle()
    region = log.read(10, up_to=11, max_bytes=1000)
    assert region is not None
    assert [10] == [one.base_offset for one in split_batches(memoryview(region_bytes(region)))]
    assert (None, 11) == (broker.directory.failed, log.flushed)


@pytest.mark.parametrize("where", ["producers", "turn", "write"])
def test_a_log_that_breaks_while_it_takes_a_batch_is_stopped(
    disk: MemoryDisk, broker: Broker, log: PartitionLog, where: str
) -> None:
    """What it has counted may not be in its file: a batch taken after that would be looked for in the wrong place."""
    watcher = Watcher(log)
    if where == "producers":  # a transaction's end that says nothing
        raw = bytearray(batch(b"", producer_id=4, producer_epoch=0).view[:-3])
        raw[8:12] = (len(raw) - 12).to_bytes(4, "big")
        raw[22] |= CONTROL
        broken = RecordBatch(memoryview(raw))
        broken.stamp(10, 1)
        taken: Any = partial(log.append_fetched, broken)
    elif where == "turn":
        broker.turn.wake = raising(AssertionError("a promise"))
        taken = partial(log.append, next_one(log, b"x"), 1)
    else:
        disk.fail = raising(AssertionError("a promise"))
        taken = partial(log.append, next_one(log, b"x" * 50_000), 1)
    with pytest.raises((AssertionError, IndexError, struct.error)):
        taken()
    disk.fail = broker.turn.wake = None
    broker.settle()

    assert [10] == [end for end, _ in watcher.cuts]
    with pytest.raises(KafkaError, match="is stopped"):
        log.append(next_one(log, b"y"), 1)
    assert log.read(8, up_to=10, max_bytes=1000) is not None
    assert broker.directory.failed is None
    broker.directory.close()
    again = Broker(disk)
    assert not again.directory.open(0, "cluster").clean
    assert 10 == again.directory.log(TP, TOPIC_ID, config()).end


def test_a_full_disk_refuses_until_there_is_space_and_serves_reads(disk: MemoryDisk, broker: Broker) -> None:
    log = broker.directory.log(TP, TOPIC_ID, config())
    log.append(batch(b"first"), 0)
    broker.settle()
    disk.capacity = disk.used() + 100
    log.append(batch(b"x" * 1000), 0)
    broker.settle()

    with pytest.raises(KafkaError, match="full disk"):
        log.append(batch(b"y"), 0)
    assert log.read(0, up_to=1, max_bytes=100) is not None
    assert broker.directory.failed is None

    disk.capacity = None
    with pytest.raises(KafkaError, match="full disk"):  # it looks once a second only
        log.append(batch(b"y"), 0)
    broker.clock.advance(1000)
    assert 1 == log.append(batch(b"y"), 0)
    broker.settle()
    assert 2 == log.flushed


def test_a_small_disk_need_not_be_emptied_to_take_writes_again(disk: MemoryDisk, broker: Broker) -> None:
    log = broker.directory.log(TP, TOPIC_ID, config())
    disk.capacity = disk.used() + 100_000
    for size in (60_000, 60_000):
        log.append(batch(b"x"), 0)
        with contextlib.suppress(KafkaError):
            log.append(batch(b"x" * size), 0)
    assert broker.directory.refusing
    disk.capacity = disk.used() + 300
    broker.clock.advance(1000)
    with pytest.raises(KafkaError, match="full disk"):
        log.append(batch(b"y"), 0)

    disk.capacity = disk.used() + 2000
    broker.clock.advance(1000)
    end = log.end
    assert end == log.append(batch(b"y"), 0)
    broker.settle()
    assert end + 1 == log.flushed


def test_a_full_disk_when_a_segment_rolls_loses_nothing(disk: MemoryDisk, broker: Broker) -> None:
    log = broker.directory.log(TP, TOPIC_ID, config(segment_bytes=300))
    watcher = Watcher(log)
    log.append(batch(b"x" * 150), 0)
    broker.settle()
    disk.fail = lambda operation, path: (
        errno.ENOSPC if operation == "create" and path.endswith(".log") else None
    )

    with pytest.raises(KafkaError, match="full disk"):
        log.append(batch(b"y" * 150), 0)
    assert [1] == [end for end, _ in watcher.cuts]

    disk.fail = None
    broker.clock.advance(1000)
    assert 1 == log.append(batch(b"y" * 150), 0)
    broker.settle()
    assert (2, 2) == (log.flushed, len(log.segments))


@pytest.mark.parametrize("what", ["create", "append", "rename"])
def test_a_full_disk_when_a_folder_is_made_leaves_no_part_of_its_metadata(
    disk: MemoryDisk, broker: Broker, what: str
) -> None:
    log = broker.directory.log(TP, TOPIC_ID, config())
    disk.fail = lambda operation, path: (
        errno.ENOSPC if operation == what and "partition.metadata" in path else None
    )
    with pytest.raises(KafkaError, match="full disk"):
        log.append(batch(b"x"), 0)

    disk.fail = None
    broker.clock.advance(1000)
    assert 0 == log.append(batch(b"x"), 0)
    broker.settle()
    assert 1 == log.flushed
    disk.crash("none")

    again = Broker(disk)
    assert {TP: TOPIC_ID} == again.directory.open(0, "cluster").partitions
    log = again.directory.log(TP, TOPIC_ID, config())
    again.settle()
    assert 1 == log.flushed


ROLLING = [
    ("append", ".index"),
    ("append", ".timeindex"),
    ("create", ".snapshot"),
    ("append", ".snapshot"),
    ("create", "2.log"),
]
LIMITS = config(segment_bytes=1000, index_interval_bytes=0)


@pytest.mark.parametrize("stop", ["clean", "kill"])
@pytest.mark.parametrize(("what", "part"), ROLLING)
def test_a_roll_that_fails_anywhere_leaves_the_old_segment_to_go_on(
    disk: MemoryDisk, broker: Broker, what: str, part: str, stop: str
) -> None:
    log = broker.directory.log(TP, TOPIC_ID, LIMITS)
    for size in (400, 200):
        log.append(batch(b"a" * size), 0)
    broker.settle()
    disk.fail = failing(what, errno.ENOSPC, part)
    with pytest.raises(KafkaError, match="full disk"):
        log.append(batch(b"b" * 300), 0)
    disk.fail = None
    broker.clock.advance(1000)
    for size in (10, 300, 300, 300, 300):
        log.append(batch(b"c" * size), 0)
        broker.settle()
    assert [0, 3, 5] == [segment.base for segment in log.segments]

    _stop_and_find_all(disk, broker, stop, 7)


@pytest.mark.parametrize("base", [1, 2, 3, 4])
@pytest.mark.parametrize("point", [False, True], ids=["", "checkpoint"])
@pytest.mark.parametrize("stop", ["clean", "kill"])
def test_an_empty_segment_that_a_failed_roll_left_is_no_hole(
    disk: MemoryDisk, broker: Broker, stop: str, point: bool, base: int
) -> None:
    log = broker.directory.log(TP, TOPIC_ID, LIMITS)
    for size in (400, 200, 10, 300, 300):
        log.append(batch(b"a" * size), 0)
    broker.settle()
    if point:
        broker.directory.checkpoint()
        broker.settle()
    assert [0, 3] == [segment.base for segment in log.segments]
    if base != 3:
        disk.open(f"/data/orders-0/{base:020d}.log", create=True)
        disk.sync_dir("/data/orders-0")

    _stop_and_find_all(disk, broker, stop, 5)


def _stop_and_find_all(disk: MemoryDisk, broker: Broker, stop: str, end: int) -> None:
    if stop == "clean":
        broker.directory.close()
    disk.crash("none")
    again = Broker(disk)
    again.directory.open(0, "cluster")
    log = again.directory.log(TP, TOPIC_ID, LIMITS)
    again.settle()
    assert not log.lost
    assert (0, end, end) == (log.start, log.flushed, log.end)
    for offset in range(end):
        region = log.read(offset, up_to=end, max_bytes=1)
        assert region is not None
        assert offset == split_batches(memoryview(region_bytes(region)))[0].base_offset
    assert end == log.append(batch(b"next"), 1)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_without_descriptors_writes_are_refused_until_there_are_some(
    disk: MemoryDisk, broker: Broker, log: PartitionLog, code: int
) -> None:
    disk.no_descriptors = code
    log.append(next_one(log, b"x"), 1)
    broker.settle()
    with pytest.raises(KafkaError, match="cannot be written now"):
        log.append(next_one(log, b"x"), 1)
    assert broker.directory.failed is None

    disk.no_descriptors = None
    broker.clock.advance(1000)
    assert 10 == log.append(next_one(log, b"x"), 1)
    broker.settle()
    assert 11 == log.flushed


@pytest.mark.parametrize("new", [False, True], ids=["", "new"])
def test_a_flush_without_descriptors_is_done_later(
    disk: MemoryDisk, broker: Broker, log: PartitionLog, new: bool
) -> None:
    tp = TopicPartition("orders", 1) if new else TP
    log = broker.directory.log(tp, TOPIC_ID, config())
    before = log.end
    watcher = Watcher(log)
    log.append(batch(b"x"), 1)
    broker.turn.run()
    disk.no_descriptors = errno.EMFILE
    for _ in range(3):
        broker.settle()
        assert (before, before + 1) == (log.flushed, log.written)
        assert not broker.directory.flusher.idle
        broker.clock.advance(1000)

    disk.no_descriptors = None
    broker.settle()
    broker.clock.advance(1000)
    broker.settle()
    assert before + 1 == log.flushed
    assert broker.directory.flusher.idle
    assert (None, []) == (broker.directory.failed, watcher.cuts)
    assert not disk.exists("/data/.fsync_failed")
    disk.crash("none")
    again = Broker(disk)
    again.directory.open(0, "cluster")
    log = again.directory.log(tp, TOPIC_ID, config())
    assert (before + 1, False) == (log.end, log.lost)


@pytest.mark.parametrize("put_off", [False, True], ids=["", "put-off"])
def test_a_flush_that_begins_anew_makes_a_new_partition_s_names_durable(
    disk: MemoryDisk, broker: Broker, put_off: bool
) -> None:
    """Rolls remove a snapshot that the flush had to sync: it stops there, before it came to the folder's name."""
    log = broker.directory.log(OTHER, TOPIC_ID, config(segment_bytes=300))

    def roll(times: int) -> None:
        for _ in range(times):
            log.append(batch(b"x" * 200), 0)

    roll(3)
    broker.turn.run()
    if put_off:  # the snapshot of this roll comes before the partition's metadata, then
        roll(1)
        broker.turn.run()
        disk.no_descriptors = errno.EMFILE
        broker.settle()
        disk.no_descriptors = None
        broker.clock.advance(1000)
        broker.turn.run()
    roll(2)
    broker.settle()
    end = log.end
    assert (end, None) == (log.flushed, broker.directory.failed)
    disk.crash("none")

    again = Broker(disk)
    again.directory.open(0, "cluster")
    log = again.directory.log(OTHER, TOPIC_ID, config(segment_bytes=300))

    assert (end, False) == (log.end, log.lost)


def test_a_checkpoint_without_descriptors_is_made_the_next_time(
    disk: MemoryDisk, broker: Broker, log: PartitionLog
) -> None:
    broker.directory.checkpoint()
    disk.no_descriptors = errno.EMFILE
    broker.settle()
    assert broker.directory.failed is None

    disk.no_descriptors = None
    broker.directory.checkpoint()
    broker.settle()
    assert b"orders 0 10" in disk.read("/data/recovery-point-offset-checkpoint")


def test_an_io_error_stops_the_directory_for_good_and_reads_go_on(
    disk: MemoryDisk, broker: Broker, log: PartitionLog
) -> None:
    disk.fail = failing("append", errno.EIO)
    log.append(next_one(log, b"x"), 1)
    broker.settle()
    disk.fail = None
    broker.clock.advance(10_000)

    assert broker.directory.failed is not None
    with pytest.raises(KafkaError) as caught:
        log.append(next_one(log, b"x"), 1)
    assert ErrorCode.KAFKA_STORAGE_ERROR == caught.value.code
    assert log.read(0, up_to=10, max_bytes=1000) is not None


def test_a_failed_fsync_is_not_tried_again_and_nothing_behind_it_counts(
    disk: MemoryDisk, broker: Broker, log: PartitionLog
) -> None:
    watcher = Watcher(log)
    log.append(next_one(log, b"x"), 1)
    disk.fail = failing("sync", errno.EIO)
    broker.settle()
    disk.fail = None
    syncs = [entry for entry in disk.log if entry[0] == "sync" and entry[1].endswith(".log")]
    broker.settle()

    assert syncs == [entry for entry in disk.log if entry[0] == "sync" and entry[1].endswith(".log")]
    assert (10, 10, 10) == (log.flushed, log.written, log.end)
    assert [10] == [end for end, _ in watcher.cuts]
    assert broker.directory.failed is not None
    assert log.read(10, up_to=11, max_bytes=1000) is None
    region = log.read(8, up_to=11, max_bytes=1000)
    assert region is not None
    assert [8] == [one.base_offset for one in split_batches(memoryview(region_bytes(region)))]


@pytest.mark.parametrize("broken", [0, 1])
def test_a_log_that_breaks_at_the_end_of_its_flush_is_stopped_and_the_others_go_on(
    disk: MemoryDisk, broker: Broker, broken: int
) -> None:
    logs = [broker.directory.log(TopicPartition("orders", n), TOPIC_ID, config()) for n in range(2)]
    watchers = [Watcher(log) for log in logs]
    for log in logs:
        log.append(batch(b"a", b"b"), 0)
    broker.turn.run()
    watchers[broken].fault = AssertionError("a promise")
    broker.settle()

    other = 1 - broken
    assert (2, [], None) == (logs[other].flushed, watchers[other].cuts, logs[other].broken)
    assert [2] == [end for end, _ in watchers[broken].cuts]
    assert (None, True) == (broker.directory.failed, broker.directory.flusher.idle)
    with pytest.raises(KafkaError, match="is stopped"):
        logs[broken].append(batch(b"c"), 0)
    logs[other].append(batch(b"c"), 0)
    broker.settle()
    assert 3 == logs[other].flushed
    broker.directory.close()
    again = Broker(disk)
    assert not again.directory.open(0, "cluster").clean
    assert 2 == again.directory.log(logs[broken].tp, TOPIC_ID, config()).end


def test_after_a_failed_fsync_the_next_start_writes_the_tail_again(disk: MemoryDisk) -> None:
    broker = Broker(disk)
    broker.directory.open(0, "cluster")
    log = broker.directory.log(TP, TOPIC_ID, config())
    log.append(batch(b"x" * 20), 0)
    disk.fail = failing("sync", errno.EIO)
    broker.settle()
    disk.fail = None
    broker.directory.close()
    disk.locks.clear()
    old = disk.find("/data/orders-0/00000000000000000000.log")

    again = Broker(disk)
    assert not again.directory.open(0, "cluster").clean
    log = again.directory.log(TP, TOPIC_ID, config())
    again.settle()

    assert 1 == log.flushed
    assert old is not disk.find("/data/orders-0/00000000000000000000.log")
    again.directory.close()
    disk.crash("none")
    last = Broker(disk)
    assert last.directory.open(0, "cluster").clean
    assert 1 == last.directory.log(TP, TOPIC_ID, config()).end


def test_an_fsync_vouches_only_for_what_was_not_cut_since_it_began(broker: Broker, log: PartitionLog) -> None:
    log.append(next_one(log, b"x", b"y"), 1)
    broker.turn.run()
    assert 1 == len(broker.threads.waiting)

    assert 6 == log.truncate_to(6)
    log.append(next_one(log, b"other", b"one"), 2)
    log.append(next_one(log, b"and", b"more"), 2)
    log.write_out()
    broker.threads.step()

    assert 6 == log.flushed
    assert 10 == log.written
    broker.settle()
    assert 10 == log.flushed


def test_a_truncation_is_synced_before_anything_is_written_behind_it(
    disk: MemoryDisk, broker: Broker, log: PartitionLog
) -> None:
    broker.directory.checkpoint()
    broker.settle()
    del disk.log[:]

    log.truncate_to(6)
    log.append(next_one(log, b"x"), 3)
    broker.settle()

    data = [what for what, path in disk.log if path.endswith("0.log")]
    assert ["truncate", "sync", "append", "sync"] == data
    names = [what + " " + path.rpartition("/")[2] for what, path in disk.log]
    assert names.index("sync_dir data") < names.index(
        "truncate 00000000000000000000.log"
    )  # the recovery point


def test_a_region_is_stale_once_its_log_was_cut(log: PartitionLog) -> None:
    region = log.read(0, up_to=10, max_bytes=10_000)
    assert region is not None
    assert not region.stale

    log.truncate_to(8)

    assert region.stale
    fresh = log.read(0, up_to=8, max_bytes=10_000)
    assert fresh is not None
    assert not fresh.stale


def test_a_segment_deleted_while_it_is_being_synced_harms_nobody(disk: MemoryDisk, broker: Broker) -> None:
    log = broker.directory.log(TP, TOPIC_ID, config(segment_bytes=200))
    for _ in range(4):
        log.append(batch(b"x" * 100), 0)
    broker.turn.run()
    for segment in log.segments:
        segment.release()

    log.truncate_to(1)
    broker.settle()

    assert broker.directory.failed is None
    assert (1, 1) == (log.flushed, log.end)
    log.append(batch(b"y"), 1)
    broker.settle()
    assert 2 == log.flushed


def test_a_partition_deleted_while_it_is_being_synced_harms_nobody(disk: MemoryDisk, broker: Broker) -> None:
    log = broker.directory.log(TP, TOPIC_ID, config())
    log.append(batch(b"x"), 0)
    broker.turn.run()
    broker.directory.delete(TP)
    log.release()
    broker.settle()
    broker.clock.advance(60_000)
    broker.settle()

    assert broker.directory.failed is None
    assert [] == [name for name in disk.list("/data") if name.startswith("orders")]


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "full"), AssertionError("a promise")])
@pytest.mark.parametrize("part", ["append", "rename"])
def test_a_checkpoint_that_fails_in_the_middle_is_made_whole_the_next_time(
    disk: MemoryDisk, broker: Broker, part: str, fault: BaseException
) -> None:
    logs = [broker.directory.log(TopicPartition("orders", n), TOPIC_ID, config()) for n in range(3)]
    for log in logs:
        log.append(batch(b"a"), 7)
    broker.settle()

    def fail(what: str, path: str) -> None:
        if what == part and "orders-1/leader-epoch-checkpoint" in path:
            raise fault

    disk.fail = fail
    with pytest.raises(AssertionError) if isinstance(fault, AssertionError) else contextlib.nullcontext():
        broker.directory.checkpoint()
        broker.settle()
    disk.fail = None
    broker.directory.checkpoint()
    broker.settle()

    points = disk.read("/data/recovery-point-offset-checkpoint")
    for number in range(3):
        assert b"orders %d 1\n" % number in points
        assert b"0\n1\n7 0\n" == disk.read(f"/data/orders-{number}/leader-epoch-checkpoint")


def test_a_stopped_partition_keeps_the_stop_from_counting_as_clean(disk: MemoryDisk, broker: Broker) -> None:
    log = broker.directory.log(TP, TOPIC_ID, config())
    other = broker.directory.log(TopicPartition("orders", 1), TOPIC_ID, config())
    for each in (log, other):
        each.append(batch(b"a"), 0)
        broker.settle()
    broker.directory.checkpoint()
    broker.settle()
    log.append(batch(b"b"), 0)
    other.append(batch(b"b"), 0)
    broker.turn.run()
    log.failed(AssertionError("a promise"))
    for _ in range(2):  # the other one's flush goes well, this one's is as it may be
        broker.settle()
    log.flushed = 1

    broker.directory.close()

    assert b"0\n2\norders 0 1\norders 1 2\n" == disk.read("/data/recovery-point-offset-checkpoint")
    disk.crash("none")
    again = Broker(disk)
    assert not again.directory.open(0, "cluster").clean
    log = again.directory.log(TP, TOPIC_ID, config())
    assert (1, 2) == (log.flushed, log.end)
    again.settle()
    assert (2, False) == (log.flushed, log.lost)


@pytest.mark.parametrize("failed", [False, True], ids=["going-on", "failed"])
def test_a_stop_in_the_middle_of_a_flush_syncs_nothing_beside_it(
    disk: MemoryDisk, broker: Broker, log: PartitionLog, failed: bool
) -> None:
    log.append(next_one(log, b"x"), 1)
    broker.turn.run()
    if failed:
        broker.directory.flusher.error = OSError(errno.EIO, "of another log")
    del disk.log[:]

    broker.directory.close()

    assert [] == [what for what, _ in disk.log if what.startswith("sync")]
    disk.crash("all")
    again = Broker(disk)
    assert not again.directory.open(0, "cluster").clean
    assert (0, 11) == (again.directory.log(TP, TOPIC_ID, config()).flushed, again.directory.logs[TP].end)
