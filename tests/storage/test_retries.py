"""A producer that sends again after a restart, with five requests on their way: each gets its old offset."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from kbroker.errors import ErrorCode, KafkaError
from kbroker.storage import snapshots
from kbroker.storage.log import PartitionLog
from tests.support.memory_disk import MemoryDisk
from tests.support.storage import TOPIC_ID, TP, Broker, batch, config

BATCH = 80


def start(disk: MemoryDisk) -> tuple[Broker, PartitionLog]:
    broker = Broker(disk)
    broker.directory.open(0, "cluster")
    return broker, broker.directory.log(TP, TOPIC_ID, config(segment_bytes=600, index_interval_bytes=150))


def send(log: PartitionLog, number: int, producer_id: int = 3) -> int | None:
    """The batch of two records with that number: the offset that it had already, or None when it was taken."""
    one = batch(b"x" * BATCH, b"y", producer_id=producer_id, producer_epoch=0, base_sequence=2 * number)
    known = log.check_sequence(one)
    if known is None:
        log.append(one, 0)
    return known


def stop(broker: Broker) -> None:
    broker.directory.close()


def kill(broker: Broker) -> None:
    broker.directory.abandon()


@pytest.mark.parametrize("end", [stop, kill])
@pytest.mark.parametrize("count", range(5, 16))  # with segments of three batches: just rolled, and not
def test_the_last_five_batches_are_recognised_after_a_restart(
    end: Callable[[Broker], None], count: int
) -> None:
    disk = MemoryDisk()
    broker, log = start(disk)
    for number in range(count):
        assert send(log, number) is None
        assert send(log, number, producer_id=4) is None
    broker.settle()
    end(broker)

    _, log = start(disk)

    five = range(count - 5, count)
    assert [4 * number for number in five] == [send(log, number) for number in five]
    assert [4 * number + 2 for number in five] == [send(log, number, producer_id=4) for number in five]
    assert send(log, count) is None


def test_a_retry_is_recognised_when_newer_batches_came_after_the_restart() -> None:
    disk = MemoryDisk()
    broker, log = start(disk)
    for number in range(6):
        send(log, number)
    stop(broker)

    _, log = start(disk)
    assert send(log, 6) is None

    assert [4, 6, 8, 10, 12] == [send(log, number) for number in range(2, 7)]


def test_what_is_neither_known_nor_next_stays_refused() -> None:
    disk = MemoryDisk()
    broker, log = start(disk)
    for number in range(6):
        send(log, number)
    stop(broker)

    _, log = start(disk)

    for number in (0, 7):
        with pytest.raises(KafkaError) as caught:
            send(log, number)
        assert ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER == caught.value.code
    assert 5 == len(log.producers.producers[3].sent)


def test_nothing_of_an_older_epoch_is_taken_for_a_retry() -> None:
    disk = MemoryDisk()
    broker, log = start(disk)
    send(log, 0)
    log.append(batch(b"z", producer_id=3, producer_epoch=1, base_sequence=0), 0)
    stop(broker)

    _, log = start(disk)

    with pytest.raises(KafkaError) as caught:
        log.check_sequence(batch(b"x", producer_id=3, producer_epoch=1, base_sequence=7))
    assert ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER == caught.value.code
    assert [0] == [sent.first_sequence for sent in log.producers.producers[3].sent]


def test_the_log_is_looked_through_wider_while_few_batches_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "RECALL_BYTES", (150, 900))
    disk = MemoryDisk()
    broker, log = start(disk)
    for number in range(6):
        send(log, number)
    stop(broker)

    _, log = start(disk)

    assert 2 == send(log, 1)


def test_batches_of_many_other_producers_hide_no_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "RECALL_BYTES", (500, 1 << 20))
    monkeypatch.setattr(snapshots, "RECALL_BATCHES", 5)
    disk = MemoryDisk()
    broker, log = start(disk)
    for number in range(5):
        for producer in range(20):
            send(log, number, producer_id=10 + producer)
    stop(broker)

    _, log = start(disk)

    assert [2 * producer for producer in range(20)] == [
        send(log, 0, producer_id=10 + producer) for producer in range(20)
    ]


def test_damage_before_the_snapshot_leaves_what_is_known() -> None:
    disk = MemoryDisk()
    broker, log = start(disk)
    for number in range(6):
        send(log, number)
    stop(broker)
    broker, log = start(disk)
    assert log.producers.producers[3].sent
    for name in disk.list("/data/orders-0"):
        if name.endswith(".log"):
            data = disk.find(f"/data/orders-0/{name}").data  # type: ignore[union-attr]
            data[16 : len(data) : 40] = b"\7" * len(range(16, len(data), 40))

    with pytest.raises(KafkaError) as caught:
        send(log, 2)

    assert ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER == caught.value.code
    assert 10 == send(log, 5)


def test_a_retry_that_comes_while_nothing_can_be_opened_is_recognised_later() -> None:
    disk = MemoryDisk()
    broker, log = start(disk)
    for number in range(6):
        send(log, number)
    stop(broker)
    _, log = start(disk)
    assert log.producers.recall is not None

    disk.no_descriptors = errno.EMFILE
    for _ in range(2):
        with pytest.raises(OSError, match="not opened"):
            send(log, 2)
    disk.no_descriptors = None

    assert 4 == send(log, 2)


@pytest.mark.parametrize("keep", ["none", "torn", "all"])
def test_a_retry_is_recognised_though_retention_took_its_batch_and_the_power_went(keep: str) -> None:
    for steps in range(10):
        disk = MemoryDisk(seed=steps)
        broker, log = start(disk)
        send(log, 0)
        broker.settle()
        log.config = config(retention_bytes=0)
        broker.directory.producer_expiration_ms = 1 << 62
        assert 1 == log.retain(broker.clock.wall_ms(), log.end)
        for _ in range(steps):
            broker.clock.advance(100_000)
            broker.turn.run()
            broker.threads.step()
        broker.directory.checkpoint()
        broker.settle()
        disk.crash(keep)

        _, log = start(disk)

        assert 0 == send(log, 0)


def test_the_newest_snapshot_below_what_is_flushed_stays_when_the_batches_below_it_go() -> None:
    """Those beyond may lie behind the end that a power cut leaves: they say nothing then."""
    disk = MemoryDisk()
    broker, log = start(disk)
    send(log, 0)
    log.roll()
    broker.settle()
    log.delete_before(2, lambda _: None)
    for number in range(1, 5):
        send(log, number)
        log.roll()
    while broker.threads.step():  # the turn does not end: no flush
        pass
    assert not disk.exists("/data/orders-0/00000000000000000000.log")
    disk.sync_dir("/data/orders-0")
    disk.crash("none")

    broker, log = start(disk)

    assert (2, 2) == (log.start, log.end)  # there are empty segments up to offset 10
    assert 0 == send(log, 0)
    for number in range(1, 9):
        send(log, number)
        log.roll()
        broker.settle()
    snapshots = [name for name in disk.list("/data/orders-0") if name.endswith(".snapshot")]
    assert [f"{offset:020d}.snapshot" for offset in (14, 16, 18)] == snapshots


def test_a_snapshot_that_is_there_is_not_written_again() -> None:
    disk = MemoryDisk()
    broker, log = start(disk)
    send(log, 0)
    stop(broker)
    broker, log = start(disk)
    before = len(disk.log)

    log.roll()

    snapshot = "/data/orders-0/00000000000000000002.snapshot"
    assert [0, 2] == [segment.base for segment in log.segments]
    assert snapshot not in [path for _, path in disk.log[before:]]
    broker.settle()
    disk.crash("none")
    _, log = start(disk)
    assert 0 == send(log, 0)


@pytest.mark.parametrize("keep", ["none", "torn", "all"])
@pytest.mark.parametrize("roll", [False, True])
def test_old_segments_that_go_take_nothing_along_when_the_power_goes(keep: str, roll: bool) -> None:
    for seed in range(30):
        disk = MemoryDisk(seed=seed)
        broker, log = start(disk)
        send(log, 0)
        log.roll()
        if roll:
            send(log, 1)
            log.roll()
        broker.settle()
        end = log.flushed
        log.delete_before(end, lambda _: None)
        for _ in range(seed % 10):
            broker.turn.run()
            broker.threads.step()
        disk.crash(keep)

        broker, log = start(disk)
        broker.settle()

        assert (end, end) == (log.flushed, log.end)
        assert 2 * roll == send(log, int(roll))
