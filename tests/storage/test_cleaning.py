"""Compaction of a log: what stays, where it lies, and what a reader, a producer and an index make of it."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbroker.protocol import compression
from kbroker.protocol.records import Record, RecordBatch, build_batch, decode_records, record
from kbroker.storage import cleaning
from kbroker.storage.cleaning import BYTES_PER_KEY, Finished, Stopped, Uncleanable, clean
from kbroker.storage.log import PartitionLog
from kbroker.storage.segment import INT32_MAX
from tests.support.compacting import NOW_MS, batches, compact, job, naive, no_pace, records
from tests.support.memory_disk import MemoryDisk
from tests.support.storage import TOPIC_ID, TP, Broker, config

CONFIG = config(cleanup_policy=("compact",), segment_bytes=1000, index_interval_bytes=100, retention_ms=-1)
FAR = 10**9


@pytest.fixture
def broker() -> Broker:
    return opened(MemoryDisk())


def opened(disk: MemoryDisk) -> Broker:
    made = Broker(disk)
    made.directory.open(0, "cluster")
    return made


def log_of(broker: Broker, configured=CONFIG) -> PartitionLog:
    return broker.directory.log(TP, TOPIC_ID, configured)


def keyed(key: bytes | None, value: bytes | None, timestamp: int = 1000) -> Record:
    return record(value, key=key, timestamp=timestamp)


def append(log: PartitionLog, *of: Record, epoch: int = 0, **fields: object) -> int:
    return log.append(RecordBatch(memoryview(bytearray(build_batch(of, **fields)))), epoch)  # type: ignore[arg-type]


def roll(broker: Broker, log: PartitionLog) -> None:
    broker.settle()
    log.roll()
    broker.directory.checkpoint()
    broker.settle()


def filled(broker: Broker, *keys: bytes, configured=CONFIG) -> PartitionLog:
    """A record in a batch of its own for each key, in a closed segment or several."""
    log = log_of(broker, configured)
    for number, key in enumerate(keys):
        append(log, keyed(key, b"value %d" % number))
    roll(broker, log)
    return log


def offsets(log: PartitionLog) -> list[int]:
    return [each.offset for each in records(log)]


def check_indexes(broker: Broker, log: PartitionLog) -> None:
    """Every entry names a batch by its last offset, or its real newest time, and both rise."""
    for segment in log.segments[:-1]:
        at, ends, times = 0, {}, {}
        raw = memoryview(broker.disk.read(segment.paths[0]))
        while at < len(raw):
            one = RecordBatch(raw[at:])
            ends[at] = one.last_offset - segment.base
            times[one.last_offset - segment.base] = max(
                (each.timestamp for each in decode_records(RecordBatch(raw[at : at + one.size]))), default=-1
            )
            at += one.size
        index = list(struct.iter_unpack(">ii", read(broker, segment.paths[1])))
        assert index == sorted(set(index))
        assert all(ends[position] == relative for relative, position in index)
        entries = list(struct.iter_unpack(">qi", read(broker, segment.paths[2])))
        assert entries == sorted(set(entries))
        assert all(times[relative] == timestamp for timestamp, relative in entries)


def read(broker: Broker, path: str) -> bytes:
    return broker.disk.read(path) if broker.disk.exists(path) else b""


# -- what stays


def test_the_last_record_of_each_key_stays_at_its_offset(broker):
    log = filled(broker, b"a", b"b", b"a", b"c", b"b")

    finished = compact(broker, log)

    assert [(b"a", 2), (b"c", 3), (b"b", 4)] == [(each.key, each.offset) for each in records(log)]
    assert 5 == finished.end


def test_what_the_active_segment_holds_is_left_alone(broker):
    log = filled(broker, b"a", b"b")
    append(log, keyed(b"a", b"newer"))
    append(log, keyed(b"a", b"newest"))
    broker.settle()

    compact(broker, log)

    assert [0, 1, 2, 3] == offsets(log)


def test_a_batch_that_loses_nothing_is_copied_as_it_lies(broker):
    log = log_of(broker)
    append(log, keyed(b"a", b"1", 5000), keyed(b"b", b"2", 4000), codec=compression.LZ4)
    append(log, keyed(b"c", b"3"))
    append(log, keyed(b"c", b"4"))
    roll(broker, log)
    before = bytes(batches(log)[0].view)

    compact(broker, log)

    assert before == bytes(batches(log)[0].view)
    assert [0, 1, 3] == offsets(log)


@pytest.mark.parametrize("codec", range(5))
def test_a_batch_that_loses_records_keeps_codec_offsets_and_epoch(broker, codec):
    log = log_of(broker)
    append(
        log, keyed(b"a", b"1", 9000), keyed(b"b", b"2", 4000), keyed(b"c", b"3", 7000), epoch=3, codec=codec
    )
    append(log, keyed(b"a", b"4"), epoch=3)
    roll(broker, log)

    compact(broker, log)

    first = batches(log)[0]
    assert first.crc_ok
    assert (0, 2, 2, 3, codec) == (
        first.base_offset,
        first.last_offset,
        first.count,
        first.epoch,
        first.codec,
    )
    assert 7000 == first.max_timestamp
    assert [(1, 4000, b"2"), (2, 7000, b"3")] == [
        (each.offset, each.timestamp, each.value) for each in decode_records(first)
    ]


def test_batches_of_append_time_keep_their_time(broker):
    log = log_of(broker)
    append(log, keyed(b"a", b"1"), keyed(b"b", b"2"), append_time_ms=123_456)
    append(log, keyed(b"a", b"3"))
    roll(broker, log)

    compact(broker, log)

    first = batches(log)[0]
    assert first.is_log_append_time
    assert [(1, 123_456)] == [(each.offset, each.timestamp) for each in decode_records(first)]


def test_records_without_a_key_go(broker):
    log = log_of(broker)
    append(log, keyed(b"a", b"1"), keyed(None, b"2"), keyed(b"b", b"3"))
    roll(broker, log)

    compact(broker, log)

    assert [0, 2] == offsets(log)


def test_long_keys_are_told_apart(broker):
    keys = [b"k" * 1000 + b"%d" % number for number in range(3)]
    log = filled(broker, *keys, *keys, configured=config(cleanup_policy=("compact",)))

    compact(broker, log)

    assert [3, 4, 5] == offsets(log)


def test_headers_stay(broker):
    log = log_of(broker)
    append(log, keyed(b"a", b"1"), record(b"2", key=b"b", headers=[("h", b"v"), ("n", None)]))
    append(log, keyed(b"a", b"3"))
    roll(broker, log)

    compact(broker, log)

    assert (("h", b"v"), ("n", None)) == records(log)[0].headers


# -- tombstones


def test_a_tombstone_stays_until_its_horizon_and_its_time_is_what_it_was(broker):
    log = log_of(broker)
    append(log, keyed(b"a", b"1", 700), keyed(b"b", b"2", 900))
    append(log, keyed(b"x", b"3", 800), keyed(b"a", None, 850))
    roll(broker, log)

    compact(broker, log, job(log, delete_retention_ms=FAR))
    second = batches(log)[1]
    assert second.has_delete_horizon
    assert NOW_MS + FAR == second.base_timestamp
    assert second.crc_ok
    assert [(1, 900), (2, 800), (3, 850)] == [(each.offset, each.timestamp) for each in records(log)]

    compact(broker, log, job(log, first_dirty=4, now_ms=NOW_MS + FAR - 1))
    assert [1, 2, 3] == offsets(log)

    compact(broker, log, job(log, first_dirty=4, now_ms=NOW_MS + FAR))
    assert [1, 2] == offsets(log)


def test_a_horizon_is_set_once(broker):
    log = log_of(broker)
    append(log, keyed(b"a", None), keyed(b"b", b"2"))
    roll(broker, log)
    compact(broker, log, job(log, delete_retention_ms=1000))

    compact(broker, log, job(log, first_dirty=0, delete_retention_ms=FAR, now_ms=NOW_MS + 1))

    assert NOW_MS + 1000 == batches(log)[0].base_timestamp


def test_a_value_behind_a_tombstone_takes_its_place(broker):
    log = log_of(broker)
    append(log, keyed(b"a", None))
    append(log, keyed(b"a", b"again"))
    roll(broker, log)

    compact(broker, log)

    assert [(1, b"again")] == [(each.offset, each.value) for each in records(log)]


# -- producers, epochs, offsets


def test_a_producers_last_batch_stays_as_a_header_and_it_goes_on(broker):
    log = log_of(broker)
    producer = {"producer_id": 7, "producer_epoch": 1}
    append(log, keyed(b"a", b"1"), keyed(b"b", b"2"), base_sequence=0, **producer)
    append(log, keyed(b"a", b"3"), keyed(b"b", b"4"), base_sequence=2, **producer)
    for key in (b"a", b"b", b"z"):
        append(log, keyed(key, b"of others"))
    roll(broker, log)

    compact(broker, log)

    first = batches(log)[0]
    assert first.is_emptied
    assert (2, 3, 2, 7, 1) == (
        first.base_offset,
        first.last_offset,
        first.base_sequence,
        first.producer_id,
        first.producer_epoch,
    )
    for name in broker.disk.list(log.folder):
        if name.endswith(".snapshot"):
            broker.disk.remove(f"{log.folder}/{name}")
    again = log_of(opened(survivor(broker)))
    assert 4 == (again.producers.producers[7].sent[-1].last_sequence + 1)


def survivor(broker: Broker) -> MemoryDisk:
    """The disk after a kill."""
    broker.disk.crash("all")
    return broker.disk


def test_the_rounds_last_batch_stays_as_a_header(broker):
    log = log_of(broker)
    append(log, keyed(b"a", b"1"))
    append(log, keyed(None, b"2"))
    roll(broker, log)

    compact(broker, log)

    last = batches(log)[-1]
    assert (True, 1) == (last.is_emptied, last.last_offset)
    assert [0] == offsets(log)


def test_the_newest_time_is_not_that_of_an_emptied_batch(broker):
    log = log_of(broker)
    append(log, keyed(b"a", b"1", 5000))
    append(log, keyed(None, b"2", 9000))
    roll(broker, log)
    compact(broker, log)

    assert (0, 5000, 0) == log.max_timestamp(log.end)
    log.segments[0].unload()
    broker.disk.remove(log.segments[0].paths[2])
    assert (0, 5000, 0) == log.max_timestamp(log.end)
    assert log.find_time(6000, up_to=log.end) is None


def test_epochs_are_what_they_were(broker):
    log = log_of(broker)
    for epoch in range(4):
        append(log, keyed(b"a", b"%d" % epoch), epoch=epoch)
    roll(broker, log)
    before = log.epochs.pairs

    compact(broker, log)

    assert before == log.epochs.pairs
    assert 3 == records(log)[0].offset


# -- transactions, as Apache Kafka wrote them


def marker(kind: int) -> Record:
    return record(struct.pack(">hi", 0, 5), key=struct.pack(">hh", 0, kind))


def transaction(log: PartitionLog, producer_id: int, sequence: int, *of: Record) -> None:
    append(log, *of, producer_id=producer_id, producer_epoch=0, base_sequence=sequence, transactional=True)


def end(log: PartitionLog, producer_id: int, kind: int) -> None:
    fields = {"producer_id": producer_id, "producer_epoch": 0, "transactional": True, "control": True}
    append(log, marker(kind), **fields)


def test_aborted_records_go_and_supersede_nothing(broker):
    log = log_of(broker)
    append(log, keyed(b"a", b"kept"))
    transaction(log, 1, 0, keyed(b"a", b"aborted"))
    transaction(log, 2, 0, keyed(b"b", b"committed"))
    end(log, 1, 0)
    end(log, 2, 1)
    append(log, keyed(b"z", b"last"))
    roll(broker, log)

    compact(broker, log, job(log, producers={}))

    assert [b"kept", b"committed", b"last"] == [each.value for each in records(log)]
    assert [3, 4] == [each.base_offset for each in batches(log) if each.is_control]


def test_of_a_producers_many_transactions_those_that_were_aborted_go(broker):
    log = log_of(broker)
    for number in range(30):
        transaction(log, 1, number, keyed(b"%d" % number, b"v"))
        end(log, 1, 0 if number % 3 else 1)
        append(log, keyed(b"other %d" % number, b"v"))
    append(log, keyed(b"z", b"last"))
    roll(broker, log)

    compact(broker, log, job(log, producers={}))

    kept = {each.key for each in records(log)}
    assert {b"%d" % number for number in range(0, 30, 3)} == {key for key in kept if key.isdigit()}
    assert 30 == sum(key.startswith(b"other") for key in kept)


def test_a_marker_goes_a_horizon_after_its_records(broker):
    log = log_of(broker)
    transaction(log, 1, 0, keyed(b"a", b"1"))
    end(log, 1, 1)
    append(log, keyed(b"a", b"2"))
    roll(broker, log)
    rounds = {"producers": {}, "delete_retention_ms": 10}
    compact(broker, log, job(log, **rounds))
    assert [False] == [each.has_delete_horizon for each in batches(log) if each.is_control]

    compact(broker, log, job(log, first_dirty=3, **rounds))
    assert [True] == [each.has_delete_horizon for each in batches(log) if each.is_control]

    compact(broker, log, job(log, first_dirty=3, now_ms=NOW_MS + 10, **rounds))
    assert [2] == [each.base_offset for each in batches(log)]


# -- how it is laid out


def test_segments_that_shrank_become_one(broker):
    log = filled(broker, *[b"%d" % (number % 3) for number in range(40)])
    assert len(log.segments) > 3
    before = log.size

    compact(broker, log)

    assert 2 == len(log.segments)
    assert [37, 38, 39] == offsets(log)
    assert sum(segment.size for segment in log.segments) == log.size < before
    check_indexes(broker, log)


def test_no_segment_grows_beyond_its_limit(broker):
    log = filled(broker, *[b"%d" % number for number in range(60)])

    compact(broker, log)

    assert all(segment.size <= 1000 for segment in log.segments)
    assert list(range(60)) == offsets(log)


def test_no_segment_spans_more_offsets_than_an_index_can_say(broker):
    log = log_of(broker)
    for base in (0, INT32_MAX, 2 * INT32_MAX):
        one = RecordBatch(
            memoryview(bytearray(build_batch([keyed(b"%d" % base, b"v")], base_offset=base, epoch=0)))
        )
        log.append_fetched(one)
        roll(broker, log)

    compact(broker, log)

    assert [0, INT32_MAX, 2 * INT32_MAX] == offsets(log)
    assert [0, INT32_MAX + 1, 2 * INT32_MAX + 1] == [segment.base for segment in log.segments]


def test_a_segment_that_stays_as_it_is_is_not_swapped(broker):
    log = filled(broker, b"a", b"b")
    segment = log.segments[0]

    compact(broker, log)

    assert segment is log.segments[0]
    assert not [name for name in broker.disk.list(log.folder) if "cleaned" in name or "deleted" in name]


def test_nothing_is_written_of_what_stays_as_it_is(broker):
    log = filled(broker, *[b"%d" % number for number in range(60)])
    assert len(log.segments) > 5
    before = broker.disk.operations

    finished = compact(broker, log)

    assert before == broker.disk.operations
    assert 0 == finished.bytes_written < finished.bytes_read
    assert list(range(60)) == offsets(log)


def test_of_a_round_that_changes_one_segment_only_this_one_is_written(broker):
    log = filled(broker, *[b"%d" % number for number in range(60)])
    append(log, keyed(b"20", b"newer"))
    for number in range(8):
        append(log, keyed(b"more %d" % number, b"x"))
    dirty = 60
    roll(broker, log)
    kept = [each.offset for each in records(log) if each.offset != 20]
    before = {segment.base: segment for segment in log.segments}
    which = max(base for base in before if base <= 20)

    finished = compact(broker, log, job(log, first_dirty=dirty))

    assert kept == offsets(log)
    assert [which] == [each.base for each in log.segments if each is not before.get(each.base)]
    assert before[which].size > finished.bytes_written > 0
    check_indexes(broker, log)


def test_more_keys_than_the_buffer_holds_take_several_rounds(broker):
    keys = [b"%d" % (number % 20) for number in range(60)]
    log = filled(broker, *keys)

    first = compact(broker, log, job(log, buffer_bytes=5 * BYTES_PER_KEY))
    assert 0 < first.end < 60
    end = first.end
    while end < 60:
        finished = compact(broker, log, job(log, first_dirty=end, buffer_bytes=5 * BYTES_PER_KEY))
        assert finished.end > end
        end = finished.end

    assert list(range(40, 60)) == offsets(log)


def test_what_is_known_of_tombstones_batches_counts_against_the_buffer_too(broker):
    """Few keys, deleted again and again: each such batch is remembered, and there may be millions."""
    log = log_of(broker)
    for _ in range(60):
        append(log, keyed(b"a", None))
    roll(broker, log)

    finished = compact(broker, log, job(log, buffer_bytes=5 * BYTES_PER_KEY))

    assert 0 < finished.end < 10


def test_a_batch_that_stays_does_not_keep_all_that_was_read_with_it(broker, monkeypatch):
    """One small batch in each read, and nothing is written for long: only what stays may wait in memory."""
    monkeypatch.setattr(cleaning, "READ_BYTES", 64 << 10)
    log = log_of(broker, config(cleanup_policy=("compact",)))
    for number in range(60):
        append(log, keyed(b"%d" % number, b"stays"))
        append(log, keyed(b"goes", b"x" * (60 << 10)))
    roll(broker, log)
    asked = job(log)

    tracemalloc.start()
    try:
        [_, finished] = clean(broker.disk, asked, no_pace)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert isinstance(finished, Finished)
    assert finished.bytes_read > 60 * (60 << 10)
    assert most < 1 << 20


def test_a_segment_of_which_nothing_stayed_keeps_retention_from_nothing(broker):
    configured = config(cleanup_policy=("compact", "delete"), segment_bytes=1000, retention_ms=1000)
    log = log_of(broker, configured)
    append(log, keyed(b"a", None))
    roll(broker, log)
    compact(broker, log, job(log, delete_retention_ms=1))
    compact(broker, log, job(log, now_ms=NOW_MS + 1))
    assert [True] == [each.is_emptied for each in batches(log)]

    broker = opened(survivor(broker))  # when the segments were made is not known any more
    log = log_of(broker, configured)
    broker.settle()
    append(log, keyed(b"b", b"1", timestamp=1000))
    roll(broker, log)
    append(log, keyed(b"c", b"2", timestamp=broker.clock.wall_ms()))
    roll(broker, log)

    assert 2 == log.retain(broker.clock.wall_ms(), log.end)


# -- what goes wrong


def test_damage_stops_it_and_changes_nothing(broker):
    log = filled(broker, b"a", b"a", b"b")
    raw = broker.disk.find(log.segments[0].paths[0])
    raw.data[70] ^= 1

    with pytest.raises(Uncleanable):
        list(clean(broker.disk, job(log), no_pace))

    assert 3 == len(batches(log))


def test_records_that_do_not_add_up_stop_it(broker):
    log = log_of(broker)
    one = bytearray(build_batch([keyed(b"a", b"1"), keyed(b"b", b"2")]))
    one[61 + 4] = 0x7E  # the first key's length
    view = RecordBatch(memoryview(one))
    view._stamp_crc()
    log.append(view, 0)
    roll(broker, log)

    with pytest.raises(Uncleanable):
        list(clean(broker.disk, job(log), no_pace))


def test_it_ends_when_it_is_told(broker):
    log = filled(broker, b"a", b"a")

    def pace(count: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        list(clean(broker.disk, job(log), pace))


# -- against a naive cleaner

KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"k" * 40, None])
VALUES = st.sampled_from([b"", b"v", b"w" * 70, None])
RECORDS = st.lists(st.builds(keyed, KEYS, VALUES, st.integers(0, 3000)), min_size=1, max_size=5)
BATCHES = st.lists(
    st.tuples(RECORDS, st.integers(0, 4), st.booleans(), st.booleans()), min_size=1, max_size=12
)


def bare(of: list[Record]) -> list[tuple[int, int, bytes | None, bytes | None]]:
    return [(each.offset, each.timestamp, each.key, each.value) for each in of]


@settings(max_examples=100, deadline=None)
@given(rounds=st.lists(BATCHES, min_size=1, max_size=3), buffer=st.integers(1, 12), killed=st.booleans())
def test_a_log_after_its_rounds_is_what_a_naive_cleaner_leaves(rounds, buffer, killed):
    broker = opened(MemoryDisk())
    log = log_of(broker)
    dirty, epoch, sequence = 0, 0, 0
    for some in rounds:
        for of, codec, next_epoch, idempotent in some:
            epoch += next_epoch
            fields = {"codec": codec}
            if idempotent:
                fields |= {"producer_id": 9, "producer_epoch": 0, "base_sequence": sequence}
                sequence += len(of)
            append(log, *of, epoch=epoch, **fields)
        roll(broker, log)
        before, epochs, upper = records(log), log.epochs.pairs, log.segments[-1].base
        asked = job(log, first_dirty=dirty, delete_retention_ms=FAR, buffer_bytes=buffer * BYTES_PER_KEY)
        finished = compact(broker, log, asked)
        expected = naive(before, dirty, finished.end)

        assert bare(expected) == bare(records(log))
        check_indexes(broker, log)
        if killed:
            broker = opened(survivor(broker))
            log = log_of(broker)
            broker.settle()
        assert bare(expected) == bare(records(log))
        assert (epochs, upper) == (log.epochs.pairs, log.segments[-1].base)
        check_every_read(log, expected)
        check_times(log, expected)
        if sequence:
            assert sequence == log.producers.producers[9].sent[-1].last_sequence + 1
        dirty = finished.end


def check_every_read(log: PartitionLog, expected: list[Record]) -> None:
    for offset in range(log.start, log.end):
        left = [each for each in expected if each.offset >= offset]
        assert bare(left) == bare(records(log, offset))


def check_times(log: PartitionLog, expected: list[Record]) -> None:
    for timestamp in (0, 1, 1500, 2999, 3000):
        found = next((each for each in expected if each.timestamp >= timestamp), None)
        answer = log.find_time(timestamp, up_to=log.end)
        assert (None if found is None else (found.offset, found.timestamp)) == (answer and answer[:2])
