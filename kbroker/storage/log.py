"""One partition's segments, in order. Knows files through `disk`; knows nothing of leaders, replicas or sockets.

Truth is the .log files. Indexes, epochs and producer snapshots are rebuilt from them when missing or older.
`start <= flushed <= written <= end`: flushed is on the disk for good, written is in the file, end was appended.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import TopicPartition
from kbroker.observe import logs
from kbroker.storage import (
    cutting,
    flushing,
    lookup,
    opening,
    retention,
    rolling,
    saving,
    scan,
    swapping,
    trimming,
)
from kbroker.storage.epochs import EpochCache
from kbroker.storage.producers import ProducerStates
from kbroker.storage.segment import INT32_MAX, OFFSET_MAX, Segment
from kbroker.storage.slices import Slices, whole
from kbroker.storage.snapshots import Snapshots, took_batch

if TYPE_CHECKING:
    from kbroker.config import TopicConfig
    from kbroker.protocol.records import RecordBatch
    from kbroker.seams import File
    from kbroker.storage.cleaning import Cleaned
    from kbroker.storage.directory import LogDirectory
    from kbroker.storage.recovery import Found
    from kbroker.storage.swapping import Swap

log = logs.get_logger("storage")

# Batches up to this size are copied and written at the turn's end, all of a segment in one writev. Copying a larger one
# costs more than the call it saves: it stays in the buffer it came in, and is written, with its neighbours there, before
# that is used again. One write of four batches of 64 KiB costs the system 0.7 of what four writes do.
COPIED_BATCH_BYTES_MAX = 8 * 1024

_base_of = attrgetter("base")


class Observer(Protocol):
    """Whoever must know that a log moved: its Partition."""

    def log_moved(self) -> None:
        """`written` or `flushed` moved."""

    def log_cut(self, end: int, error: BaseException) -> None:
        """A failed write or flush took back the records from `end` on."""


class _Nobody:
    __slots__ = ()

    def log_moved(self) -> None:
        """Nobody asked."""

    def log_cut(self, end: int, error: BaseException) -> None:
        """Nobody asked."""


NOBODY = _Nobody()


class Cut(Protocol):
    """Counts how often bytes were taken out of it: a log."""

    truncations: int


class Region:
    """Bytes of a segment file, whole batches, to be read when they are sent."""

    __slots__ = ("at", "file", "log", "size", "truncations")

    def __init__(self, log: Cut, file: File, at: int, size: int) -> None:
        self.log = log
        self.file = file
        self.at = at
        self.size = size
        self.truncations = log.truncations

    def __len__(self) -> int:
        return self.size

    @property
    def stale(self) -> bool:
        """The log was cut since: these bytes may be of another history and must not leave."""
        return self.truncations != self.log.truncations


class PartitionLog:
    """The log of one partition. One owner calls it; flushing happens in threads, with files only.

    Appending and reading are here. What happens more rarely is in a file of its own, as functions of the log: `opening`,
    `rolling`, `flushing`, `cutting` (at its end), `trimming` (at its start), `saving`.

    Reads of record bytes are left to whoever sends a Region. Finding one may read index files and batch headers, and
    waits for the disk where the page cache has lost them: a consumer that begins far back costs some such reads.
    """

    __slots__ = (
        "_active",
        "_asked",
        "_cut_in_flight",
        "_dirty",
        "_epochs",
        "_epochs_dirty",
        "_epochs_saving",
        "_files_to_sync",
        "_flushing",
        "_folder_new",
        "_in_flight",
        "_last_epoch",
        "_lent",
        "_names_dirty",
        "_producers",
        "_snapshots",
        "_tail",
        "broken",
        "config",
        "deleted",
        "directory",
        "end",
        "flushed",
        "folder",
        "lost",
        "observer",
        "queued",
        "saved_start",
        "saved_to",
        "segments",
        "size",
        "start",
        "swap_pending",
        "topic_id",
        "tp",
        "truncations",
        "written",
    )

    def __init__(
        self, directory: LogDirectory, tp: TopicPartition, topic_id: UUID, config: TopicConfig, folder: str
    ) -> None:
        self.directory = directory
        self.tp = tp
        self.topic_id = topic_id
        self.config = config
        self.folder = folder
        self.observer: Observer = NOBODY
        self.segments: list[Segment] = []
        self.start = 0  # first offset that may be read
        # It is on the disk, as far as this run has put it there: nothing from here on may go. saved_start <= start
        self.saved_start = 0
        self.end = 0
        self.written = 0
        self.flushed = 0
        self.size = 0  # bytes of all segments, what is not yet written included
        self.truncations = 0  # how often written bytes were taken out
        self.broken: BaseException | None = None  # we broke a promise here: no more writes
        self.lost = False  # it ends, or has a hole, below what was once flushed: the disk lost something
        self.deleted = False  # its folder is on its way out
        self.queued = False  # the flusher has it, or is syncing it
        # its recovery point on the disk, at least: what lies below needs no batch to be known
        self.saved_to = 0
        self.swap_pending: Swap | None = None  # a compacted segment is being put in its place
        self._cut_in_flight = False  # files went since the flush in progress began
        self._in_flight: list[File] | None = None  # being synced
        self._flushing = 0  # the end that the flush in progress will vouch for
        self._active: Segment | None = None  # the last segment, when it is loaded and takes batches
        self._asked = False  # `write_out` will be called at this turn's end
        self._lent = False  # `return_views` will be called: views in the tail are good until then
        # appended, not yet written: the last bytes of the last segment
        self._tail: list[bytes | memoryview] = []
        self._dirty: list[Segment] = []  # written since the last flush began
        self._files_to_sync: list[File] | None = None  # other files, likewise
        self._names_dirty = False  # the folder has names that are not synced
        self._folder_new = False  # the folder's own name is not synced
        self._epochs: EpochCache | None = None
        self._epochs_dirty = False  # the epochs' file is older: until it is not, recovery reads the batches
        self._epochs_saving = False  # written beside the file, waiting to be synced
        self._last_epoch = -1  # of the newest batch, when `_epochs` is loaded
        self._producers: ProducerStates | None = None
        self._snapshots: Snapshots | None = None

    # -- state that is loaded when asked for

    @property
    def epochs(self) -> EpochCache:
        """Which leader epoch began where."""
        epochs = self._epochs
        if epochs is None:
            epochs = self._epochs = whole(opening.load_epochs(self, OFFSET_MAX))
            self._last_epoch = epochs.last
        return epochs

    @property
    def producers(self) -> ProducerStates:
        """What is known of each producer."""
        producers = self._producers
        if producers is None:
            producers = self._producers = whole(self.snapshots.load(self.segments, self.end))
        return producers

    @property
    def snapshots(self) -> Snapshots:
        """The producer snapshots in the folder."""
        snapshots = self._snapshots
        if snapshots is None:
            snapshots = self._snapshots = Snapshots(
                self.directory.disk, self.folder, fsync=self.directory.fsync
            )
        return snapshots

    # -- opening

    def opened(self, found: Found, *, start: int, trusted: int) -> Slices[None]:
        """Take over what recovery found on disk; offsets below `trusted` are known to be on it for good."""
        return opening.take_over(self, found, start=start, trusted=trusted)

    # -- appending

    def append(self, batch: RecordBatch, epoch: int) -> int:
        """Take a leader's batch: stamps its offset and epoch in place, returns the base offset.

        The view may die after the call, or, in a turn that has lent it, when that takes it back. KafkaError
        KAFKA_STORAGE_ERROR when the directory takes no writes.
        """
        if self.directory.refusing or self.broken is not None:
            self._refuse()
        base = self.end
        batch.stamp(base, epoch)
        self._add(batch, base, epoch)
        return base

    def append_fetched(self, batch: RecordBatch) -> None:
        """Take a batch as its leader stored it: offsets and epoch stay."""
        if self.directory.refusing or self.broken is not None:
            self._refuse()
        base = batch.base_offset
        if base < self.end:
            raise KafkaError(
                ErrorCode.KAFKA_STORAGE_ERROR, f"{self.tp}: offset {base} comes after {self.end}"
            )
        self._add(batch, base, batch.epoch)

    def check_sequence(self, batch: RecordBatch) -> int | None:
        """The base offset of the batch that this one repeats, or None; KafkaError when it is out of order."""
        count = batch.last_offset_delta + 1
        return self.producers.check(batch.producer_id, batch.producer_epoch, batch.base_sequence, count)

    def _add(self, batch: RecordBatch, base: int, epoch: int) -> None:
        size = batch.size
        last = base + batch.last_offset_delta
        timestamp = batch.max_timestamp
        segment = self._active
        config = self.config
        if (
            segment is None
            or segment.size + size > config.segment_bytes
            or timestamp - segment.first_timestamp > config.segment_ms - segment.jitter_ms
            or last - segment.base > INT32_MAX
            or segment.full
        ):
            segment = self._segment_for(size, last, timestamp, base)
        if epoch != self._last_epoch:
            self._begin_epoch(epoch, base)
        position = segment.size
        try:
            segment.size = position + size
            segment.took(last, position, size, timestamp)
            self.size += size
            self.end = last + 1
            if batch.producer_id >= 0:
                assert self._producers is not None
                took_batch(self._producers, batch, base)
            turn = self.directory.turn
            if size <= COPIED_BATCH_BYTES_MAX:
                self._tail.append(bytes(batch.view))
            elif turn.borrowers is None:
                self._write_now(segment, batch.view)
            else:
                self._tail.append(batch.view)
                if not self._lent:
                    self._lent = True
                    turn.borrowers.append(self)
            if not self._asked:
                self._asked = True
                turn.write(self)
        except KafkaError:  # a write failed: all is taken back
            raise
        except MemoryError as error:  # it passes, as where the system has none
            raise self._take_back(OSError(errno.ENOMEM, "out of memory")) from error
        # What was counted may not be in the tail: the next batch would lie elsewhere.
        except BaseException as error:
            self.failed(error)
            raise

    def _segment_for(self, size: int, last: int, timestamp: int, base: int) -> Segment:
        return rolling.segment_for(self, size, last, timestamp, base)

    def _begin_epoch(self, epoch: int, base: int) -> None:
        epochs = self.epochs
        if epoch != epochs.last:
            assert epoch > epochs.last, f"{self.tp}: epoch {epoch} after epoch {epochs.last}"
            epochs.assign(epoch, base)
            self._epochs_dirty = True
        self._last_epoch = epoch

    def roll(self) -> None:
        """Go on in a new segment, unless the last one is empty."""
        rolling.roll(self)

    # -- writing

    def _write_tail(self, segment: Segment) -> None:
        tail = self._tail
        if tail:
            segment.file.append(tail)
            self._tail = []
            if not segment.dirty:
                segment.dirty = True
                self._dirty.append(segment)

    def _write_now(self, segment: Segment, view: memoryview) -> None:
        """A batch too large to copy goes to the file at once, behind what waits."""
        try:
            self._tail.append(view)
            self._write_tail(segment)
        except OSError as error:
            raise self._take_back(error) from error
        self._note_written()

    def return_views(self) -> None:
        """The buffer of the batches not yet written is used again after this: they go to the file."""
        self._lent = False
        segment = self._active
        if self._tail and segment is not None:
            try:
                self._write_tail(segment)
            except OSError as error:
                self._take_back(error)
            else:
                self._note_written()

    def _note_written(self) -> None:
        """All that was appended is in files."""
        self.written = self.end
        producers = self._producers
        if producers is not None:
            producers.settled()

    def write_out(self) -> None:
        """Turn's end: put the tail into its file, ask for the next flush."""
        self._asked = False
        tail = self._tail
        segment = self._active
        if tail and segment is not None:
            try:
                segment.file.append(tail)
            except OSError as error:
                self._take_back(error)
                return
            self._tail = []
            if not segment.dirty:
                segment.dirty = True
                self._dirty.append(segment)
            self.written = self.end
            if self._producers is not None:
                self._producers.settled()
        directory = self.directory
        if not directory.fsync:
            self.flushed = self.written
        elif not self.queued and self.flushed < self.written:
            self.queued = True
            directory.flusher.add(self)
        self.observer.log_moved()

    def failed(self, error: BaseException) -> None:
        """Taking, writing or flushing a batch broke: our own fault. This partition takes no more writes."""
        log.error("partition stopped", partition=str(self.tp), error=repr(error))
        self.broken = error
        self._tail = []  # views in it are of a buffer that is used again, and nobody waits for what they were
        self.observer.log_cut(self.written, error)

    def _take_back(self, error: OSError | scan.Damaged) -> KafkaError:
        return cutting.take_back(self, error)

    def _refuse(self) -> None:
        if self.broken is not None:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.tp} is stopped: {self.broken!r}")
        self.directory.check_writable()

    # -- flushing: the flusher's side

    def flush_begins(self) -> list[Callable[[], object]]:
        """What to do in a thread so that all that is written now is on the disk. The order matters."""
        return flushing.begin(self)

    def flush_ended(self) -> bool:
        """The flush went well. True when there is more to flush."""
        return flushing.ended(self)

    def flush_again(self) -> bool:
        """A file was missing: True when that is our doing, then everything not yet vouched for is synced again."""
        return flushing.again(self)

    def flush_put_off(self) -> None:
        """A file could not be opened: what the flush had taken is synced by the next one."""
        flushing.put_off(self)

    def flush_failed(self, error: BaseException) -> None:
        """An fsync failed: nothing beyond `flushed` can be vouched for any more."""
        flushing.fail(self, error)

    # -- cutting

    def truncate_to(self, offset: int) -> int:
        """Take out everything from `offset` on; on the disk when this returns. Returns the new end.

        A batch that begins below `offset` and ends beyond goes whole.
        """
        return cutting.truncate_to(self, offset)

    def restart_at(self, offset: int) -> None:
        """Drop everything and begin anew at `offset`: what a follower does whose leader's log starts beyond its own."""
        cutting.restart_at(self, offset)

    def delete_before(self, offset: int, done: Callable[[BaseException | None], None]) -> None:
        """Move the log's start up to `offset`. Readers see it at once; `done` once it is on the disk."""
        trimming.delete_before(self, offset, done)

    def retain(self, now_ms: int, high_watermark: int) -> int:
        """Delete the oldest segments as the topic's config says. Returns how many are on their way out."""
        return trimming.retain(self, now_ms, high_watermark)

    def swap(self, cleaned: Cleaned, truncations: int, done: Callable[[bool], None]) -> None:
        """Put a compacted segment in the place of those it was made of.

        `done(False)`: they are no longer what they were (`truncations` is the log's when they were read), and stay.
        """
        swapping.begin(self, cleaned, truncations, done)

    # -- saving what recovery would otherwise have to find out

    @property
    def unsaved(self) -> bool:
        """Its recovery point can rise, or its epochs' file is old."""
        return self._epochs_dirty or self._active is not None or self.flushed > self._point()

    def _point(self) -> int:
        return self.directory.points.recovery.get(self.tp, 0)

    def save(self) -> tuple[int, list[File]]:
        """Write indexes and epochs; returns the recovery point that holds once the returned files are synced.

        `saved` or `not_saved` follows then.
        """
        return saving.save(self)

    def saved(self) -> bool:
        """What `save` wrote is synced. True when the folder must be."""
        return saving.saved(self)

    def not_saved(self) -> None:
        """What `save` wrote is not to be relied on."""
        saving.not_saved(self)

    def close(self) -> None:
        """A clean stop: everything written, synced, saved. What fails fails the directory."""
        for step in self.closing():
            step()
        self.closed()

    def closing(self) -> list[Callable[[], object]]:
        """The same up to what makes it durable: that is returned, in order, and a thread may do it. `closed` follows."""
        return saving.closing(self)

    def closed(self) -> None:
        """All that `closing` returned was done."""
        saving.closed(self)

    def release(self) -> None:
        """Give descriptors and maps back."""
        for segment in self.segments:
            segment.release()

    def moved(self, folder: str) -> None:
        """Its folder has another name now: whoever still reads or syncs its files finds them there."""
        self.folder = folder
        for segment in self.segments:
            segment.moved(folder)
        for file in self._in_flight or []:
            file.path = f"{folder}/{file.path.rpartition('/')[2]}"
        swapping.moved(self)

    # -- reading

    def read(self, offset: int, *, up_to: int, max_bytes: int, min_one: bool = True) -> Region | None:
        """Whole batches of one segment, from the one that holds `offset`, all below offset `up_to`.

        The first batch comes whole even if larger than `max_bytes`, when `min_one`. None: nothing there.
        """
        if up_to > self.written:
            up_to = self.written
        if offset >= up_to:
            return None
        if offset < self.start:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE, f"{self.tp} starts at {self.start}")
        segments = self.segments
        at = len(segments) - 1
        if offset < segments[at].base:
            at = bisect_right(segments, offset, key=_base_of) - 1
        try:
            while at < len(segments):
                segment = segments[at]
                at += 1
                if at == len(segments):
                    end, limit = self.written, segment.file.size
                    if limit > segment.size:  # a failed flush left bytes that nobody vouches for
                        limit = segment.size
                    if segment.index is None:
                        segment.load()
                else:
                    self.directory.indexes.keep(segment)
                    damage = segment.damage
                    end, limit = segments[at].base, segment.size if damage is None else damage.position
                start, stop = segment.span(
                    offset, end, limit, up_to=up_to, max_bytes=max_bytes, min_one=min_one
                )
                if start < stop:
                    return Region(self, segment.file, start, stop - start)
                if start < limit:
                    return None
                if segment.damage is not None:
                    raise segment.damage
        except scan.Damaged as error:
            raise self.damaged(error) from error
        except OSError as error:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.tp} cannot be read: {error}") from error
        return None

    def find_time(self, timestamp_ms: int, *, up_to: int) -> tuple[int, int, int] | None:
        """The first record at or after a time: (offset, timestamp, leader epoch)."""
        return self._look(lookup.find_time, timestamp_ms, min(up_to, self.written), self.start)

    def max_timestamp(self, up_to: int) -> tuple[int, int, int] | None:
        """The first record with the largest timestamp: (offset, timestamp, leader epoch)."""
        return self._look(lookup.max_timestamp, min(up_to, self.written))

    def _look(
        self, how: Callable[..., tuple[int, int, int] | None], *what: int
    ) -> tuple[int, int, int] | None:
        first = retention.below(self.segments, self.start)
        try:
            found = how(self.segments[first:], self.directory.indexes, *what)
        except scan.Damaged as error:
            raise self.damaged(error) from error
        except OSError as error:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.tp} cannot be read: {error}") from error
        if found is not None and found[0] < self.start:  # deleted records of a batch that is still there
            return (self.start, *found[1:])
        return found

    def damaged(self, error: scan.Damaged) -> KafkaError:
        """What a reader is told of damage in the middle of the log. It is never cut out."""
        log.error("log damaged", partition=str(self.tp), position=error.position, why=error.why)
        return KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.tp} is damaged: {error.why}")
