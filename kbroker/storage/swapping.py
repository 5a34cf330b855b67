"""Putting a compacted segment in the place of those it was made of. On the loop; only syncs of the folder are in threads.

Three steps, the folder synced after each, so that whenever the power goes the next start finds the old segments, the
new one, or a `.log.swap` that says what to complete (`recovery`):

1. `.log.cleaned` becomes `.log.swap`: from here on the old segments are not needed
2. the old files become `.deleted`, the new indexes take their names; readers find the new segment
3. `.log.swap` becomes `.log`
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kbroker.observe import logs
from kbroker.seams import NotOpened
from kbroker.storage import trimming
from kbroker.storage.segment import Segment, segment_name

if TYPE_CHECKING:
    from kbroker.storage.cleaning import Cleaned
    from kbroker.storage.log import PartitionLog

logger = logs.get_logger("storage")

SWAP = ".swap"

# How long a step waits whose folder could not be opened to be synced: something of the process ran out.
AGAIN_SECONDS = 1.0

Done = Callable[[bool], None]


class Swap:
    """One swap in progress: `log.swap_pending` while it is."""

    __slots__ = ("cleaned", "done", "fresh", "gone", "lets_go", "old", "truncations")

    def __init__(self, cleaned: Cleaned, truncations: int, done: Done) -> None:
        self.cleaned = cleaned
        self.truncations = truncations
        self.done = done
        self.fresh: Segment | None = None  # the new segment, once it is served
        self.old: list[Segment] = []  # those that it replaced...
        self.gone: list[str] = []  # ... and their files' last names
        self.lets_go = False  # segments below the log's start wait for its end to go


def begin(log: PartitionLog, cleaned: Cleaned, truncations: int, done: Done) -> None:
    """Step 1, the others follow. `done(False)`: the segments are no longer what was compacted, nothing was swapped."""
    assert log.swap_pending is None, f"{log.tp}: one swap at a time"
    swap = Swap(cleaned, truncations, done)
    if _find(log, swap) is None:
        return done(False)
    path = _log_path(log, cleaned)
    try:
        log.directory.disk.rename(f"{path}.cleaned", path + SWAP)
    except OSError as error:
        logger.warning("compacted segment not taken", partition=str(log.tp), error=str(error))
        return done(False)
    log.swap_pending = swap
    _sync(log, swap, partial(_replace, log, swap))


def settle(log: PartitionLog) -> None:
    """Bring a swap in progress to its end now, on the disk: whoever cuts or closes the log calls this first. OSError."""
    swap = log.swap_pending
    if swap is None:
        return
    log.swap_pending = None
    disk, path = log.directory.disk, _log_path(log, swap.cleaned)
    if swap.fresh is None:
        disk.remove(path + SWAP)
    else:
        disk.sync_dir(log.folder)
        if swap.fresh.file.path != path:
            disk.rename(path + SWAP, path)
            swap.fresh.file.path = path
    disk.sync_dir(log.folder)
    _tidy(log, swap)
    swap.done(swap.fresh is not None)


def moved(log: PartitionLog) -> None:
    """The log's folder has another name: it is being deleted, and the swap ends where it is."""
    swap = log.swap_pending
    if swap is not None and swap.fresh is not None:
        path = _log_path(log, swap.cleaned)
        swap.fresh.file.path = path + SWAP if log.directory.disk.exists(path + SWAP) else path


def _log_path(log: PartitionLog, cleaned: Cleaned) -> str:
    return f"{log.folder}/{segment_name(cleaned.base)}.log"


def _find(log: PartitionLog, swap: Swap) -> int | None:
    """Where the segments to be replaced are, if they still are what they were."""
    cleaned = swap.cleaned
    if log.deleted or log.broken is not None or log.directory.failed is not None:
        return None
    if log.truncations != swap.truncations:
        return None
    count = len(cleaned.replaced)
    for number, segment in enumerate(log.segments):
        if segment.base == cleaned.base:
            there = [(each.base, each.size) for each in log.segments[number : number + count]]
            return number if there == cleaned.replaced and number + count < len(log.segments) else None
    return None


def _sync(log: PartitionLog, swap: Swap, then: Callable[[], None]) -> None:
    work = partial(log.directory.disk.sync_dir, log.folder)
    log.directory.threads.run(work, partial(_synced, log, swap, then))


def _synced(
    log: PartitionLog, swap: Swap, then: Callable[[], None], _: None, error: BaseException | None
) -> None:
    if log.swap_pending is not swap:
        return  # settled meanwhile
    directory = log.directory
    if log.deleted:
        log.swap_pending = None
        return swap.done(False)
    if error is None:
        try:
            then()
        except OSError as failed:
            _stop(log, swap, failed)
    elif isinstance(error, NotOpened):
        again = partial(_sync, log, swap, then)
        directory.clock.call_at(directory.clock.monotonic() + AGAIN_SECONDS, again)
    else:
        if not log.deleted:
            directory.fsync_failed(error)
        log.swap_pending = None
        swap.done(False)


def _replace(log: PartitionLog, swap: Swap) -> None:
    """Step 2."""
    at = _find(log, swap)
    directory, cleaned = log.directory, swap.cleaned
    if directory.failed is not None:  # the next start completes it
        log.swap_pending = None
        return swap.done(False)
    if at is None:
        return settle(log)
    disk, path = directory.disk, _log_path(log, cleaned)
    old = log.segments[at : at + len(cleaned.replaced)]
    fresh = Segment(disk, log.folder, cleaned.base, cleaned.size, log.config)
    fresh.created_ms = old[-1].created_ms
    fresh.put_at(path + SWAP)
    swap.fresh, swap.old = fresh, old
    for segment in old:
        swap.gone += segment.mark_deleted()
        directory.indexes.forget(segment)
        segment.unload()
        log.size -= segment.size
    stem = path.removesuffix(".log")
    for suffix in (".index", ".timeindex"):
        disk.rename(f"{stem}{suffix}.cleaned", stem + suffix)
    log.segments[at : at + len(old)] = [fresh]
    log.size += fresh.size
    log._dirty = [segment for segment in log._dirty if segment not in old]
    log._cut_in_flight = True
    _sync(log, swap, partial(_name, log, swap))


def _name(log: PartitionLog, swap: Swap) -> None:
    """Step 3."""
    path = _log_path(log, swap.cleaned)
    log.directory.disk.rename(path + SWAP, path)
    assert swap.fresh is not None
    swap.fresh.file.path = path
    _sync(log, swap, partial(_finish, log, swap))


def _finish(log: PartitionLog, swap: Swap) -> None:
    log.swap_pending = None
    _tidy(log, swap)
    if swap.lets_go:
        trimming.let_go(log)
    swap.done(True)


def _tidy(log: PartitionLog, swap: Swap) -> None:
    if swap.gone:
        log.directory.remove_later(swap.gone, log.config.file_delete_delay_ms, swap.old)


def _stop(log: PartitionLog, swap: Swap, error: OSError) -> None:
    """Files could not be renamed half-way: names and memory no longer agree; the next start completes it."""
    log.swap_pending = None
    log.broken = error
    logger.error("partition stopped in the middle of a swap", partition=str(log.tp), error=repr(error))
    log.directory.write_failed(log, error)
    swap.done(False)
