"""A shard against its log: what it appends, what it reads back, whom it tells what, and when."""

from __future__ import annotations

import errno
import random

import pytest

from kbroker.errors import ErrorCode
from kbroker.protocol import compression
from kbroker.protocol.records import Record, RecordBatch, build_batch, record
from kbroker.replication import shard, shard_loading
from kbroker.replication.shard import Shard, State
from kbroker.replication.shard_loading import SLICE_RECORDS
from kbroker.replication.shard_records import build
from tests.support import compacting
from tests.support.partitions import Stand
from tests.support.storage import ManualClock, config


class Table:
    """A machine that keeps the last value of each key, and what it was told."""

    def __init__(self):
        self.rows = {}
        self.story = []

    def decode(self, key, value):
        return None if key == b"mute" else (key, value)

    def reset(self):
        self.rows = {}
        self.story.append("reset")

    def apply(self, said):
        key, value = said
        self.rows[key] = value
        if value is None:
            del self.rows[key]

    def finish(self):
        self.story.append("finish")
        yield

    def loaded(self):
        self.story.append("loaded")

    def failed(self, error):
        self.story.append(error.code)


class Bench:
    """A shard on a partition of its own, loaded."""

    def __init__(self, stand=None, *, load=True, codec=compression.NONE, **topic):
        self.stand = stand or Stand(topic=config(**topic))
        self.table = Table()
        self.answers = {}
        self.shard = Shard(
            self.stand.partition,
            self.table,
            turn=self.stand.broker.turn,
            threads=self.stand.broker.threads,
            clock=self.stand.clock,
            timeout_ms=lambda: 5000,
            codec=codec,
        )
        if load:
            self.shard.load()
            self.settle()

    def settle(self):
        for _ in range(1000):
            self.stand.settle()
            if all(when > self.stand.clock.monotonic() for when, _ in self.stand.clock.timers):
                return
            self.stand.clock.advance(0)

    def put(self, name, *records):
        """Append; under `name` its answer will be noted, and the rows change when it counts."""

        def done(error):
            assert name not in self.answers, f"{name} is answered again"
            self.answers[name] = error

        def committed():
            for each in records:
                self.table.apply(each)

        self.shard.append(list(records), done, committed)

    def reread(self):
        """What another reads from the same log."""
        other = Bench(self.stand)
        assert State.SERVING is other.shard.state
        return other.table.rows


# -- appending


def test_what_is_asked_for_in_a_turn_is_one_batch():
    bench = Bench()
    bench.put("a", (b"k", b"1"))
    bench.put("b", (b"l", b"2"), (b"k", b"3"))
    bench.settle()

    assert {"a": ErrorCode.NONE, "b": ErrorCode.NONE} == bench.answers
    assert [3] == [batch.count for batch in bench.stand.batches()]
    assert {b"k": b"3", b"l": b"2"} == bench.table.rows == bench.reread()


def test_very_many_records_are_written_a_batch_in_each_turn(monkeypatch):
    """And what is asked for meanwhile stands behind them."""
    monkeypatch.setattr(shard, "RECORDS_PER_TURN", 2)
    bench = Bench(max_message_bytes=200)
    bench.put("many", *((b"k%d" % number, b"x" * 50) for number in range(9)))
    bench.put("next", (b"k0", b"y"))

    ends = []
    while bench.shard._steps is not None or not ends:
        bench.stand.turn()
        ends.append(bench.stand.partition.log.end)
        if len(ends) == 1:
            bench.put("last", (b"k1", b"z"))
        bench.stand.clock.advance(0)
    bench.settle()

    assert len(ends) >= 4
    assert ends == sorted(set(ends))
    assert {"many": ErrorCode.NONE, "next": ErrorCode.NONE, "last": ErrorCode.NONE} == bench.answers
    assert (b"y", b"z") == (bench.table.rows[b"k0"], bench.table.rows[b"k1"])
    assert bench.table.rows == bench.reread()


def test_who_waits_while_very_many_records_are_written_hears_of_the_end(monkeypatch):
    monkeypatch.setattr(shard, "RECORDS_PER_TURN", 2)
    bench = Bench(max_message_bytes=200)
    bench.put("many", *((b"k%d" % number, b"x" * 50) for number in range(9)))
    bench.put("next", (b"k0", b"y"))
    bench.stand.turn()
    bench.put("last", (b"k1", b"z"))

    bench.shard.end()
    end = bench.stand.partition.log.end
    bench.settle()

    assert dict.fromkeys(("many", "next", "last"), ErrorCode.NOT_COORDINATOR) == bench.answers
    assert end == bench.stand.partition.log.end


