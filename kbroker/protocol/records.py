"""Record batches (magic 2): a view of one in a buffer, splitting, building, decoding. No I/O, no clock.

What a leader demands of a batch is in `validation`; here a batch is only read and written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import NamedTuple

from kbroker.errors import ErrorCode, KafkaError, ProtocolError
from kbroker.protocol import compression
from kbroker.protocol.crc import crc32c

# base offset i64, batch length i32, partition leader epoch i32, magic i8, CRC u32, attributes i16, last offset delta
# i32, base timestamp i64, max timestamp i64, producer id i64, producer epoch i16, base sequence i32, record count i32
HEADER = Struct(">qiibIhiqqqhii")
HEADER_BYTES = HEADER.size  # 61
LOG_OVERHEAD = 12  # base offset and length: what `batch_length` does not count
CRC_START = 21  # the CRC covers attributes to the end; base offset and leader epoch lie before it

CODEC_MASK = 0x07
LOG_APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20
DELETE_HORIZON = 0x40  # the base timestamp holds the time at which tombstones may go

NO_TIMESTAMP = -1
NO_PRODUCER_ID = -1
NO_PRODUCER_EPOCH = -1
NO_SEQUENCE = -1

_LENGTH_AT = Struct(">i")  # at byte 8
_CRC_AT = Struct(">I")  # at byte 17
_ATTRIBUTES_AT = Struct(">h")  # at byte 21
_MAX_TIMESTAMP_AT = Struct(">q")  # at byte 35
_PLACE = Struct(">qii")  # at byte 0: base offset, batch length (as it is), leader epoch
_CRC_PART = Struct(">hiqqqhii")
_BEFORE_CRC = Struct(">qiibI")


class RecordBatch:
    """One batch in a buffer, its header read in one go. Valid as long as the view is; `view` spans exactly the batch.

    The header is believed: `crc_ok` and `validation` say whether it should be.
    """

    __slots__ = (
        "attributes",
        "base_offset",
        "base_sequence",
        "base_timestamp",
        "batch_length",
        "count",
        "crc",
        "epoch",
        "last_offset_delta",
        "magic",
        "max_timestamp",
        "producer_epoch",
        "producer_id",
        "size",
        "view",
    )

    view: memoryview
    size: int  # bytes, header included
    base_offset: int
    batch_length: int
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
    count: int

    def __init__(self, view: memoryview) -> None:
        (
            self.base_offset,
            self.batch_length,
            self.epoch,
            self.magic,
            self.crc,
            self.attributes,
            self.last_offset_delta,
            self.base_timestamp,
            self.max_timestamp,
            self.producer_id,
            self.producer_epoch,
            self.base_sequence,
            self.count,
        ) = HEADER.unpack_from(view)
        self.view = view
        self.size = self.batch_length + 12

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL)

    @property
    def is_log_append_time(self) -> bool:
        return bool(self.attributes & LOG_APPEND_TIME)

    @property
    def has_delete_horizon(self) -> bool:
        return bool(self.attributes & DELETE_HORIZON)

    @property
    def is_emptied(self) -> bool:
        """Compaction took all its records and kept the header, for its offsets and its producer's sequences."""
        return self.count == 0 and self.size == HEADER_BYTES

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        """The offset after this batch."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def last_sequence(self) -> int:
        """Sequence of the last record; sequences go on at 0 after 2^31-1. -1 without a producer."""
        if self.base_sequence < 0:
            return NO_SEQUENCE
        return (self.base_sequence + self.last_offset_delta) & 0x7FFFFFFF

    @property
    def crc_ok(self) -> bool:
        return crc32c(self.view[CRC_START:]) == self.crc

    @property
    def records(self) -> memoryview:
        """The records as they lie: compressed, if the batch is."""
        return self.view[HEADER_BYTES:]

    def stamp(self, base_offset: int, epoch: int) -> None:
        """Give the batch its place in a log, in the buffer itself; both fields lie before what the CRC covers."""
        _PLACE.pack_into(self.view, 0, base_offset, self.batch_length, epoch)
        self.base_offset = base_offset
        self.epoch = epoch

    def stamp_append_time(self, now_ms: int) -> None:
        """Turn the batch's times into the time of its append; the CRC covers them, so it is made again."""
        view = self.view
        self.attributes |= LOG_APPEND_TIME
        self.max_timestamp = now_ms
        _ATTRIBUTES_AT.pack_into(view, 21, self.attributes)
        _MAX_TIMESTAMP_AT.pack_into(view, 35, now_ms)
        self._stamp_crc()

    def stamp_max_timestamp(self, timestamp: int) -> None:
        """Put the header's maximum timestamp right, and the CRC with it."""
        self.max_timestamp = timestamp
        _MAX_TIMESTAMP_AT.pack_into(self.view, 35, timestamp)
        self._stamp_crc()

    def clear_append_time(self) -> None:
        """The batch's times are its creator's again; the CRC is made again."""
        self.attributes &= ~LOG_APPEND_TIME
        _ATTRIBUTES_AT.pack_into(self.view, 21, self.attributes)
        self._stamp_crc()

    def _stamp_crc(self) -> None:
        self.crc = crc32c(self.view[CRC_START:])
        _CRC_AT.pack_into(self.view, 17, self.crc)

    def __repr__(self) -> str:
        return f"RecordBatch(offsets {self.base_offset}..{self.last_offset}, {self.count} records, {self.size} bytes)"


