"""Upkeep: rounds in slices, retention by time and size, checkpoints, and nothing that ends the rounds."""

from __future__ import annotations

import pytest

from kbroker.cluster.commands import DeleteTopics
from kbroker.errors import ErrorCode, KafkaError
from kbroker.replication.partition import COMMITTED, Partition
from kbroker.replication.upkeep import PARTITIONS_PER_SLICE, SLICE_PAUSE_SECONDS, Upkeep
from tests.support.hosted import Hosted
from tests.support.partitions import Bell
from tests.support.storage import batch

CHECK_MS = 300_000  # log.retention.check.interval.ms
PAUSE_MS = int(SLICE_PAUSE_SECONDS * 1000)
MIB = 1 << 20


@pytest.fixture
def hosted() -> Hosted:
    return Hosted(values={"log.flush.offset.checkpoint.interval.ms": "60000"})


def upkeep(hosted: Hosted) -> Upkeep:
    made = Upkeep(
        hosted.replicas, hosted.broker.directory, settings=hosted.settings, clock=hosted.broker.clock
    )
    made.start()
    return made


def fill(hosted: Hosted, partition: Partition, segments: int) -> None:
    """So many segments of 1 MiB, a quarter of a segment a batch, and one batch more."""
    for _ in range(segments * 4 + 1):
        raw = batch(b"x" * (MIB // 4 - 200), timestamp=hosted.broker.clock.now_ms)
        partition.append(memoryview(bytearray(raw.view)), COMMITTED)
    hosted.broker.settle()


def looks(hosted: Hosted, monkeypatch) -> list[str]:
    """Whom a round looks at, noted as it does."""
    seen: list[str] = []
    monkeypatch.setattr(Partition, "retain", lambda self, now_ms: seen.append(str(self.tp)))
    return seen


def test_old_segments_go_by_their_newest_record_and_readers_are_told(hosted):
    hosted.create("orders", configs={"retention.ms": "3600000", "segment.bytes": str(MIB)})
    partition, bell = hosted.get("orders"), Bell()
    fill(hosted, partition, 2)
    upkeep(hosted)
    partition.watch(bell)
    hosted.broker.clock.advance(CHECK_MS)
    hosted.broker.settle()
    assert (0, 0, 3) == (partition.log.start, bell.rings, len(partition.log.segments))

    hosted.broker.clock.advance(3_600_000)
    hosted.broker.settle()
    assert (9, 9, 1) == (partition.log.start, partition.log.end, bell.rings)
    assert 1 == len(partition.log.segments)


def test_a_partition_shrinks_to_its_size_by_whole_segments(hosted):
    hosted.create("orders", configs={"retention.bytes": str(2 * MIB), "segment.bytes": str(MIB)})
    partition = hosted.get("orders")
    fill(hosted, partition, 4)
    upkeep(hosted)
    hosted.broker.clock.advance(CHECK_MS)
    hosted.broker.settle()

    assert (8, 17) == (partition.log.start, partition.log.end)
    assert 2 * MIB <= partition.log.size < 3 * MIB


def test_nothing_above_the_watermark_goes(hosted):
    hosted.create("orders", configs={"retention.ms": "1", "segment.bytes": str(MIB)})
    partition = hosted.get("orders")
    fill(hosted, partition, 1)
    for _ in range(8):
        raw = batch(b"x" * (MIB // 4), timestamp=hosted.broker.clock.now_ms)
        partition.append(memoryview(bytearray(raw.view)), COMMITTED)
    upkeep(hosted)
    hosted.broker.clock.advance(CHECK_MS)

    assert 0 < partition.log.start <= partition.high_watermark


def test_a_round_goes_in_slices_and_the_next_one_follows_the_interval(hosted, monkeypatch):
    count = PARTITIONS_PER_SLICE * 2 + 1
    hosted.create("orders", count)
    for index in range(count):
        hosted.get("orders", index)
    seen = looks(hosted, monkeypatch)
    upkeep(hosted)

    hosted.broker.clock.advance(CHECK_MS)
    assert PARTITIONS_PER_SLICE == len(seen)
    hosted.broker.clock.advance(PAUSE_MS + 1)
    assert 2 * PARTITIONS_PER_SLICE == len(seen)
    hosted.broker.clock.advance(PAUSE_MS + 1)
    assert count == len(seen) == len(set(seen))
    hosted.broker.clock.advance(CHECK_MS - 1000)
    assert count == len(seen)
    hosted.broker.clock.advance(1001)
    assert count + PARTITIONS_PER_SLICE == len(seen)


def test_a_topic_deleted_in_the_middle_of_a_round_is_not_looked_at(hosted, monkeypatch):
    hosted.create("a", PARTITIONS_PER_SLICE)
    gone = hosted.create("b")
    for index in range(PARTITIONS_PER_SLICE):
        hosted.get("a", index)
    hosted.get("b")
    seen = looks(hosted, monkeypatch)
    upkeep(hosted)
    hosted.broker.clock.advance(CHECK_MS)
    hosted.do(DeleteTopics([gone.id]))
    hosted.broker.clock.advance(PAUSE_MS + 1)

    assert PARTITIONS_PER_SLICE == len(seen)
    assert "b-0" not in seen


@pytest.mark.parametrize(
    "error", [KafkaError(ErrorCode.KAFKA_STORAGE_ERROR), OSError("no"), AssertionError("a promise")]
)
def test_a_partition_that_fails_does_not_stop_the_round_nor_the_next(hosted, monkeypatch, error):
    hosted.create("orders", 3)
    for index in range(3):
        hosted.get("orders", index)
    seen: list[int] = []

    def retain(self: Partition, now_ms: int) -> None:
        seen.append(self.tp.partition)
        if self.tp.partition == 1:
            raise error

    monkeypatch.setattr(Partition, "retain", retain)
    upkeep(hosted)
    hosted.broker.clock.advance(CHECK_MS)
    hosted.broker.clock.advance(CHECK_MS)

    assert [0, 1, 2, 0, 1, 2] == seen


def test_checkpoints_are_written_at_their_interval(hosted):
    hosted.create("orders")
    fill(hosted, hosted.get("orders"), 0)
    upkeep(hosted)
    path = "/data/recovery-point-offset-checkpoint"
    assert not hosted.disk.exists(path)

    hosted.broker.clock.advance(60_000)
    hosted.broker.settle()
    assert b"orders 0 1" in hosted.disk.read(path)


def test_a_checkpoint_that_fails_is_tried_again(hosted, monkeypatch):
    calls: list[int] = []

    def checkpoint() -> None:
        calls.append(1)
        raise OSError("no")

    monkeypatch.setattr(hosted.broker.directory, "checkpoint", checkpoint)
    upkeep(hosted)
    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            hosted.broker.clock.advance(60_000)

    assert 2 == len(calls)


def test_a_stop_ends_the_rounds(hosted, monkeypatch):
    hosted.create("orders")
    hosted.get("orders")
    seen = looks(hosted, monkeypatch)
    upkeep(hosted).stop()
    hosted.broker.clock.advance(CHECK_MS)

    assert ([], []) == (seen, hosted.broker.clock.timers)
