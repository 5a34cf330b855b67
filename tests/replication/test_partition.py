"""A partition: when a record counts, who is told, what is refused, what a crash or a full disk leaves."""

from __future__ import annotations

import errno

import pytest

from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import BrokerId
from kbroker.protocol import compression
from kbroker.protocol.records import RecordBatch, decode_records
from kbroker.replication.partition import COMMITTED, WRITTEN, Appended, Partition, Recompression
from tests.support.partitions import NODE, Bell, Stand
from tests.support.storage import config

NONE = ErrorCode.NONE
TIMED_OUT = ErrorCode.REQUEST_TIMED_OUT
STORAGE = ErrorCode.KAFKA_STORAGE_ERROR
NOT_LEADER = ErrorCode.NOT_LEADER_OR_FOLLOWER
GONE = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@pytest.fixture
def stand() -> Stand:
    return Stand()


@pytest.fixture
def three(stand: Stand) -> Stand:
    for name in "abc":
        stand.send(name)
    stand.settle()
    return stand


def refused(call, *args, **named) -> ErrorCode:
    with pytest.raises(KafkaError) as caught:
        call(*args, **named)
    return caught.value.code


def producer(sequence: int, *, pid: int = 7, epoch: int = 0) -> dict[str, int]:
    return {"producer_id": pid, "producer_epoch": epoch, "base_sequence": sequence}


# -- when a record counts


def test_acks_1_is_answered_when_written_and_acks_all_when_flushed(stand):
    stand.send("one", acks=WRITTEN)
    stand.send("all", acks=COMMITTED)
    assert {} == stand.answers

    stand.turn()
    assert {"one": NONE} == stand.answers
    assert (2, 0, 0) == (stand.log.written, stand.log.flushed, stand.partition.high_watermark)

    stand.flush()
    assert {"one": NONE, "all": NONE} == stand.answers
    assert (2, 2) == (stand.log.flushed, stand.partition.high_watermark)


def test_without_fsync_what_is_written_counts():
    stand = Stand(fsync=False)
    stand.send("all")

    stand.turn()

    assert {"all": NONE} == stand.answers
    assert 1 == stand.partition.high_watermark


def test_what_is_appended_in_the_middle_of_a_flush_waits_for_the_next_one(stand):
    stand.send("first")
    stand.turn()
    stand.send("second")
    stand.turn()

    stand.flush()
    assert ({"first": NONE}, 1) == (stand.answers, stand.partition.high_watermark)

    stand.flush()
    assert ({"first": NONE, "second": NONE}, 2) == (stand.answers, stand.partition.high_watermark)


def test_waiters_are_answered_in_the_order_of_their_offsets(stand):
    for name in "abc":
        stand.send(name)
    stand.settle()

    assert ["a", "b", "c"] == list(stand.answers)


@pytest.mark.parametrize("keep", ["none", "torn", "all"])
def test_a_crash_in_the_middle_of_a_flush_loses_nothing_that_was_answered(keep):
    stand = Stand()
    stand.send("kept")
    stand.settle()
    stand.send("open")
    stand.turn()
    assert {"kept": NONE} == stand.answers

    after = stand.crash(keep, epoch=1)

    assert [b"kept", b"open"][: after.log.end] == after.values()
    assert after.log.end >= 1


def test_a_start_serves_what_is_flushed_only():
    stand = Stand()
    stand.send("a")
    stand.settle()

    after = stand.crash("all", epoch=1)
    after.settle()

    assert 1 == after.partition.high_watermark == after.log.flushed


# -- duplicates


def test_a_duplicate_waits_for_its_original(stand):
    first = stand.send("original", **producer(0))
    again = stand.send("again", b"original", **producer(0))
    assert (first.base, first.end) == (again.base, again.end)

    stand.turn()
    assert {} == stand.answers
    stand.flush()
    assert {"original": NONE, "again": NONE} == stand.answers
    assert [b"original"] == stand.values()


@pytest.mark.parametrize("kind", ["LogAppendTime", "CreateTime"])
def test_a_duplicate_is_told_the_time_of_its_original_as_kafka_does(stand, kind):
    stand.partition.config = config(message_timestamp_type=kind)
    stand.send("original", **producer(0))
    stand.send("next", **producer(1))
    stand.settle()
    stand.clock.advance(1000)

    again = stand.send("again", b"original", **producer(0))

    kept = [batch.max_timestamp for batch in stand.batches()]
    assert (0, kept[0]) == (again.base, again.append_time_ms)


