"""Compaction of one log: reads closed segments, writes fewer that hold the last record of each key. In a thread or process.

Works on paths and numbers, never on a `PartitionLog`: what it writes (`*.cleaned`) is put in the place of the old
segments by `swapping`, if they are still what they were. Two passes: the first notes where each key of the part that
was not compacted yet (the dirty one) was written last, the second copies what stays of everything up to there.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterator
from struct import Struct

import msgspec

from kbroker.errors import KafkaError
from kbroker.protocol.records import (
    CONTROL,
    DELETE_HORIZON,
    HEADER_BYTES,
    LOG_OVERHEAD,
    TRANSACTIONAL,
    RecordBatch,
)
from kbroker.seams import Disk, File
from kbroker.storage import scan, sifting
from kbroker.storage.checkpoints import write_beside
from kbroker.storage.segment import INT32_MAX, OFFSET_MAX, Segment, segment_name

CLEANED = ".cleaned"

# Memory that one key takes in the first pass: a dictionary's entry, its hash table's share, the key's object (up to 32
# bytes of it) and the offset's. Measured: 115 to 150, and up to 50 more while the dictionary grows or the offsets are
# sorted. A batch that must be sifted again takes up to 100, and is counted as a key. What
# log.cleaner.dedupe.buffer.size allows is counted in these.
BYTES_PER_KEY = 200
# A batch decompresses to this at most, unless kbroker.batch.decompressed.bytes.max is more: a log of Kafka's may hold
# larger ones than that. Beyond it the log is not compacted.
DECOMPRESSED_BYTES_MAX = 128 << 20

READ_BYTES = 1 << 20  # read at once
WRITE_BYTES = 1 << 20  # collected before they are written

_ABORT_AT = Struct(">hh")  # key of a control record: version, type (0: abort)


class Stopped(Exception):
    """Whoever asked for it wants it no more."""


class Uncleanable(Exception):
    """The log holds what cannot be compacted: damage, or records that do not add up."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to do: one round over one log."""

    folder: str
    segments: list[tuple[int, int]]  # closed ones, (base offset, bytes), all up to `upper`
    first_dirty: int  # below it every key was compacted by earlier rounds
    upper: int  # first offset that must be left alone: not committed, too young, or in the active segment
    now_ms: int
    delete_retention_ms: int
    segment_bytes: int
    index_interval_bytes: int
    segment_index_bytes: int
    producers: dict[
        int, tuple[int, int]
    ]  # id -> (offset of its last record, or -1; epoch): their last batches stay
    buffer_bytes: int  # for the keys of the first pass
    decompressed_max: int


class Cleaned(msgspec.Struct, frozen=True, tag="cleaned"):
    """One segment that was made, on the disk as `*.cleaned`: `replaced` are those whose place it takes."""

    folder: str
    base: int
    size: int
    replaced: list[tuple[int, int]]


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The round is over: from offset `end` on the log is dirty."""

    end: int
    bytes_read: int
    bytes_written: int


# Called with bytes read or written: waits where they are too many, raises Stopped where they are to be the last.
Pace = Callable[[int], None]
Outcome = Cleaned | Finished


def clean(disk: Disk, job: Job, pace: Pace) -> Generator[Outcome, None, None]:
    """Do it: yields each segment when it is made, and `Finished` last. OSError, Uncleanable, or what `pace` raises."""
    try:
        round_ = _Round(disk, job, pace)
        round_.note()
        yield from round_.copy()
        yield Finished(round_.end, round_.bytes_read, round_.bytes_written)
    except (scan.Damaged, sifting.Malformed, KafkaError) as error:
        raise Uncleanable(f"{job.folder}: {error}") from error


def cleaned_paths(folder: str, base: int) -> tuple[str, str, str]:
    """The files of a segment that was made and is in nobody's place yet."""
    stem = f"{folder}/{segment_name(base)}"
    return f"{stem}.log{CLEANED}", f"{stem}.index{CLEANED}", f"{stem}.timeindex{CLEANED}"


def remove_cleaned(disk: Disk, folder: str) -> None:
    """Remove what a round made that came to nothing."""
    for name in disk.list(folder) if disk.exists(folder) else ():
        if name.endswith(CLEANED):
            disk.remove(f"{folder}/{name}")


