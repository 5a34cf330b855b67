"""What a start finds after an unclean stop: what is trusted, what is checked, what is cut and what never is."""

from __future__ import annotations

import pytest

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.records import split_batches
from kbroker.storage.log import PartitionLog
from tests.support.memory_disk import MemoryDisk
from tests.support.storage import TOPIC_ID, TP, Broker, batch, config, region_bytes

LOG = "/data/orders-0/00000000000000000000.log"
SMALL = {"segment_bytes": 600, "index_interval_bytes": 150}


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


def start(disk: MemoryDisk, **values: object) -> tuple[Broker, PartitionLog]:
    broker = Broker(disk)
    broker.directory.open(0, "cluster")
    return broker, broker.directory.log(TP, TOPIC_ID, config(**(values or SMALL)))


def fill(broker: Broker, log: PartitionLog, count: int, epoch: int = 0) -> None:
    for number in range(count):
        log.append(batch(b"%d" % number * 50, producer_id=-1), epoch)
    broker.settle()


def offsets(log: PartitionLog) -> list[int]:
    found, offset = [], log.start
    while offset < log.end:
        region = log.read(offset, up_to=log.end, max_bytes=1)
        assert region is not None
        (one,) = split_batches(memoryview(region_bytes(region)))
        found.append(one.base_offset)
        offset = one.last_offset + 1
    return found


def test_what_is_found_counts_as_flushed_only_after_it_was_synced(disk: MemoryDisk) -> None:
    broker, log = start(disk)
    fill(broker, log, 2)
    broker.directory.checkpoint()
    broker.settle()
    fill(broker, log, 2)
    disk.crash("all")

    broker, log = start(disk)

    assert (2, 4) == (log.flushed, log.end)
    broker.settle()
    assert (4, 4) == (log.flushed, log.end)


def test_a_torn_tail_is_cut_at_the_last_whole_batch_and_said(
    disk: MemoryDisk, caplog: pytest.LogCaptureFixture
) -> None:
    broker, log = start(disk)
    fill(broker, log, 3)
    disk.crash("all")
    del disk.find(LOG).data[-10:]  # type: ignore[union-attr]

    broker, log = start(disk)

    assert [0, 1] == offsets(log)
    (line,) = [line for line in caplog.messages if line.startswith("torn tail cut")]
    assert "folder=/data/orders-0 offset=2 bytes=" in line
    assert 2 == log.append(batch(b"again"), 1)
    broker.settle()
    assert [0, 1, 2] == offsets(log)


def test_a_bad_crc_behind_the_recovery_point_cuts_there(disk: MemoryDisk) -> None:
    broker, log = start(disk)
    fill(broker, log, 12)
    disk.crash("all")
    disk.find(LOG).data[100] ^= 1  # type: ignore[union-attr]

    broker, log = start(disk)

    assert [] == offsets(log)
    assert 1 == len(log.segments)


def test_a_batch_behind_the_recovery_point_that_lacks_nothing_but_its_offset_is_cut(disk: MemoryDisk) -> None:
    """It looks as if it began below the point, where nothing is ever cut."""
    broker, log = start(disk, segment_bytes=1 << 20)
    fill(broker, log, 5)
    broker.directory.checkpoint()
    broker.settle()
    size = disk.size(LOG)
    log.append(batch(b"torn"), 0)
    broker.turn.run()
    disk.crash("all")
    disk.find(LOG).data[size : size + 8] = bytes(8)  # type: ignore[union-attr]

    broker, log = start(disk, segment_bytes=1 << 20)

    assert (size, 5, False) == (disk.size(LOG), log.end, log.lost)
    assert 5 == log.append(batch(b"next"), 1)
    broker.settle()
    assert [0, 1, 2, 3, 4, 5] == offsets(log)


@pytest.mark.parametrize("policy", ["delete", "compact"])
def test_an_offset_that_falls_below_the_recovery_point_is_damage_and_nothing_is_cut(
    disk: MemoryDisk, policy: str
) -> None:
    topic = {**SMALL, "cleanup_policy": frozenset({policy})}
    broker, log = start(disk, **topic)
    fill(broker, log, 4)
    broker.directory.checkpoint()
    broker.settle()
    fill(broker, log, 8)
    fourth = log.segments[0].recent_positions[3]
    size, bases = disk.size(LOG), [segment.base for segment in log.segments]
    disk.crash("none")
    disk.find(LOG).data[fourth : fourth + 8] = bytes(8)  # type: ignore[union-attr]

    broker, log = start(disk, **topic)

    assert (size, bases) == (disk.size(LOG), [segment.base for segment in log.segments])
    assert (12, True) == (log.end, log.lost)
    assert log.read(11, up_to=12, max_bytes=10_000) is not None


