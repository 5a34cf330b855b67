"""Which log is compacted when, and what ends a round."""

from __future__ import annotations

import errno

import pytest

from kbroker.cluster.commands import DeleteTopics
from kbroker.config import ResourceType
from kbroker.protocol.records import build_batch, decode_records, record, split_batches
from kbroker.replication.cleaner import CHECKPOINT_S, Cleaner
from kbroker.replication.partition import COMMITTED, Partition
from tests.support.hosted import Hosted
from tests.support.memory_disk import MemoryDisk
from tests.support.storage import region_bytes

BACKOFF_MS = 1000
MIB = 1 << 20
COMPACTED = {"cleanup.policy": "compact", "segment.bytes": str(MIB), "min.cleanable.dirty.ratio": "0.01"}


@pytest.fixture
def hosted() -> Hosted:
    return new_hosted()


def new_hosted(disk: MemoryDisk | None = None, **values: str) -> Hosted:
    named = {name.replace("_", "."): value for name, value in values.items()}
    return Hosted(disk, {"log.cleaner.backoff.ms": str(BACKOFF_MS), **named})


def cleaner(hosted: Hosted) -> Cleaner:
    made = Cleaner(
        hosted.replicas,
        hosted.broker.directory,
        settings=hosted.settings,
        clock=hosted.broker.clock,
        threads=hosted.broker.threads,
        in_process=False,
    )
    made.start()
    return made


