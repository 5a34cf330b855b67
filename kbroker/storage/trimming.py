"""Letting a log's oldest segments go: by config, or because records were deleted. The new start is durable first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kbroker.observe import logs
from kbroker.seams import NotOpened
from kbroker.storage import flushing, retention, scan
from kbroker.storage.snapshots import SUFFIX

if TYPE_CHECKING:
    from kbroker.seams import Disk, File
    from kbroker.storage.log import PartitionLog

logger = logs.get_logger("storage")


def delete_before(log: PartitionLog, offset: int, done: Callable[[BaseException | None], None]) -> None:
    """Move the log's start up to `offset`. Readers see it at once; `done` once it is on the disk."""
    assert offset <= log.flushed, f"{log.tp}: {offset} is beyond {log.flushed}"
    log.start = max(log.start, offset)
    save_start(log, done)


def retain(log: PartitionLog, now_ms: int, high_watermark: int) -> int:
    """Delete the oldest segments as the topic's config says. Returns how many are on their way out."""
    if log._producers is not None:
        log._producers.expire(now_ms - log.directory.producer_expiration_ms)
    if log.broken is not None or (log.directory.refusing and log.directory.failed is not None):
        return 0
    try:
        count = retention.deletable(log, now_ms, high_watermark)
        if count and count == len(log.segments):
            log.roll()  # never all: the end must stay known
    except scan.Damaged as error:
        log.damaged(error)
        return 0
    if count:
        log.start = max(log.start, log.segments[count].base)
        save_start(log)
    return count


def save_start(log: PartitionLog, done: Callable[[BaseException | None], None] | None = None) -> None:
    """Put the log's start on the disk, then let go of the segments below it."""
    log.directory.points.move_start(log.tp, log.start, partial(_start_saved, log, log.start, done))


def _start_saved(
    log: PartitionLog,
    start: int,
    done: Callable[[BaseException | None], None] | None,
    error: BaseException | None,
) -> None:
    """`start` is on the disk: the segments below it may go. A crash in between leaves no hole that is read.

    The log's start may be further by now. After a loss of power it is `start` again, and what lies behind that is read.
    """
    if error is None and not log.deleted:
        log.saved_start = max(log.saved_start, min(start, log.start))  # it may have begun anew, lower
        let_go(log)
    elif error is not None:
        logger.error("log start not saved", partition=str(log.tp), start=start, error=str(error))
    if done is not None:
        done(error)


def let_go(log: PartitionLog) -> None:
    """Drop the segments below the saved start, once their producers' snapshot and what follows them are on the disk.

    In a swap: at its end. A flush in progress is not waited for, as under load there always is one.
    """
    directory, start = log.directory, log.saved_start
    if not retention.below(log.segments, start):
        return
    if log.swap_pending is not None:
        log.swap_pending.lets_go = True
    elif not directory.fsync:
        _drop_below(log, start)
    else:
        snapshots = [file for file in flushing.unsynced_others(log) if file.path.endswith(SUFFIX)]
        if snapshots or log._names_dirty or log._in_flight is not None:
            work = partial(_sync, snapshots, directory.disk, log.folder)
            directory.threads.run(work, partial(_producers_saved, log, start, snapshots))
        else:
            _drop_below(log, start)


def _sync(files: list[File], disk: Disk, folder: str) -> None:
    for file in files:
        file.sync()
    disk.sync_dir(folder)


def _producers_saved(
    log: PartitionLog, start: int, snapshots: list[File], _: None, error: BaseException | None
) -> None:
    directory = log.directory
    if log.deleted or directory.failed is not None:
        return
    if error is None:
        if log.swap_pending is not None:
            log.swap_pending.lets_go = True
        elif all(directory.disk.exists(file.path) for file in snapshots):
            _drop_below(log, min(start, log.saved_start))
        # otherwise newer ones have taken their places, and are not synced: retention looks again
    elif not isinstance(error, FileNotFoundError | NotOpened):  # gone likewise, or no descriptor: as well
        directory.fsync_failed(error)


def _drop_below(log: PartitionLog, start: int) -> None:
    try:
        _drop(log, start)
    except OSError as failed:
        logger.warning("segments not deleted", partition=str(log.tp), error=str(failed))


def _drop(log: PartitionLog, start: int) -> None:
    segments = log.segments
    count = retention.below(segments, start)
    if not count:
        return
    paths = []
    for segment in segments[:count]:
        log.size -= segment.size
        log.directory.indexes.forget(segment)
        paths += segment.mark_deleted()
    gone = segments[:count]
    del segments[:count]
    log._dirty = [segment for segment in log._dirty if segment not in gone]
    log._cut_in_flight = True
    logger.info("segments deleted", partition=str(log.tp), segments=count, start=start)
    log.directory.remove_later(paths, log.config.file_delete_delay_ms, gone)
    if log.epochs.delete_before(start):
        log._epochs_dirty = True