def test_whole_segments_behind_damage_are_put_aside_not_removed(disk: MemoryDisk) -> None:
    for number in range(2):
        broker, log = start(disk)
        fill(broker, log, 12)
        disk.crash("all")
        last = [name for name in disk.list("/data/orders-0") if name.endswith(".log")][-1]
        held = disk.read(f"/data/orders-0/{last}")
        disk.find(LOG).data[100] ^= 1  # type: ignore[union-attr]

        broker, log = start(disk)

        assert (1, 0) == (len(log.segments), log.end)
        assert held == disk.read(f"/data/orders-0/{last}.{number}-stray")
        broker.settle()
        broker.directory.close()
        disk.remove(f"{LOG}")


def test_damage_below_the_recovery_point_is_never_cut_and_reading_it_is_an_error(disk: MemoryDisk) -> None:
    broker, log = start(disk)
    fill(broker, log, 12)
    broker.directory.checkpoint()
    broker.settle()
    size = disk.size(LOG)
    disk.crash("none")
    disk.find(LOG).data[125:145] = bytes(20)  # type: ignore[union-attr]  # over the second batch's length and magic

    broker, log = start(disk)
    broker.settle()

    assert size == disk.size(LOG)
    assert 12 == log.end
    with pytest.raises(KafkaError) as caught:
        log.read(1, up_to=12, max_bytes=10_000)
    assert ErrorCode.KAFKA_STORAGE_ERROR == caught.value.code
    assert log.read(11, up_to=12, max_bytes=10_000) is not None
    assert 12 == log.append(batch(b"on"), 1)


def test_a_log_that_lost_what_was_flushed_says_so_and_gives_no_offset_twice(disk: MemoryDisk) -> None:
    broker, log = start(disk, segment_bytes=1 << 20)
    fill(broker, log, 5)
    broker.directory.checkpoint()
    broker.settle()
    disk.crash("none")
    del disk.find(LOG).data[-50:]  # type: ignore[union-attr]

    broker, log = start(disk, segment_bytes=1 << 20)

    assert log.lost
    assert 5 == log.append(batch(b"next"), 1)
    broker.settle()
    for offset in (0, 3, 5):
        assert log.read(offset, up_to=6, max_bytes=1) is not None
    with pytest.raises(KafkaError, match="is damaged"):
        log.read(4, up_to=6, max_bytes=1)


def test_a_clean_stop_is_trusted_nothing_is_read_again(disk: MemoryDisk) -> None:
    broker, log = start(disk)
    fill(broker, log, 12)
    broker.directory.close()
    disk.find(LOG).data[100] ^= 1  # type: ignore[union-attr]  # inside a record: nobody looks

    broker, log = start(disk)

    assert (12, 12) == (log.flushed, log.end)
    assert not disk.exists("/data/.kafka_cleanshutdown")


def test_a_clean_stop_flushes_what_was_still_waiting(disk: MemoryDisk) -> None:
    broker, log = start(disk)
    for number in range(9):
        log.append(batch(b"%d" % number * 80, producer_id=3, producer_epoch=0, base_sequence=number), 4)
    broker.directory.close()
    disk.crash("none")

    broker, log = start(disk)

    assert 9 == log.end
    assert [(4, 0)] == log.epochs.pairs
    assert 8 == log.producers.producers[3].sent[-1].last_sequence


def test_epochs_in_the_file_beyond_the_recovery_point_give_way_to_the_batches(disk: MemoryDisk) -> None:
    broker, log = start(disk)
    fill(broker, log, 3, epoch=2)
    broker.directory.checkpoint()
    broker.settle()
    fill(broker, log, 3, epoch=5)
    disk.crash("all")
    path = "/data/orders-0/leader-epoch-checkpoint"
    disk.find(path).data[:] = b"0\n3\n2 0\n3 4\n9 5\n"  # type: ignore[union-attr]

    _, log = start(disk)

    assert [(2, 0), (5, 3)] == log.epochs.pairs


