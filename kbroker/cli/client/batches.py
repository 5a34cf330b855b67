"""Records of a command line to bodies of batches and back, as fast as Python does it: whole lists at a time.

`protocol.records` does the same one record at a time, for callers that have few. Knows no connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import NamedTuple

from kbroker.cli.client.errors import ClientError
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol import compression
from kbroker.protocol.crc import crc32c
from kbroker.protocol.records import (
    CRC_START,
    HEADER,
    HEADER_BYTES,
    LOG_OVERHEAD,
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    NO_SEQUENCE,
    Record,
    RecordBatch,
    append_varint,
    read_varint,
)

MAGIC = 2
CRC_AT = 17

Headers = Sequence[tuple[str, bytes | None]]

# What a batch of somebody else's may decompress to before we refuse to look into it.
DECOMPRESSED_BYTES_MAX = 256 << 20
# Records in a batch: the table of their offset deltas grows up to here, 3 MB.
RECORDS_MAX = 50_000

# A varint of one byte holds deltas below 64, of two bytes those below 8,192, of three bytes those below 1,048,576.
_WIDTHS = ((0, 64, 1), (64, 8_192, 2), (8_192, 1_048_576, 3))
_NULL = b"\x01"  # -1


def varint(value: int) -> bytes:
    """A zigzag varint."""
    out = bytearray()
    append_varint(out, value)
    return bytes(out)


class _Varints(dict[int, bytes]):
    """Varints by their value, made when first asked for."""

    def __missing__(self, value: int) -> bytes:
        made = self[value] = varint(value)
        return made


class _Heads(dict[int, bytes]):
    """What stands before the offset delta of a record: its length, no attributes, the batch's own time."""

    def __missing__(self, size: int) -> bytes:
        made = self[size] = varint(size) + b"\x00\x00"
        return made


_varints = _Varints()
_heads = _Heads()
_deltas: list[bytes] = []


def encode_headers(headers: Headers) -> bytes:
    """A record's headers, their count first."""
    out = bytearray(varint(len(headers)))
    for name, value in headers:
        raw = name.encode()
        out += varint(len(raw)) + raw
        out += _NULL if value is None else varint(len(value)) + value
    return bytes(out)


def encode_values(values: Sequence[bytes], tail: bytes = b"\x00") -> bytes:
    """Records with these values, without keys, all with the headers in `tail`: see `encode_headers`."""
    pieces = []
    for first, last, width in _WIDTHS:
        some = values[first:last]
        if not some:
            break
        lengths = list(map(len, some))
        sizes = map(_varints.__getitem__, lengths)
        fixed = 3 + width + len(tail)  # attributes, time, delta, no key; the value's own length comes to it
        totals = [
            length + fixed + (1 if length < 64 else 2 if length < 8_192 else _wide(length))
            for length in lengths
        ]
        rows = zip(
            map(_heads.__getitem__, totals),
            deltas(first, first + len(some)),
            repeat(_NULL),
            sizes,
            some,
            repeat(tail),
        )
        pieces.append(b"".join(chain.from_iterable(rows)))
    return b"".join(pieces)


def encode_pairs(pairs: Sequence[tuple[bytes, bytes]], tail: bytes = b"\x00") -> bytes:
    """Records with these keys and values, all with the headers in `tail`."""
    pieces = []
    for first, last, width in _WIDTHS:
        some = pairs[first:last]
        if not some:
            break
        fixed = 2 + width + len(tail)
        rows: list[bytes] = []
        for delta, (key, value) in zip(deltas(first, first + len(some)), some, strict=True):
            key_size, value_size = _varints[len(key)], _varints[len(value)]
            size = fixed + len(key_size) + len(key) + len(value_size) + len(value)
            rows += (_heads[size], delta, key_size, key, value_size, value, tail)
        pieces.append(b"".join(rows))
    return b"".join(pieces)


def encode_records(records: Iterable[Record], base_timestamp: int) -> bytes:
    """Records with times and headers of their own."""
    body = bytearray()
    for index, (_, timestamp, key, value, headers) in enumerate(records):
        one = b"".join(
            (
                b"\x00",
                varint(timestamp - base_timestamp),
                varint(index),
                _NULL if key is None else _varints[len(key)] + key,
                _NULL if value is None else _varints[len(value)] + value,
                encode_headers(headers) if headers else b"\x00",
            )
        )
        body += varint(len(one))
        body += one
    return bytes(body)