def test_a_duplicate_of_what_is_durable_is_answered_in_its_own_turn(stand):
    stand.send("original", **producer(0))
    stand.settle()

    stand.send("again", b"original", **producer(0))
    stand.turn()

    assert NONE == stand.answers["again"]
    assert 1 == stand.log.end


def test_a_duplicate_of_what_a_full_disk_took_back_is_told_so(stand):
    stand.send("original", **producer(0))
    stand.send("again", b"original", **producer(0))
    full(stand)
    stand.turn()

    assert {"original": STORAGE, "again": STORAGE} == stand.answers
    assert 0 == stand.log.end


def test_a_durable_duplicate_is_answered_once_those_before_it_have_timed_out(stand):
    """It stands behind a batch whose flush hangs: their time being over, its own success must not wait for its own."""
    stand.send("original", **producer(0))
    stand.settle()
    stand.send("hangs", timeout_ms=1000)
    stand.turn()
    stand.send("again", b"original", timeout_ms=60_000, **producer(0))
    stand.turn()

    stand.clock.advance(1000)
    assert stand.partition.expire(stand.clock.monotonic())
    stand.turn()

    assert {"original": NONE, "hangs": TIMED_OUT, "again": NONE} == stand.answers


@pytest.mark.parametrize(
    "fields, code",
    [
        (producer(5), ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER),
        (producer(3, epoch=3), ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER),
        (producer(1, epoch=0), ErrorCode.INVALID_PRODUCER_EPOCH),
    ],
)
def test_a_batch_out_of_its_producers_order_is_refused_and_not_kept(stand, fields, code):
    stand.send("a", **producer(0, epoch=1))
    if code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER and fields["producer_epoch"] == 0:
        fields = fields | {"producer_epoch": 1}

    assert code == refused(stand.send, "b", **fields)
    assert 1 == stand.log.end


# -- deadlines


def test_a_deadline_answers_timed_out_and_the_late_success_is_never_told(stand):
    stand.send("all", timeout_ms=1000)
    stand.turn()
    stand.clock.advance(999)
    assert stand.partition.expire(stand.clock.monotonic())
    assert {} == stand.answers

    stand.clock.advance(1)
    assert not stand.partition.expire(stand.clock.monotonic())
    assert {"all": TIMED_OUT} == stand.answers

    stand.settle()
    assert {"all": TIMED_OUT} == stand.answers
    assert (1, [b"all"]) == (stand.partition.high_watermark, stand.values())


def test_a_deadline_takes_its_own_waiter_and_leaves_the_others_in_order(stand):
    stand.send("a", timeout_ms=5000)
    stand.send("b", timeout_ms=1000)
    stand.send("c", timeout_ms=5000)
    stand.turn()
    stand.clock.advance(1000)

    stand.partition.expire(stand.clock.monotonic())
    stand.settle()

    assert [("b", TIMED_OUT), ("a", NONE), ("c", NONE)] == list(stand.answers.items())


def test_somebody_is_asked_once_to_look_after_deadlines_until_nobody_waits(stand):
    stand.send("a")
    stand.send("b", acks=WRITTEN)
    assert [stand.partition] == stand.waiting

    stand.settle()
    assert not stand.partition.expire(stand.clock.monotonic())
    stand.send("c")
    assert [stand.partition] * 2 == stand.waiting


def test_an_idle_partition_holds_no_queues(stand):
    stand.send("a")
    stand.send("b", acks=WRITTEN)
    bell = Bell()
    stand.partition.watch(bell)
    stand.settle()
    stand.partition.expire(stand.clock.monotonic())

    partition = stand.partition
    assert (None, None, None) == (
        partition._written_waiters,
        partition._committed_waiters,
        partition._watchers,
    )
    assert not partition.has_deadlines


# -- failed writes and flushes


def full(stand: Stand) -> None:
    """No more room for a log's bytes."""
    stand.disk.fail = lambda what, path: errno.ENOSPC if what == "append" and path.endswith(".log") else None