@pytest.mark.parametrize("content", [b"", b"garbage", b"0\n7\n0 0\n"])
def test_an_unfit_epoch_file_is_replaced_by_what_the_batches_say(disk: MemoryDisk, content: bytes) -> None:
    broker, log = start(disk)
    fill(broker, log, 3, epoch=2)
    fill(broker, log, 9, epoch=3)
    broker.directory.close()
    disk.find("/data/orders-0/leader-epoch-checkpoint").data[:] = content  # type: ignore[union-attr]

    _, log = start(disk)

    assert [(2, 0), (3, 3)] == log.epochs.pairs


@pytest.mark.parametrize("content", [None, b"", b"\0" * 800, b"\1\2\3" * 50])
def test_missing_or_wrong_indexes_are_made_again(disk: MemoryDisk, content: bytes | None) -> None:
    broker, log = start(disk)
    fill(broker, log, 30)
    broker.directory.close()
    for name in disk.list("/data/orders-0"):
        if name.endswith("index"):
            if content is None:
                disk.remove(f"/data/orders-0/{name}")
            else:
                disk.find(f"/data/orders-0/{name}").data[:] = content  # type: ignore[union-attr]

    _, log = start(disk)

    assert list(range(30)) == offsets(log)


def test_a_damaged_snapshot_is_dropped_and_the_batches_are_read(disk: MemoryDisk) -> None:
    broker, log = start(disk)
    for number in range(9):
        log.append(batch(b"%d" % number * 80, producer_id=3, producer_epoch=0, base_sequence=number), 4)
        broker.settle()
    broker.directory.close()
    for name in disk.list("/data/orders-0"):
        if name.endswith(".snapshot"):
            disk.find(f"/data/orders-0/{name}").data[-1] ^= 1  # type: ignore[union-attr]

    _, log = start(disk)

    assert [4, 5, 6, 7, 8] == [sent.last_sequence for sent in log.producers.producers[3].sent]


def test_leftovers_of_deletions_and_compactions_are_tidied(disk: MemoryDisk) -> None:
    broker, log = start(disk)
    fill(broker, log, 12)
    second = log.segments[1].base
    broker.directory.close()
    folder = "/data/orders-0"
    for name in ("00000000000000000000.log.deleted", "00000000000000000003.log.cleaned", "x.index.swap"):
        disk.open(f"{folder}/{name}", create=True)
    disk.rename(f"{folder}/{second:020d}.log", f"{folder}/{second:020d}.log.swap")

    _, log = start(disk)

    assert list(range(12)) == offsets(log)
    assert not [name for name in disk.list(folder) if name.endswith((".deleted", ".cleaned", ".swap"))]


def test_a_cut_is_on_the_disk_before_anything_is_written_behind_it(disk: MemoryDisk) -> None:
    broker, log = start(disk)
    fill(broker, log, 3)
    disk.crash("all")
    del disk.find(LOG).data[-10:]  # type: ignore[union-attr]
    del disk.log[:]

    broker, log = start(disk)
    log.append(batch(b"again"), 1)
    broker.settle()

    assert ["truncate", "sync", "append"] == [what for what, path in disk.log if path == LOG][:3]


def test_a_snapshot_of_another_history_is_not_used(disk: MemoryDisk) -> None:
    broker, log = start(disk)
    for number in range(8):
        log.append(batch(b"x" * 80, producer_id=3, producer_epoch=0, base_sequence=number), 0)
    broker.settle()
    assert len(log.segments) > 1
    log.truncate_to(2)
    for _ in range(12):
        log.append(batch(b"y" * 80), 1)
    broker.settle()
    disk.crash("all")

    _, log = start(disk)

    assert 1 == log.producers.producers[3].sent[-1].last_sequence


def put_back(disk: MemoryDisk, path: str, content: bytes) -> None:
    """A power cut has kept this file, of all that was not synced."""
    file = disk.open(path, create=True)
    file.append([content])
    file.sync()
    disk.sync_dir("/data/orders-0")


def end_without(disk: MemoryDisk, kept: str) -> None:
    """One record is acknowledged. The power goes after a roll: the next record is lost, a file behind it is not."""
    broker, log = start(disk)
    log.append(batch(b"a", producer_id=7, producer_epoch=0, base_sequence=0), 0)
    broker.settle()
    broker.directory.checkpoint()
    broker.settle()
    log.append(batch(b"b", producer_id=7, producer_epoch=0, base_sequence=1), 0)
    log.roll()
    log.append(batch(b"c", producer_id=-1), 0)
    broker.turn.run()
    content = disk.read(f"/data/orders-0/{kept}")
    disk.crash("none")
    put_back(disk, f"/data/orders-0/{kept}", content)


