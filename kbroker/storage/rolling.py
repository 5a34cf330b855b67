"""When a log goes on in a new segment, as Kafka does it, and how that is made. Syncs nothing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbroker.observe import logs
from kbroker.storage import flushing, scan
from kbroker.storage.checkpoints import METADATA_FILE, partition_metadata, put_in_place, write_beside
from kbroker.storage.segment import INT32_MAX, Segment

if TYPE_CHECKING:
    from kbroker.storage.log import PartitionLog

logger = logs.get_logger("storage")


def segment_for(log: PartitionLog, size: int, last: int, timestamp: int, base: int) -> Segment:
    """The segment that takes a batch; rolls when the last one is full or too old, as Kafka does."""
    try:
        segment = log._active
        if segment is None:
            segment = activate(log)
        if (
            segment is None
            or last - segment.base > INT32_MAX
            or (segment.size and _is_full(log, segment, size))
        ):
            return roll_at(log, base)
        if segment.size and _age_ms(log, segment, timestamp) > log.config.segment_ms - segment.jitter_ms:
            return roll_at(log, base)
        return segment
    except (OSError, scan.Damaged) as error:
        raise log._take_back(error) from error


def _is_full(log: PartitionLog, segment: Segment, size: int) -> bool:
    return segment.full or segment.size + size > log.config.segment_bytes


def _age_ms(log: PartitionLog, segment: Segment, timestamp: int) -> int:
    """By record timestamps, from the first batch on; by the clock where batches have none."""
    if segment.first_timestamp >= 0:
        return timestamp - segment.first_timestamp
    return log.directory.clock.wall_ms() - segment.created_ms if segment.created_ms else 0


def activate(log: PartitionLog) -> Segment | None:
    """Load what appending needs. None when there is no segment yet."""
    _ = log.epochs, log.producers
    if not log.segments:
        return None
    segment = log.segments[-1]
    segment.load()
    log._active = segment
    return segment


def roll(log: PartitionLog) -> None:
    """Go on in a new segment, unless the last one is empty."""
    try:
        segment = log._active or activate(log)
        if segment is not None and segment.size:
            roll_at(log, log.end)
    except (OSError, scan.Damaged) as error:
        raise log._take_back(error) from error


def roll_at(log: PartitionLog, base: int) -> Segment:
    """Close the last segment and make one that begins at `base`."""
    directory = log.directory
    old = log._active
    if old is not None:
        log._write_tail(old)
        log._note_written()
        if old.size:
            _close(log, old, base)
    elif not log.segments:
        _make_folder(log)
    # last of what may fail: the old segment may go on after a failure, and must not go beyond a file that follows it
    segment = _create(log, base)
    if old is not None and old.size:
        directory.indexes.keep(old)
    elif old is not None:  # nothing in it fits: its name says the wrong base
        log.segments.pop()
        _remove(old)
    log.segments.append(segment)
    log._active = segment
    log._names_dirty = True
    return segment


def _close(log: PartitionLog, old: Segment, base: int) -> None:
    """Save what recovery would otherwise have to find out of a segment that takes no more batches."""
    flushing.sync_also(log, old.save(closing=True))
    flushing.sync_also(log, [log.snapshots.take(log.producers, base, flushed=log.flushed)])
    log._cut_in_flight = True  # older snapshots went


def _create(log: PartitionLog, base: int) -> Segment:
    directory = log.directory
    segment = Segment(directory.disk, log.folder, base, 0, log.config)
    try:
        segment.create(directory.clock.wall_ms())
    except OSError:
        _remove(segment)
        raise
    segment.jitter_ms = directory.jitter_ms(log.config)
    return segment


def _remove(segment: Segment) -> None:
    """Remove an empty segment; recovery does not mind one that stays."""
    try:
        segment.remove()
    except OSError as error:
        logger.warning("empty segment not removed", file=segment.paths[0], error=str(error))


def _make_folder(log: PartitionLog) -> None:
    disk = log.directory.disk
    log.directory.points.made_anew(log.tp)
    if not disk.exists(log.folder):
        disk.mkdir(log.folder)
    log._folder_new = True  # or made right before a crash: then the page cache may be all that has it
    path = f"{log.folder}/{METADATA_FILE}"
    if not disk.exists(path):
        file = write_beside(
            disk, path, partition_metadata(log.topic_id)
        )  # a part of it is not to be taken for it
        put_in_place(disk, path)
        file.path = path
    else:
        file = disk.open(path)
    flushing.sync_also(log, [file])
