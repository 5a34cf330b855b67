"""Dumps of .index and .timeindex files, each compared with the segment beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from struct import Struct
from typing import BinaryIO

from kbroker.cli.dumps.common import (
    WORK_SUFFIXES,
    Damage,
    Depth,
    base_offset_of,
    plain_name,
    size_of,
    time_text,
)
from kbroker.cli.dumps.segments import unfit
from kbroker.protocol.records import HEADER_BYTES, RecordBatch

_OFFSET_ENTRY = Struct(">ii")  # last offset of a batch - base, file position of the batch
_TIME_ENTRY = Struct(">qi")  # timestamp, offset - base
_ENTRIES_READ = 8192  # index entries read at once


def dump_offset_index(path: str, depth: Depth) -> Iterator[str]:
    """The entries of a .index file, each compared with the batch that it names."""
    base, last_offset, last_position = base_offset_of(path), -1, -1
    log = _open_segment(path)
    try:
        for number, entry in _entries(path, _OFFSET_ENTRY):
            if isinstance(entry, Damage):
                yield entry
                return
            relative, position = entry
            yield f"offset={base + relative} position={position}"
            if relative < 0 or position < 0 or relative <= last_offset or position <= last_position:
                yield Damage(f"entry={number}: does not grow: offset={base + relative} position={position}")
            last_offset, last_position = relative, position
            if log is not None and (why := _misses(log, position, base + relative)):
                yield Damage(f"entry={number}: {why}")
    finally:
        if log is not None:
            log.close()


def dump_time_index(path: str, depth: Depth) -> Iterator[str]:
    """The entries of a .timeindex file, each compared with the batch that holds its offset."""
    base, last_time, last_relative = base_offset_of(path), -1, -1
    log = _open_segment(path)
    try:
        headers = None if log is None else _Headers(log)
        for number, entry in _entries(path, _TIME_ENTRY):
            if isinstance(entry, Damage):
                yield entry
                return
            timestamp, relative = entry
            yield f"timestamp={time_text(timestamp)} offset={base + relative}"
            if timestamp <= last_time or relative < max(last_relative, 0):
                yield Damage(f"entry={number}: does not grow: timestamp={timestamp} offset={base + relative}")
            last_time, last_relative = timestamp, relative
            if headers is not None and (why := headers.misses(base + relative, timestamp)):
                yield Damage(f"entry={number}: {why}")
    finally:
        if log is not None:
            log.close()


class _Headers:
    """Batch headers of a segment, forward only: the time index asks for ever later offsets."""

    def __init__(self, log: BinaryIO) -> None:
        self._log = log
        self._size = size_of(log)
        self._position = 0
        self._batch: RecordBatch | None = None

    def misses(self, offset: int, timestamp: int) -> str | None:
        """Why no batch holds `offset` with `timestamp` as its newest."""
        while self._batch is None or self._batch.last_offset < offset:
            if self._position >= self._size:
                return f"offset {offset} is not in the segment"
            self._log.seek(self._position)
            head = self._log.read(HEADER_BYTES)
            if why := unfit(head, self._size - self._position):
                return f"the segment is damaged at position={self._position}: {why}"
            self._batch = RecordBatch(memoryview(head))
            self._position += self._batch.size
        if self._batch.base_offset > offset:
            return f"offset {offset} is not in the segment"
        if self._batch.max_timestamp != timestamp:
            return f"the batch at offset {offset} has the maximum timestamp {self._batch.max_timestamp}"
        return None


def _misses(log: BinaryIO, position: int, offset: int) -> str | None:
    """Why the batch at `position` is not the one that ends with `offset`."""
    left = size_of(log) - position
    if position < 0 or left <= 0:
        return f"position {position} is beyond the segment"
    log.seek(position)
    head = log.read(HEADER_BYTES)
    if why := unfit(head, left):
        return f"no batch at position {position} of the segment: {why}"
    batch = RecordBatch(memoryview(head))
    if batch.last_offset != offset:
        return f"the batch at position {position} ends with offset {batch.last_offset}, not {offset}"
    return None


def _entries(path: str, layout: Struct) -> Iterator[tuple[int, tuple[int, ...] | Damage]]:
    """(number, entry) of an index. Zeros up to the end are space that Kafka reserves while it writes."""
    width, number = layout.size, 0
    with open(path, "rb") as file:
        whole = size_of(file) // width * width
        end = _used(file, whole, width)
        file.seek(0)
        while number * width < end:
            data = file.read(min(width * _ENTRIES_READ, end - number * width))
            data = data[: len(data) // width * width]
            if not data:
                break
            for entry in layout.iter_unpack(data):
                yield number, entry
                number += 1
        if extra := size_of(file) - whole:
            yield number, Damage(f"entry={number}: {extra} bytes at the end; an entry has {width}")


def _used(file: BinaryIO, end: int, width: int) -> int:
    """Where the last entry ends that is not all zeros."""
    step = width * _ENTRIES_READ
    while end > 0:
        start = max(0, (end - 1) // step * step)
        file.seek(start)
        data = file.read(end - start).rstrip(b"\0")
        if data:
            return start + -(-len(data) // width) * width
        end = start
    return 0


def _open_segment(path: str) -> BinaryIO | None:
    """The segment beside an index, if it is there."""
    folder, name = os.path.split(path)
    suffix = next((suffix for suffix in WORK_SUFFIXES if name.endswith(suffix)), "")
    stem = os.path.splitext(plain_name(path))[0]
    try:
        return open(os.path.join(folder, f"{stem}.log{suffix}"), "rb")
    except OSError:
        return None