def test_a_segment_that_a_start_put_aside_stays_there_when_the_power_goes(disk: MemoryDisk) -> None:
    second = "00000000000000000002.log"
    end_without(disk, second)
    start(disk)
    disk.crash("none")

    assert [f"{second}.0-stray"] == [name for name in disk.list("/data/orders-0") if name.startswith(second)]


def test_a_snapshot_that_a_start_removed_vouches_for_nothing_when_the_power_goes_again(
    disk: MemoryDisk,
) -> None:
    """It would, once its offset is below the end of another history: a retry would be answered, and be nowhere."""
    end_without(disk, "00000000000000000002.snapshot")
    broker, log = start(disk)
    assert (1, 1) == (log.flushed, log.end)
    for _ in range(3):
        log.append(batch(b"other", producer_id=-1), 1)
    broker.settle()
    assert 4 == log.flushed
    disk.crash("none")

    _, log = start(disk)

    assert 4 == log.end
    assert log.check_sequence(batch(b"b", producer_id=7, producer_epoch=0, base_sequence=1)) is None


def test_a_snapshot_that_a_truncation_removed_vouches_for_nothing_when_the_power_goes(
    disk: MemoryDisk,
) -> None:
    broker, log = start(disk)
    for number in range(2):
        log.append(batch(b"a", producer_id=7, producer_epoch=0, base_sequence=number), 0)
    broker.settle()
    broker.directory.close()  # in the middle of a segment: no other file goes with that snapshot
    broker, log = start(disk)
    log.truncate_to(1)
    for _ in range(3):
        log.append(batch(b"other", producer_id=-1), 1)
    broker.settle()
    assert 4 == log.flushed
    disk.crash("none")

    _, log = start(disk)

    assert 4 == log.end
    assert log.check_sequence(batch(b"a", producer_id=7, producer_epoch=0, base_sequence=1)) is None


def test_snapshots_that_vouch_for_lost_batches_are_gone_for_good_before_others_are_written(
    disk: MemoryDisk,
) -> None:
    """What is written may survive without having been flushed, and must not find them there."""
    end_without(disk, "00000000000000000002.snapshot")
    broker, log = start(disk)
    assert not disk.exists("/data/orders-0/00000000000000000002.snapshot")
    disk.crash("none")
    assert not disk.exists("/data/orders-0/00000000000000000002.snapshot")
    broker, log = start(disk)
    fill(broker, log, 2)
    broker.directory.close()
    assert disk.exists("/data/orders-0/00000000000000000003.snapshot")
    _, log = start(disk)
    log.truncate_to(2)
    disk.crash("none")
    assert not disk.exists("/data/orders-0/00000000000000000003.snapshot")


@pytest.mark.parametrize("back", [False, True], ids=["", "a-deleted-one-is-back"])
def test_segments_that_a_power_cut_emptied_all_begin_again_at_the_first(disk: MemoryDisk, back: bool) -> None:
    """The last one's name says where the log was, and that is more than anybody has."""
    broker, log = start(disk)
    fill(broker, log, 1)
    deleted = disk.read(LOG)
    fill(broker, log, 1)
    log.roll()
    broker.settle()
    log.delete_before(2, lambda _: None)
    broker.settle()
    for _ in range(3):
        log.append(batch(b"lost"), 0)
        log.roll()
    disk.sync_dir("/data/orders-0")
    disk.crash("none")
    if back:  # a part of it
        put_back(disk, LOG, deleted)

    broker, log = start(disk)

    assert [0, 2][not back :] == [segment.base for segment in log.segments]
    assert (2, 2, False) == (log.start, log.end, log.lost)
    fill(broker, log, 1)
    assert [2] == offsets(log)


def test_what_is_flushed_behind_a_damaged_segment_is_there_when_the_power_goes(disk: MemoryDisk) -> None:
    broker, log = start(disk)
    fill(broker, log, 3)
    broker.directory.checkpoint()
    broker.settle()
    disk.crash("none")
    content = disk.read(LOG)
    disk.remove(LOG)
    put_back(disk, LOG, content[:-110] + bytes(110))  # over the last batch's length and magic
    broker, log = start(disk)
    assert ([0, 3], True) == ([segment.base for segment in log.segments], log.lost)
    fill(broker, log, 2, epoch=1)
    assert 5 == log.flushed
    disk.crash("none")

    _, log = start(disk)

    assert [0, 3] == [segment.base for segment in log.segments]
    assert 5 == log.end