class _Round:
    """One round in progress."""

    def __init__(self, disk: Disk, job: Job, pace: Pace) -> None:
        self._disk = disk
        self._job = job
        self._pace = pace
        self._latest: dict[bytes, int] = {}
        self._odd: set[int] = set()  # base offsets of dirty batches that must be sifted record by record
        self._aborted: dict[int, list[tuple[int, int]]] | None = (
            None  # producer -> offsets; None: not looked for
        )
        self._open: set[int] = set()  # producers with data since their last marker
        self._decompressed_max = max(job.decompressed_max, DECOMPRESSED_BYTES_MAX)
        self._lasts = array("q")  # offsets of the last records of the dirty keys, rising
        self._at = 0  # how far in these
        self.end = job.first_dirty
        self.bytes_read = 0
        self.bytes_written = 0

    # -- first pass

    def note(self) -> None:
        """Note the dirty keys, until all are noted or the buffer is full."""
        job = self._job
        keys_max = job.buffer_bytes // BYTES_PER_KEY
        latest, odd = self._latest, self._odd
        for at, (base, size) in enumerate(job.segments):
            if at + 1 < len(job.segments) and job.segments[at + 1][0] <= job.first_dirty:
                continue
            for batch in self._read(base, size):
                if batch.last_offset < job.first_dirty:
                    continue
                if batch.base_offset >= job.upper or len(latest) + len(odd) > keys_max:
                    break
                self._note(batch)
                self.end = batch.next_offset
            else:
                continue
            break
        else:
            self.end = job.upper
        self._lasts = array("q", sorted(latest.values()))

    def _note(self, batch: RecordBatch) -> None:
        if not batch.crc_ok:
            raise Uncleanable(f"{self._job.folder}: the CRC of the batch at {batch.base_offset} is wrong")
        attributes = batch.attributes
        if attributes & CONTROL or not batch.count:
            return
        if attributes & TRANSACTIONAL and self._is_aborted(batch):
            return
        records = sifting.plain(batch, self._decompressed_max)
        odd = sifting.note_keys(
            records, 0, batch.count, batch.base_offset, batch.last_offset_delta, self._latest
        )
        if odd or attributes & DELETE_HORIZON:
            self._odd.add(batch.base_offset)

    def _is_aborted(self, batch: RecordBatch) -> bool:
        if self._aborted is None:
            self._aborted = self._find_aborted()
        of_producer = self._aborted.get(batch.producer_id, [])  # one after the other, thousands perhaps
        at = bisect_right(of_producer, (batch.base_offset, OFFSET_MAX)) - 1
        return at >= 0 and batch.base_offset <= of_producer[at][1]

    def _find_aborted(self) -> dict[int, list[tuple[int, int]]]:
        """The aborted transactions with records in the dirty part."""
        job = self._job
        began: dict[int, int] = {}
        aborted: dict[int, list[tuple[int, int]]] = {}
        for base, size in job.segments:
            file = self._disk.open(f"{job.folder}/{segment_name(base)}.log")
            try:
                for batch in scan.walk_produced(file, 0, size):
                    if batch.last < job.first_dirty or not batch.attributes & TRANSACTIONAL:
                        continue
                    if not batch.attributes & CONTROL:
                        began.setdefault(batch.producer_id, batch.base)
                        continue
                    start = began.pop(batch.producer_id, None)
                    if start is not None and batch.records and _is_abort(scan.read_batch(file, batch)):
                        aborted.setdefault(batch.producer_id, []).append((start, batch.base))
            finally:
                file.close()
        return aborted

    # -- second pass

    def copy(self) -> Iterator[Cleaned]:
        """Copy what stays of each segment up to `end`, into as few as their limits allow."""
        job = self._job
        output: _Output | None = None
        try:
            for at, (base, size) in enumerate(job.segments):
                if base >= self.end:
                    break
                beyond = job.segments[at + 1][0] if at + 1 < len(job.segments) else job.upper
                if output is not None and not output.takes(size, beyond):
                    yield from self._finish(output)
                    output = None
                if output is None:
                    output = _Output(self._disk, job, base, self._pace)
                output.replace(base, size)
                self._copy(base, size, output)
            if output is not None:
                yield from self._finish(output)
                output = None
        finally:
            if output is not None:
                output.close()

    def _finish(self, output: _Output) -> Iterator[Cleaned]:
        cleaned = output.finish()
        if cleaned is not None:
            self.bytes_written += cleaned.size
            yield cleaned

    def _copy(self, base: int, size: int, output: _Output) -> None:
        for batch in self._read(base, size):
            if batch.base_offset >= self.end:
                output.copy(batch)
                continue
            kept = self._kept(batch)
            if kept is None:
                output.copy(batch)
            elif kept:
                output.write(batch, kept)
            elif self._must_stay(batch):
                if batch.is_emptied:
                    output.copy(batch)
                else:
                    output.write(batch, sifting.emptied(batch))
            else:
                output.drop(batch)

    def _kept(self, batch: RecordBatch) -> bytes | None:
        """The batch with what stays of it; None: all of it stays, as it is; empty: nothing does."""
        attributes = batch.attributes
        count = batch.count
        if attributes & CONTROL:
            return self._kept_marker(batch)
        if attributes & TRANSACTIONAL:
            self._open.add(batch.producer_id)
            if self._is_aborted(batch):
                return b""
        if not count:
            return b""
        if batch.last_offset < self._job.first_dirty or batch.base_offset in self._odd:
            return self._sifted(batch)
        lasts = self._lasts
        first = bisect_left(lasts, batch.base_offset, self._at)
        self._at = after = bisect_right(lasts, batch.last_offset, first)
        if after - first == count:
            return None
        if after == first:
            return b""
        base = batch.base_offset
        records = sifting.plain(batch, self._decompressed_max)
        return sifting.rebuilt(batch, sifting.pick(records, 0, [last - base for last in lasts[first:after]]))

    def _sifted(self, batch: RecordBatch) -> bytes | None:
        horizon_set = bool(batch.attributes & DELETE_HORIZON)
        kept = sifting.sift(
            sifting.plain(batch, self._decompressed_max),
            0,
            batch.count,
            batch.base_offset,
            self._latest,
            keep_tombstones=not horizon_set or self._job.now_ms < batch.base_timestamp,
        )
        if not kept.parts:
            return b""
        horizon_ms = self._horizon_ms if kept.tombstones and not horizon_set else None
        if len(kept.parts) == batch.count and horizon_ms is None:
            return None
        if not batch.crc_ok:
            raise Uncleanable(f"{self._job.folder}: the CRC of the batch at {batch.base_offset} is wrong")
        return sifting.rebuilt(batch, kept, horizon_ms)

    def _kept_marker(self, batch: RecordBatch) -> bytes | None:
        """A transaction's end stays while there are records of it, and then as long as a tombstone."""
        has_data = batch.producer_id in self._open
        self._open.discard(batch.producer_id)
        if has_data or not batch.count:
            return None if batch.count else b""
        if not batch.attributes & DELETE_HORIZON:
            record = bytes(batch.records)
            return sifting.rebuilt(batch, sifting.pick(record, 0, [0]), self._horizon_ms)
        return None if self._job.now_ms < batch.base_timestamp else b""

    @property
    def _horizon_ms(self) -> int:
        return self._job.now_ms + self._job.delete_retention_ms

    def _must_stay(self, batch: RecordBatch) -> bool:
        """An emptied batch stays where it is its producer's last, or the round's: offsets and sequences go on from it."""
        if batch.next_offset == self._job.upper:
            return True
        known = self._job.producers.get(batch.producer_id) if batch.producer_id >= 0 else None
        if known is None:
            return False
        last, epoch = known
        return batch.last_offset == last if last >= 0 else batch.is_control and batch.producer_epoch == epoch

    # -- both

    def _read(self, base: int, size: int) -> Iterator[RecordBatch]:
        """The batches of a segment."""
        file = self._disk.open(f"{self._job.folder}/{segment_name(base)}.log")
        view = memoryview(b"")
        at = from_ = 0  # `view` is the file from position `from_` on
        try:
            while at < size:
                start = at - from_
                if start + HEADER_BYTES > len(view):
                    view, from_, start = self._fill(file, at, size, READ_BYTES), at, 0
                length, magic = _LENGTH.unpack_from(view, start + 8)
                whole = length + LOG_OVERHEAD
                if magic != 2 or whole < HEADER_BYTES or at + whole > size:
                    raise scan.Damaged(at, f"magic {magic}, a batch of {whole} bytes, {size - at} are there")
                if start + whole > len(view):
                    view, from_, start = self._fill(file, at, size, max(READ_BYTES, whole)), at, 0
                yield RecordBatch(view[start : start + whole])
                at += whole
        finally:
            file.close()

    def _fill(self, file: File, at: int, size: int, wanted: int) -> memoryview:
        view = memoryview(bytearray(min(wanted, size - at)))
        if len(view) < HEADER_BYTES or file.read_into(view, at) < len(view):
            raise scan.Damaged(at, "the file is shorter than it was")
        self.bytes_read += len(view)
        self._pace(len(view))
        return view


