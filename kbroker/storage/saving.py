"""Saving what recovery would otherwise have to find out: indexes, epochs, snapshots; and the clean stop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kbroker.storage import flushing, swapping
from kbroker.storage.checkpoints import EPOCHS_FILE, encode_epochs, put_in_place, write_beside

if TYPE_CHECKING:
    from kbroker.seams import File
    from kbroker.storage.log import PartitionLog


def save(log: PartitionLog) -> tuple[int, list[File]]:
    """Write indexes and epochs; returns the recovery point that holds once the returned files are synced.

    `saved` follows then. A log that did not move since the last time gives its memory back.
    """
    files: list[File] = []
    point = log.flushed
    segment = log._active
    if not log.directory.fsync:  # nothing is synced but here: closed segments, as Kafka does it when it rolls
        closed = [each for each in log._dirty if each is not log.segments[-1]]
        files += [each.file for each in closed]
        log._dirty = [each for each in log._dirty if each not in closed]
        for each in closed:
            each.dirty = False
        files += flushing.take_others(log)
        point = max(log.start, log.segments[-1].base) if log.segments else log.start
    else:  # indexes of a segment that was closed since the last flush: below the point they are trusted
        files += flushing.unsynced_others(log)
    if segment is not None:
        files += segment.save()
        if point == log.end == log._point() and not log._tail:
            segment.unload()
            log._active = None
    if log._epochs_dirty and log._epochs is not None and log.segments:
        log._epochs_dirty, log._epochs_saving = False, True
        path = f"{log.folder}/{EPOCHS_FILE}"
        files.append(write_beside(log.directory.disk, path, encode_epochs(log._epochs.pairs)))
    return point, files


def saved(log: PartitionLog) -> bool:
    """What `save` wrote is synced. True when the folder must be."""
    if not log._epochs_saving:
        return False
    put_in_place(log.directory.disk, f"{log.folder}/{EPOCHS_FILE}")
    log._epochs_saving = False
    return True


def not_saved(log: PartitionLog) -> None:
    """What `save` wrote is not to be relied on."""
    if log._epochs_saving:
        log._epochs_saving = False
        log._epochs_dirty = True


def closing(log: PartitionLog) -> list[Callable[[], object]]:
    """A clean stop: write and save everything. Returns what makes it durable, in this order: a thread may do it.

    `closed` follows then. What was saved before and did not move needs nothing.
    """
    directory = log.directory
    if log.broken is not None or not log.segments:
        return []
    swapping.settle(log)
    if log._tail and log._active is not None:
        log._write_tail(log._active)
        log._note_written()
    files = log._in_flight or []
    files += flushing.take_unsynced(log)
    if log._active is not None:
        files += log._active.save()
    if log._producers is not None and log.snapshots.offsets[-1:] != [log.end]:
        files.append(log.snapshots.take(log._producers, log.end, flushed=log.flushed))
    files = [file for file in files if directory.disk.exists(file.path)]  # older snapshots may be gone again
    steps: list[Callable[[], object]] = []
    if log._epochs_dirty:
        path = f"{log.folder}/{EPOCHS_FILE}"
        files.append(write_beside(directory.disk, path, encode_epochs(log.epochs.pairs)))
        log._epochs_dirty = False
        steps.append(partial(put_in_place, directory.disk, path))
    if not directory.fsync:
        for step in steps:
            step()
        return []
    if files or log._names_dirty:
        log._names_dirty = False
        steps.append(partial(directory.disk.sync_dir, log.folder))
    if log._folder_new:
        log._folder_new = False
        steps.append(partial(directory.disk.sync_dir, directory.path))
    return [file.sync for file in files] + steps


def closed(log: PartitionLog) -> None:
    """All that `closing` returned was done."""
    if log.broken is None and log.segments:
        log.flushed = log.written
