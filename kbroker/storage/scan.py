"""Walking the record batches of a segment file by their headers, with or without the CRC. Reads, changes nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from kbroker.observe import logs
from kbroker.protocol.crc import crc32c
from kbroker.seams import File
from kbroker.storage.slices import SLICE_BYTES

log = logs.get_logger("storage")

HEADER_SIZE = 61
_HEADER = struct.Struct(">qiibIhiqqqhii")
_BOUNDS = struct.Struct(">qi4xb6xi")  # base offset, length, magic, last offset delta
_CHECKED = struct.Struct(
    ">qiibI2xi8xq"
)  # base offset, length, epoch, magic, CRC, last offset delta, max timestamp
_PRODUCED = struct.Struct(">8xi4xb26xq")  # length, magic, producer id
_LENGTH_AT_LEAST = HEADER_SIZE - 12
_CRC_FROM = 21  # attributes; the CRC covers from here to the batch's end
_HEADERS_CHUNK = 8 * 1024  # small: only headers are wanted, and a batch is often larger
_CHECK_CHUNK = 1024 * 1024


class Batch(NamedTuple):
    """A batch's header as it lies in a file at `position`."""

    position: int
    base: int
    length: int
    epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return 12 + self.length

    @property
    def last(self) -> int:
        """Offset of its last record."""
        return self.base + self.last_offset_delta


class Damaged(Exception):
    """What lies at file position `position` is no whole, valid batch."""

    def __init__(self, position: int, why: str) -> None:
        super().__init__(position, why)
        self.position = position
        self.why = why


def walk(file: File, at: int, end: int, *, chunk: int = _HEADERS_CHUNK) -> Iterator[Batch]:
    """The batches between file positions `at` and `end`, headers only. Damaged where they do not add up."""
    unpack = _HEADER.unpack_from
    buffer = memoryview(bytearray(min(chunk, max(end - at, HEADER_SIZE))))
    from_, have = at, 0  # buffer[:have] is the file from position `from_` on
    while at < end:
        if at + HEADER_SIZE > end:
            raise Damaged(at, f"{end - at} bytes are no batch header")
        if at + HEADER_SIZE > from_ + have:
            from_ = at
            have = file.read_into(buffer[: min(len(buffer), end - at)], at)
            if have < HEADER_SIZE:
                raise Damaged(at, "the file is shorter than it was")
        batch = Batch(at, *unpack(buffer, at - from_))
        _check_header(batch, end)
        yield batch
        at += 12 + batch.length


def walk_readable(file: File, at: int, end: int) -> Iterator[Batch]:
    """As `walk`, but ends where the file is damaged: for what is known of the rest."""
    try:
        yield from walk(file, at, end)
    except Damaged as error:
        log.error("scan ended at damage", file=file.path, position=error.position, why=error.why)


def walk_produced(file: File, at: int, end: int) -> Iterator[Batch]:
    """The batches that have a producer id, up to where the file is damaged."""
    return (batch for batch in walk_produced_in_slices(file, at, end) if batch is not None)


def walk_produced_in_slices(file: File, at: int, end: int) -> Iterator[Batch | None]:
    """The same, and None after each SLICE_BYTES of the file."""
    unpack = _PRODUCED.unpack_from
    stop = at + SLICE_BYTES
    buffer = memoryview(bytearray(min(_HEADERS_CHUNK, max(end - at, 0))))
    from_, have = at, 0
    while at + HEADER_SIZE <= end:
        start = at - from_
        if start + HEADER_SIZE > have:
            from_, start = at, 0
            have = file.read_into(buffer[: end - at], at)
            if have < HEADER_SIZE:
                return
            if at >= stop:
                yield None
                stop = at + SLICE_BYTES
        length, magic, producer_id = unpack(buffer, start)
        if magic != 2 or length < _LENGTH_AT_LEAST or at + 12 + length > end:
            log.error("scan ended at damage", file=file.path, position=at)
            return
        if producer_id >= 0:
            yield Batch(at, *_HEADER.unpack_from(buffer, start))
        at += 12 + length