def test_nothing_counts_before_it_is_flushed():
    bench = Bench()
    bench.put("a", (b"k", b"1"))
    bench.stand.turn()
    assert ({}, {}) == (bench.answers, bench.table.rows)

    bench.stand.flush()

    assert ({"a": ErrorCode.NONE}, {b"k": b"1"}) == (bench.answers, bench.table.rows)


def test_batches_built_fast_are_those_built_with_care():
    records = [
        (b"k" * size, None if size % 7 == 0 else b"v" * (size * 3)) for size in (0, 1, 60, 63, 64, 700, 9000)
    ]
    fast = build(records, 1234)

    slow = build_batch([record(value, key=key, timestamp=1234) for key, value in records])

    assert slow == bytes(fast)
    many = [(b"%d" % number, b"") for number in range(5000)]
    assert build_batch([record(b"", key=key, timestamp=5) for key, _ in many]) == bytes(build(many, 5))


def test_batches_are_compressed_where_it_is_asked_for():
    bench = Bench(codec=compression.ZSTD)
    bench.put("a", *[(b"k%d" % number, b"v" * 100) for number in range(50)])
    bench.settle()

    [batch] = bench.stand.batches()
    assert (compression.ZSTD, True) == (batch.codec, batch.size < 1000)
    assert bench.table.rows == bench.reread()


@pytest.mark.parametrize("limits", [{"max_message_bytes": 300}, {"segment_bytes": 300}])
def test_batches_are_no_larger_than_the_topic_allows(limits):
    bench = Bench(**limits)
    bench.put("a", *[(b"a%d" % number, b"v" * 20) for number in range(20)])
    bench.put("b", *[(b"b%d" % number, b"v" * 20) for number in range(3)])
    bench.settle()

    assert {"a": ErrorCode.NONE, "b": ErrorCode.NONE} == bench.answers
    assert all(batch.size <= 300 for batch in bench.stand.batches())
    assert 23 == len(bench.table.rows)
    assert bench.table.rows == bench.reread()


def test_a_record_that_is_too_large_is_refused_and_nothing_else():
    bench = Bench(max_message_bytes=300)
    bench.put("a", (b"a", b"1"), (b"k", b"v" * 300))
    bench.put("b", (b"b", b"1"))
    bench.settle()

    assert {"a": ErrorCode.MESSAGE_TOO_LARGE, "b": ErrorCode.NONE} == bench.answers
    assert {b"b": b"1"} == bench.table.rows == bench.reread()


def test_a_failed_write_leaves_nothing():
    bench = Bench()
    bench.put("a", (b"k", b"1"))
    bench.settle()
    bench.stand.disk.fail = lambda what, path: errno.ENOSPC if what == "append" else None
    bench.put("b", (b"k", b"2"))
    bench.settle()
    bench.stand.disk.fail = None

    assert {"a": ErrorCode.NONE, "b": ErrorCode.KAFKA_STORAGE_ERROR} == bench.answers
    assert {b"k": b"1"} == bench.table.rows == bench.reread()


def test_a_failed_sync_leaves_nothing():
    bench = Bench()
    bench.put("a", (b"k", b"1"))
    bench.settle()
    bench.stand.disk.fail = lambda what, path: errno.EIO if what == "sync" else None
    bench.put("b", (b"k", b"2"))
    bench.settle()
    bench.stand.disk.fail = None

    assert {"a": ErrorCode.NONE, "b": ErrorCode.KAFKA_STORAGE_ERROR} == bench.answers
    assert {b"k": b"1"} == bench.table.rows == bench.reread()


def test_a_change_of_which_a_part_fails_is_read_anew():
    bench = Bench(max_message_bytes=20_000, segment_bytes=20_000)
    appends = []

    def second(what, path):
        if what == "append" and path.endswith(".log"):
            appends.append(path)
            return errno.ENOSPC if len(appends) == 2 else None
        return None

    bench.stand.disk.fail = second
    bench.put("a", *[(b"%d" % number, b"v" * 5000) for number in range(6)])
    bench.settle()
    bench.stand.disk.fail = None
    bench.settle()

    assert bench.answers["a"]
    assert ["reset", "finish", "loaded"] == bench.table.story[-3:]
    assert bench.table.rows == bench.reread()


