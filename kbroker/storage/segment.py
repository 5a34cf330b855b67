"""One segment: a `.log` file of whole batches and its two indexes. Knows offsets and positions within itself only.

The indexes are caches: loaded on use, written now and then, rebuilt from the `.log` when missing or wrong.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Protocol

from kbroker.storage import scan
from kbroker.storage.index import OFFSET_ENTRY_SIZE, TIME_ENTRY_SIZE, OffsetIndex, TimeIndex

if TYPE_CHECKING:
    from kbroker.seams import Buffer, Disk, File

INT32_MAX = 2**31 - 1
OFFSET_MAX = 2**63 - 1
DELETED = ".deleted"
STRAY = "-stray"
# of a first batch without one: older than anything, so that every append looks at the clock
NO_TIMESTAMP = -(2**62)

# Positions of the newest batches kept in memory, so that a consumer near the end costs no header scan; between this and
# twice as many, 16 bytes each. Older ones are found by the index.
RECENT_BATCHES = 32

_REWRITE_CHUNK = 1024 * 1024

# of a segment that is not loaded: empty for ever
_NO_TIMES = TimeIndex()
_NONE: array[int] = array("q")


class IndexOptions(Protocol):
    """What a segment asks of its topic's config."""

    @property
    def index_interval_bytes(self) -> int: ...

    @property
    def segment_index_bytes(self) -> int: ...


def segment_name(base: int) -> str:
    """A segment's files without their suffix."""
    return f"{base:020d}"