def seek(file: File, at: int, end: int, offset: int) -> tuple[int, int] | None:
    """Where the first batch whose last offset is at or beyond `offset` begins and ends, from boundary `at` on."""
    unpack = _BOUNDS.unpack_from
    buffer = memoryview(bytearray(min(_HEADERS_CHUNK, max(end - at, 0))))
    from_, have = at, 0
    while at + HEADER_SIZE <= end:
        start = at - from_
        if start + HEADER_SIZE > have:
            from_, start = at, 0
            have = file.read_into(buffer[: end - at], at)
            if have < HEADER_SIZE:
                break
        base, length, magic, last_offset_delta = unpack(buffer, start)
        after = at + 12 + length
        if magic != 2 or length < _LENGTH_AT_LEAST or after > end:
            raise Damaged(at, f"magic {magic}, a batch of {length} bytes, {end - at - 12} are there")
        if base + last_offset_delta >= offset:
            return at, after
        at = after
    if at < end:
        raise Damaged(at, f"{end - at} bytes are no batch header")
    return None


def boundary(file: File, at: int, end: int, target: int) -> int:
    """The last boundary between batches that is not beyond file position `target`, from boundary `at` on."""
    unpack = _BOUNDS.unpack_from
    buffer = memoryview(bytearray(min(_HEADERS_CHUNK, max(end - at, 0))))
    from_, have = at, 0
    while at + HEADER_SIZE <= end:
        start = at - from_
        if start + HEADER_SIZE > have:
            from_, start = at, 0
            have = file.read_into(buffer[: end - at], at)
            if have < HEADER_SIZE:
                break
        _, length, magic, _ = unpack(buffer, start)
        after = at + 12 + length
        if magic != 2 or length < _LENGTH_AT_LEAST or after > end:
            raise Damaged(at, f"magic {magic}, a batch of {length} bytes, {end - at - 12} are there")
        if after > target:
            break
        at = after
    return at


def check(file: File, at: int, end: int) -> Iterator[tuple[int, int, int, int, int, int]]:
    """The batches between two positions, each whole and with the right CRC; Damaged where one is not.

    Yields plain tuples, recovery reads millions: (position, size, base offset, last offset, epoch, max timestamp; -1 of
    an emptied one).
    """
    unpack = _CHECKED.unpack_from
    buffer = memoryview(bytearray(min(_CHECK_CHUNK, max(end - at, HEADER_SIZE))))
    from_, have = at, 0
    while at < end:
        start = at - from_
        if start + HEADER_SIZE > have:
            if at + HEADER_SIZE > end:
                raise Damaged(at, f"{end - at} bytes are no batch header")
            from_, start, have = at, 0, _fill(file, buffer, at, end)
        base, length, epoch, magic, crc, last_delta, max_timestamp = unpack(buffer, start)
        size = 12 + length
        if magic != 2 or length < _LENGTH_AT_LEAST or at + size > end or base < 0 or last_delta < 0:
            raise Damaged(
                at, f"no batch: magic {magic}, {size} bytes of {end - at}, offset {base} + {last_delta}"
            )
        if start + size > have:
            if size > len(buffer):
                buffer = memoryview(bytearray(size))
            from_, start, have = at, 0, _fill(file, buffer, at, end)
        if crc32c(buffer[start + _CRC_FROM : start + size]) != crc:
            raise Damaged(at, "its CRC is wrong")
        yield at, size, base, base + last_delta, epoch, max_timestamp if size > HEADER_SIZE else -1
        at += size


def read_batch(file: File, batch: Batch) -> memoryview:
    """The whole batch."""
    view = memoryview(bytearray(batch.size))
    if file.read_into(view, batch.position) < len(view):
        raise Damaged(batch.position, "the file is shorter than it was")
    return view


def _fill(file: File, buffer: memoryview, at: int, end: int) -> int:
    wanted = min(len(buffer), end - at)
    have = file.read_into(buffer[:wanted], at)
    if have < wanted:
        raise Damaged(at, "the file is shorter than it was")
    return have


def _check_header(batch: Batch, end: int) -> None:
    if batch.magic != 2:
        raise Damaged(batch.position, f"magic {batch.magic} instead of 2")
    if batch.length < _LENGTH_AT_LEAST or batch.position + 12 + batch.length > end:
        raise Damaged(
            batch.position, f"a batch of {batch.length} bytes, {end - batch.position - 12} are there"
        )
    if batch.base < 0 or batch.last_offset_delta < 0 or batch.records < 0:
        raise Damaged(
            batch.position,
            f"offset {batch.base}, last delta {batch.last_offset_delta}, {batch.records} records",
        )