def test_a_slow_disk_is_answered_in_time_and_counts_later():
    bench = Bench()
    bench.put("a", (b"k", b"1"))
    bench.stand.turn()
    bench.stand.clock.advance(4_999)
    assert {} == bench.answers

    bench.stand.clock.advance(1)

    assert ({"a": ErrorCode.REQUEST_TIMED_OUT}, {}) == (bench.answers, bench.table.rows)
    bench.settle()
    assert {b"k": b"1"} == bench.table.rows == bench.reread()


def test_what_was_given_up_and_fails_after_all_is_read_anew():
    """Whoever was told REQUEST_TIMED_OUT may have gone on as if it counted."""
    bench = Bench()
    bench.put("a", (b"k", b"1"))
    bench.settle()
    bench.table.story.clear()
    bench.put("b", (b"k", None))
    bench.stand.turn()
    bench.stand.clock.advance(5_000)
    bench.stand.disk.fail = lambda what, path: errno.EIO if what == "sync" else None
    bench.settle()

    assert ErrorCode.REQUEST_TIMED_OUT == bench.answers["b"]
    assert ["reset", "finish", "loaded"] == bench.table.story
    assert {b"k": b"1"} == bench.table.rows


def test_whoever_is_being_written_when_it_breaks_is_answered():
    bench = Bench()
    bench.put("a", (b"k", b"1"))
    bench.put("b", (b"k", "a mistake of ours: no bytes"))

    bench.settle()

    assert dict.fromkeys("ab", ErrorCode.NOT_COORDINATOR) == bench.answers
    assert (State.SERVING, {}) == (bench.shard.state, bench.table.rows)


def test_each_has_its_own_time():
    bench = Bench()
    bench.put("a", (b"k", b"1"))
    bench.stand.turn()
    bench.stand.clock.advance(3_000)
    bench.put("b", (b"k", b"2"))
    bench.stand.turn()

    bench.stand.clock.advance(2_000)
    assert {"a": ErrorCode.REQUEST_TIMED_OUT} == bench.answers
    bench.settle()

    assert {"a": ErrorCode.REQUEST_TIMED_OUT, "b": ErrorCode.NONE} == bench.answers
    assert {b"k": b"2"} == bench.table.rows


def test_at_its_end_everybody_is_told():
    bench = Bench()
    bench.put("a", (b"k", b"1"))
    bench.stand.turn()
    bench.put("b", (b"k", b"2"))

    bench.shard.end()
    bench.put("c", (b"k", b"3"))
    bench.settle()

    assert dict.fromkeys("bac", ErrorCode.NOT_COORDINATOR) == bench.answers
    assert {} == bench.table.rows
    assert {b"k": b"1"} == bench.reread()


def test_one_who_cannot_hear_keeps_nobody_from_it():
    bench = Bench()

    def deaf(error):
        raise ValueError(error)

    bench.shard.append([(b"k", b"1")], deaf, lambda: None)
    bench.put("a", (b"l", b"2"))
    bench.settle()

    assert {"a": ErrorCode.NONE} == bench.answers


def test_too_few_in_sync_is_said():
    bench = Bench()
    bench.stand.partition.config = config(min_insync_replicas=2)
    bench.stand.partition.replicas = 2
    bench.put("a", (b"k", b"1"))
    bench.settle()

    assert {"a": ErrorCode.NOT_ENOUGH_REPLICAS} == bench.answers


# -- loading


def append(stand, data):
    """What another broker wrote, as it is."""
    stand.log.append_fetched(RecordBatch(memoryview(bytearray(data))))


def at(offset, key, value=b""):
    return Record(offset, 1000, key, value)


def test_a_log_is_read_over_all_its_segments():
    bench = Bench(segment_bytes=500)
    for number in range(40):
        bench.put(str(number), (b"k%d" % (number % 7), b"%d" % number))
        bench.settle()
    assert len(bench.stand.log.segments) > 3

    assert {b"k%d" % (number % 7): b"%d" % number for number in range(33, 40)} == bench.reread()


def test_a_compacted_log_is_read():
    stand = Stand()
    append(
        stand,
        build_batch([at(3, b"a", b"1"), at(7, b"b", b"2")], base_offset=2, last_offset_delta=8, epoch=0),
    )
    append(stand, build_batch([], base_offset=20, last_offset_delta=5, epoch=0))
    append(stand, build_batch([at(40, b"a", None)], base_offset=40, epoch=0, delete_horizon_ms=5000))
    append(stand, build_batch([at(41, b"c", b"3")], base_offset=41, epoch=0, codec=compression.GZIP))
    stand.settle()

    assert {b"b": b"2", b"c": b"3"} == Bench(stand).table.rows


