"""A log directory: whose it is, what lies in it, deletion, and what is durable when somebody is told so."""

from __future__ import annotations

import errno
from uuid import UUID

import pytest

from kbroker.errors import StartError
from kbroker.model import TopicPartition
from kbroker.storage.disk import RealDisk
from tests.support.memory_disk import MemoryDisk
from tests.support.storage import TOPIC_ID, TP, Broker, batch, config


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


def opened(disk: MemoryDisk, *, fsync: bool = True) -> Broker:
    broker = Broker(disk, fsync=fsync)
    broker.directory.open(0, "cluster")
    return broker


def with_records(disk: MemoryDisk, tp: TopicPartition = TP) -> Broker:
    broker = opened(disk)
    broker.directory.log(tp, TOPIC_ID, config()).append(batch(b"a"), 0)
    broker.settle()
    return broker


def test_a_new_directory_gets_an_identity_that_stays(disk: MemoryDisk) -> None:
    first = Broker(disk).directory.open(3, None).identity
    disk.crash("none")

    again = Broker(disk).directory.open(3, None).identity

    assert first == again
    assert 22 == len(first.cluster_id)
    assert b"version=1\ncluster.id=" == disk.read("/data/meta.properties")[:21]


@pytest.mark.parametrize(
    ("node_id", "cluster_id", "why"),
    [
        (1, "cluster", "belongs to node 0, this is node 1"),
        (0, "other", "belongs to cluster cluster, not other"),
    ],
)
def test_a_directory_of_somebody_else_is_refused(
    disk: MemoryDisk, node_id: int, cluster_id: str, why: str
) -> None:
    opened(disk).directory.close()

    with pytest.raises(StartError, match=why):
        Broker(disk).directory.open(node_id, cluster_id)
    opened(disk)  # and it is not left locked


def test_a_directory_in_use_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = str(tmp_path_factory.mktemp("data"))
    first = Broker(RealDisk(), path)
    first.directory.open(0, None)

    with pytest.raises(StartError, match="in use by another process"):
        Broker(RealDisk(), path).directory.open(0, None)
    first.directory.abandon()
    Broker(RealDisk(), path).directory.open(0, None)


def test_folders_that_are_no_topics_of_ours_are_left_alone(disk: MemoryDisk) -> None:
    with_records(disk).directory.close()
    for name in ("__cluster_metadata-0", "cluster", "orders-1.0123456789abcdef-future", "gone-0.abc-stray"):
        disk.mkdir(f"/data/{name}")

    assert {TP: TOPIC_ID} == Broker(disk).directory.open(0, None).partitions
    assert disk.exists("/data/__cluster_metadata-0")


def test_a_partition_whose_folder_is_gone_is_told(disk: MemoryDisk) -> None:
    with_records(disk).directory.close()
    disk.rename("/data/orders-0", "/elsewhere")

    assert frozenset({TP}) == Broker(disk).directory.open(0, None).lost


@pytest.mark.parametrize("stop", ["clean", "kill"])
def test_a_partition_whose_folder_is_gone_goes_on_at_its_old_end(disk: MemoryDisk, stop: str) -> None:
    broker = opened(disk)
    log = broker.directory.log(TP, TOPIC_ID, config())
    for _ in range(5):
        log.append(batch(b"a"), 0)
    broker.settle()
    log.delete_before(3, lambda _: None)
    broker.settle()
    broker.directory.close()
    disk.rename("/data/orders-0", "/elsewhere")

    broker = opened(disk)
    log = broker.directory.log(TP, TOPIC_ID, config())
    assert log.lost
    assert (5, 5, 5) == (log.start, log.flushed, log.end)
    assert 5 == log.append(batch(b"new"), 1)
    broker.settle()
    if stop == "clean":
        broker.directory.close()
    disk.crash("none")

    again = Broker(disk)
    assert not again.directory.open(0, "cluster").lost
    log = again.directory.log(TP, TOPIC_ID, config())
    again.settle()
    assert (5, 6, 6) == (log.start, log.flushed, log.end)
    assert log.read(5, up_to=6, max_bytes=1) is not None


def test_a_topic_made_again_begins_at_0_though_the_old_one_was_still_named_in_a_crash(
    disk: MemoryDisk,
) -> None:
    broker = with_records(disk)
    broker.directory.checkpoint()
    broker.settle()
    broker.directory.delete(TP)
    disk.crash("all")

    broker = opened(disk)
    broker.settle()
    assert not [name for name in disk.list("/data") if name.startswith("orders")]
    disk.crash("none")

    again = Broker(disk)
    assert not again.directory.open(0, "cluster").lost
    assert 0 == again.directory.log(TP, UUID(int=99), config()).end