_LENGTH = Struct(">i4xb")  # at byte 8: length, magic


def _is_abort(batch: memoryview) -> bool:
    """Whether an end marker, a batch of one record, says that its transaction was aborted."""
    record = bytes(batch[HEADER_BYTES:])
    at = 0
    for skipped in (1, 0, 0, 0):  # length and attributes, time, offset, the key's length
        while record[at] & 0x80:
            at += 1
        at += 1 + skipped
    return bool(_ABORT_AT.unpack_from(record, at)[1] == 0)


class _Output:
    """A segment that is being made. Its file is, once it is known to differ from the first of those it takes the place of.

    Most of a log is clean, and what is clean comes out as it was: it is read, and nothing is written.
    """

    def __init__(self, disk: Disk, job: Job, base: int, pace: Pace) -> None:
        self._disk = disk
        self._job = job
        self._pace = pace
        self._segment = Segment(disk, job.folder, base, 0, job)
        self._segment.recover_below(base)  # nothing: its indexes begin empty
        self._parts: list[bytes] = []
        self._waiting = 0  # bytes in these
        self._dropped: RecordBatch | None = None  # the last one that did not stay
        self._file: File | None = None  # None: so far it is what the first segment is
        self._replaced: list[tuple[int, int]] = []
        self.base = base
        self.size = 0

    def takes(self, size: int, beyond: int) -> bool:
        """Whether all of another segment of `size` bytes, up to offset `beyond`, has room in this one."""
        job = self._job
        entries = len(self._segment.index or ()) + 1 + size // max(job.index_interval_bytes, HEADER_BYTES)
        return (
            self.size + size <= job.segment_bytes
            and beyond - 1 - self.base <= INT32_MAX
            and entries * 12 <= job.segment_index_bytes  # the time index has the larger entries
        )

    def replace(self, base: int, size: int) -> None:
        """What follows is in this segment, whose place it takes."""
        self._replaced.append((base, size))
        if len(self._replaced) > 1:
            self._differs()

    def copy(self, batch: RecordBatch) -> None:
        """The batch stays as it is."""
        self._took(batch, batch.size, batch.max_timestamp if batch.count else -1)
        if self._file is not None:
            # a copy: a view of it would keep all that was read with it, until there is enough to write
            self._put(self._file, bytes(batch.view))

    def write(self, batch: RecordBatch, fresh: bytes) -> None:
        """This stays of the batch."""
        file = self._differs()
        view = memoryview(fresh)
        newest = RecordBatch(view).max_timestamp if len(fresh) > HEADER_BYTES else -1
        self._took(batch, len(fresh), newest)
        self._put(file, fresh)

    def drop(self, batch: RecordBatch) -> None:
        """Nothing stays of it."""
        self._differs()
        self._dropped = batch

    def close(self) -> None:
        """Nothing comes of it."""
        if self._file is not None:
            self._file.close()

    def _took(self, batch: RecordBatch, size: int, max_timestamp: int) -> None:
        if self.size + size > INT32_MAX:
            raise Uncleanable(f"{self._job.folder}: the segment at {self.base} would grow beyond 2 GiB")
        self._segment.took(batch.last_offset, self.size, size, max_timestamp)
        self.size += size

    def _put(self, file: File, part: bytes) -> None:
        self._parts.append(part)
        self._waiting += len(part)
        if self._waiting >= WRITE_BYTES:
            self._write_out(file)

    def _write_out(self, file: File) -> None:
        if self._parts:
            file.append(self._parts)
            self._pace(self._waiting)
            self._parts, self._waiting = [], 0

    def _differs(self) -> File:
        """It is not what the first segment is: its file, with what both begin with."""
        file = self._file
        if file is None:
            file = self._file = self._disk.open(cleaned_paths(self._job.folder, self.base)[0], create=True)
            if file.size:  # left by a round that came to nothing
                file.truncate(0)
            if self.size:
                self._copy_beginning(file)
        return file

    def _copy_beginning(self, file: File) -> None:
        source = self._disk.open(f"{self._job.folder}/{segment_name(self.base)}.log")
        view = memoryview(bytearray(min(WRITE_BYTES, self.size)))
        try:
            while file.size < self.size:
                some = view[: self.size - file.size]
                if source.read_into(some, file.size) < len(some):
                    raise scan.Damaged(file.size, "the file is shorter than it was")
                file.append([some])
                self._pace(2 * len(some))  # read and written
        finally:
            source.close()

    def finish(self) -> Cleaned | None:
        """Sync it with its indexes. None where it would be what it replaces."""
        if not self.size:  # no segment but the last may be empty
            assert self._dropped is not None
            self.write(self._dropped, sifting.emptied(self._dropped))
        file = self._file
        if file is None:
            return None
        self._write_out(file)
        file.sync()
        file.close()
        folder, disk, base = self._job.folder, self._disk, self.base
        index, times = self._segment.encode_closed()
        for path, content in zip(cleaned_paths(folder, base)[1:], (index, times), strict=True):
            written = write_beside(disk, path.removesuffix(CLEANED), content, suffix=CLEANED)
            written.sync()
            written.close()
        return Cleaned(folder, base, self.size, self._replaced)