def fill(hosted: Hosted, partition: Partition, segments: float, *, keys: int = 3) -> None:
    """So many segments of 1 MiB, a quarter of one a batch, whose keys come again."""
    for number in range(int(segments * 4)):
        one = record(
            b"x" * (MIB // 4 - 200), key=b"%d" % (number % keys), timestamp=hosted.broker.clock.now_ms
        )
        partition.append(memoryview(bytearray(build_batch([one]))), COMMITTED)
    hosted.broker.settle()


def saved(hosted: Hosted) -> None:
    hosted.broker.directory.checkpoint()
    hosted.broker.settle()


def look(hosted: Hosted, times: int = 1) -> None:
    """Let the cleaner look, and do what it finds."""
    for _ in range(times):
        hosted.broker.clock.advance(BACKOFF_MS)
        hosted.broker.settle()


def offsets(partition: Partition) -> list[int]:
    found, offset = [], partition.log.start
    while (region := partition.read(offset, MIB, at_least_one=True)) is not None:
        for one in split_batches(memoryview(region_bytes(region))):
            found += [each.offset for each in decode_records(one)]
            offset = one.next_offset
    return found


def compacted_to(hosted: Hosted, name: str = "orders") -> int | None:
    return {tp.topic: to for tp, to in hosted.broker.directory.cleaned.offsets.items()}.get(name)


def test_a_dirty_log_is_compacted_at_the_next_look(hosted):
    hosted.create("orders", configs=COMPACTED)
    partition = hosted.get("orders")
    fill(hosted, partition, 3)
    saved(hosted)
    cleaner(hosted)
    assert list(range(12)) == offsets(partition)

    look(hosted)

    end = partition.log.segments[-1].base
    assert end == compacted_to(hosted)
    assert [end - 3, end - 2, end - 1, *range(end, 12)] == offsets(partition)
    raw = hosted.disk.read("/data/cleaner-offset-checkpoint").decode()
    assert f"0\n1\norders 0 {end}\n" == raw


def dirty_and_not_saved() -> tuple[Hosted, Partition, Cleaner]:
    """A look has just asked for the checkpoint; the next one is far away."""
    hosted = new_hosted(log_cleaner_backoff_ms="60000")
    hosted.create("orders", configs=COMPACTED)
    partition = hosted.get("orders")
    fill(hosted, partition, 3)
    made = cleaner(hosted)
    hosted.broker.clock.advance(60_000)
    hosted.broker.settle()
    assert list(range(12)) == offsets(partition)
    return hosted, partition, made


def test_only_what_a_checkpoint_has_saved_is_compacted_and_one_is_asked_for_and_soon_used():
    hosted, partition, _ = dirty_and_not_saved()

    hosted.broker.clock.advance(int(CHECKPOINT_S * 1000))
    hosted.broker.settle()

    assert 12 > len(offsets(partition))


def test_a_cleaner_that_was_stopped_uses_no_checkpoint_that_it_asked_for():
    hosted, partition, made = dirty_and_not_saved()
    made.stop()

    hosted.broker.clock.advance(int(CHECKPOINT_S * 1000))
    hosted.broker.settle()

    assert list(range(12)) == offsets(partition)


def test_a_topic_that_is_not_compacted_is_left_alone(hosted):
    hosted.create("orders", configs={"segment.bytes": str(MIB)})
    partition = hosted.get("orders")
    fill(hosted, partition, 3)
    saved(hosted)
    cleaner(hosted)

    look(hosted)

    assert list(range(12)) == offsets(partition)
    assert compacted_to(hosted) is None


def test_it_waits_for_the_ratio_of_dirty_bytes(hosted):
    hosted.create("orders", configs={**COMPACTED, "min.cleanable.dirty.ratio": "0.6"})
    partition = hosted.get("orders")
    fill(hosted, partition, 4, keys=100)
    saved(hosted)
    cleaner(hosted)
    look(hosted)
    first = compacted_to(hosted)
    assert first is not None

    fill(hosted, partition, 2, keys=100)
    saved(hosted)
    look(hosted)
    assert first == compacted_to(hosted)

    fill(hosted, partition, 6, keys=100)
    saved(hosted)
    look(hosted)
    assert partition.log.segments[-1].base == compacted_to(hosted)


def test_the_dirtiest_log_comes_first_and_all_of_them_in_turn(hosted):
    for name, segments in (("a", 2), ("b", 5), ("c", 3)):
        hosted.create(name, configs=COMPACTED)
        fill(hosted, hosted.get(name), segments)
    saved(hosted)
    seen: list[str] = []
    move = type(hosted.broker.directory.cleaned).move

    class Points(type(hosted.broker.directory.cleaned)):  # type: ignore[misc]
        def move(self, tp, offset):
            seen.append(tp.topic)
            move(self, tp, offset)

    hosted.broker.directory.cleaned = Points(hosted.broker.directory)
    cleaner(hosted)

    look(hosted)

    assert {"a", "b", "c"} == set(seen)


def test_young_records_wait(hosted):
    hosted.create("orders", configs={**COMPACTED, "min.compaction.lag.ms": "60000"})
    partition = hosted.get("orders")
    fill(hosted, partition, 3)
    saved(hosted)
    cleaner(hosted)
    look(hosted)
    assert list(range(12)) == offsets(partition)

    hosted.broker.clock.advance(60_000)
    hosted.broker.settle()

    assert 12 > len(offsets(partition))


def test_old_records_wait_no_longer_whatever_the_ratio_and_the_newest_segment_is_closed_for_it(hosted):
    rules = {"min.cleanable.dirty.ratio": "1.0", "max.compaction.lag.ms": "60000"}
    hosted.create("orders", configs={**COMPACTED, **rules})
    partition = hosted.get("orders")
    fill(hosted, partition, 0.5, keys=1)
    cleaner(hosted)
    look(hosted, 5)
    assert [0, 1] == offsets(partition)

    hosted.broker.clock.advance(60_000)
    hosted.broker.settle()
    look(hosted, 2)

    assert [1] == offsets(partition)


def test_records_above_the_watermark_are_left_alone(hosted):
    hosted.create("orders", configs=COMPACTED)
    partition = hosted.get("orders")
    fill(hosted, partition, 3)
    saved(hosted)
    partition.high_watermark = 2
    cleaner(hosted)

    look(hosted)

    assert compacted_to(hosted) is None
    assert 4 == len(partition.log.segments) + 1


def test_tombstones_go_after_their_time(hosted):
    hosted.create("orders", configs={**COMPACTED, "delete.retention.ms": "5000"})
    partition = hosted.get("orders")
    tombstone = build_batch([record(None, key=b"gone", timestamp=hosted.broker.clock.now_ms)])
    partition.append(memoryview(bytearray(tombstone)), COMMITTED)
    fill(hosted, partition, 2)
    saved(hosted)
    cleaner(hosted)
    look(hosted)
    assert 0 == offsets(partition)[0]

    hosted.broker.clock.advance(5000)
    fill(hosted, partition, 2)
    saved(hosted)
    look(hosted)

    assert 0 != offsets(partition)[0]


def test_without_the_cleaner_nothing_is_compacted():
    hosted = new_hosted(log_cleaner_enable="false")
    hosted.create("orders", configs=COMPACTED)
    partition = hosted.get("orders")
    fill(hosted, partition, 3)
    saved(hosted)
    cleaner(hosted)

    look(hosted, 3)

    assert list(range(12)) == offsets(partition)


def test_another_backoff_counts_at_once(hosted):
    hosted.create("orders", configs=COMPACTED)
    partition = hosted.get("orders")
    fill(hosted, partition, 3)
    saved(hosted)
    made = cleaner(hosted)

    hosted.set(ResourceType.BROKER, "", "log.cleaner.backoff.ms", "100")
    made.follow_settings()
    hosted.broker.clock.advance(100)
    hosted.broker.settle()

    assert 12 > len(offsets(partition))


def test_no_more_logs_at_a_time_than_there_are_threads_for():
    hosted = new_hosted(log_cleaner_threads="2")
    for name in "abc":
        hosted.create(name, configs=COMPACTED)
        fill(hosted, hosted.get(name), 2)
    saved(hosted)
    cleaner(hosted)

    hosted.broker.clock.advance(BACKOFF_MS)

    assert 2 == len(hosted.broker.threads.waiting)
    hosted.broker.settle()
    assert all(compacted_to(hosted, name) for name in "abc")


@pytest.mark.parametrize("steps", range(8))
def test_a_topic_may_be_deleted_while_it_is_compacted(hosted, steps):
    topic = hosted.create("orders", configs={**COMPACTED, "file.delete.delay.ms": "0"})
    fill(hosted, hosted.get("orders"), 3)
    saved(hosted)
    cleaner(hosted)
    hosted.broker.clock.advance(BACKOFF_MS)
    for _ in range(steps):
        hosted.broker.turn.run()
        hosted.broker.threads.step()

    hosted.do(DeleteTopics([topic.id]))
    hosted.broker.settle()
    look(hosted, 2)

    assert not [name for name in hosted.disk.list("/data") if name.startswith("orders")]
    assert compacted_to(hosted) is None


@pytest.mark.parametrize("steps", range(8))
def test_it_may_be_stopped_at_any_step_and_the_next_start_goes_on(hosted, steps):
    hosted.create("orders", configs={**COMPACTED, "file.delete.delay.ms": "0"})
    partition = hosted.get("orders")
    fill(hosted, partition, 3)
    saved(hosted)
    made = cleaner(hosted)
    hosted.broker.clock.advance(BACKOFF_MS)
    for _ in range(steps):
        hosted.broker.threads.step()

    made.stop()
    hosted.broker.settle()
    look(hosted, 2)
    hosted.broker.directory.close()

    again = new_hosted(hosted.disk)
    again.ids = hosted.ids - 1
    again.create("orders", configs=COMPACTED)
    assert {9, 10, 11} <= set(offsets(again.get("orders")))
    assert not [name for name in hosted.disk.list("/data/orders-0") if name.endswith((".cleaned", ".swap"))]


def test_a_full_disk_puts_it_off(hosted):
    hosted.create("orders", configs=COMPACTED)
    partition = hosted.get("orders")
    fill(hosted, partition, 3)
    saved(hosted)
    cleaner(hosted)
    hosted.disk.fail = lambda what, path: (
        errno.ENOSPC if path.endswith(".cleaned") and what == "append" else None
    )

    look(hosted)
    assert list(range(12)) == offsets(partition)
    assert not [name for name in hosted.disk.list("/data/orders-0") if name.endswith(".cleaned")]
    assert hosted.broker.directory.failed is None

    hosted.disk.fail = None
    look(hosted)
    assert 12 > len(offsets(partition))


def test_a_damaged_log_is_not_tried_again(hosted):
    hosted.create("orders", configs=COMPACTED)
    partition = hosted.get("orders")
    fill(hosted, partition, 3)
    saved(hosted)
    hosted.disk.find(partition.log.segments[0].paths[0]).data[1000] ^= 1
    cleaner(hosted)
    look(hosted)

    before = hosted.disk.operations
    look(hosted, 3)

    assert before == hosted.disk.operations
    assert list(range(12)) == offsets(partition)


def test_many_keys_take_rounds_one_after_the_other():
    hosted = new_hosted(log_cleaner_dedupe_buffer_size="400")
    hosted.create("orders", configs=COMPACTED)
    partition = hosted.get("orders")
    fill(hosted, partition, 4, keys=5)
    saved(hosted)
    cleaner(hosted)

    look(hosted)

    end = partition.log.segments[-1].base
    assert end == compacted_to(hosted)
    assert [*range(end - 5, end), *range(end, 16)] == offsets(partition)


def test_damage_in_the_checkpoint_means_beginning_anew(hosted):
    hosted.create("orders", configs=COMPACTED)
    partition = hosted.get("orders")
    fill(hosted, partition, 3)
    saved(hosted)
    hosted.broker.disk.open("/data/cleaner-offset-checkpoint", create=True).append([b"nonsense"])
    cleaner(hosted)

    look(hosted)

    assert partition.log.segments[-1].base == compacted_to(hosted)


def test_what_the_checkpoint_says_beyond_a_logs_end_is_about_another_log(hosted):
    """A topic's points go with it, but the power may go first; then one of its name grows beyond them."""
    hosted.disk.open("/data/cleaner-offset-checkpoint", create=True).append([b"0\n1\norders 0 8\n"])
    hosted.create("orders", configs=COMPACTED)
    partition = hosted.get("orders")
    for number in range(2):
        early = build_batch([record(b"%d" % number, key=b"early")])
        partition.append(memoryview(bytearray(early)), COMMITTED)
    fill(hosted, partition, 3)
    saved(hosted)
    cleaner(hosted)

    look(hosted)

    assert 1 == offsets(partition)[0]


@pytest.mark.parametrize("ends", ["at its look", "with its segment"])
def test_a_round_ends_when_its_topic_is_not_compacted_any_more(hosted, ends):
    hosted.create("orders", configs=COMPACTED)
    partition = hosted.get("orders")
    fill(hosted, partition, 3)
    saved(hosted)
    cleaner(hosted)
    hosted.broker.clock.advance(BACKOFF_MS)
    assert 1 == len(hosted.broker.threads.waiting)

    hosted.set(ResourceType.TOPIC, "orders", "cleanup.policy", "delete")
    if ends == "at its look":
        hosted.broker.clock.advance(BACKOFF_MS)
    hosted.broker.settle()

    assert list(range(12)) == offsets(partition)
    assert compacted_to(hosted) is None
    hosted.set(ResourceType.TOPIC, "orders", "cleanup.policy", "compact")
    look(hosted, 2)
    assert 12 > len(offsets(partition))


def test_a_topic_made_anew_is_not_compacted_before_the_round_of_the_old_one_is_over():
    """Both would write files of the same names in the same folder."""
    hosted = new_hosted(log_cleaner_threads="2")
    old = hosted.create("orders", configs=COMPACTED)
    fill(hosted, hosted.get("orders"), 3)
    saved(hosted)
    cleaner(hosted)
    hosted.broker.clock.advance(BACKOFF_MS)
    held = hosted.broker.threads.waiting.pop()

    hosted.do(DeleteTopics([old.id]))
    hosted.create("orders", configs=COMPACTED)
    partition = hosted.get("orders")
    fill(hosted, partition, 3)
    saved(hosted)
    look(hosted)
    assert list(range(12)) == offsets(partition)

    hosted.broker.threads.waiting.append(held)
    hosted.broker.settle()
    look(hosted)
    assert 12 > len(offsets(partition))


def test_the_newest_segment_is_closed_in_time_after_a_restart_too(hosted):
    rules = {**COMPACTED, "min.cleanable.dirty.ratio": "1.0", "max.compaction.lag.ms": "60000"}
    hosted.create("orders", configs=rules)
    fill(hosted, hosted.get("orders"), 0.5, keys=1)
    hosted.broker.directory.close()
    again = new_hosted(hosted.disk)
    again.create("orders", configs=rules)
    partition = again.get("orders")
    cleaner(again)
    look(again, 2)
    assert 1 == len(partition.log.segments)

    again.broker.clock.advance(60_000)
    again.broker.settle()
    look(again, 2)

    assert [1] == offsets(partition)


def test_a_look_reads_no_index_that_it_has_read_before(hosted):
    rules = {**COMPACTED, "min.cleanable.dirty.ratio": "1.0", "max.compaction.lag.ms": "60000"}
    hosted.create("orders", configs=rules)
    partition = hosted.get("orders")
    fill(hosted, partition, 3, keys=100)
    saved(hosted)
    cleaner(hosted)
    look(hosted)
    closed = partition.log.segments[:-1]
    for segment in closed:
        hosted.broker.directory.indexes.forget(segment)
        segment.unload()

    look(hosted)

    assert all(segment.index is None for segment in closed)


def test_compact_and_delete_do_both(hosted):
    rules = {"cleanup.policy": "compact,delete", "retention.ms": "100000", "file.delete.delay.ms": "0"}
    hosted.create("orders", configs={**COMPACTED, **rules})
    partition = hosted.get("orders")
    fill(hosted, partition, 3)
    saved(hosted)
    cleaner(hosted)
    look(hosted)
    assert 12 > len(offsets(partition)) > 0

    hosted.broker.clock.advance(200_000)
    partition.retain(hosted.broker.clock.wall_ms())
    hosted.broker.settle()

    assert [] == offsets(partition)
    assert 12 == partition.log.start