@pytest.mark.parametrize("step", range(0, 18, 3))
def test_a_log_that_is_compacted_while_it_is_read(step, monkeypatch):
    """A value that was read is undone by its tombstone, though a round goes over both in between."""
    monkeypatch.setattr(shard_loading, "LOAD_BYTES", 300)
    rng = random.Random(step)
    bench = Bench(segment_bytes=1500)
    for number in range(60):
        value = None if rng.random() < 0.3 else b"%d" % number * rng.randrange(1, 12)
        bench.put(str(number), (b"k%d" % rng.randrange(8), value))
        bench.settle()
    stand, again = bench.stand, Bench(bench.stand, load=False)
    again.shard.load()
    for _ in range(step):
        stand.broker.threads.step()
        stand.turn()
        stand.clock.advance(20)
    assert State.LOADING is again.shard.state

    for cleaned in compacting.made(stand.broker, stand.log):
        stand.log.swap(cleaned, stand.log.truncations, lambda swapped: None)
        while stand.log.swap_pending:
            stand.flush()
    for _ in range(100):
        again.settle()
        stand.clock.advance(20)

    assert State.SERVING is again.shard.state
    assert bench.table.rows == again.table.rows


def test_a_log_that_ends_in_emptied_batches_is_read():
    stand = Stand()
    append(stand, build_batch([at(0, b"a", b"1")], epoch=0))
    append(stand, build_batch([], base_offset=20, last_offset_delta=5, epoch=0))
    stand.settle()

    assert State.SERVING is Bench(stand).shard.state


def test_records_below_the_start_of_the_log_are_not_read():
    stand = Stand()
    append(stand, build_batch([at(number, b"%d" % number) for number in range(10)], epoch=0))
    stand.settle()
    stand.partition.delete_records(6, lambda low, error: None)
    stand.settle()

    assert {b"6", b"7", b"8", b"9"} == set(Bench(stand).table.rows)


MARKERS = {"abort": b"\0\0\0\0", "commit": b"\0\0\0\1"}


def transactional(base, producer_id, *records):
    return build_batch(
        records,
        base_offset=base,
        epoch=0,
        producer_id=producer_id,
        producer_epoch=0,
        base_sequence=0,
        transactional=True,
    )


def marker(base, producer_id, how):
    return build_batch(
        [at(base, MARKERS[how], bytes(6))],
        base_offset=base,
        epoch=0,
        producer_id=producer_id,
        producer_epoch=0,
        transactional=True,
        control=True,
    )


def test_transactions_count_at_their_end():
    stand = Stand()
    stand.log.producers  # noqa: B018 - loaded, as a leader has them
    append(stand, transactional(0, 1, at(0, b"a", b"1"), at(1, b"b", b"1")))
    append(stand, transactional(2, 2, at(2, b"c", b"2")))
    append(stand, transactional(3, 3, at(3, b"d", b"3")))
    append(stand, build_batch([at(4, b"a", b"plain")], base_offset=4, epoch=0))
    append(stand, marker(5, 1, "commit"))
    append(stand, marker(6, 2, "abort"))
    append(stand, build_batch([at(7, b"b", b"plain")], base_offset=7, epoch=0))
    stand.settle()

    assert {b"a": b"1", b"b": b"plain"} == Bench(stand).table.rows


def test_what_means_nothing_is_left_out():
    bench = Bench()
    bench.put("a", (b"mute", b"1"), (b"k", b"2"))
    bench.settle()

    assert {b"k": b"2"} == bench.reread()


@pytest.mark.parametrize("damage", ["checksum", "payload"])
def test_a_damaged_batch_is_left_out(damage):
    stand = Stand()
    append(stand, build_batch([at(0, b"a", b"1")], epoch=0))
    broken = bytearray(build_batch([at(1, b"b", b"2")], base_offset=1, epoch=0))
    if damage == "checksum":
        broken[-2] ^= 1
    else:
        body = broken[61:]
        body[0] ^= 0x40
        broken = bytearray(build(([(b"b", b"2")]), 0))
        broken[61:] = body
        batch = RecordBatch(memoryview(broken))
        batch._stamp_crc()
        batch.stamp(1, 0)
    append(stand, broken)
    append(stand, build_batch([at(2, b"c", b"3")], base_offset=2, epoch=0))
    stand.settle()

    bench = Bench(stand)

    assert State.SERVING is bench.shard.state
    assert {b"a": b"1", b"c": b"3"} == bench.table.rows