class Record(NamedTuple):
    """One record, decoded. In `build_batch` an offset below 0 means the one after the previous record's."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def record(
    value: bytes | None = None,
    *,
    key: bytes | None = None,
    timestamp: int = 0,
    headers: Iterable[tuple[str, bytes | None]] = (),
) -> Record:
    """A record for `build_batch`, at the next offset."""
    return Record(-1, timestamp, key, value, tuple(headers))


def split_batches(view: memoryview, *, cut_tail: bool = False) -> list[RecordBatch]:
    """The batches that lie back to back in `view`. ProtocolError on anything else.

    With `cut_tail` an incomplete batch at the end is left out: answers to Fetch may end in one.
    """
    batches = []
    position, end = 0, len(view)
    while position < end:
        left = end - position
        if left >= 17 and view[position + 16] != 2:
            raise ProtocolError(f"batch of magic {view[position + 16]} at byte {position}; only 2 is known")
        size = (
            _LENGTH_AT.unpack_from(view, position + 8)[0] + LOG_OVERHEAD
            if left >= LOG_OVERHEAD
            else HEADER_BYTES
        )
        if size < HEADER_BYTES:
            raise ProtocolError(
                f"batch of {size} bytes at byte {position}; a header alone has {HEADER_BYTES}"
            )
        if size > left:
            if cut_tail:
                break
            raise ProtocolError(f"batch of {size} bytes at byte {position}, {left} left")
        batches.append(RecordBatch(view[position : position + size]))
        position += size
    return batches


def decode_records(
    batch: RecordBatch, *, decompressed_max: int = compression.DECOMPRESSED_BYTES_MAX
) -> Iterator[Record]:
    """The batch's records, every field checked. KafkaError INVALID_RECORD, CORRUPT_MESSAGE or MESSAGE_TOO_LARGE."""
    if batch.codec == compression.NONE or batch.is_emptied:
        data = bytes(batch.records)
    else:
        data = compression.decompress(batch.codec, batch.records, decompressed_max)
    return _decode(batch, data)


def _decode(batch: RecordBatch, data: bytes) -> Iterator[Record]:
    base_offset, base_timestamp = batch.base_offset, batch.base_timestamp
    append_time = batch.max_timestamp if batch.is_log_append_time else None
    position = 0
    for index in range(batch.count):
        try:
            length, position = read_varint(data, position)
            end = position + length
            if length < 0 or end > len(data):
                raise invalid(f"record {index} of {length} bytes, {len(data) - position} left")
            fields = _decode_one(data, position, end)
        except IndexError:
            raise invalid(f"record {index} of {batch.count} cut off") from None
        except ValueError as error:
            raise invalid(f"record {index}: {error}") from None
        timestamp_delta, offset_delta, key, value, headers = fields
        timestamp = base_timestamp + timestamp_delta if append_time is None else append_time
        yield Record(base_offset + offset_delta, timestamp, key, value, headers)
        position = end
    if position != len(data):
        raise invalid(f"{len(data) - position} bytes after the last of {batch.count} records")


_Fields = tuple[int, int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]


def _decode_one(data: bytes, position: int, end: int) -> _Fields:
    """The fields of the record between `position` (its attributes) and `end`. ValueError when they do not add up."""
    timestamp_delta, position = read_varint(data, position + 1)
    offset_delta, position = read_varint(data, position)
    key, position = _nullable(data, position, end, "key")
    value, position = _nullable(data, position, end, "value")
    count, position = read_varint(data, position)
    if not 0 <= count <= end - position:
        raise ValueError(f"{count} headers, {end - position} bytes left")
    headers = []
    for _ in range(count):
        name, position = _nullable(data, position, end, "header key")
        if name is None:
            raise ValueError("header without a key")
        header, position = _nullable(data, position, end, "header value")
        headers.append((name.decode(), header))
    if position != end:
        raise ValueError(f"{end - position} bytes after its headers")
    return timestamp_delta, offset_delta, key, value, tuple(headers)


def _nullable(data: bytes, position: int, end: int, what: str) -> tuple[bytes | None, int]:
    length, position = read_varint(data, position)
    if length == -1:
        return None, position
    stop = position + length
    if length < 0 or stop > end:
        raise ValueError(f"{what} of {length} bytes, {end - position} left")
    return data[position:stop], stop


def read_varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """The zigzag varint (up to 64 bits) at `position` and the position after it. IndexError past the end."""
    byte = data[position]
    position += 1
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), position
    raw, shift = byte & 0x7F, 7
    while True:
        byte = data[position]
        position += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise ValueError("varint longer than 10 bytes")
    return ((raw & 0xFFFFFFFFFFFFFFFF) >> 1) ^ -(raw & 1), position


