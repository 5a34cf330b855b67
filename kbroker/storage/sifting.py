"""Records inside a batch, as compaction sees them: which keys there are, which records stay. Bytes in, bytes out.

Knows nothing of files or segments. The loops are written out on purpose: each record of a compacted log passes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import repeat
from typing import NamedTuple

from kbroker.protocol import compression
from kbroker.protocol.records import (
    CODEC_MASK,
    DELETE_HORIZON,
    HEADER_BYTES,
    LOG_APPEND_TIME,
    NO_TIMESTAMP,
    RecordBatch,
    append_varint,
    read_varint,
    with_records,
)

# Keys up to this size are remembered as they are, longer ones by a digest of 16 bytes, as Kafka remembers all of them.
KEY_BYTES_MAX = 32


class Malformed(Exception):
    """A record's fields do not add up: nothing can be said of its key."""


def note_keys(
    data: bytes, position: int, count: int, base: int, last_delta: int, latest: dict[bytes, int]
) -> bool:
    """Note the offset of each key's record in `latest`; records without a key are passed over.

    True when the batch is no plain one, record after record with a key and a value: it must be looked at again.
    """
    odd = False
    index = 0
    try:
        for index in range(count):
            byte = data[position]  # the record's length
            if byte < 0x80:
                at = position + 2  # attributes are one byte
                position += 1 + (byte >> 1)
            elif (second := data[position + 1]) < 0x80:
                at = position + 3
                position += 2 + ((byte & 0x7F | second << 7) >> 1)
            else:
                length, at = read_varint(data, position)
                position = at + length
                at += 1
            while data[at] > 0x7F:  # the time
                at += 1
            byte = data[at + 1]  # the offset
            if byte < 0x80:
                at += 2
            elif (second := data[at + 2]) < 0x80:
                at += 3
                byte = byte & 0x7F | second << 7
            else:
                delta, at = read_varint(data, at + 1)
                byte = delta << 1
            if byte != index << 1:
                odd = True
            if byte & 1 or byte >> 1 > last_delta:
                raise Malformed(f"record {index}: offset {byte >> 1} of {last_delta}")
            size = data[at]
            at += 1
            if size & 1:
                odd = True
                continue
            if size < 0x80:
                size >>= 1
            else:
                size, at = read_varint(data, at - 1)
            end = at + size
            if end >= position:
                raise Malformed(f"record {index}: key of {size} bytes")
            latest[data[at:end] if size <= KEY_BYTES_MAX else _digest(data[at:end])] = base + (byte >> 1)
            if data[end] & 1:
                odd = True  # a tombstone
    except (IndexError, ValueError) as error:
        raise Malformed(f"record {index} of {count}: {error}") from None
    if position != len(data):
        raise Malformed(f"{len(data) - position} bytes after the last of {count} records")
    return odd


def _digest(key: bytes) -> bytes:
    return blake2b(key, digest_size=16).digest()


class Sifted(NamedTuple):
    """What stays of a batch."""

    parts: list[bytes]  # records, as they lie
    newest: int  # the largest of their times, relative
    tombstones: bool  # some have no value


NOTHING = Sifted([], 0, False)


def pick(data: bytes, position: int, wanted: Sequence[int]) -> Sifted:
    """The records with these numbers, rising, of a plain batch: nothing but their lengths and times is read."""
    parts = []
    newest = -(2**63)
    index = 0
    for number in wanted:
        for _ in repeat(None, number - index):
            byte = data[position]
            if byte < 0x80:
                position += 1 + (byte >> 1)
            elif (second := data[position + 1]) < 0x80:
                position += 2 + ((byte & 0x7F | second << 7) >> 1)
            else:
                length, position = read_varint(data, position)
                position += length
        length, at = read_varint(data, position)
        end = at + length
        time, _ = read_varint(data, at + 1)
        if time > newest:
            newest = time
        parts.append(data[position:end])
        position = end
        index = number + 1
    return Sifted(parts, newest, False)