def test_a_full_disk_fails_those_it_cut_and_leaves_those_before(stand):
    stand.send("before")
    stand.turn()
    stand.send("cut")
    stand.send("cut too", acks=WRITTEN)
    full(stand)
    stand.turn()
    assert {"cut": STORAGE, "cut too": STORAGE} == stand.answers

    stand.flush()
    assert NONE == stand.answers["before"]
    assert (1, [b"before"]) == (stand.partition.high_watermark, stand.values())
    assert STORAGE == refused(stand.send, "refused")


def test_a_batch_too_large_to_be_copied_is_refused_on_a_full_disk_with_what_waited_before_it(stand):
    stand.send("small")
    full(stand)

    assert STORAGE == refused(stand.send, "large", b"x" * 20_000)
    assert ({"small": STORAGE}, 0) == (stand.answers, stand.log.end)


def test_offsets_that_others_took_after_a_cut_answer_nobody_who_had_them_before(stand):
    """Between an append and its `when` others may run: a batch of a request of many is checked in slices."""
    appended = stand.partition.append(stand.batch(b"cut"), COMMITTED)
    full(stand)
    stand.turn()
    stand.disk.fail = None
    stand.clock.advance(2000)
    stand.send("other")

    stand.wait("cut", appended)
    stand.settle()

    assert {"cut": STORAGE, "other": NONE} == stand.answers
    assert [b"other"] == stand.values()


def test_a_failed_fsync_answers_those_not_flushed_and_stops_writes(stand):
    stand.send("before")
    stand.settle()
    stand.send("cut")
    stand.disk.fail = lambda what, path: errno.EIO if what == "sync" and path.endswith(".log") else None
    stand.settle()

    assert {"before": NONE, "cut": STORAGE} == stand.answers
    assert (1, 1) == (stand.log.end, stand.partition.high_watermark)
    assert STORAGE == refused(stand.send, "refused")


def test_a_partition_that_breaks_a_promise_stops_and_stays_stopped(stand):
    bell = Bell()
    stand.send("a")
    stand.partition.watch(bell)
    stand.partition.failed(AssertionError("a promise"))

    assert ({"a": STORAGE}, 1) == (stand.answers, bell.rings)
    stand.partition.lead(NODE, 9, (NODE,), 1)
    assert STORAGE == refused(stand.send, "b")
    assert STORAGE == refused(stand.partition.check_epoch, -1)


# -- epochs and ends


def test_waiters_and_watchers_of_an_ended_epoch_are_told(stand):
    bell = Bell()
    stand.send("all")
    stand.send("one", acks=WRITTEN)
    stand.partition.watch(bell)
    stand.partition.lead(NODE, 1, (NODE,), 1)

    assert {"all": NOT_LEADER, "one": NOT_LEADER} == stand.answers
    assert 1 == bell.rings
    stand.settle()
    assert 2 == len(stand.answers)


def test_the_same_epoch_again_disturbs_nobody(stand):
    stand.send("all")
    stand.partition.lead(NODE, 0, (NODE, BrokerId(2)), 2)
    assert {} == stand.answers

    stand.settle()
    assert {"all": NONE} == stand.answers
    assert (NODE, 2) == stand.partition.isr


def test_whoever_begins_to_wait_after_its_epoch_ended_is_told_at_once(stand):
    appended = stand.send("a", acks=0)
    stand.partition.lead(NODE, 1, (NODE,), 1)
    stand.wait("late", appended)

    assert {"late": NOT_LEADER} == stand.answers


def test_an_epoch_never_falls(stand):
    stand.partition.lead(NODE, 3, (NODE,), 1)
    with pytest.raises(AssertionError, match="leader epoch 2 after 3"):
        stand.partition.lead(NODE, 2, (NODE,), 1)


def test_a_drop_tells_waiters_and_watchers_and_ends_everything(stand):
    bell = Bell()
    stand.send("all")
    stand.send("one", acks=WRITTEN)
    late = stand.send("late", acks=0)
    stand.partition.watch(bell)
    stand.partition.drop(GONE)
    assert ({"all": GONE, "one": GONE}, 1) == (stand.answers, bell.rings)

    stand.wait("late", late)  # nobody looks after its deadline any more
    assert GONE == stand.answers["late"]
    assert GONE == refused(stand.send, "more")
    assert GONE == refused(stand.partition.check_epoch, 0)
    assert GONE == refused(stand.partition.delete_records, 0, lambda low, error: None)
    stand.settle()
    assert 3 == len(stand.answers)