def append_varint(out: bytearray, value: int) -> None:
    """Append `value` (64 bits at most) as a zigzag varint."""
    raw = (value << 1) ^ (value >> 63)
    while raw > 0x7F:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)


def build_batch(
    records: Iterable[Record],
    *,
    base_offset: int = 0,
    epoch: int = -1,
    codec: int = compression.NONE,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = NO_PRODUCER_EPOCH,
    base_sequence: int = NO_SEQUENCE,
    transactional: bool = False,
    control: bool = False,
    append_time_ms: int | None = None,
    delete_horizon_ms: int | None = None,
    last_offset_delta: int | None = None,
) -> bytes:
    """A batch of `records`, CRC and all.

    `append_time_ms` makes it a LogAppendTime batch. `last_offset_delta` keeps the range of a batch that lost records.
    """
    records = tuple(records)
    max_timestamp = max((r.timestamp for r in records), default=NO_TIMESTAMP)
    base_timestamp = records[0].timestamp if records else NO_TIMESTAMP
    attributes = codec | TRANSACTIONAL * transactional | CONTROL * control
    if append_time_ms is not None:
        attributes |= LOG_APPEND_TIME
        max_timestamp = append_time_ms
    if delete_horizon_ms is not None:
        attributes |= DELETE_HORIZON
        base_timestamp = delete_horizon_ms
    body, last_delta = _encode_records(records, base_offset, base_timestamp)
    covered = _CRC_PART.pack(
        attributes,
        last_delta if last_offset_delta is None else last_offset_delta,
        base_timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        len(records),
    )
    return _seal(base_offset, epoch, covered + (compression.compress(codec, body) if records else b""))


def seal_records(body: bytes, count: int, timestamp: int, codec: int = compression.NONE) -> bytearray:
    """A batch around `count` encoded records, all of one time and with offset deltas from 0 on; to be stamped."""
    covered = _CRC_PART.pack(
        codec,
        count - 1,
        timestamp,
        timestamp,
        NO_PRODUCER_ID,
        NO_PRODUCER_EPOCH,
        NO_SEQUENCE,
        count,
    )
    return bytearray(
        _seal(0, -1, covered + (body if codec == compression.NONE else compression.compress(codec, body)))
    )


def recompress(
    batch: RecordBatch,
    codec: int,
    *,
    level: int | None = None,
    decompressed_max: int = compression.DECOMPRESSED_BYTES_MAX,
) -> bytes:
    """The same batch under another codec (the topic's `compression.type`): header kept, CRC made again."""
    covered = bytearray(batch.view[CRC_START:HEADER_BYTES])
    _ATTRIBUTES_AT.pack_into(covered, 0, batch.attributes & ~CODEC_MASK | codec)
    if batch.codec == compression.NONE:
        covered += compression.compress(codec, batch.records, level)
    else:
        with compression.decompressed(batch.codec, batch.records, decompressed_max) as plain:
            covered += compression.compress(codec, plain, level)
    return _seal(batch.base_offset, batch.epoch, bytes(covered))


def with_records(
    batch: RecordBatch, body: bytes, *, count: int, attributes: int, base_timestamp: int, max_timestamp: int
) -> bytes:
    """The same batch with other records (compressed, if `attributes` say so): offsets, epoch and sequences stay."""
    fields = (attributes, batch.last_offset_delta, base_timestamp, max_timestamp)
    producer = (batch.producer_id, batch.producer_epoch, batch.base_sequence)
    return _seal(batch.base_offset, batch.epoch, _CRC_PART.pack(*fields, *producer, count) + body)


def _seal(base_offset: int, epoch: int, covered: bytes) -> bytes:
    """What stands before the bytes that the CRC covers, and these."""
    length = len(covered) + CRC_START - LOG_OVERHEAD
    return _BEFORE_CRC.pack(base_offset, length, epoch, 2, crc32c(covered)) + covered


def _encode_records(records: Iterable[Record], base_offset: int, base_timestamp: int) -> tuple[bytes, int]:
    """The records back to back, and the last one's offset delta (-1 when there are none)."""
    body, delta = bytearray(), -1
    for item in records:
        delta = delta + 1 if item.offset < 0 else item.offset - base_offset
        one = bytearray(b"\x00")
        append_varint(one, item.timestamp - base_timestamp)
        append_varint(one, delta)
        _append_nullable(one, item.key)
        _append_nullable(one, item.value)
        append_varint(one, len(item.headers))
        for name, value in item.headers:
            _append_nullable(one, name.encode())
            _append_nullable(one, value)
        append_varint(body, len(one))
        body += one
    return bytes(body), delta


def _append_nullable(out: bytearray, data: bytes | None) -> None:
    if data is None:
        out.append(1)  # -1
        return
    append_varint(out, len(data))
    out += data


def invalid(why: str) -> KafkaError:
    """The batch's bytes do not add up."""
    return KafkaError(ErrorCode.INVALID_RECORD, why)