def sift(
    data: bytes, position: int, count: int, base: int, latest: dict[bytes, int], *, keep_tombstones: bool
) -> Sifted:
    """The records of which no later one of the same key is known."""
    parts = []
    newest = -(2**63)
    tombstones = False
    known = latest.get
    try:
        for _ in repeat(None, count):
            start = position
            byte = data[position]
            if byte < 0x80:
                at = position + 2
                position += 1 + (byte >> 1)
            elif (second := data[position + 1]) < 0x80:
                at = position + 3
                position += 2 + ((byte & 0x7F | second << 7) >> 1)
            else:
                length, at = read_varint(data, position)
                position = at + length
                at += 1
            time_at = at
            while data[at] > 0x7F:
                at += 1
            byte = data[at + 1]
            if byte < 0x80:
                at += 2
                delta = byte >> 1
            elif (second := data[at + 2]) < 0x80:
                at += 3
                delta = (byte & 0x7F | second << 7) >> 1
            else:
                delta, at = read_varint(data, at + 1)
            size = data[at]
            at += 1
            if size & 1:
                continue  # no key: such a record has no place in a compacted log
            if size < 0x80:
                size >>= 1
            else:
                size, at = read_varint(data, at - 1)
            end = at + size
            key = data[at:end] if size <= KEY_BYTES_MAX else _digest(data[at:end])
            if known(key, -1) > base + delta:
                continue
            if data[end] & 1:
                if not keep_tombstones:
                    continue
                tombstones = True
            time = data[time_at]
            time = (time >> 1) ^ -(time & 1) if time < 0x80 else read_varint(data, time_at)[0]
            if time > newest:
                newest = time
            parts.append(data[start:position])
    except (IndexError, ValueError) as error:
        raise Malformed(f"one of {count} records: {error}") from None
    return Sifted(parts, newest, tombstones)


def plain(batch: RecordBatch, decompressed_max: int) -> bytes:
    """The records of a batch, decompressed."""
    if batch.attributes & CODEC_MASK and batch.size > HEADER_BYTES:
        return compression.decompress(batch.codec, batch.records, decompressed_max)
    return bytes(batch.records)


def rebuilt(batch: RecordBatch, kept: Sifted, horizon_ms: int | None = None) -> bytes:
    """The batch with these records alone: offsets, epoch, sequences, codec as they were, the newest time put right.

    `horizon_ms`: from then on its tombstones may go. The header holds it in the place of the first record's time, so
    that the records' times become relative to it.
    """
    attributes = batch.attributes
    base_timestamp = batch.base_timestamp
    max_timestamp = batch.max_timestamp if attributes & LOG_APPEND_TIME else base_timestamp + kept.newest
    parts = kept.parts
    if horizon_ms is not None:
        parts = [_moved(part, base_timestamp - horizon_ms) for part in parts]
        attributes |= DELETE_HORIZON
        base_timestamp = horizon_ms
    body = compression.compress(batch.codec, b"".join(parts))
    return with_records(
        batch,
        body,
        count=len(parts),
        attributes=attributes,
        base_timestamp=base_timestamp,
        max_timestamp=max_timestamp,
    )


def emptied(batch: RecordBatch) -> bytes:
    """The batch's header alone: its offsets, its producer's sequences and its newest time stay known."""
    attributes = batch.attributes & ~(CODEC_MASK | DELETE_HORIZON)
    return with_records(
        batch,
        b"",
        count=0,
        attributes=attributes,
        base_timestamp=NO_TIMESTAMP,
        max_timestamp=batch.max_timestamp,
    )


def _moved(record: bytes, shift: int) -> bytes:
    """A record whose time is relative to another one, `shift` earlier."""
    _, at = read_varint(record, 0)
    time, rest = read_varint(record, at + 1)
    fields = bytearray(record[at : at + 1])
    append_varint(fields, time + shift)
    moved = bytearray()
    append_varint(moved, len(fields) + len(record) - rest)
    return bytes(moved + fields + record[rest:])
