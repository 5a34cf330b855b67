"""When a log rolls, what retention deletes, and what is found by time."""

from __future__ import annotations

import pytest

from kbroker.storage.log import PartitionLog
from tests.support.memory_disk import MemoryDisk
from tests.support.storage import TOPIC_ID, TP, Broker, batch, config

HOUR_MS = 3_600_000


@pytest.fixture
def broker() -> Broker:
    broker = Broker(MemoryDisk())
    broker.directory.open(0, "cluster")
    return broker


def make(broker: Broker, **values: object) -> PartitionLog:
    return broker.directory.log(TP, TOPIC_ID, config(**values))


def bases(log: PartitionLog) -> list[int]:
    return [segment.base for segment in log.segments]


def test_a_segment_rolls_when_the_next_batch_does_not_fit(broker: Broker) -> None:
    size = batch(b"x" * 100).size
    log = make(broker, segment_bytes=2 * size)
    for _ in range(5):
        log.append(batch(b"x" * 100), 0)
    assert [0, 2, 4] == bases(log)


def test_a_segment_rolls_by_the_time_of_its_records(broker: Broker) -> None:
    log = make(broker, segment_ms=1000)
    for timestamp in (5000, 6000, 4000, 6001, 7001):
        log.append(batch(b"x", timestamp=timestamp), 0)
    assert [0, 3] == bases(log)


def test_records_without_times_roll_by_the_clock(broker: Broker) -> None:
    log = make(broker, segment_ms=1000)
    log.append(batch(b"x", timestamp=-1), 0)
    broker.clock.advance(1001)
    log.append(batch(b"x", timestamp=-1), 0)
    assert [0, 1] == bases(log)


def test_a_segment_rolls_when_an_index_is_full(broker: Broker) -> None:
    log = make(broker, segment_index_bytes=24, index_interval_bytes=1)
    for number in range(6):
        log.append(batch(b"x", timestamp=number), 0)
    assert len(bases(log)) > 1


def test_a_segment_rolls_before_a_relative_offset_outgrows_the_index(broker: Broker) -> None:
    log = make(broker)
    log.append(batch(b"x"), 0)
    far = batch(b"x")
    far.stamp(2**31, 0)
    log.append_fetched(far)
    assert [0, 2**31] == bases(log)


@pytest.mark.parametrize(("watermark", "left"), [(6, [4, 6]), (3, [2, 4, 6]), (8, [4, 6])])
def test_retention_by_time_deletes_whole_old_segments_below_the_watermark(
    broker: Broker, watermark: int, left: list[int]
) -> None:
    now = broker.clock.wall_ms()
    log = make(broker, segment_bytes=200, retention_ms=HOUR_MS)
    for number in range(8):
        log.append(batch(b"x" * 20, timestamp=now - (2 * HOUR_MS if number < 4 else 0)), 0)
    broker.settle()
    log.retain(now, watermark)
    broker.settle()
    assert left == bases(log)
    assert left[0] == log.start


def test_retention_of_everything_leaves_an_empty_segment_at_the_end(broker: Broker) -> None:
    log = make(broker, retention_ms=HOUR_MS)
    log.append(batch(b"x", timestamp=1000), 0)
    broker.settle()
    log.retain(broker.clock.wall_ms(), 1)
    broker.settle()
    assert ([1], 1, 1, 0) == (bases(log), log.start, log.end, log.size)


def test_a_compacted_topic_keeps_what_is_old(broker: Broker) -> None:
    log = make(broker, retention_ms=1, cleanup_policy=frozenset({"compact"}))
    log.append(batch(b"x", timestamp=1000), 0)
    broker.settle()
    assert 0 == log.retain(broker.clock.wall_ms(), 1)


def test_the_first_record_at_or_after_a_time_is_found_in_every_segment(broker: Broker) -> None:
    log = make(broker, segment_bytes=400, index_interval_bytes=100)
    times = [1000, 1500, 1200, 3000, 2000, 2500, 5000, 4000, 6000, 5500, 7000, 6500]
    for timestamp in times:
        log.append(batch(b"x" * 20, timestamp=timestamp), timestamp // 4000)
    broker.settle()
    assert len(bases(log)) > 2

    for up_to in (len(times), 7):
        for asked in range(900, 7200, 100):
            expected = next((at for at, time in enumerate(times[:up_to]) if time >= asked), None)
            found = log.find_time(asked, up_to=up_to)
            assert expected == (found[0] if found else None)
            if found:
                assert (times[found[0]], times[found[0]] // 4000) == found[1:]
        newest = log.max_timestamp(up_to)
        assert newest is not None
        assert max(times[:up_to]) == newest[1] == times[newest[0]]


def test_a_time_inside_a_batch_is_found_by_its_record(broker: Broker) -> None:
    log = make(broker)
    log.append(batch(b"a", b"b", b"c", timestamp=1000), 0)
    broker.settle()
    assert (1, 1001, 0) == log.find_time(1001, up_to=3)
    assert (2, 1002, 0) == log.max_timestamp(3)
    assert log.find_time(1001, up_to=1) is None
