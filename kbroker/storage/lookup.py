"""Finding offsets by time in a partition's log. Reads headers, and the records of one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbroker.errors import KafkaError, ProtocolError
from kbroker.protocol.records import RecordBatch, decode_records
from kbroker.storage import scan

if TYPE_CHECKING:
    from kbroker.storage.indexes import Indexes
    from kbroker.storage.segment import Segment

Found = tuple[int, int, int]  # offset, timestamp, leader epoch


def find_time(
    segments: list[Segment], indexes: Indexes, timestamp: int, up_to: int, start: int
) -> Found | None:
    """The first record from offset `start` to below `up_to` whose timestamp is at or after `timestamp`."""
    for segment in segments:
        if segment.base >= up_to:
            break
        _know_timestamps(segment, segments, indexes)
        if segment.max_timestamp < timestamp:
            continue
        _load(segment, segments, indexes)
        assert segment.index is not None
        before = segment.times.floor(timestamp)
        at = segment.index.floor(before) if before >= 0 else 0
        for batch in scan.walk(segment.file, at, segment.file.size):
            if batch.base >= up_to:
                return None
            if batch.max_timestamp >= timestamp and batch.last >= start:
                found = _record_at(segment, batch, timestamp, start)
                if found is not None:
                    return found if found[0] < up_to else None
    return None


def max_timestamp(segments: list[Segment], indexes: Indexes, up_to: int) -> Found | None:
    """The first record with the largest timestamp below offset `up_to`."""
    newest, offset, where = -1, -1, None
    for number, segment in enumerate(segments):
        if segment.base >= up_to:
            break
        if number + 1 < len(segments) and segments[number + 1].base <= up_to:
            _know_timestamps(segment, segments, indexes)
            timestamp, last = segment.max_timestamp, segment.max_timestamp_offset
        else:
            _load(segment, segments, indexes)
            timestamp, last = _newest_below(segment, up_to)
        if timestamp > newest:
            newest, offset, where = timestamp, last, segment
    if where is None:
        return None
    _load(where, segments, indexes)
    at = where.indexed_position(offset)
    for batch in scan.walk(where.file, at, where.file.size):
        if batch.last == offset:
            return _record_at(where, batch, newest, 0)
    return None


def _newest_below(segment: Segment, up_to: int) -> tuple[int, int]:
    """(largest timestamp, last offset of its batch) of the segment's batches below `up_to`."""
    relative = up_to - segment.base
    index = segment.index
    assert index is not None
    at, last_indexed = index.below(relative)
    timestamp, offset = segment.times.last_up_to(last_indexed, segment.base)
    for batch in scan.walk(segment.file, at, segment.file.size):
        if batch.last >= up_to:
            break
        if batch.max_timestamp > timestamp and batch.records:
            timestamp, offset = batch.max_timestamp, batch.last
    return timestamp, offset


def _record_at(segment: Segment, batch: scan.Batch, timestamp: int, start: int) -> Found | None:
    """The first record in the batch, from offset `start` on, at or after `timestamp`."""
    view = scan.read_batch(segment.file, batch)
    try:
        for record in decode_records(RecordBatch(view)):
            if record.timestamp >= timestamp and record.offset >= start:
                return record.offset, record.timestamp, batch.epoch
    except (ProtocolError, KafkaError) as error:
        raise scan.Damaged(batch.position, f"its records cannot be read: {error}") from error
    return None


def _know_timestamps(segment: Segment, segments: list[Segment], indexes: Indexes) -> None:
    if not segment.timestamps_known:
        _load(segment, segments, indexes)


def _load(segment: Segment, segments: list[Segment], indexes: Indexes) -> None:
    if segment is segments[-1]:
        segment.load()
    else:
        indexes.keep(segment)