def test_the_leader_epoch_is_in_the_batch_headers(stand):
    stand.send("a")
    stand.partition.lead(NODE, 4, (NODE,), 1)
    stand.send("b")
    stand.settle()

    assert [0, 4] == [batch.epoch for batch in stand.batches()]
    assert (0, 4, 4) == tuple(stand.partition.epoch_at(offset) for offset in (0, 1, 2))


def test_the_next_record_will_be_of_the_current_epoch(stand):
    assert 0 == stand.partition.epoch_at(0)
    stand.send("a")
    stand.settle()
    stand.partition.lead(NODE, 3, (NODE,), 1)

    assert (0, 3) == (stand.partition.epoch_at(0), stand.partition.epoch_at(1))


@pytest.mark.parametrize(
    "asked, code",
    [
        (-1, None),
        (5, None),
        (4, ErrorCode.FENCED_LEADER_EPOCH),
        (0, ErrorCode.FENCED_LEADER_EPOCH),
        (6, ErrorCode.UNKNOWN_LEADER_EPOCH),
    ],
)
def test_a_client_must_name_our_epoch_or_none(asked, code):
    partition = Stand(epoch=5).partition
    if code is None:
        partition.check_epoch(asked)
    else:
        assert code == refused(partition.check_epoch, asked)


def ends(partition: Partition, *asked: int) -> list[tuple[int, int]]:
    return [partition.end_of_epoch(epoch) for epoch in asked]


def test_the_end_of_an_epoch_as_kafka_answers_it(stand):
    partition = stand.partition
    for epoch, count in ((2, 3), (5, 4)):
        partition.lead(NODE, epoch, (NODE,), 1)
        for number in range(count):
            stand.send(f"{epoch} {number}")
    stand.settle()

    assert [(-1, -1), (-1, -1)] == ends(partition, -1, 6)  # none asked; above the latest
    assert [(5, 7)] == ends(partition, 5)  # the latest: the log's end
    assert [(2, 3), (2, 3), (2, 3)] == ends(partition, 2, 3, 4)  # the floor, where the next begins
    assert [(0, 0), (1, 0)] == ends(partition, 0, 1)  # below the first: the first's start


def test_an_epoch_that_left_no_records_ends_where_the_current_one_begins_even_before_its_first_record(stand):
    stand.partition.lead(NODE, 2, (NODE,), 1)
    stand.send("a")
    stand.partition.lead(NODE, 7, (NODE,), 1)

    assert [(2, 1), (2, 1), (7, 1), (-1, -1)] == ends(stand.partition, 2, 5, 7, 8)


def test_the_end_of_an_epoch_in_an_empty_log(stand):
    stand.partition.lead(NODE, 3, (NODE,), 1)

    assert [(1, 0), (3, 0), (-1, -1)] == ends(stand.partition, 1, 3, 4)


# -- what an append looks at


def test_fewer_in_sync_replicas_than_asked_for_refuse_acks_all_alone(stand):
    stand.partition.config = config(min_insync_replicas=2)
    stand.partition.lead(NODE, 0, (NODE,), 3)

    assert ErrorCode.NOT_ENOUGH_REPLICAS == refused(stand.send, "all")
    assert 0 == stand.log.end
    stand.send("one", acks=WRITTEN)
    stand.settle()
    assert {"one": NONE} == stand.answers


def test_nobody_can_ask_for_more_in_sync_replicas_than_there_are(stand):
    stand.partition.config = config(min_insync_replicas=2)
    stand.send("all")
    stand.settle()

    assert {"all": NONE} == stand.answers


def test_log_append_time_is_stamped_and_told(stand):
    stand.partition.config = config(message_timestamp_type="LogAppendTime")
    records = stand.batch(b"a", b"b")
    stand.clock.advance(5)
    appended = stand.partition.append(records, WRITTEN)
    stand.settle()

    assert stand.clock.now_ms == appended.append_time_ms
    [batch] = stand.batches()
    assert (True, True, stand.clock.now_ms) == (batch.is_log_append_time, batch.crc_ok, batch.max_timestamp)
    assert [stand.clock.now_ms] * 2 == [each.timestamp for each in decode_records(batch)]