class Segment:
    """Batches from offset `base` on. `size` counts what was appended, written or not."""

    __slots__ = (
        "_disk",
        "_file",
        "_index_saved",
        "_stem",
        "_times_saved",
        "base",
        "created_ms",
        "damage",
        "dirty",
        "first_timestamp",
        "full",
        "index",
        "index_bytes_max",
        "interval",
        "jitter_ms",
        "max_timestamp",
        "max_timestamp_offset",
        "recent_lasts",
        "recent_positions",
        "size",
        "times",
        "timestamps_known",
        "unindexed",
    )

    # what `load` (or `create`) sets; unset before
    index: OffsetIndex | None
    times: TimeIndex
    recent_lasts: array[int]  # last offsets of the newest batches...
    recent_positions: array[int]  # ... and where they lie
    unindexed: int  # bytes from the last indexed batch on
    first_timestamp: int  # largest timestamp of the first batch: rolling by time counts from it
    max_timestamp: int
    max_timestamp_offset: int  # last offset of the batch that has it
    full: bool  # an index has no room for another entry
    _index_saved: int  # entries that are in the file
    _times_saved: int

    def __init__(self, disk: Disk, folder: str, base: int, size: int, config: IndexOptions) -> None:
        self._disk = disk
        self._stem = f"{folder}/{segment_name(base)}"
        self._file: File | None = None
        self.base = base
        self.size = size
        self.interval = config.index_interval_bytes
        self.index_bytes_max = config.segment_index_bytes
        self.created_ms = 0  # 0: not by this process
        self.jitter_ms = 0  # it rolls that much before `segment.ms`
        self.dirty = False  # written since the last flush began
        self.index = None
        self.damage: scan.Damaged | None = None  # what follows from there on cannot be read
        self.timestamps_known = False  # `max_timestamp` is set, and stays when the indexes are unloaded

    @property
    def file(self) -> File:
        """The `.log`."""
        file = self._file
        if file is None:
            file = self._file = self._disk.open(self._stem + ".log")
        return file

    @property
    def paths(self) -> tuple[str, str, str]:
        """Its files."""
        return self._stem + ".log", self._stem + ".index", self._stem + ".timeindex"

    def create(self, now_ms: int) -> None:
        """Make the files. Nothing older of the same name may show through."""
        disk = self._disk
        for path in self.paths[1:]:
            if disk.exists(path):
                disk.remove(path)
        self._file = disk.open(self.paths[0], create=True)
        if self._file.size:
            self._file.truncate(0)
        self.created_ms = now_ms
        self._forget()

    def load(self) -> int:
        """Have the indexes in memory; returns the end offset (-1: they were). Only while all its bytes are in the file.

        Damaged when the `.log` is.
        """
        return -1 if self.index is not None else self._load_below(OFFSET_MAX)[0]

    def load_closed(self) -> None:
        """As `load`, for a segment that takes no more batches: what lies before any damage can be read."""
        if self.index is None:
            try:
                self._load_below(OFFSET_MAX)
            except scan.Damaged:
                self._load_from(OffsetIndex(), TimeIndex(), keep=True)

    def recover_below(self, offset: int) -> tuple[int, int]:
        """Load what lies below `offset` and may be trusted: (end offset, file position) of it.

        What follows must be checked and given to `took`. Damaged when even that is.
        """
        if offset <= self.base:
            self._forget()
            return self.base, 0
        self.index = None
        return self._load_below(offset)

    def _load_below(self, offset: int) -> tuple[int, int]:
        index = OffsetIndex.parse(self._read(self.paths[1]))
        times = TimeIndex.parse(self._read(self.paths[2]))
        index.truncate_position(self.size)  # what is newer than the log
        if offset < OFFSET_MAX:
            index.truncate(offset - self.base)
        times.truncate(index.offsets[-1] + 1 if len(index) else 0)
        try:
            return self._load_from(index, times, below=offset)
        except scan.Damaged:  # the index points beside a batch, or the log is damaged: then this raises again
            return self._load_from(OffsetIndex(), TimeIndex(), below=offset)

    def unload(self) -> None:
        """Give the memory back. What the index files lack is read again from the `.log`."""
        if self.index is None:
            return
        self.index = None
        self.times, self.recent_lasts, self.recent_positions = _NO_TIMES, _NONE, _NONE

    def took(self, last: int, position: int, size: int, max_timestamp: int) -> None:
        """A batch was appended (or read again) at `position`."""
        if max_timestamp > self.max_timestamp:
            self.max_timestamp = max_timestamp
            self.max_timestamp_offset = last
        if self.unindexed > self.interval:
            self._add_entry(last, position)
            self.unindexed = size
        else:
            self.unindexed += size
            if not position:
                self.first_timestamp = max_timestamp if max_timestamp >= 0 else NO_TIMESTAMP
        lasts = self.recent_lasts
        lasts.append(last)
        self.recent_positions.append(position)
        if len(lasts) > 2 * RECENT_BATCHES:
            del lasts[:RECENT_BATCHES], self.recent_positions[:RECENT_BATCHES]

    def span(
        self, offset: int, end: int, limit: int, *, up_to: int, max_bytes: int, min_one: bool
    ) -> tuple[int, int]:
        """File positions of whole batches: from the one that holds `offset`, none beyond offset `up_to`.

        `end` and `limit`: the offset and the file position where the segment's written batches end. Empty: (x, x).
        """
        lasts, positions = self.recent_lasts, self.recent_positions
        count = len(lasts)
        at = bisect_left(lasts, offset)
        if at == count:
            return limit, limit
        start = positions[at]
        if not at and start:
            return self._old_span(offset, end, limit, up_to, max_bytes, min_one)
        if up_to >= end:
            stop = limit
        else:
            beyond = bisect_left(lasts, up_to)
            stop = positions[beyond] if beyond < count else limit
        if stop - start > max_bytes:
            cut = bisect_right(positions, start + max_bytes) - 1
            if cut > at:
                return start, positions[cut]
            if not min_one:
                return start, start
            return start, positions[at + 1] if at + 1 < count else limit
        return start, stop

    def _old_span(
        self, offset: int, end: int, limit: int, up_to: int, max_bytes: int, min_one: bool
    ) -> tuple[int, int]:
        """`span` where the start is not among the newest batches: by the index, then by headers."""
        index, file = self.index, self.file
        assert index is not None
        first = scan.seek(file, index.floor(offset - self.base), limit, offset)
        if first is None:
            return limit, limit
        start, after = first
        stop = self._position_of(up_to, end, limit)
        if after > stop:
            return start, start
        target = start + max_bytes
        if target >= stop:
            return start, stop
        if after >= target:
            return start, after if min_one or after == target else start
        known = index.floor_position(target)
        if known < after:
            known = after
        if known - start < max_bytes // 2:  # a fuller answer is not worth reading headers for more
            known = scan.boundary(file, known, limit, target)
        return start, known

    def _position_of(self, up_to: int, end: int, limit: int) -> int:
        """File position of the end of the batches that lie whole below offset `up_to`."""
        if up_to >= end:
            return limit
        lasts, positions = self.recent_lasts, self.recent_positions
        at = bisect_left(lasts, up_to)
        if at == len(lasts):
            return limit
        if at or not positions[0]:
            return positions[at]
        assert self.index is not None
        found = scan.seek(self.file, self.index.floor(up_to - self.base), limit, up_to)
        return found[0] if found is not None else limit

    def indexed_position(self, offset: int) -> int:
        """Where some batch at or before the one that holds `offset` begins."""
        self.load()
        assert self.index is not None
        return self.index.floor(offset - self.base)

    def span_before(self, offset: int, size: int) -> tuple[int, int]:
        """File positions of batches before `offset`, about `size` bytes of them. Indexes are left as they were."""
        loaded = self.index is not None
        _, end = self.boundary_of(offset)
        assert self.index is not None
        start = self.index.floor_position(max(0, end - size))
        if not loaded:
            self.unload()
        return start, end

    def boundary_of(self, offset: int) -> tuple[int, int]:
        """Where the batch that holds `offset`, or the first one after it, begins: (its base, file position)."""
        self.load()
        assert self.index is not None
        for batch in scan.walk(self.file, self.index.floor(offset - self.base), self.file.size):
            if batch.last >= offset:
                return batch.base, batch.position
        return offset, self.file.size

    def cut(self, offset: int, size: int) -> None:
        """Batches from `offset` on (file position `size`) are gone."""
        self.size = size
        index = self.index
        if index is None:
            return
        index.truncate(offset - self.base)
        self.times.truncate(offset - self.base)
        saved = self._index_saved, self._times_saved
        self._load_from(index, self.times)
        self._index_saved, self._times_saved = min(saved[0], len(index)), min(saved[1], len(self.times))

    def save(self, *, closing: bool = False) -> list[File]:
        """Bring the index files up to date. Returns those that were written (and are not synced).

        `closing`: the segment takes no more batches; its last timestamp goes into the time index, as Kafka does it.
        """
        index = self.index
        if index is None:
            return []
        if closing:
            self._add_last_timestamp()
        written = []
        if self._index_saved < len(index) or closing:
            written += self._save(
                self.paths[1], self._index_saved * OFFSET_ENTRY_SIZE, index.encode(self._index_saved)
            )
            self._index_saved = len(index)
        if self._times_saved < len(self.times) or closing:
            raw = self.times.encode(self._times_saved)
            written += self._save(self.paths[2], self._times_saved * TIME_ENTRY_SIZE, raw)
            self._times_saved = len(self.times)
        return written

    def encode_closed(self) -> tuple[bytes, bytes]:
        """The index files, whole, of a segment that takes no more batches."""
        assert self.index is not None
        self._add_last_timestamp()
        return self.index.encode(), self.times.encode()

    def _add_last_timestamp(self) -> None:
        if self.max_timestamp > self.times.last(self.base)[0]:
            self.times.add(self.max_timestamp, self.max_timestamp_offset - self.base)

    def mark_deleted(self) -> list[str]:
        """Rename its files to `.deleted`; who still reads them goes on. Returns their names."""
        disk, file, renamed = self._disk, self._file, []
        for path in self.paths:
            if not disk.exists(path):
                continue
            gone, number = path + DELETED, 0
            while disk.exists(gone):  # an older one of the name, still read by somebody
                number += 1
                gone = f"{path}.{number}{DELETED}"
            disk.rename(path, gone)
            renamed.append(gone)
            if file is not None and path == file.path:
                file.path = gone
        return renamed

    def put_at(self, path: str) -> None:
        """Its `.log` has another name, for now."""
        self._file = self._disk.open(path)

    def release(self) -> None:
        """Give the descriptor and the map back."""
        if self._file is not None:
            self._file.close()

    def moved(self, folder: str) -> None:
        """Its folder has another name now."""
        self._stem = f"{folder}/{segment_name(self.base)}"
        if self._file is not None:
            self._file.path = self.paths[0]

    def remove(self) -> None:
        """Remove its files."""
        if self._file is not None:
            self._file.close()
        for path in self.paths:
            if self._disk.exists(path):
                self._disk.remove(path)

    def put_aside(self) -> str:
        """Take its `.log` out of the partition, without losing it; the indexes go. Returns its new name."""
        if self._file is not None:
            self._file.close()
        path = self.paths[0]
        number = 0
        while self._disk.exists(kept := f"{path}.{number}{STRAY}"):
            number += 1
        self._disk.rename(path, kept)
        self.remove()
        return kept

    def rewrite(self) -> None:
        """Write every byte of the `.log` again, to a new file that takes its place."""
        path = self.paths[0]
        file = self._disk.open(path + ".rewrite", create=True)
        file.truncate(0)
        view = memoryview(bytearray(min(_REWRITE_CHUNK, max(self.size, 1))))
        while file.size < self.size:
            some = view[: self.size - file.size]
            if self.file.read_into(some, file.size) < len(some):
                raise scan.Damaged(file.size, "the file is shorter than it was")
            file.append([some])
        file.sync()
        file.close()
        if self._file is not None:
            self._file.close()
        self._disk.rename(path + ".rewrite", path)
        self._file = None

    def _save(self, path: str, at: int, raw: Buffer) -> list[File]:
        file = self._disk.open(path, create=True)
        try:
            if file.size != at:  # zeros of a preallocated file, or entries of batches that are gone
                file.truncate(at)
            if raw:
                file.append([raw])
        finally:
            file.close()
        return [file]

    def _add_entry(self, last: int, position: int) -> None:
        index = self.index
        assert index is not None
        index.add(last - self.base, position)
        if self.max_timestamp > self.times.last(self.base)[0]:
            self.times.add(self.max_timestamp, self.max_timestamp_offset - self.base)
        self.full = (
            len(index) >= self.index_bytes_max // OFFSET_ENTRY_SIZE
            # one entry is kept for the last timestamp
            or len(self.times) >= self.index_bytes_max // TIME_ENTRY_SIZE - 1
        )

    def _forget(self) -> None:
        self.index, self.times = OffsetIndex(), TimeIndex()
        self.recent_lasts, self.recent_positions = array("q"), array("q")
        self.unindexed = 0
        self.first_timestamp = self.max_timestamp = self.max_timestamp_offset = -1
        self.timestamps_known = True
        self.full = False
        self._index_saved = self._times_saved = 0

    def _load_from(
        self, index: OffsetIndex, times: TimeIndex, *, below: int = OFFSET_MAX, keep: bool = False
    ) -> tuple[int, int]:
        """Take these indexes as true and read the rest, from the last indexed batch on, up to offset `below`.

        Returns where that ended: (offset, file position). `keep`: damage ends it too.
        """
        self._forget()
        self.index, self.times = index, times
        self._index_saved, self._times_saved = len(index), len(times)
        at, expected, end = 0, -1, self.base
        try:
            if len(index):
                at, expected = index.positions[-1], self.base + index.offsets[-1]
                first = next(scan.walk(self.file, 0, self.size, chunk=scan.HEADER_SIZE))
                self.first_timestamp = first.max_timestamp if first.max_timestamp >= 0 else NO_TIMESTAMP
                self.max_timestamp, self.max_timestamp_offset = times.last(self.base)
            for batch in scan.walk(self.file, at, self.size):
                if expected >= 0 and batch.last != expected:
                    raise scan.Damaged(
                        at, f"the index has a batch up to {expected} here, it is up to {batch.last}"
                    )
                expected = -1
                if batch.base >= below:
                    return end, batch.position
                # a torn batch may be whole but for its offset, which the CRC does not cover either
                if batch.base < end:
                    raise scan.Damaged(batch.position, f"offset {batch.base} comes after {end - 1}")
                # an emptied batch keeps the time of what it held, which no record has any more
                newest = batch.max_timestamp if batch.records else -1
                self.took(batch.last, batch.position, 12 + batch.length, newest)
                end = batch.last + 1
        except scan.Damaged as error:
            if end >= below:
                return end, error.position  # it lies behind what was asked for
            if keep:
                self.damage = error
                return end, error.position
            self.unload()
            self.timestamps_known = False
            raise
        except BaseException:
            self.unload()
            self.timestamps_known = False
            raise
        return end, self.size

    def _read(self, path: str) -> bytes:
        try:
            return self._disk.read(path)
        except FileNotFoundError:
            return b""
