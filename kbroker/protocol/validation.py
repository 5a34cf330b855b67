"""What a leader demands of a produced batch before it stores it, by its bytes alone. Knows no log, no producer state.

As Apache Kafka: exactly one batch of magic 2, base offset 0, CRC, size, count, no control bit, and records whose
lengths and number fill the batch exactly, compressed ones after decompression. Not checked: the fields inside a
record, unless the topic is compacted (keys) or a timestamp bound may be crossed.

`check_produced` is the whole check in one call. Batches that `is_big` says may hold the loop up go through
`check_header` and then `check_slices`, which pauses on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from struct import Struct
from typing import Any, Protocol

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol import compression
from kbroker.protocol.crc import crc32c
from kbroker.protocol.records import (
    CODEC_MASK,
    CONTROL,
    HEADER_BYTES,
    LOG_APPEND_TIME,
    LOG_OVERHEAD,
    NO_TIMESTAMP,
    RecordBatch,
    invalid,
    read_varint,
)

# Above either, a check takes more than about a millisecond: long enough to hurt the other connections' latency.
BIG_BYTES = 1024 * 1024
BIG_RECORDS = 10_000

# Records between two pauses: about half a millisecond of walking, lengths only and field by field.
SLICE_RECORDS = 4_000
CAREFUL_SLICE_RECORDS = 500

# Records from which on it pays to look whether they have one size, and how many are stepped over before the next look.
RUN_MIN = 8
SINGLES = 32

# Errors listed in one answer. A batch of a million tiny records must not turn into an answer a hundred times its size.
RECORD_ERRORS_MAX = 1_000

# A record of less has no room for its fields: attributes, two deltas, key and value length, header count.
RECORD_BYTES_MIN = 6
_SMALLEST_LENGTH = RECORD_BYTES_MIN * 2  # as the zigzag varint in front of it

_NOT_A_CLIENTS = CONTROL | LOG_APPEND_TIME  # attributes that a client has no business to set
_TIMESTAMP_MAX = 2**63 - 1
_COUNT = Struct(">i")  # the number of records, last in a batch's header
_COUNT_AT = HEADER_BYTES - _COUNT.size

_SIZE_UP_TO_MAGIC = 17  # Kafka does not even see a batch in fewer bytes


class ProduceConfig(Protocol):
    """The part of a topic's config that validation reads."""

    @property
    def max_message_bytes(self) -> int: ...
    @property
    def cleanup_policy(self) -> frozenset[str]: ...
    @property
    def message_timestamp_type(self) -> str: ...
    @property
    def message_timestamp_before_max_ms(self) -> int: ...
    @property
    def message_timestamp_after_max_ms(self) -> int: ...


class RecordsRejected(KafkaError):
    """Some of the batch's records are to blame: (index in the batch, why), for `record_errors` of the answer."""

    def __init__(self, code: ErrorCode, message: str, record_errors: list[tuple[int, str]]) -> None:
        super().__init__(code, message)
        self.record_errors = record_errors


def check_produced(
    view: memoryview,
    config: ProduceConfig,
    now_ms: int,
    topic_partition: object = "",
    decompressed_max: int = compression.DECOMPRESSED_BYTES_MAX,
    walk: bool = True,
) -> RecordBatch:
    """The one batch in `view`, fit to be stored; KafkaError says why it is not.

    Without `walk` (kbroker.produce.validation=batch) the records are looked at only where their keys or times must be.
    The view is written to where a sender claims what only a broker may say: times of append, a wrong maximum timestamp.
    """
    # Nearly all batches pass here in one go; `check_header` says what is wrong with the others, or puts it right.
    size = len(view)
    if size < HEADER_BYTES:
        raise _no_batch(view)
    batch = RecordBatch(view)
    count = batch.count
    attributes = batch.attributes
    if (
        batch.size != size
        or batch.magic != 2
        or batch.base_offset
        or size > config.max_message_bytes
        or crc32c(view[21:]) != batch.crc
        or count <= 0
        or batch.last_offset_delta != count - 1
        or attributes & _NOT_A_CLIENTS
        or batch.base_sequence < 0 <= batch.producer_id
    ):
        batch = check_header(view, config)
    if (  # as `_careful` says, written out
        attributes & CODEC_MASK
        or not walk
        or "compact" in config.cleanup_policy
        or (
            config.message_timestamp_type == "CreateTime"
            and (
                batch.max_timestamp > now_ms + config.message_timestamp_after_max_ms
                or (oldest := now_ms - config.message_timestamp_before_max_ms) > 0
                or batch.base_timestamp < oldest
            )
        )
    ):
        check_records(batch, config, now_ms, topic_partition, decompressed_max, walk)
        return batch
    try:
        position = _walk(view, HEADER_BYTES, count)
    except IndexError:
        raise _cut_off(count) from None
    if position != size:
        raise _does_not_add_up(position, size, count)
    return batch


