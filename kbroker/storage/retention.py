"""Which of a log's segments may be deleted. Decides; deletes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kbroker.storage.log import PartitionLog
    from kbroker.storage.segment import Segment


def below(segments: list[Segment], start: int) -> int:
    """How many segments, the last one never, lie whole below offset `start`."""
    count = 0
    while count + 1 < len(segments) and segments[count + 1].base <= start:
        count += 1
    return count


def deletable(log: PartitionLog, now_ms: int, high_watermark: int) -> int:
    """How many of the oldest segments may go: by `retention.ms`, by `retention.bytes`, or below the log's start.

    Only what lies whole below the high watermark and is flushed. It may be all of them: then the log rolls first.
    """
    config, segments = log.config, log.segments
    by_start = below(segments, log.start)
    if "delete" not in config.cleanup_policy:
        return by_start
    limit = min(high_watermark, log.flushed)
    complete = 0
    while complete < len(segments) and _end(log, complete) <= limit and segments[complete].size:
        complete += 1
    by_time = 0
    if config.retention_ms >= 0:
        for number in range(complete):
            age_ms = _age_ms(log, segments[number], now_ms)
            if age_ms is None:
                continue  # it goes with one that follows it
            if age_ms <= config.retention_ms:
                break
            by_time = number + 1
    by_size = 0
    if config.retention_bytes >= 0:
        spare = log.size - config.retention_bytes
        while by_size < complete and spare - segments[by_size].size >= 0:
            spare -= segments[by_size].size
            by_size += 1
    return max(by_start, by_time, by_size)


def _end(log: PartitionLog, number: int) -> int:
    return log.segments[number + 1].base if number + 1 < len(log.segments) else log.end


def _age_ms(log: PartitionLog, segment: Segment, now_ms: int) -> int | None:
    """By its newest record; by the clock where records have no timestamps, or compaction has left none. None: unknown."""
    if not segment.timestamps_known:
        if segment is log.segments[-1]:
            segment.load()
        else:
            log.directory.indexes.keep(segment)
    if segment.max_timestamp >= 0:
        return now_ms - segment.max_timestamp
    return now_ms - segment.created_ms if segment.created_ms else None
