"""One partition's segments, in order. Knows files through `disk`; knows nothing of leaders, replicas or sockets.

Truth is the .log files. Indexes, epochs and producer snapshots are rebuilt from them when missing or older.
`start <= flushed <= written <= end`: flushed is on the disk for good, written is in the file, end was appended.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import TopicPartition
from kbroker.observe import logs
from kbroker.storage import lookup, retention, scan
from kbroker.storage.checkpoints import (
    encode_epochs,
    partition_metadata,
    put_in_place,
    read_epochs,
    replace_file,
    write_beside,
)
from kbroker.storage.epochs import EpochCache
from kbroker.storage.producers import ProducerStates
from kbroker.storage.segment import INT32_MAX, OFFSET_MAX, Segment
from kbroker.storage.snapshots import Snapshots, took_batch

if TYPE_CHECKING:
    from kbroker.config import TopicConfig
    from kbroker.protocol.records import RecordBatch
    from kbroker.seams import File
    from kbroker.storage.directory import LogDirectory
    from kbroker.storage.recovery import Found

log = logs.get_logger("storage")

# Batches up to this size are copied and written at the turn's end, all of a segment in one writev; copying a larger one
# costs more than the call it saves.
COPIED_BATCH_BYTES_MAX = 8 * 1024

EPOCHS_FILE = "leader-epoch-checkpoint"
METADATA_FILE = "partition.metadata"

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


class Region:
    """Bytes of a segment file, whole batches, to be read when they are sent."""

    __slots__ = ("at", "file", "log", "size", "truncations")

    def __init__(self, log: PartitionLog, file: File, at: int, size: int) -> None:
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
    """The log of one partition. One owner calls it; flushing happens in threads, with files only."""

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
        "segments",
        "size",
        "start",
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
        self.end = 0
        self.written = 0
        self.flushed = 0
        self.size = 0  # bytes of all segments, what is not yet written included
        self.truncations = 0  # how often written bytes were taken out
        self.broken: BaseException | None = None  # we broke a promise here: no more writes
        self.lost = False  # it ends, or has a hole, below what was once flushed: the disk lost something
        self.deleted = False  # its folder is on its way out
        self.queued = False  # the flusher has it, or is syncing it
        self._cut_in_flight = False  # files went since the flush in progress began
        self._in_flight: list[File] | None = None  # being synced
        self._flushing = 0  # the end that the flush in progress will vouch for
        self._active: Segment | None = None  # the last segment, when it is loaded and takes batches
        self._asked = False  # `write_out` will be called at this turn's end
        self._tail: list[bytes] = []  # appended, not yet written: the last bytes of the last segment
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
            epochs = self._epochs = self._load_epochs(OFFSET_MAX)
            self._last_epoch = epochs.last
        return epochs

    def _load_epochs(self, below: int) -> EpochCache:
        """The epochs that begin below offset `below`: as the file has them, or from all batches when it is unfit."""
        try:
            pairs = read_epochs(self.directory.disk, f"{self.folder}/{EPOCHS_FILE}")
        except ValueError as error:
            log.warning("leader epochs read from the batches", partition=str(self.tp), why=str(error))
            pairs = []
        epochs = EpochCache(pairs)
        if not pairs and self.segments and self.segments[0].base < below:
            for segment in self.segments:
                for batch in scan.walk_readable(segment.file, 0, segment.file.size):
                    if batch.base < below and batch.epoch > epochs.last:
                        epochs.assign(batch.epoch, batch.base)
                        self._epochs_dirty = True
        epochs.truncate_to(below)
        return epochs

    @property
    def producers(self) -> ProducerStates:
        """What is known of each producer."""
        producers = self._producers
        if producers is None:
            producers = self._producers = self.snapshots.load(self.segments, self.end)
        return producers

    @property
    def snapshots(self) -> Snapshots:
        """The producer snapshots in the folder."""
        snapshots = self._snapshots
        if snapshots is None:
            snapshots = self._snapshots = Snapshots(self.directory.disk, self.folder)
        return snapshots

    # -- opening

    def opened(self, found: Found, *, start: int, trusted: int) -> None:
        """Take over what recovery found on disk; offsets below `trusted` are known to be on it for good."""
        directory = self.directory
        self.segments = found.segments
        self.size = sum(segment.size for segment in found.segments)
        self.end = self.written = found.end
        self.start = max(start, found.segments[0].base if found.segments else 0)
        self.lost = found.lost
        if found.checked:
            epochs = self._epochs = self._load_epochs(min(trusted, found.end))
            for epoch, offset in found.epochs:
                if epoch > epochs.last:
                    epochs.assign(epoch, offset)
            self._last_epoch = epochs.last
            self._epochs_dirty = True
            _ = self.producers  # now, and not when a client waits for it: it may have to read much
        if self.start > self.end:
            self.restart_at(self.start)
        self.flushed = max(self.start, min(trusted, self.end))
        if not directory.fsync:
            self.flushed = self.end
        elif self.flushed < self.end:
            # what is there may have survived in the page cache only: it counts when it has been synced
            for segment in found.checked:
                segment.dirty = True
            self._dirty = list(found.checked)
            self._sync_also([*found.written, directory.disk.open(f"{self.folder}/{METADATA_FILE}")])
            self._names_dirty = self._folder_new = self.queued = True
            directory.flusher.add(self)

    # -- appending

    def append(self, batch: RecordBatch, epoch: int) -> int:
        """Take a leader's batch: stamps its offset and epoch in place, returns the base offset.

        The view may die after the call. KafkaError KAFKA_STORAGE_ERROR when the directory takes no writes.
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
        segment.size = position + size
        segment.took(last, position, size, timestamp)
        self.size += size
        self.end = last + 1
        if batch.producer_id >= 0:
            assert self._producers is not None
            took_batch(self._producers, batch, base)
        if size <= COPIED_BATCH_BYTES_MAX:
            self._tail.append(bytes(batch.view))
        else:
            self._write_now(segment, batch.view)
        if not self._asked:
            self._asked = True
            self.directory.turn.write(self)

    def _segment_for(self, size: int, last: int, timestamp: int, base: int) -> Segment:
        """The segment that takes a batch; rolls when the last one is full or too old, as Kafka does."""
        try:
            segment = self._active
            if segment is None:
                segment = self._activate()
            if (
                segment is None
                or last - segment.base > INT32_MAX
                or (segment.size and self._is_full(segment, size))
            ):
                return self._roll(base)
            if segment.size and self._age_ms(segment, timestamp) > self.config.segment_ms - segment.jitter_ms:
                return self._roll(base)
            return segment
        except (OSError, scan.Damaged) as error:
            raise self._take_back(error) from error

    def _is_full(self, segment: Segment, size: int) -> bool:
        return segment.full or segment.size + size > self.config.segment_bytes

    def _age_ms(self, segment: Segment, timestamp: int) -> int:
        """By record timestamps, from the first batch on; by the clock where batches have none."""
        if segment.first_timestamp >= 0:
            return timestamp - segment.first_timestamp
        return self.directory.clock.wall_ms() - segment.created_ms if segment.created_ms else 0

    def _activate(self) -> Segment | None:
        """Load what appending needs. None when there is no segment yet."""
        _ = self.epochs, self.producers
        if not self.segments:
            return None
        segment = self.segments[-1]
        segment.load()
        self._active = segment
        return segment

    def begin_epoch(self, epoch: int) -> None:
        """A leader begins: its epoch starts at the log's end, even before its first record."""
        self._begin_epoch(epoch, self.end)

    def _begin_epoch(self, epoch: int, base: int) -> None:
        epochs = self.epochs
        if epoch != epochs.last:
            assert epoch > epochs.last, f"{self.tp}: epoch {epoch} after epoch {epochs.last}"
            epochs.assign(epoch, base)
            self._epochs_dirty = True
        self._last_epoch = epoch

    def roll(self) -> None:
        """Go on in a new segment, unless the last one is empty."""
        try:
            segment = self._active or self._activate()
            if segment is not None and segment.size:
                self._roll(self.end)
        except (OSError, scan.Damaged) as error:
            raise self._take_back(error) from error

    def _roll(self, base: int) -> Segment:
        """Close the last segment and make one that begins at `base`."""
        directory = self.directory
        old = self._active
        if old is not None:
            self._write_tail(old)
            self._note_written()
            if not old.size:  # nothing in it fits: its name says the wrong base
                self.segments.pop().remove()
                old = None
        elif not self.segments:
            self._make_folder()
        segment = Segment(directory.disk, self.folder, base, 0, self.config)
        segment.create(directory.clock.wall_ms())
        segment.jitter_ms = directory.jitter_ms(self.config)
        if old is not None:
            self._sync_also(old.save(closing=True))
            self._sync_also([self.snapshots.take(self.producers, base)])
            self._cut_in_flight = True  # older snapshots went
            directory.indexes.keep(old)
        self.segments.append(segment)
        self._active = segment
        self._names_dirty = True
        return segment

    def _make_folder(self) -> None:
        disk = self.directory.disk
        self.directory.points.made_anew(self.tp)
        if not disk.exists(self.folder):
            disk.mkdir(self.folder)
            self._folder_new = True
        path = f"{self.folder}/{METADATA_FILE}"
        if not disk.exists(path):
            file = disk.open(path, create=True)
            file.append([partition_metadata(self.topic_id)])
            file.close()
            self._sync_also([file])

    def _sync_also(self, files: list[File]) -> None:
        if self._files_to_sync is None:
            self._files_to_sync = []
        self._files_to_sync += files

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
            self._tail.append(view)  # type: ignore[arg-type]  # gone from the list before the view dies
            self._write_tail(segment)
        except OSError as error:
            raise self._take_back(error) from error
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
        """`write_out` broke: our own fault. This partition takes no more writes."""
        log.error("partition stopped", partition=str(self.tp), error=repr(error))
        self.broken = error
        self.observer.log_cut(self.written, error)

    def _take_back(self, error: OSError | scan.Damaged) -> KafkaError:
        """A write failed: what is not in the file was never appended. Returns what to tell whoever appended."""
        self._tail = []
        written = self.written
        segment = self._active
        if segment is not None and segment.size != segment.file.size:
            self.size -= segment.size - segment.file.size
            segment.size = segment.file.size
            try:
                segment.file.truncate(segment.size)  # the part that was written
                segment.cut(written, segment.size)
            except (OSError, scan.Damaged) as second:
                self._active = None
                segment.unload()
                log.error("log not cut back", partition=str(self.tp), end=written, error=repr(second))
                error = second
        self.end = written
        if self._epochs is not None and self._epochs.truncate_to(written):
            self._last_epoch = self._epochs.last
            self._epochs_dirty = True
        if self._producers is not None:
            self._producers.take_back()
        answer = self.directory.write_failed(self, error)
        self.observer.log_cut(written, answer)
        return answer

    def _refuse(self) -> None:
        if self.broken is not None:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.tp} is stopped: {self.broken!r}")
        self.directory.check_writable()

    # -- flushing: the flusher's side

    def flush_begins(self) -> list[Callable[[], object]]:
        """What to do in a thread so that all that is written now is on the disk. The order matters."""
        directory = self.directory
        self._flushing = self.written
        files = self._take_unsynced()
        self._in_flight = files
        self._cut_in_flight = False
        work: list[Callable[[], object]] = [file.sync for file in files]
        if self._names_dirty:
            self._names_dirty = False
            work.append(partial(directory.disk.sync_dir, self.folder))
        if self._folder_new:
            self._folder_new = False
            work.append(partial(directory.disk.sync_dir, directory.path))
        return work

    def _take_unsynced(self) -> list[File]:
        files = [segment.file for segment in self._dirty]
        for segment in self._dirty:
            segment.dirty = False
        self._dirty = []
        return files + self._take_others()

    def _take_others(self) -> list[File]:
        """Files beside the `.log`s; older snapshots may be gone again."""
        files, self._files_to_sync = self._files_to_sync or [], None
        return [file for file in files if self.directory.disk.exists(file.path)]

    def flush_ended(self) -> bool:
        """The flush went well. True when there is more to flush."""
        self._in_flight = None
        if self._flushing > self.flushed:  # lowered by a truncation meanwhile: the fsync vouches for no more
            self.flushed = self._flushing
            self.observer.log_moved()
        self.queued = self.flushed < self.written or self._names_dirty
        return self.queued

    def flush_again(self) -> bool:
        """A file was missing: True when that is our doing, then everything not yet vouched for is synced again."""
        self._in_flight = None
        if not self._cut_in_flight:
            return False
        for number, segment in enumerate(self.segments, 1):
            end = self.segments[number].base if number < len(self.segments) else self.written
            if end > self.flushed and not segment.dirty:
                segment.dirty = True
                self._dirty.append(segment)
        self._names_dirty = True
        return True

    def flush_failed(self, error: BaseException) -> None:
        """An fsync failed: nothing beyond `flushed` can be vouched for any more, in memory it never was."""
        self.queued = False
        self._in_flight = None
        self._flushing = self.flushed
        if self.flushed < self.end:
            self._tail = []
            self._dirty = []
            self._producers = None
            self._active = None
            try:
                self._hide_from(self.flushed)
            except (OSError, scan.Damaged) as second:
                self.broken = second
            self._ends_at(self.flushed)
            if self._epochs is not None:
                self._epochs.truncate_to(self.end)
                self._last_epoch = self._epochs.last
            self.observer.log_cut(self.end, error)

    def _hide_from(self, offset: int) -> None:
        """Read no further than `offset`. The files are left alone: nothing is written to a failed directory."""
        while len(self.segments) > 1 and self.segments[-1].base >= offset:
            self.size -= self.segments.pop().size
        last = self.segments[-1]
        self.size -= last.size
        last.unload()
        last.size = last.file.size
        _, last.size = last.boundary_of(offset)
        last.unload()
        self.size += last.size

    # -- cutting

    def truncate_to(self, offset: int) -> int:
        """Take out everything from `offset` on; on the disk when this returns. Returns the new end.

        A batch that begins below `offset` and ends beyond goes whole.
        """
        if offset >= self.end:
            return self.end
        if offset < self.start or not self.segments:
            self.restart_at(offset)
            return self.end
        try:
            active = self._active or self._activate()
            assert active is not None
            self._write_tail(active)
            self._note_written()
            last = next(each for each in reversed(self.segments) if each.base <= offset)
            end, position = last.boundary_of(offset)
            if end < self.start:  # it starts in the middle of the batch that goes
                self.restart_at(offset)
                return self.end
            self._cut(last, end, position)
        except scan.Damaged as error:
            raise self.damaged(error) from error
        except OSError as error:
            raise self._stop(error) from error
        self.observer.log_moved()
        return self.end

    def restart_at(self, offset: int) -> None:
        """Drop everything and begin anew at `offset`: what a follower does whose leader's log starts beyond its own."""
        try:
            self._tail = []
            self.directory.points.lower(self.tp, min(offset, self.start))
            self.snapshots.truncate_to(-1)
            self._drop_from(0)
            self._producers, self._epochs = ProducerStates(), EpochCache([])
            self._last_epoch, self._epochs_dirty = -1, True
            self._active = None
            self._ends_at(offset)
            self.start = self.flushed = self._flushing = offset
            self._roll(offset)
            self.directory.points.move_start(self.tp, offset, self._start_moved)
        except OSError as error:
            raise self._stop(error) from error
        self.observer.log_moved()

    def _cut(self, last: Segment, end: int, position: int) -> None:
        """Let the log end in segment `last` at offset `end`, file position `position`."""
        segments, directory = self.segments, self.directory
        # before anything is taken out: until the new end is on the disk, recovery must look at it
        directory.points.lower(self.tp, end)
        self.snapshots.truncate_to(end)
        self._drop_from(segments.index(last) + 1)
        if position < last.size:
            self.size -= last.size - position
            last.file.truncate(position)
            if directory.fsync:
                last.file.sync()  # new bytes behind an old length would show, after a crash, as a longer old log
            last.cut(end, position)
        directory.indexes.forget(last)
        self._active = last
        self._ends_at(end)
        if self.epochs.truncate_to(end):
            self._last_epoch = self.epochs.last
            self._epochs_dirty = True
        if self._producers is not None and self._producers.producers:
            self._producers = self.snapshots.load(segments, end)

    def _drop_from(self, first: int) -> None:
        """Remove the segments from number `first` on, the last one first."""
        gone = self.segments[first:]
        for segment in reversed(gone):
            self.size -= segment.size
            self.directory.indexes.forget(segment)
            segment.remove()
        del self.segments[first:]
        self._dirty = [segment for segment in self._dirty if segment not in gone]
        if gone and self.directory.fsync:
            self.directory.disk.sync_dir(self.folder)

    def _ends_at(self, end: int) -> None:
        self.truncations += 1
        self._cut_in_flight = True
        self.end = self.written = end
        self.flushed = min(self.flushed, end)
        self._flushing = min(self._flushing, end)

    def _stop(self, error: OSError) -> KafkaError:
        """A cut failed half-way: memory and disk no longer agree."""
        self.broken = error
        return self.directory.write_failed(self, error)

    def delete_before(self, offset: int, done: Callable[[BaseException | None], None]) -> None:
        """Move the log's start up to `offset`. Readers see it at once; `done` once it is on the disk."""
        assert offset <= self.flushed, f"{self.tp}: {offset} is beyond {self.flushed}"
        self.start = max(self.start, offset)
        self.directory.points.move_start(self.tp, self.start, partial(self._start_moved, done=done))

    def retain(self, now_ms: int, high_watermark: int) -> int:
        """Delete the oldest segments as the topic's config says. Returns how many are on their way out."""
        if self._producers is not None:
            self._producers.expire(now_ms - self.directory.producer_expiration_ms)
        if self.broken is not None or (self.directory.refusing and self.directory.failed is not None):
            return 0
        try:
            count = retention.deletable(self, now_ms, high_watermark)
            if count and count == len(self.segments):
                self.roll()  # never all: the end must stay known
        except scan.Damaged as error:
            self.damaged(error)
            return 0
        if count:
            self.start = max(self.start, self.segments[count].base)
            self.directory.points.move_start(self.tp, self.start, self._start_moved)
        return count

    def _start_moved(
        self, error: BaseException | None, done: Callable[[BaseException | None], None] | None = None
    ) -> None:
        """The start is on the disk: the segments below it may go. A crash in between leaves no hole that is read."""
        if error is None and not self.deleted:
            try:
                self._drop_below_start()
            except OSError as failed:
                log.warning("segments not deleted", partition=str(self.tp), error=str(failed))
        elif error is not None:
            log.error("log start not saved", partition=str(self.tp), start=self.start, error=str(error))
        if done is not None:
            done(error)

    def _drop_below_start(self) -> None:
        segments = self.segments
        count = retention.below(segments, self.start)
        if not count:
            return
        paths = []
        for segment in segments[:count]:
            self.size -= segment.size
            self.directory.indexes.forget(segment)
            paths += segment.mark_deleted()
        gone = segments[:count]
        del segments[:count]
        self._dirty = [segment for segment in self._dirty if segment not in gone]
        self._cut_in_flight = True
        log.info("segments deleted", partition=str(self.tp), segments=count, start=self.start)
        self.directory.remove_later(paths, self.config.file_delete_delay_ms)
        if self.epochs.delete_before(self.start):
            self._epochs_dirty = True

    # -- saving what recovery would otherwise have to find out

    @property
    def unsaved(self) -> bool:
        """Its recovery point can rise, or its epochs' file is old."""
        return self._epochs_dirty or self._active is not None or self.flushed > self._point()

    def _point(self) -> int:
        return self.directory.points.recovery.get(self.tp, 0)

    def save(self) -> tuple[int, list[File]]:
        """Write indexes and epochs; returns the recovery point that holds once the returned files are synced.

        `saved` follows then. A log that did not move since the last time gives its memory back.
        """
        files: list[File] = []
        point = self.flushed
        segment = self._active
        if (
            not self.directory.fsync
        ):  # nothing is synced but here: closed segments, as Kafka does it when it rolls
            closed = [each for each in self._dirty if each is not self.segments[-1]]
            files += [each.file for each in closed]
            self._dirty = [each for each in self._dirty if each not in closed]
            for each in closed:
                each.dirty = False
            files += self._take_others()
            point = max(self.start, self.segments[-1].base) if self.segments else self.start
        if segment is not None:
            files += segment.save()
            if point == self.end == self._point() and not self._tail:
                segment.unload()
                self._active = None
        if self._epochs_dirty and self._epochs is not None and self.segments:
            self._epochs_dirty, self._epochs_saving = False, True
            path = f"{self.folder}/{EPOCHS_FILE}"
            files.append(write_beside(self.directory.disk, path, encode_epochs(self._epochs.pairs)))
        return point, files

    def saved(self) -> bool:
        """What `save` wrote is synced. True when the folder must be."""
        if not self._epochs_saving:
            return False
        self._epochs_saving = False
        put_in_place(self.directory.disk, f"{self.folder}/{EPOCHS_FILE}")
        return True

    def not_saved(self) -> None:
        """What `save` wrote is not to be relied on."""
        if self._epochs_saving:
            self._epochs_saving = False
            self._epochs_dirty = True

    def close(self) -> None:
        """A clean stop: everything written, synced, saved. What fails fails the directory."""
        directory = self.directory
        if self.broken is not None or not self.segments:
            return
        if self._tail and self._active is not None:
            self._write_tail(self._active)
            self._note_written()
        files = self._in_flight or []
        files += self._take_unsynced()
        if self._active is not None:
            files += self._active.save()
        if self._producers is not None and self.snapshots.offsets[-1:] != [self.end]:
            files.append(self.snapshots.take(self._producers, self.end))
            self._names_dirty = True
        if self._epochs_dirty:
            path = f"{self.folder}/{EPOCHS_FILE}"
            replace_file(directory.disk, path, encode_epochs(self.epochs.pairs), fsync=directory.fsync)
            self._epochs_dirty = False
        if directory.fsync:
            for file in files:
                if directory.disk.exists(file.path):  # older snapshots may be gone again
                    file.sync()
            if self._names_dirty or files:
                directory.disk.sync_dir(self.folder)
            if self._folder_new:
                directory.disk.sync_dir(directory.path)
        self.flushed = self.written

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