class TickingClock(ManualClock):
    """Each look at it takes longer than a slice may."""

    def monotonic(self):
        self.now_ms += 5
        return super().monotonic()


def test_much_is_applied_in_slices():
    bench = Bench(Stand(clock=TickingClock()))
    for number in range(10):
        bench.put(str(number), *[(b"%d-%d" % (number, each), b"v") for each in range(SLICE_RECORDS)])
        bench.settle()
    again = Bench(bench.stand, load=False)

    again.shard.load()
    turns = 0
    while State.LOADING is again.shard.state:
        turns += 1
        assert turns < 1000
        again.stand.settle()
        again.stand.clock.advance(0)

    assert turns >= 10
    assert bench.table.rows == again.table.rows


def test_it_waits_until_all_of_the_log_is_flushed():
    bench = Bench()
    bench.put("a", (b"k", b"1"))
    bench.stand.turn()
    again = Bench(bench.stand, load=False)
    again.shard.load()
    assert State.LOADING is again.shard.state

    again.settle()

    assert State.SERVING is again.shard.state
    assert {b"k": b"1"} == again.table.rows


@pytest.mark.parametrize("fails", ["append", "sync"])
def test_an_end_that_is_taken_back_is_not_waited_for(fails):
    bench = Bench()
    bench.put("a", (b"k", b"1"))
    bench.settle()
    bench.put("b", (b"k", b"2"))
    bench.shard.write_out()
    if fails == "sync":
        bench.stand.turn()
    again = Bench(bench.stand, load=False)
    again.shard.load()
    bench.stand.disk.fail = lambda what, path: errno.EIO if what == fails else None
    again.settle()
    again.stand.clock.advance(100)  # the file was cut under the first read
    again.settle()

    assert State.SERVING is again.shard.state
    assert {b"k": b"1"} == again.table.rows


def test_files_that_are_being_replaced_are_read_again():
    bench = Bench()
    bench.put("a", (b"k", b"1"))
    bench.settle()
    again = Bench(bench.stand, load=False)
    again.shard.load()
    _, done = bench.stand.broker.threads.waiting.pop()
    done(None, FileNotFoundError("gone"))
    assert State.LOADING is again.shard.state

    bench.stand.clock.advance(100)
    again.settle()

    assert {b"k": b"1"} == again.table.rows


def test_a_log_that_cannot_be_read_serves_nobody():
    bench = Bench()
    bench.put("a", (b"k", b"1"))
    bench.settle()
    again = Bench(bench.stand, load=False)
    again.shard.load()
    for _ in range(5):
        _, done = bench.stand.broker.threads.waiting.pop()
        done(None, OSError("no"))
        bench.stand.clock.advance(1_000)

    assert State.ENDED is again.shard.state
    assert ["reset", ErrorCode.KAFKA_STORAGE_ERROR] == again.table.story


def test_a_machine_that_breaks_serves_nobody_and_leaves_the_floor():
    bench = Bench()
    bench.put("a", (b"k", b"1"))
    bench.settle()
    broken = Bench(bench.stand, load=False)

    def apply(said):
        raise ValueError(said)

    broken.table.apply = apply
    broken.shard.load()
    broken.settle()
    assert State.ENDED is broken.shard.state

    del broken.table.apply
    broken.shard.load()
    broken.settle()
    assert {b"k": b"1"} == broken.table.rows


@pytest.mark.parametrize("steps", range(6))
def test_a_shard_that_ends_while_it_is_read_leaves_the_floor(steps):
    bench = Bench(Stand(clock=TickingClock()))
    for number in range(10):
        bench.put(str(number), *[(b"%d-%d" % (number, each), b"v") for each in range(SLICE_RECORDS)])
        bench.settle()
    first = Bench(bench.stand, load=False)
    second = Bench(bench.stand, load=False)
    second.shard._floor = first.shard._floor
    first.shard.load()
    second.shard.load()
    for _ in range(steps):
        bench.stand.settle()
        bench.stand.clock.advance(0)

    first.shard.end()
    for _ in range(100):
        second.settle()

    assert State.SERVING is second.shard.state
    assert {} == first.table.rows or len(first.table.rows) < 1000
    assert bench.table.rows == second.table.rows
