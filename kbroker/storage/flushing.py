"""A log's side of a flush: which files a thread must sync, what that vouches for, what a failure takes away.

Owns `_dirty`, `_files_to_sync`, `_names_dirty`, `_folder_new`, `_in_flight`, `_flushing`, `_cut_in_flight`. Runs on the
owner's side only: threads get the returned calls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kbroker.storage import scan
from kbroker.storage.segment import DELETED

if TYPE_CHECKING:
    from kbroker.seams import File
    from kbroker.storage.log import PartitionLog


def sync_also(log: PartitionLog, files: list[File]) -> None:
    """Sync these too with the next flush."""
    if log._files_to_sync is None:
        log._files_to_sync = []
    log._files_to_sync += files


def begin(log: PartitionLog) -> list[Callable[[], object]]:
    """What to do in a thread so that all that is written now is on the disk. The order matters."""
    directory = log.directory
    log._flushing = log.written
    files = take_unsynced(log)
    log._in_flight = files
    log._cut_in_flight = False
    work: list[Callable[[], object]] = [file.sync for file in files]
    if log._names_dirty:
        log._names_dirty = False
        work.append(partial(directory.disk.sync_dir, log.folder))
    if log._folder_new:
        log._folder_new = False
        work.append(partial(directory.disk.sync_dir, directory.path))
    return work


def take_unsynced(log: PartitionLog) -> list[File]:
    """What is written and not synced; whoever takes it syncs it."""
    files = [segment.file for segment in log._dirty]
    for segment in log._dirty:
        segment.dirty = False
    log._dirty = []
    return files + take_others(log)


def take_others(log: PartitionLog) -> list[File]:
    """Files beside the `.log`s; older snapshots may be gone again."""
    files, log._files_to_sync = log._files_to_sync or [], None
    return [file for file in files if log.directory.disk.exists(file.path)]


def unsynced_others(log: PartitionLog) -> list[File]:
    """The same, those in the flush in progress too; whoever has them to sync has them still."""
    waiting = [file for file in log._in_flight or () if not file.path.endswith(".log")]
    waiting += log._files_to_sync or ()
    return [file for file in waiting if log.directory.disk.exists(file.path)]


def ended(log: PartitionLog) -> bool:
    """The flush went well. True when there is more to flush."""
    log._in_flight = None
    if log._flushing > log.flushed:  # lowered by a truncation meanwhile: the fsync vouches for no more
        log.flushed = log._flushing
        log.observer.log_moved()
    log.queued = log.flushed < log.written or log._names_dirty
    return log.queued


def again(log: PartitionLog) -> bool:
    """A file was missing: True when that is our doing, then everything not yet vouched for is synced again."""
    if not log._cut_in_flight:
        log._in_flight = None
        return False
    for number, segment in enumerate(log.segments, 1):
        end = log.segments[number].base if number < len(log.segments) else log.written
        if end > log.flushed and not segment.dirty:
            segment.dirty = True
            log._dirty.append(segment)
    _others_again(log)
    return True


def put_off(log: PartitionLog) -> None:
    """A file could not be opened: all that the flush had taken is to be synced by the next one."""
    segments = {segment.file: segment for segment in log.segments}
    for file in log._in_flight or []:
        segment = segments.get(file)
        if segment is not None and not segment.dirty:
            segment.dirty = True
            log._dirty.append(segment)
    _others_again(log)


def _others_again(log: PartitionLog) -> None:
    """A flush came to nothing: how far is not known, so what it had to sync beside the `.log`s waits again.

    Not the `.log`s that are on their way out: they may go at any time, and nobody misses them.
    """
    sync_also(log, [file for file in log._in_flight or () if not file.path.endswith((".log", DELETED))])
    log._in_flight = None
    log._names_dirty = log._folder_new = True  # perhaps they are


def fail(log: PartitionLog, error: BaseException) -> None:
    """An fsync failed: nothing beyond `flushed` can be vouched for any more, in memory it never was."""
    log.queued = False
    log._in_flight = None
    log._flushing = log.flushed
    if log.flushed < log.end:
        log._tail = []
        log._dirty = []
        log._producers = None
        log._active = None
        try:
            _hide_from(log, log.flushed)
        except (OSError, scan.Damaged) as second:
            log.broken = second
        ends_at(log, log.flushed)
        if log._epochs is not None:
            log._epochs.truncate_to(log.end)
            log._last_epoch = log._epochs.last
        log.observer.log_cut(log.end, error)


def _hide_from(log: PartitionLog, offset: int) -> None:
    """Read no further than `offset`. The files are left alone: nothing is written to a failed directory."""
    while len(log.segments) > 1 and log.segments[-1].base >= offset:
        log.size -= log.segments.pop().size
    last = log.segments[-1]
    log.size -= last.size
    last.unload()
    last.size = last.file.size
    _, last.size = last.boundary_of(offset)
    last.unload()
    log.size += last.size


def ends_at(log: PartitionLog, end: int) -> None:
    """The log was cut: no flush in progress vouches for what lies at `end` and beyond."""
    log.truncations += 1
    log._cut_in_flight = True
    log.end = log.written = end
    log.flushed = min(log.flushed, end)
    log.saved_to = min(log.saved_to, end)
    log._flushing = min(log._flushing, end)