def wrap(
    body: bytes,
    count: int,
    *,
    times: tuple[int, int],
    codec: int = compression.NONE,
    producer: tuple[int, int] = (NO_PRODUCER_ID, NO_PRODUCER_EPOCH),
    sequence: int = NO_SEQUENCE,
) -> bytes:
    """The batch of `count` encoded records; `times` are the first record's and the latest."""
    rest = body if codec == compression.NONE else compression.compress(codec, body)
    length = HEADER_BYTES - LOG_OVERHEAD + len(rest)
    fields = (codec, count - 1, *times, *producer, sequence, count)
    batch = bytearray(HEADER.pack(0, length, -1, MAGIC, 0, *fields))
    batch += rest
    with memoryview(batch) as view:
        crc = crc32c(view[CRC_START:])
    batch[CRC_AT:CRC_START] = crc.to_bytes(4, "big")
    return bytes(batch)


def deltas(first: int, last: int) -> list[bytes]:
    """The varints from `first` to before `last`."""
    if len(_deltas) < last:
        _deltas.extend(map(varint, range(len(_deltas), last)))
    return _deltas[first:last]


def _wide(value: int) -> int:
    return len(varint(value))


# -- reading


class Seen(NamedTuple):
    """A record that was read."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


def body_of(batch: RecordBatch) -> bytes:
    """The records of a batch, decompressed. ClientError when they are damaged."""
    if not batch.crc_ok:
        raise ClientError(f"the batch at offset {batch.base_offset} is damaged: its checksum does not fit")
    try:
        if batch.codec == compression.NONE:
            return bytes(batch.records)
        return compression.decompress(batch.codec, batch.records, DECOMPRESSED_BYTES_MAX)
    except KafkaError as error:
        raise ClientError(
            f"the batch at offset {batch.base_offset} cannot be read: {error.message}"
        ) from None


def values_of(body: bytes, count: int) -> list[bytes | None]:
    """The values alone. KafkaError when the bytes do not add up."""
    found: list[bytes | None] = []
    at = 0
    try:
        for _ in range(count):
            size = body[at]
            if size < 0x80:
                at += 1
                end = at + (size >> 1)
            else:
                high = body[at + 1]
                if high < 0x80:
                    at += 2
                    end = at + ((size & 0x7F | high << 7) >> 1)
                else:
                    length, at = read_varint(body, at)
                    end = at + length
            at += 1  # attributes
            while body[at] > 0x7F:  # time
                at += 1
            at += 1
            while body[at] > 0x7F:  # offset
                at += 1
            at += 1
            if body[at] == 1:  # no key
                at += 1
            else:
                length, at = read_varint(body, at)
                at += length
            size = body[at]
            at += 1
            if size < 0x80:
                length = size >> 1
            else:
                high = body[at]
                if high < 0x80:
                    at += 1
                    length = (size & 0x7F | high << 7) >> 1
                else:
                    length, at = read_varint(body, at - 1)
            found.append(None if size == 1 else body[at : at + length])
            at = end
    except (IndexError, ValueError):
        raise _damaged() from None
    if at != len(body):
        raise _damaged()
    return found


def records_of(batch: RecordBatch, body: bytes) -> list[Seen]:
    """The records whole. KafkaError when the bytes do not add up."""
    found = []
    base_offset, base_timestamp = batch.base_offset, batch.base_timestamp
    append_time = batch.max_timestamp if batch.is_log_append_time else None
    at = 0
    try:
        for _ in range(batch.count):
            length, at = read_varint(body, at)
            end = at + length
            time_delta, at = read_varint(body, at + 1)
            offset_delta, at = read_varint(body, at)
            key, at = _nullable(body, at)
            value, at = _nullable(body, at)
            headers = () if body[at] == 0 else _headers(body, at)
            timestamp = base_timestamp + time_delta if append_time is None else append_time
            found.append(Seen(base_offset + offset_delta, timestamp, key, value, headers))
            at = end
    except (IndexError, ValueError):
        raise _damaged() from None
    if at != len(body):
        raise _damaged()
    return found


def _nullable(body: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = read_varint(body, at)
    if length < 0:
        return None, at
    end = at + length
    return body[at:end], end


def _headers(body: bytes, at: int) -> tuple[tuple[str, bytes | None], ...]:
    count, at = read_varint(body, at)
    if not 0 <= count <= len(body) - at:
        raise ValueError(count)
    found = []
    for _ in range(count):
        name, at = _nullable(body, at)
        value, at = _nullable(body, at)
        found.append(((name or b"").decode("utf-8", "replace"), value))
    return tuple(found)


def _damaged() -> KafkaError:
    return KafkaError(ErrorCode.CORRUPT_MESSAGE, "records whose lengths do not add up")