def test_a_noted_start_beyond_the_end_takes_no_records_away(disk: MemoryDisk) -> None:
    with_records(disk).directory.close()
    disk.find("/data/log-start-offset-checkpoint").data[:] = b"0\n1\norders 0 3\n"  # type: ignore[union-attr]

    broker = opened(disk)
    log = broker.directory.log(TP, TOPIC_ID, config())
    assert log.lost
    assert (0, 1) == (log.start, log.end)
    for _ in range(4):
        log.append(batch(b"a"), 0)
    broker.settle()
    disk.crash("none")

    broker = opened(disk)
    log = broker.directory.log(TP, TOPIC_ID, config())
    broker.settle()
    assert (0, 5) == (log.start, log.flushed)


def test_a_deleted_partition_is_gone_at_once_and_its_files_after_the_delay(disk: MemoryDisk) -> None:
    broker = with_records(disk)
    region = broker.directory.log(TP, TOPIC_ID, config()).read(0, up_to=1, max_bytes=1000)
    assert region is not None

    broker.directory.delete(TP)

    assert not disk.exists("/data/orders-0")
    assert len(region) == region.file.read_into(memoryview(bytearray(len(region))), region.at)
    broker.clock.advance(59_999)
    broker.settle()
    assert [name for name in disk.list("/data") if name.endswith("-delete")]
    broker.clock.advance(1)
    broker.settle()
    assert not [name for name in disk.list("/data") if name.endswith("-delete")]


def test_what_was_being_deleted_is_removed_at_start(disk: MemoryDisk) -> None:
    broker = with_records(disk)
    broker.directory.delete(TP)
    broker.directory.close()

    again = opened(disk)
    again.clock.advance(0)
    again.settle()

    assert not [name for name in disk.list("/data") if name.startswith("orders")]


def test_a_long_topic_name_is_shortened_to_fit_when_deleted(disk: MemoryDisk) -> None:
    tp = TopicPartition("t" * 249, 12)
    broker = with_records(disk, tp)

    broker.directory.delete(tp)

    (name,) = [name for name in disk.list("/data") if name.endswith("-delete")]
    assert 255 == len(name)


def test_a_folder_of_another_topic_id_is_not_served(disk: MemoryDisk) -> None:
    with_records(disk).directory.close()
    broker = opened(disk)

    log = broker.directory.log(TP, UUID(int=99), config())

    assert 0 == log.end
    assert 0 == log.append(batch(b"new"), 0)
    broker.settle()
    assert UUID(int=99) == Broker(disk_without_locks(disk)).directory.open(0, None).partitions[TP]
    (name,) = [name for name in disk.list("/data") if name.endswith("-stray")]
    assert disk.size(f"/data/{name}/00000000000000000000.log") > 0


def test_a_folder_that_could_not_be_removed_with_its_topic_is_when_another_takes_the_name(
    disk: MemoryDisk,
) -> None:
    broker = with_records(disk)
    disk.fail = lambda what, path: errno.EIO if what == "rename" and "-delete" in path else None
    with pytest.raises(OSError, match="rename"):
        broker.directory.delete(TP)
    disk.fail = None

    assert 0 == broker.directory.log(TP, UUID(int=99), config()).end
    broker.clock.advance(100_000)
    broker.settle()

    assert [] == [name for name in disk.list("/data") if name.endswith(("-stray", "-delete"))]


def test_a_folder_that_lost_its_metadata_is_put_aside_not_removed(disk: MemoryDisk) -> None:
    with_records(disk).directory.close()
    disk.remove("/data/orders-0/partition.metadata")
    broker = opened(disk)

    log = broker.directory.log(TP, TOPIC_ID, config())
    assert (1, 1) == (log.start, log.end)
    broker.clock.advance(100_000)
    broker.settle()

    (name,) = [name for name in disk.list("/data") if name.endswith("-stray")]
    assert disk.size(f"/data/{name}/00000000000000000000.log") > 0


def test_a_folder_without_metadata_and_without_records_is_removed(disk: MemoryDisk) -> None:
    """A crash in the moment after it was made."""
    opened(disk).directory.close()
    disk.mkdir("/data/orders-0")
    disk.open("/data/orders-0/00000000000000000000.log", create=True).close()
    broker = opened(disk)

    broker.directory.log(TP, TOPIC_ID, config())
    broker.clock.advance(100_000)
    broker.settle()

    assert [] == [name for name in disk.list("/data") if name.endswith(("-stray", "-delete"))]