def check_header(view: memoryview, config: ProduceConfig) -> RecordBatch:
    """Frame, header and CRC: everything but the records."""
    size = len(view)
    if size < HEADER_BYTES:
        raise _no_batch(view)
    batch = RecordBatch(view)
    if batch.size != size or batch.magic != 2 or batch.base_offset:
        raise _no_batch(view)
    if size > config.max_message_bytes:
        raise KafkaError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"batch of {size} bytes; max.message.bytes of the topic is {config.max_message_bytes}",
        )
    if crc32c(view[21:]) != batch.crc:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, "the batch's CRC does not match its bytes")
    count = batch.count
    if count <= 0 or batch.last_offset_delta != count - 1:
        raise invalid(f"batch of {count} records whose last offset delta is {batch.last_offset_delta}")
    if batch.attributes & _NOT_A_CLIENTS:
        _refuse_or_clear(batch, config)
    if batch.base_sequence < 0 <= batch.producer_id:
        raise invalid(f"producer id {batch.producer_id} with sequence {batch.base_sequence}")
    return batch


def check_records(
    batch: RecordBatch,
    config: ProduceConfig,
    now_ms: int,
    topic_partition: object = "",
    decompressed_max: int = compression.DECOMPRESSED_BYTES_MAX,
    walk: bool = True,
) -> None:
    """The batch's records, without a pause."""
    if batch.attributes & CODEC_MASK or _careful(batch, config, now_ms):
        for _ in check_slices(batch, config, now_ms, topic_partition, decompressed_max, walk):
            pass
        return
    if not walk:
        return
    view, count = batch.view, batch.count
    try:
        position = _walk(view, HEADER_BYTES, count)
    except IndexError:
        raise _cut_off(count) from None
    if position != len(view):
        raise _does_not_add_up(position, len(view), count)


def is_big(records: Any) -> bool:
    """Whether checking a batch (a view; None: null) takes so long that the loop should breathe in between."""
    size = 0 if records is None else len(records)
    return size > BIG_BYTES or (
        size >= HEADER_BYTES and _COUNT.unpack_from(records, _COUNT_AT)[0] > BIG_RECORDS
    )


def check_slices(
    batch: RecordBatch,
    config: ProduceConfig,
    now_ms: int,
    topic_partition: object = "",
    decompressed_max: int = compression.DECOMPRESSED_BYTES_MAX,
    walk: bool = True,
) -> Iterator[None]:
    """The batch's records in slices: a pause at each `yield`, in which the view must stay as it is.

    Closing the generator gives its memory back.
    """
    examine = (
        _Examination(batch, config, now_ms, topic_partition) if _careful(batch, config, now_ms) else None
    )
    if examine is None and not walk:
        return
    if batch.codec == compression.NONE:
        yield from _walk_slices(batch.view, HEADER_BYTES, batch.count, examine)
    else:
        with compression.decompressed(batch.codec, batch.records, decompressed_max) as plain:
            yield from _walk_slices(plain, 0, batch.count, examine)
    if examine is not None:
        examine.settle()


def walk_slices(
    batch: RecordBatch, *, decompressed_max: int = compression.DECOMPRESSED_BYTES_MAX
) -> Iterator[None]:
    """Lengths and count alone, in slices; for batches that some leader has already accepted."""
    if batch.codec == compression.NONE or batch.is_emptied:
        yield from _walk_slices(batch.view, HEADER_BYTES, batch.count, None)
    else:
        with compression.decompressed(batch.codec, batch.records, decompressed_max) as plain:
            yield from _walk_slices(plain, 0, batch.count, None)


def _walk_slices(data: memoryview, position: int, count: int, examine: _Examination | None) -> Iterator[None]:
    step = SLICE_RECORDS if examine is None else CAREFUL_SLICE_RECORDS
    first = 0
    try:
        while True:
            number = min(step, count - first)
            if examine is None:
                position = _walk(data, position, number)
            else:
                position = examine.walk(data, position, first, number)
            first += number
            if first >= count:
                break
            yield
    except IndexError:
        raise _cut_off(count) from None
    if position != len(data):
        raise _does_not_add_up(position, len(data), count)


def _walk(data: memoryview, position: int, count: int) -> int:
    """Step over `count` records by their lengths; where the last one ends. IndexError where the data ends first."""
    while count >= RUN_MIN:
        run = _run(data, position, count)
        if run >= RUN_MIN:
            low, high = data[position], data[position + 1]
            size = (low >> 1) + 1 if low < 0x80 else (low >> 1) + (high << 6) - 62
            position += run * size
            count -= run
        else:
            position = _walk_singly(data, position, number := min(count, SINGLES))
            count -= number
    return _walk_singly(data, position, count) if count > 0 else position


