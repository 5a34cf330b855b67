"""A compacted log driven by hand: rounds in the test's own thread, and what a naive cleaner would leave."""

from __future__ import annotations

from typing import Any

from kbroker.protocol.records import Record, RecordBatch, decode_records, split_batches
from kbroker.storage.cleaning import Cleaned, Finished, Job, clean
from kbroker.storage.log import PartitionLog
from tests.support.storage import region_bytes

NOW_MS = 1_700_000_000_000


def job(log: PartitionLog, *, first_dirty: int = 0, last: int = -1, **changes: Any) -> Job:
    """A round over all closed segments of a log, or over those up to number `last`."""
    log.producers  # noqa: B018 -- loads them
    values: dict[str, Any] = {
        "folder": log.folder,
        "segments": [(each.base, each.size) for each in log.segments[:last]],
        "first_dirty": first_dirty,
        "upper": log.segments[last].base,
        "now_ms": NOW_MS,
        "delete_retention_ms": 1000,
        "segment_bytes": log.config.segment_bytes,
        "index_interval_bytes": log.config.index_interval_bytes,
        "segment_index_bytes": log.config.segment_index_bytes,
        "producers": {
            producer_id: (known.sent[-1].last_offset if known.sent else -1, known.epoch)
            for producer_id, known in log.producers.producers.items()
        },
        "buffer_bytes": 1 << 20,
        "decompressed_max": 1 << 20,
    }
    return Job(**{**values, **changes})


def no_pace(count: int) -> None:
    """As fast as it goes."""


def compact(broker: Any, log: PartitionLog, asked: Job | None = None) -> Finished:
    """A whole round, each segment swapped as it is made."""
    asked = asked or job(log)
    truncations = log.truncations
    for outcome in clean(broker.disk, asked, no_pace):
        if isinstance(outcome, Finished):
            return outcome
        swapped: list[bool] = []
        log.swap(outcome, truncations, swapped.append)
        broker.settle()
        assert [True] == swapped
    raise AssertionError("a round ends with what it came to")


def made(broker: Any, log: PartitionLog, asked: Job | None = None) -> list[Cleaned]:
    """The segments that a round makes, none of them swapped."""
    outcomes = clean(broker.disk, asked or job(log), no_pace)
    return [outcome for outcome in outcomes if isinstance(outcome, Cleaned)]


def batches(log: PartitionLog, offset: int | None = None) -> list[RecordBatch]:
    """What a consumer that begins at `offset` is sent."""
    found: list[RecordBatch] = []
    offset = log.start if offset is None else offset
    while (region := log.read(offset, up_to=log.end, max_bytes=500)) is not None:
        some = split_batches(memoryview(region_bytes(region)))
        found += some
        offset = some[-1].next_offset
    return found


def records(log: PartitionLog, offset: int | None = None) -> list[Record]:
    """The records of these."""
    return [
        record
        for one in batches(log, offset)
        if not one.is_control
        for record in decode_records(one)
        if offset is None or record.offset >= offset
    ]


def naive(before: list[Record], first_dirty: int, upper: int) -> list[Record]:
    """What a round leaves of `before`, said in the plainest way: tombstones are all kept."""
    dirty = [record for record in before if first_dirty <= record.offset < upper]
    last = {record.key: record.offset for record in dirty if record.key is not None}
    return [
        record
        for record in before
        if record.offset >= upper or (record.key is not None and last.get(record.key, -1) <= record.offset)
    ]
