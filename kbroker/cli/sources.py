"""From lines to batches: values, keys and values, or JSON objects. Knows no terminal."""

from __future__ import annotations

import re
import time
from base64 import b64decode
from binascii import Error as NotBase64
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import msgspec

from kbroker.cli.client.batches import RECORDS_MAX, Headers, encode_pairs, encode_records, encode_values
from kbroker.cli.client.errors import ClientError
from kbroker.cli.client.producer import Body, Producer
from kbroker.cli.output import did_you_mean
from kbroker.protocol.records import Record

T = TypeVar("T")

# Encoded records of one batch, about: a broker's max.message.bytes is 1 MiB by default.
BATCH_BYTES = 900_000
RECORD_OVERHEAD = 24  # bytes of a record beside its key, value and headers, at most


class BadLine(ClientError):
    """A line that is no record. Nothing of the lines that came with it is sent."""


class Source(Protocol):
    """Turns lines into records and sends them."""

    async def send(self, lines: list[bytes]) -> None: ...


class ValueSource:
    """Each line is a value."""

    def __init__(self, producer: Producer, tail: bytes, partition: int | None) -> None:
        self._producer, self._tail, self._partition = producer, tail, partition

    async def send(self, lines: list[bytes]) -> None:
        """Send lines; the records of one batch go to one partition."""
        now = now_ms()
        overhead = RECORD_OVERHEAD + len(self._tail)
        for values in cut(lines, list(map(len, lines)), overhead):
            partition = self._producer.any_partition() if self._partition is None else self._partition
            await self._producer.send(
                partition, Body(encode_values(values, self._tail), len(values), (now, now))
            )


class PairSource:
    """Each line is a key, the separator, a value."""

    def __init__(self, producer: Producer, tail: bytes, partition: int | None, separator: bytes) -> None:
        self._producer, self._tail, self._partition = producer, tail, partition
        self._separator = separator
        self._lines = 0

    async def send(self, lines: list[bytes]) -> None:
        """Send lines, each to its key's partition."""
        producer, separator, fixed = self._producer, self._separator, self._partition
        by_partition: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
        for line in lines:
            self._lines += 1
            key, found, value = line.partition(separator)
            if not found:
                raise BadLine(
                    f"line {self._lines} has no {separator.decode('utf-8', 'replace')!r} after its key"
                )
            by_partition[producer.partition_of(key) if fixed is None else fixed].append((key, value))
        now = now_ms()
        overhead = RECORD_OVERHEAD + len(self._tail)
        for partition, pairs in by_partition.items():
            for some in cut(pairs, [len(key) + len(value) for key, value in pairs], overhead):
                await producer.send(partition, Body(encode_pairs(some, self._tail), len(some), (now, now)))


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """A record as a line of JSON. What is not a string in `value` or `key` is sent as JSON text.

    A name that is none of these is refused: of a mistyped `value` a record without one would be made, a tombstone.
    """

    value: msgspec.Raw = msgspec.Raw(b"null")
    key: msgspec.Raw = msgspec.Raw(b"null")
    value_base64: str | None = None
    key_base64: str | None = None
    headers: dict[str, str | None] | list[tuple[str, str | None]] = msgspec.field(default_factory=dict)
    headers_base64: list[tuple[str, str | None]] = msgspec.field(default_factory=list)
    partition: int | None = None
    timestamp: int | None = None
    # `consume` writes them; where a record goes does not depend on them
    topic: msgspec.Raw = msgspec.Raw(b"null")
    offset: msgspec.Raw = msgspec.Raw(b"null")


class JsonSource:
    """Each line is an object; `consume --output json` writes the same."""

    def __init__(self, producer: Producer, headers: Headers, partition: int | None) -> None:
        self._producer, self._headers, self._partition = producer, tuple(headers), partition
        self._decode = msgspec.json.Decoder(Line).decode
        self._lines = 0

    async def send(self, lines: list[bytes]) -> None:
        """Send lines, each to the partition it names, else its key's."""
        now = now_ms()
        by_partition: dict[int, list[Record]] = defaultdict(list)
        turn = self._producer.any_partition()
        for line in lines:
            self._lines += 1
            if not line.strip():
                continue
            record, partition = self._read(line, now)
            if partition is None:
                partition = turn if record.key is None else self._producer.partition_of(record.key)
            by_partition[partition].append(record)
        for partition, records in by_partition.items():
            for some in cut(records, list(map(size_of, records)), RECORD_OVERHEAD):
                first = some[0].timestamp
                times = (first, max(record.timestamp for record in some))
                await self._producer.send(partition, Body(encode_records(some, first), len(some), times))

    def _read(self, text: bytes, now: int) -> tuple[Record, int | None]:
        try:
            line = self._decode(text)
            key = bytes_of(line.key, line.key_base64)
            value = bytes_of(line.value, line.value_base64)
            named = line.headers.items() if isinstance(line.headers, dict) else line.headers
            headers = [(name, None if each is None else each.encode()) for name, each in named]
            headers += [(name, None if each is None else decoded(each)) for name, each in line.headers_base64]
        except (msgspec.DecodeError, NotBase64, UnicodeError) as error:
            raise BadLine(f"line {self._lines} is not a record in JSON: {said(error)}") from None
        timestamp = now if line.timestamp is None else line.timestamp
        partition = line.partition if self._partition is None else self._partition
        return Record(-1, timestamp, key, value, (*self._headers, *headers)), partition


def said(error: Exception) -> str:
    """What is wrong with a line; of an unknown field also what it may be meant to be."""
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", str(error), re.DOTALL)
    if unknown is None:
        return str(error)
    names = Line.__struct_fields__
    return f"there is no field {unknown[1]!r}{did_you_mean(unknown[1], names, otherwise=', '.join(names))}"


def bytes_of(raw: msgspec.Raw, base64: str | None) -> bytes | None:
    """A key or value: text, null, base64, or any JSON as it stands."""
    if base64 is not None:
        return decoded(base64)
    text = bytes(raw)
    if text == b"null":
        return None
    return msgspec.json.decode(text, type=str).encode() if text[:1] == b'"' else text


def decoded(base64: str) -> bytes:
    """Bytes of their base64. NotBase64 where it is not."""
    return b64decode(base64, validate=True)


def size_of(record: Record) -> int:
    """Bytes of its parts."""
    headers = sum(len(name) * 4 + len(value or b"") + 8 for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


def cut(items: Sequence[T], sizes: Sequence[int], overhead: int) -> Iterator[Sequence[T]]:
    """The items in runs that fit into a batch."""
    if len(items) <= RECORDS_MAX and sum(sizes) + overhead * len(items) <= BATCH_BYTES:
        yield items
        return
    start = total = 0
    for at, size in enumerate(sizes):
        if at > start and (total + size + overhead > BATCH_BYTES or at - start >= RECORDS_MAX):
            yield items[start:at]
            start, total = at, 0
        total += size + overhead
    yield items[start:]


def now_ms() -> int:
    """The time of records that bring none."""
    return time.time_ns() // 1_000_000