def _run(data: memoryview, position: int, count: int) -> int:
    """How many of the next `count` records are known to be as long as the first; few or none: look at them singly.

    Records of one size are common, and then their lengths stand at even distances: two slices and a strip in C see as
    much as a step each.
    """
    low = data[position]
    if low & 1 or low < _SMALLEST_LENGTH:
        return 0
    high = data[position + 1]
    if low < 0x80:
        size = (low >> 1) + 1
    elif high < 0x80 and high:
        size = (low >> 1) + (high << 6) - 62
    else:
        return 0
    probe = position + (RUN_MIN - 1) * size
    if probe >= len(data) or data[probe] != low:
        return 0
    stop = position + count * size
    heads = data[position:stop:size].tobytes()
    run = len(heads) - len(heads.lstrip(heads[:1]))
    if low > 0x7F:
        heads = data[position + 1 : stop : size].tobytes()
        run = min(run, len(heads) - len(heads.lstrip(heads[:1])))
    return run


def _walk_singly(data: memoryview, position: int, count: int) -> int:
    """`_walk`, a record at a time.

    Straight-line on purpose: this runs for nearly every record ever produced. One and two bytes of length are nearly all.
    """
    for _ in repeat(None, count):
        byte = data[position]
        if byte & 1:
            raise invalid("record of negative length")
        if byte > 0x7F:
            second = data[position + 1]
            if second < 0x80 and second:
                # zigzag: half of the 14 bits, and 2 bytes for the length itself; 62 = 0x80 / 2 - 2
                position += (byte >> 1) + (second << 6) - 62
            else:
                position = _step(data, position)
        elif byte >= _SMALLEST_LENGTH:
            position += (byte >> 1) + 1
        else:
            raise invalid(f"record of {byte >> 1} bytes")
    return position


def _step(data: memoryview, position: int) -> int:
    """Step over one record whose length takes three bytes or more (or two where one would do)."""
    length, start = _length(data, position)
    return start + length


def _length(data: memoryview, position: int) -> tuple[int, int]:
    """The length of the record at `position`, and where its fields begin."""
    low = data[position]
    if low > 0x7F and not low & 1 and data[position + 1] < 0x80:
        length, start = (low >> 1) + (data[position + 1] << 6) - 64, position + 2
    else:
        length, start = _varint32(data, position)
    if length < RECORD_BYTES_MIN:
        raise invalid(f"record of {length} bytes")
    return length, start


def _varint32(data: memoryview, position: int) -> tuple[int, int]:
    value, after = _varint64(data, position)
    if after - position > 5 or not -0x80000000 <= value <= 0x7FFFFFFF:
        raise invalid(f"a 32-bit varint of {after - position} bytes")
    return value, after


def _varint64(data: memoryview, position: int) -> tuple[int, int]:
    try:
        return read_varint(data, position)
    except ValueError as error:
        raise invalid(str(error)) from None


def _careful(batch: RecordBatch, config: ProduceConfig, now_ms: int) -> bool:
    """Whether the records' keys or times must be looked at."""
    return "compact" in config.cleanup_policy or _by_time(batch, config, now_ms)


def _by_time(batch: RecordBatch, config: ProduceConfig, now_ms: int) -> bool:
    """Whether a record's time may be out of bounds.

    The header vouches for the times as long as no bound on the past is set: its maximum is at least the newest of
    them. With such a bound any record may be the old one.
    """
    if config.message_timestamp_type != "CreateTime":
        return False
    oldest = now_ms - config.message_timestamp_before_max_ms
    return (
        oldest > 0
        or batch.base_timestamp < oldest
        or batch.max_timestamp > now_ms + config.message_timestamp_after_max_ms
    )


