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

import structlog

from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import TopicPartition
from kbroker.storage import scan
from kbroker.storage.checkpoints import partition_metadata, read_epochs
from kbroker.storage.epochs import EpochCache
from kbroker.storage.producers import ProducerStates
from kbroker.storage.segment import INT32_MAX, Segment
from kbroker.storage.snapshots import Snapshots, took_batch

if TYPE_CHECKING:
    from kbroker.config import TopicConfig
    from kbroker.protocol.records import RecordBatch
    from kbroker.seams import File
    from kbroker.storage.directory import LogDirectory

log = structlog.get_logger(__name__)

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
        "_dirty",
        "_epochs",
        "_epochs_dirty",
        "_files_to_sync",
        "_flushing",
        "_folder_new",
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
        self.deleted = False  # its folder is on its way out
        self.queued = False  # the flusher has it, or is syncing it
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
        self._last_epoch = -1  # of the newest batch, when `_epochs` is loaded
        self._producers: ProducerStates | None = None
        self._snapshots: Snapshots | None = None

    # -- state that is loaded when asked for

    @property
    def epochs(self) -> EpochCache:
        """Which leader epoch began where."""
        epochs = self._epochs
        if epochs is None:
            disk = self.directory.disk
            epochs = self._epochs = EpochCache(read_epochs(disk, f"{self.folder}/{EPOCHS_FILE}"))
            self._last_epoch = epochs.last
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
        segment.took(base, last, position, size, timestamp)
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
                self._forget_file(self.segments.pop())
                old = None
        elif not self.segments:
            self._make_folder()
        segment = Segment(directory.disk, self.folder, base, 0, self.config)
        segment.create(directory.clock.wall_ms())
        segment.jitter_ms = directory.jitter_ms(self.config)
        if old is not None:
            self._sync_also(old.save(closing=True))
            self._sync_also([self.snapshots.take(self.producers, base)])
            directory.indexes.keep(old)
        self.segments.append(segment)
        self._active = segment
        self._names_dirty = True
        return segment

    def _make_folder(self) -> None:
        disk = self.directory.disk
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
                self._write_tail(segment)
            except OSError as error:
                self._take_back(error)
                return
            self._note_written()
        self._written_out()

    def _written_out(self) -> None:
        directory = self.directory
        if not directory.fsync:
            self.flushed = self.written
            self._dirty = []
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
        work: list[Callable[[], object]] = []
        for segment in self._dirty:
            segment.dirty = False
            work.append(segment.file.sync)
        self._dirty = []
        if self._files_to_sync is not None:
            work += [file.sync for file in self._files_to_sync]
            self._files_to_sync = None
        if self._names_dirty:
            self._names_dirty = False
            work.append(partial(directory.disk.sync_dir, self.folder))
        if self._folder_new:
            self._folder_new = False
            work.append(partial(directory.disk.sync_dir, directory.path))
        return work

    def flush_ended(self) -> bool:
        """The flush went well. True when there is more to flush."""
        if self._flushing > self.flushed:  # lowered by a truncation meanwhile: the fsync vouches for no more
            self.flushed = self._flushing
            self.observer.log_moved()
        self.queued = self.flushed < self.written or self._names_dirty
        return self.queued

    def flush_failed(self, error: BaseException) -> None:
        """An fsync failed: nothing beyond `flushed` can be vouched for any more, in memory it never was."""
        self.queued = False
        self._flushing = self.flushed
        if self.flushed < self.end:
            self._tail = []
            self._dirty = []
            self.end = self.written = self.flushed
            self._active = None
            self.truncations += 1
            if self._epochs is not None:
                self._epochs.truncate_to(self.end)
                self._last_epoch = self._epochs.last
            self._producers = None
            self.observer.log_cut(self.end, error)

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
                else:
                    end, limit = segments[at].base, segment.size
                    self.directory.indexes.keep(segment)
                if segment.index is None:
                    segment.load()
                start, stop = segment.span(
                    offset, end, limit, up_to=up_to, max_bytes=max_bytes, min_one=min_one
                )
                if start < stop:
                    return Region(self, segment.file, start, stop - start)
                if start < limit:
                    return None
        except scan.Damaged as error:
            raise self.damaged(error) from error
        except OSError as error:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.tp} cannot be read: {error}") from error
        return None

    def damaged(self, error: scan.Damaged) -> KafkaError:
        """What a reader is told of damage in the middle of the log. It is never cut out."""
        log.error("log damaged", partition=str(self.tp), position=error.position, why=error.why)
        return KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.tp} is damaged: {error.why}")

    def _forget_file(self, segment: Segment) -> None:
        """Remove a segment's files at once."""
        segment.file.close()
        for path in segment.paths:
            if self.directory.disk.exists(path):
                self.directory.disk.remove(path)
        self._names_dirty = True