def test_create_time_is_kept_and_no_time_is_told(stand):
    sent = stand.clock.now_ms
    records = stand.batch(b"a")
    stand.clock.advance(5)

    assert -1 == stand.partition.append(records, WRITTEN).append_time_ms
    stand.settle()
    assert [sent] == [each.timestamp for each in stand.records()]


@pytest.mark.parametrize(
    "kind, codec",
    [
        ("uncompressed", compression.NONE),
        ("gzip", compression.GZIP),
        ("snappy", compression.SNAPPY),
        ("lz4", compression.LZ4),
        ("zstd", compression.ZSTD),
    ],
)
@pytest.mark.parametrize("sent", [compression.NONE, compression.GZIP, compression.ZSTD])
def test_the_topics_compression_wins_over_the_producers(stand, kind, codec, sent):
    stand.partition.config = config(compression_type=kind)
    stand.send("a", b"x" * 500, b"y" * 500, codec=sent)
    stand.settle()

    [batch] = stand.batches()
    assert (codec, True) == (batch.codec, batch.crc_ok)
    assert [b"x" * 500, b"y" * 500] == stand.values()


@pytest.mark.parametrize(
    "kind, name, low, high",
    [("gzip", "compression_gzip_level", 1, 9), ("zstd", "compression_zstd_level", 1, 19),
     ("lz4", "compression_lz4_level", 1, 12)],
)  # fmt: skip
def test_the_topics_level_counts_where_the_broker_compresses(kind, name, low, high):
    text = b" ".join(b"%d squared is %d" % (n, n * n) for n in range(3000))
    sizes = []
    for level in (low, high):
        stand = Stand()
        stand.partition.config = config(compression_type=kind, **{name: level})
        stand.send("a", text)
        stand.settle()
        assert [text] == stand.values()
        sizes.append(stand.log.size)

    assert sizes[1] < sizes[0]


def test_a_compressed_batch_that_is_recompressed_with_an_append_time_keeps_both(stand):
    stand.partition.config = config(compression_type="lz4", message_timestamp_type="LogAppendTime")
    stand.send("a", b"x" * 100, codec=compression.GZIP, **producer(0))
    stand.send("again", b"x" * 100, codec=compression.GZIP, **producer(0))
    stand.settle()

    [batch] = stand.batches()
    assert (compression.LZ4, True, True) == (batch.codec, batch.is_log_append_time, batch.crc_ok)
    assert {"a": NONE, "again": NONE} == stand.answers


def test_transactional_batches_are_refused(stand):
    code = refused(stand.send, "a", transactional=True, **producer(0))

    assert ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED == code
    assert 0 == stand.log.end


def test_what_is_damaged_or_too_large_is_refused_and_nothing_kept(stand):
    damaged = stand.batch(b"a")
    damaged[-1] ^= 1
    assert ErrorCode.CORRUPT_MESSAGE == refused(stand.partition.append, damaged, WRITTEN)

    stand.partition.config = config(max_message_bytes=100)
    assert ErrorCode.MESSAGE_TOO_LARGE == refused(stand.send, "large", b"x" * 200)
    assert 0 == stand.log.end


def in_slices(stand: Stand, records: memoryview, between=lambda: None) -> Appended:
    steps = stand.partition.append_in_slices(records, COMMITTED)
    try:
        while True:
            next(steps)
            between()
    except StopIteration as end:
        return end.value


def test_a_batch_checked_in_slices_lands_as_any_other(stand):
    values = [b"%d" % number for number in range(9000)]
    appended = in_slices(stand, stand.batch(*values))
    stand.wait("big", appended)
    stand.settle()

    assert (0, 9000) == (appended.base, appended.end)
    assert ({"big": NONE}, values) == (stand.answers, stand.values())


def test_a_partition_dropped_between_two_slices_takes_nothing(stand):
    records = stand.batch(*[b"%d" % number for number in range(9000)])

    assert GONE == refused(in_slices, stand, records, lambda: stand.partition.drop(GONE))
    assert 0 == stand.log.end


