"""Taking records out at a log's end: a truncation, a new beginning, the way back after a failed write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbroker.observe import logs
from kbroker.storage import flushing, rolling, scan, swapping, trimming
from kbroker.storage.epochs import EpochCache
from kbroker.storage.producers import ProducerStates
from kbroker.storage.slices import whole

if TYPE_CHECKING:
    from kbroker.errors import KafkaError
    from kbroker.storage.log import PartitionLog
    from kbroker.storage.segment import Segment

logger = logs.get_logger("storage")


def take_back(log: PartitionLog, error: OSError | scan.Damaged) -> KafkaError:
    """A write failed: what is not in the file was never appended. Returns what to tell whoever appended."""
    log._tail = []
    written = log.written
    segment = log._active
    if segment is not None and segment.size != segment.file.size:
        log.size -= segment.size - segment.file.size
        segment.size = segment.file.size
        try:
            segment.file.truncate(segment.size)  # the part that was written
            segment.cut(written, segment.size)
        except (OSError, scan.Damaged) as second:
            log._active = None
            segment.unload()
            logger.error("log not cut back", partition=str(log.tp), end=written, error=repr(second))
            error = second
    log.end = written
    if log._epochs is not None and log._epochs.truncate_to(written):
        log._last_epoch = log._epochs.last
        log._epochs_dirty = True
    if log._producers is not None:
        log._producers.take_back()
    answer = log.directory.write_failed(log, error)
    log.observer.log_cut(written, answer)
    return answer


def truncate_to(log: PartitionLog, offset: int) -> int:
    """Take out everything from `offset` on; on the disk when this returns. Returns the new end.

    A batch that begins below `offset` and ends beyond goes whole.
    """
    if offset >= log.end:
        return log.end
    if offset < log.start or not log.segments:
        restart_at(log, offset)
        return log.end
    try:
        swapping.settle(log)
        active = log._active or rolling.activate(log)
        assert active is not None
        log._write_tail(active)
        log._note_written()
        last = next(each for each in reversed(log.segments) if each.base <= offset)
        end, position = last.boundary_of(offset)
        if end < log.start:  # it starts in the middle of the batch that goes
            restart_at(log, offset)
            return log.end
        _cut(log, last, end, position)
    except scan.Damaged as error:
        raise log.damaged(error) from error
    except OSError as error:
        raise _stop(log, error) from error
    log.observer.log_moved()
    return log.end


def restart_at(log: PartitionLog, offset: int) -> None:
    """Drop everything and begin anew at `offset`: what a follower does whose leader's log starts beyond its own."""
    try:
        swapping.settle(log)
        log._tail = []
        log.directory.points.lower(log.tp, min(offset, log.start))
        log.directory.cleaned.lower(log.tp, min(offset, log.start))
        log.snapshots.truncate_to(-1)
        _drop_from(log, 0)
        log._producers, log._epochs = ProducerStates(), EpochCache([])
        log._last_epoch, log._epochs_dirty = -1, True
        log._active = None
        flushing.ends_at(log, offset)
        log.start = log.flushed = log._flushing = offset
        log.saved_start = min(log.saved_start, offset)
        rolling.roll_at(log, offset)
        trimming.save_start(log)
    except OSError as error:
        raise _stop(log, error) from error
    log.observer.log_moved()


def _cut(log: PartitionLog, last: Segment, end: int, position: int) -> None:
    """Let the log end in segment `last` at offset `end`, file position `position`."""
    segments, directory = log.segments, log.directory
    # before anything is taken out: until the new end is on the disk, recovery must look at it
    directory.points.lower(log.tp, end)
    directory.cleaned.lower(log.tp, end)
    log.snapshots.truncate_to(end)
    _drop_from(log, segments.index(last) + 1)
    if position < last.size:
        log.size -= last.size - position
        last.file.truncate(position)
        if directory.fsync:
            last.file.sync()  # new bytes behind an old length would show, after a crash, as a longer old log
        last.cut(end, position)
    directory.indexes.forget(last)
    log._active = last
    flushing.ends_at(log, end)
    if log.epochs.truncate_to(end):
        log._last_epoch = log.epochs.last
        log._epochs_dirty = True
    if log._producers is not None and log._producers.producers:
        log._producers = whole(log.snapshots.load(segments, end))


def _drop_from(log: PartitionLog, first: int) -> None:
    """Remove the segments from number `first` on, the last one first."""
    gone = log.segments[first:]
    for segment in reversed(gone):
        log.size -= segment.size
        log.directory.indexes.forget(segment)
        segment.remove()
    del log.segments[first:]
    log._dirty = [segment for segment in log._dirty if segment not in gone]
    if gone and log.directory.fsync:
        log.directory.disk.sync_dir(log.folder)


def _stop(log: PartitionLog, error: OSError) -> KafkaError:
    """A cut failed half-way: memory and disk no longer agree."""
    log.broken = error
    return log.directory.write_failed(log, error)