class _Examination:
    """A walk that looks at each record's key and time, and collects what is wrong with them."""

    __slots__ = (
        "_base_timestamp",
        "_batch",
        "_by_time",
        "_compacted",
        "_earliest",
        "_errors",
        "_failures",
        "_latest",
        "_newest",
        "_out_of_range",
        "_topic_partition",
    )

    def __init__(
        self, batch: RecordBatch, config: ProduceConfig, now_ms: int, topic_partition: object
    ) -> None:
        self._batch = batch
        self._topic_partition = topic_partition
        self._compacted = "compact" in config.cleanup_policy
        self._by_time = _by_time(batch, config, now_ms)
        self._base_timestamp = batch.base_timestamp
        self._earliest = now_ms - config.message_timestamp_before_max_ms
        self._latest = min(now_ms + config.message_timestamp_after_max_ms, _TIMESTAMP_MAX)
        self._newest = NO_TIMESTAMP  # the newest time of any record so far
        self._errors: list[tuple[int, str]] = []  # the first RECORD_ERRORS_MAX of them
        self._failures = 0
        self._out_of_range = False  # some record's time is outside the bounds

    def walk(self, data: memoryview, position: int, first: int, number: int) -> int:
        """Records `first` to `first + number`, from `position`; where the last one ends. Fields are read in line."""
        by_time, compacted = self._by_time, self._compacted
        for index in range(first, first + number):
            length, start = _length(data, position)
            position = start + length
            at = start + 1
            time_delta = 0
            if by_time:
                time_delta, at = _varint64(data, at)
            else:
                while data[at] > 0x7F:
                    at += 1
                at += 1
            byte = data[at]
            if byte < 0x80:
                at += 1
                offset = (byte >> 1) ^ -(byte & 1)
            else:
                offset, at = _varint32(data, at)
            if compacted and offset != index:  # compaction would not know which record is a key's last
                raise invalid(f"record {index}: offset {offset} in its batch")
            byte = data[at]
            if byte < 0x80:
                at += 1
                key_length = -1 if byte & 1 else byte >> 1
            else:
                key_length, at = _varint32(data, at)
            if at + max(key_length, 0) >= position:  # the value's length follows
                raise invalid(f"record {index}: key of {key_length} bytes in a record of {length}")
            if compacted and key_length < 0:
                self._blame(
                    index, f"compacted topic partition {self._topic_partition} takes no record without a key"
                )
            elif by_time:
                self._check_time(index, self._base_timestamp + time_delta)
        return position

    def settle(self) -> None:
        """All records were seen: raise for those at fault, or put the header's newest time right, as Kafka does."""
        errors, number = self._errors, self._failures
        if self._out_of_range:
            raise RecordsRejected(
                ErrorCode.INVALID_TIMESTAMP, f"{number} records rejected, the first: {errors[0][1]}", errors
            )
        if number:
            raise RecordsRejected(
                ErrorCode.INVALID_RECORD, f"{number} records rejected, the first: {errors[0][1]}", errors
            )
        if self._by_time and self._newest != self._batch.max_timestamp:
            self._batch.stamp_max_timestamp(self._newest)

    def _check_time(self, index: int, timestamp: int) -> None:
        if timestamp > self._newest:
            self._newest = timestamp
        if timestamp != NO_TIMESTAMP and not self._earliest <= timestamp <= self._latest:
            self._out_of_range = True
            self._blame(index, f"timestamp {timestamp} is not between {self._earliest} and {self._latest}")

    def _blame(self, index: int, why: str) -> None:
        self._failures += 1
        if len(self._errors) < RECORD_ERRORS_MAX:
            self._errors.append((index, why))


def _refuse_or_clear(batch: RecordBatch, config: ProduceConfig) -> None:
    """A sender claims to write a control batch, or that its times are times of append.

    Kafka refuses the latter where it would be true (LogAppendTime) and silently corrects it where it is not.
    """
    if batch.attributes & CONTROL:
        raise invalid("control batches are written by brokers only")
    if config.message_timestamp_type == "CreateTime":
        batch.clear_append_time()
        return
    why = "only the broker may set LogAppendTime"
    errors = [(index, why) for index in range(min(batch.count, RECORD_ERRORS_MAX))]
    raise RecordsRejected(ErrorCode.INVALID_TIMESTAMP, why, errors)


def _no_batch(view: memoryview) -> KafkaError:
    """Why `view` is not exactly one batch of magic 2 at offset 0, in the order in which Kafka looks."""
    left = len(view)
    if left < _SIZE_UP_TO_MAGIC:
        return invalid(f"no record batch in {left} bytes; a partition needs exactly one")
    length, magic = int.from_bytes(view[8:12], "big", signed=True), view[16]
    if length < HEADER_BYTES - LOG_OVERHEAD and (magic == 2 or length < 14):
        return KafkaError(ErrorCode.CORRUPT_MESSAGE, f"batch of {length} bytes, less than its own header")
    if magic > 2:
        return KafkaError(ErrorCode.CORRUPT_MESSAGE, f"batch of unknown magic {magic}")
    if magic < 2:
        return invalid(f"records in message format {magic}; only record batches (magic 2) are taken")
    if length + LOG_OVERHEAD > left:
        return invalid(f"batch of {length + LOG_OVERHEAD} bytes cut off after {left}")
    if length + LOG_OVERHEAD < left:
        return invalid(f"{left - length - LOG_OVERHEAD} bytes after the batch; a partition needs exactly one")
    return invalid(f"base offset {int.from_bytes(view[:8], 'big', signed=True)}; a producer must send 0")


def _cut_off(count: int) -> KafkaError:
    return invalid(f"the batch ends before the last of its {count} records")


def _does_not_add_up(position: int, end: int, count: int) -> KafkaError:
    if position > end:
        return invalid(f"the last of {count} records goes {position - end} bytes beyond the batch")
    return invalid(f"{end - position} bytes after the last of {count} records")