def test_folders_that_were_put_aside_are_named_at_each_start(
    disk: MemoryDisk, caplog: pytest.LogCaptureFixture
) -> None:
    opened(disk).directory.close()
    disk.mkdir("/data/orders-0.0123-stray")

    for _ in range(2):
        caplog.clear()
        opened(disk).directory.close()
        assert "folders=orders-0.0123-stray" in caplog.text


def test_a_log_start_is_on_the_disk_when_done_is_called(disk: MemoryDisk) -> None:
    broker = opened(disk)
    log = broker.directory.log(TP, TOPIC_ID, config())
    for _ in range(5):
        log.append(batch(b"a"), 0)
    broker.settle()
    answers: list[BaseException | None] = []

    log.delete_before(3, answers.append)
    assert 3 == log.start
    assert [] == answers
    broker.settle()
    assert [None] == answers
    disk.crash("none")

    again = opened(disk).directory.log(TP, TOPIC_ID, config())
    assert (3, 5) == (again.start, again.end)


def test_many_log_starts_share_their_writes(disk: MemoryDisk) -> None:
    broker = opened(disk)
    logs = [broker.directory.log(TopicPartition("t", number), TOPIC_ID, config()) for number in range(20)]
    for log in logs:
        log.append(batch(b"a", b"b"), 0)
    broker.settle()
    answers: list[BaseException | None] = []
    del disk.log[:]

    for log in logs:
        log.delete_before(2, answers.append)
    broker.settle()

    assert [None] * 20 == answers
    assert 2 == len([path for what, path in disk.log if what == "sync" and "log-start" in path])


def test_without_fsync_nothing_is_synced_but_by_checkpoints(disk: MemoryDisk) -> None:
    broker = opened(disk, fsync=False)
    log = broker.directory.log(TP, TOPIC_ID, config(segment_bytes=200))
    for _ in range(5):
        log.append(batch(b"a" * 100), 0)
    broker.settle()
    assert 5 == log.flushed
    assert not [path for what, path in disk.log if what == "sync"]

    broker.directory.checkpoint()
    broker.settle()

    synced = [path.rpartition("/")[2] for what, path in disk.log if what == "sync" and path.endswith(".log")]
    assert [f"{number:020d}.log" for number in range(4)] == synced
    assert b"0\n1\norders 0 4\n" == disk.read("/data/recovery-point-offset-checkpoint")


def test_an_unclean_stop_is_a_line_when_its_check_begins_and_one_when_it_ends(
    disk: MemoryDisk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with_records(disk)
    disk.crash("none")

    broker = opened(disk)
    begun = caplog.messages[:]
    broker.clock.advance(1500)
    broker.directory.log(TP, TOPIC_ID, config())

    assert ["unclean stop: checking partitions path=/data partitions=1"] == begun
    assert ["partitions checked path=/data partitions=1 seconds=1.5"] == caplog.messages[1:]


def test_a_clean_stop_checks_nothing(disk: MemoryDisk, caplog: pytest.LogCaptureFixture) -> None:
    with_records(disk).directory.close()
    caplog.set_level("INFO")

    opened(disk).directory.log(TP, TOPIC_ID, config())

    assert [] == caplog.messages


def test_a_stop_in_the_middle_of_a_checkpoint_is_not_clean(disk: MemoryDisk) -> None:
    broker = with_records(disk)
    broker.directory.checkpoint()  # its thread does not run any more
    broker.directory.close()

    again = opened(disk)
    assert not again.directory._clean
    log = again.directory.log(TP, TOPIC_ID, config())
    assert [(0, 0)] == log.epochs.pairs


def test_a_disk_that_fails_while_logs_are_saved_leaves_no_clean_mark(disk: MemoryDisk) -> None:
    broker = with_records(disk)
    disk.fail = lambda what, path: errno.EIO if what == "sync" and path.endswith(".tmp") else None
    saved: list[bool] = []
    broker.directory.save(lambda: saved.append(True))
    broker.settle()
    broker.directory.close()

    assert [True] == saved
    assert broker.directory.failed is not None
    assert not disk.exists("/data/.kafka_cleanshutdown")


def test_a_partition_that_was_not_checked_keeps_the_stop_from_counting_as_clean(disk: MemoryDisk) -> None:
    broker = with_records(disk)
    broker.directory.abandon()
    opened(disk).directory.close()

    assert not Broker(disk).directory.open(0, None).clean


def disk_without_locks(disk: MemoryDisk) -> MemoryDisk:
    disk.locks.clear()
    return disk
