"""Opening logs: takes over what recovery found, or has to sync it first; loads the epochs; counts those to check.

Knows no leaders.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kbroker.model import TopicPartition
from kbroker.observe import logs
from kbroker.seams import Clock
from kbroker.storage import flushing, scan
from kbroker.storage.checkpoints import EPOCHS_FILE, METADATA_FILE, read_epochs
from kbroker.storage.epochs import EpochCache
from kbroker.storage.slices import SLICE_BYTES, Slices

if TYPE_CHECKING:
    from kbroker.storage.log import PartitionLog
    from kbroker.storage.producers import ProducerStates
    from kbroker.storage.recovery import Found

logger = logs.get_logger("storage")


class Unchecked:
    """Partitions that an unclean stop left to check. The first and the last of it are a line each."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._left: set[TopicPartition] = set()
        self._count = 0
        self._began = 0.0

    def __bool__(self) -> bool:
        return bool(self._left)

    def begin(self, partitions: Iterable[TopicPartition]) -> None:
        """These are to be checked."""
        self._left = set(partitions)
        self._count = len(self._left)
        self._began = self._clock.monotonic()
        if self._left:
            logger.info("unclean stop: checking partitions", path=self._path, partitions=self._count)

    def done(self, tp: TopicPartition) -> None:
        """This one is checked, or gone."""
        if tp not in self._left:
            return
        self._left.discard(tp)
        if not self._left:
            seconds = round(self._clock.monotonic() - self._began, 3)
            logger.info("partitions checked", path=self._path, partitions=self._count, seconds=seconds)


def load_epochs(log: PartitionLog, below: int) -> Slices[EpochCache]:
    """The epochs that begin below offset `below`: as the file has them, or from all batches when it is unfit."""
    try:
        pairs = read_epochs(log.directory.disk, f"{log.folder}/{EPOCHS_FILE}")
    except ValueError as error:
        logger.warning("leader epochs read from the batches", partition=str(log.tp), why=str(error))
        pairs = []
    epochs = EpochCache(pairs)
    if not pairs and log.segments and log.segments[0].base < below:
        for segment in log.segments:
            stop = SLICE_BYTES
            for batch in scan.walk_readable(segment.file, 0, segment.file.size):
                if batch.base < below and batch.epoch > epochs.last:
                    epochs.assign(batch.epoch, batch.base)
                    log._epochs_dirty = True
                if batch.position >= stop:
                    yield SLICE_BYTES
                    stop = batch.position + SLICE_BYTES
    epochs.truncate_to(below)
    return epochs


def take_over(log: PartitionLog, found: Found, *, start: int, trusted: int) -> Slices[None]:
    """Take over what recovery found on disk; offsets below `trusted` are known to be on it for good."""
    directory = log.directory
    log.segments = found.segments
    log.size = sum(segment.size for segment in found.segments)
    log.end = log.written = found.end
    log.start = max(start, found.segments[0].base if found.segments else 0)
    log.lost = found.lost
    log.saved_to = min(trusted, log.end)
    if found.checked:
        epochs = log._epochs = yield from load_epochs(log, min(trusted, found.end))
        for epoch, offset in found.epochs:
            if epoch > epochs.last:
                epochs.assign(epoch, offset)
        log._last_epoch = epochs.last
        log._epochs_dirty = True
        # now, and not when a client waits for it: it may have to read much
        log._producers = yield from log.snapshots.load(log.segments, log.end)
        _replace_lost_snapshot(log, log._producers, flushed=min(trusted, log.end))
        # a segment may be new: behind a damaged one
        log._names_dirty = True
    if log.start > log.end:
        if log.size:
            _keep_despite_start(log)
        else:
            log.restart_at(log.start)
    log.flushed = max(log.start, min(trusted, log.end))
    if not directory.fsync:
        log.flushed = log.end
    elif log.flushed < log.end:
        # what is there may have survived in the page cache only: it counts when it has been synced
        for segment in found.checked:
            segment.dirty = True
        log._dirty = list(found.checked)
        flushing.sync_also(log, [*found.written, directory.disk.open(f"{log.folder}/{METADATA_FILE}")])
        log._names_dirty = log._folder_new = log.queued = True
        directory.flusher.add(log)


def _replace_lost_snapshot(log: PartitionLog, states: ProducerStates, *, flushed: int) -> None:
    """A closed segment has a snapshot at its end, and goes only with it: if a power cut took that, it is made anew. What
    it says is in the batches now, and nowhere when they have been deleted.
    """
    if not states.producers or log.snapshots.offsets[-1:] >= [log.segments[-1].base]:
        return
    try:
        flushing.sync_also(log, [log.snapshots.take(states, log.end, flushed=flushed)])
    except OSError as error:
        logger.warning("producer snapshot not made anew", partition=str(log.tp), why=str(error))


def begin_at(log: PartitionLog, offset: int) -> None:
    """The folder is gone: the log is empty, and goes on where it had come to."""
    log.lost = True
    log.start = log.end = log.written = log.flushed = offset


def _keep_despite_start(log: PartitionLog) -> None:
    """A start beyond the end: either the log's end is lost, or the start is another log's. What is there is kept."""
    noted, log.start = log.start, log.segments[0].base
    log.lost = True
    logger.error(
        "log ends before its start: all of it is served", partition=str(log.tp), start=noted, end=log.end
    )
    log.directory.points.correct_start(log.tp, log.start)