@pytest.mark.parametrize(
    "size, codec, slow",
    [
        (1000, "gzip", False),
        (200_000, "gzip", True),
        (200_000, "producer", False),
        (2 << 20, "producer", True),
    ],
)
def test_a_batch_is_slow_by_its_size_and_where_it_gets_another_codec(stand, size, codec, slow):
    stand.partition.config = config(compression_type=codec, max_message_bytes=4 << 20)

    assert slow == stand.partition.is_slow(stand.batch(b"x" * size))


def test_a_large_batch_gets_its_topics_codec_where_the_caller_says(stand):
    stand.partition.config = stand.log.config = config(compression_type="zstd", max_message_bytes=4 << 20)
    steps = stand.partition.append_in_slices(stand.batch(b"x" * 200_000), COMMITTED)

    work = next(steps)
    assert isinstance(work, Recompression)
    assert 0 == stand.log.end
    work()
    with pytest.raises(StopIteration):
        next(steps)

    stand.settle()
    assert [b"x" * 200_000] == stand.values()
    assert stand.log.size < 1000


def test_a_partition_dropped_while_a_batch_gets_its_codec_takes_nothing(stand):
    stand.partition.config = config(compression_type="zstd", max_message_bytes=4 << 20)
    steps = stand.partition.append_in_slices(stand.batch(b"x" * 200_000), COMMITTED)
    work = next(steps)
    work()
    stand.partition.drop(GONE)

    assert GONE == refused(next, steps)
    assert 0 == stand.log.end


# -- reading


@pytest.fixture
def read(stand: Stand) -> Stand:
    """Five records, the first two deleted, three below the watermark, one more written, one more appended."""
    for name in "abc":
        stand.send(name)
    stand.settle()
    stand.partition.delete_records(2, lambda low, error: None)
    stand.settle()
    stand.send("d")
    stand.turn()
    stand.send("e")
    return stand


@pytest.mark.parametrize("offset", [-1, 0, 1, 6])
def test_nothing_is_read_below_the_start_or_beyond_the_end(read, offset):
    assert ErrorCode.OFFSET_OUT_OF_RANGE == refused(read.partition.read, offset, 1000, at_least_one=True)


@pytest.mark.parametrize("offset", [3, 4, 5])
def test_a_reader_between_the_watermark_and_the_end_waits(read, offset):
    assert read.partition.read(offset, 1000, at_least_one=True) is None


def test_a_reader_sees_what_lies_below_the_watermark(read):
    region = read.partition.read(2, 1000, at_least_one=True)

    assert region is not None
    view = memoryview(bytearray(len(region)))
    region.file.read_into(view, region.at)
    assert (2, len(view)) == (RecordBatch(view).base_offset, RecordBatch(view).size)
    assert 3 == read.partition.high_watermark == read.partition.last_stable_offset


def test_a_batch_larger_than_asked_for_comes_whole_or_not_at_all(read):
    assert read.partition.read(2, 1, at_least_one=False) is None
    assert read.partition.read(2, 1, at_least_one=True) is not None


def test_watchers_are_told_once_when_the_watermark_moves(stand):
    bell = Bell()
    stand.partition.watch(bell)
    stand.send("a")
    stand.turn()
    assert 0 == bell.rings

    stand.flush()
    assert 1 == bell.rings
    stand.send("b")
    stand.settle()
    assert 1 == bell.rings


def test_a_watcher_may_watch_again_while_it_is_told(stand):
    class Again(Bell):
        def partition_moved(self) -> None:
            super().partition_moved()
            stand.partition.watch(self)

    bell = Again()
    stand.partition.watch(bell)
    for rings in (1, 2):
        stand.send(f"{rings}")
        stand.settle()
        assert rings == bell.rings


def test_whoever_unwatched_is_not_told(stand):
    bell, other = Bell(), Bell()
    stand.partition.watch(bell)
    stand.partition.watch(other)
    stand.partition.unwatch(bell)
    stand.partition.unwatch(bell)
    stand.send("a")
    stand.settle()

    assert (0, 1) == (bell.rings, other.rings)


@pytest.mark.parametrize("how", ["flush", "deletion", "epoch", "drop"])
def test_a_watcher_that_fails_does_not_keep_the_others_from_hearing(three, how):
    class Broken(Bell):
        def partition_moved(self) -> None:
            raise RuntimeError("a watcher's own fault")

    bells = [Bell(), Broken(), Bell()]
    for bell in bells:
        three.partition.watch(bell)

    if how == "flush":
        three.send("d")
    elif how == "deletion":
        three.partition.delete_records(1, lambda low, error: None)
    elif how == "epoch":
        three.partition.lead(NODE, 1, (NODE,), 1)
    else:
        three.partition.drop(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    three.settle()

    assert [1, 0, 1] == [bell.rings for bell in bells]
    assert (how != "drop") is three.partition.is_leader


# -- deleting records


def test_deleted_records_are_gone_at_once_and_done_is_said_when_that_is_durable(three):
    done, bell = [], Bell()
    three.partition.watch(bell)
    three.partition.delete_records(2, lambda low, error: done.append((low, error)))

    assert (2, 1, []) == (three.log.start, bell.rings, done)
    three.settle()
    assert [(2, None)] == done
    assert 2 == three.crash(epoch=1).log.start


@pytest.mark.parametrize("steps", range(4))
def test_a_start_that_was_said_to_be_deleted_survives_a_crash_at_any_step(three, steps):
    done = []
    three.partition.delete_records(2, lambda low, error: done.append(low))
    for _ in range(steps):
        three.broker.threads.step()
    after = three.crash(epoch=1)

    assert after.log.start in ([2] if done else [0, 2])


def test_deleting_up_to_the_watermark_and_what_is_gone_already(three):
    done = []
    three.partition.delete_records(-1, lambda low, error: done.append((low, error)))
    three.settle()
    three.partition.delete_records(1, lambda low, error: done.append((low, error)))

    assert [(3, None), (3, None)] == done


@pytest.mark.parametrize("offset", [-2, 4, 5])
def test_nothing_above_the_watermark_is_deleted(three, offset):
    three.send("d")
    three.send("e")
    three.turn()

    assert ErrorCode.OFFSET_OUT_OF_RANGE == refused(
        three.partition.delete_records, offset, lambda low, error: None
    )
    assert 0 == three.log.start


def test_a_start_that_cannot_be_saved_is_told(three):
    done = []
    three.disk.fail = lambda what, path: errno.EIO if "log-start" in path else None
    three.partition.delete_records(2, lambda low, error: done.append((low, error.code)))
    three.settle()

    assert [(-1, STORAGE)] == done


def test_what_is_on_its_way_is_said_to_be_deleted_when_it_is_durable_whoever_asks(three):
    done, bell = [], Bell()
    three.partition.delete_records(2, lambda low, error: done.append(("first", low, error)))
    three.partition.watch(bell)
    three.partition.delete_records(2, lambda low, error: done.append(("again", low, error)))
    three.partition.delete_records(1, lambda low, error: done.append(("less", low, error)))

    assert ([], 0) == (done, bell.rings)
    three.settle()
    assert [("first", 2, None), ("again", 2, None), ("less", 2, None)] == done
    assert 2 == three.crash(epoch=1).log.start


def test_a_start_that_could_not_be_saved_is_saved_when_it_is_asked_for_again(three):
    done = []
    three.disk.fail = lambda what, path: errno.ENOSPC if "log-start" in path else None
    for _ in range(2):
        three.partition.delete_records(2, lambda low, error: done.append((low, error.code)))
        three.settle()
    three.disk.fail = None
    three.partition.delete_records(2, lambda low, error: done.append((low, error)))
    three.settle()

    assert [(-1, STORAGE), (-1, STORAGE), (2, None)] == done
    assert 2 == three.crash(epoch=1).log.start


def test_a_start_that_a_killed_process_left_is_durable_before_it_is_said_to_be(three):
    three.partition.delete_records(2, lambda low, error: None)
    three.broker.threads.step()  # the checkpoint has its name, the folder is not synced
    three.broker.directory.abandon()
    again, done = Stand(three.disk, epoch=1), []
    assert 2 == again.log.start

    again.partition.delete_records(2, lambda low, error: done.append((low, error)))
    while not done:
        again.flush()

    assert [(2, None)] == done
    assert 2 == again.crash(epoch=2).log.start
