"""Kafka requests as bytes, built once before the clock starts, and the few fields of answers that a load needs.

Written by hand and not with the broker's own codec: a mistake there must not hide itself here.
"""

from __future__ import annotations

import struct
import time
from typing import NamedTuple

from crc32c import crc32c

CLIENT_ID = b"bench"
ACKS_ALL = -1

PRODUCE, FETCH, LIST_OFFSETS, API_VERSIONS, CREATE_TOPICS, DELETE_TOPICS = 0, 1, 2, 18, 19, 20
INCREMENTAL_ALTER_CONFIGS = 44

# Where the fetch offset stands in a frame that `fetch` built, counted from its end; see there.
FETCH_OFFSET_FROM_END = 8 + 4 + 8 + 4 + 1 + 1 + 1 + 1 + 1


class Batch(NamedTuple):
    """A record batch as it goes over the wire."""

    data: bytes
    records: int


class Fetched(NamedTuple):
    """The answer for the one partition that was asked for."""

    error: int
    high_watermark: int
    records_size: int


def batch(records: int, value_size: int) -> Batch:
    """`records` records without keys, stamped now."""
    value = bytes(i * 7 & 0xFF for i in range(value_size))
    return Batch(batch_of([_record(i, value) for i in range(records)]), records)


def batch_of(records: list[bytes]) -> bytes:
    """A batch around encoded records, stamped now."""
    now_ms = int(time.time() * 1000)
    tail = struct.pack(">hiqqqhii", 0, len(records) - 1, now_ms, now_ms, -1, -1, -1, len(records))
    tail += b"".join(records)
    head = struct.pack(">iBI", -1, 2, crc32c(tail))  # leader epoch, magic, CRC
    return struct.pack(">qi", 0, len(head) + len(tail)) + head + tail


def batch_of_size(size_max: int, value_size: int) -> Batch:
    """As many records as fit into `size_max` bytes of batch."""
    fixed = len(batch(1, value_size).data)
    per_record = len(batch(2, value_size).data) - fixed
    records = size_max // per_record
    while len((made := batch(records, value_size)).data) > size_max:
        records -= 1
    return made


def _record(index: int, value: bytes) -> bytes:
    body = b"\x00\x00" + _varint(index) + _varint(-1) + _varint(len(value)) + value + b"\x00"
    return _varint(len(body)) + body


def keyed_record(index: int, key: bytes, value: bytes) -> bytes:
    """Number `index` of a batch."""
    body = b"\x00\x00" + _varint(index) + _varint(len(key)) + key + _varint(len(value)) + value + b"\x00"
    return _varint(len(body)) + body


def _varint(number: int) -> bytes:
    return _uvarint((number << 1) ^ (number >> 63))


def _uvarint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def compact(text: bytes) -> bytes:
    """A string of a flexible version."""
    return _uvarint(len(text) + 1) + text


def string(text: bytes) -> bytes:
    """A string of a version that is not flexible."""
    return struct.pack(">h", len(text)) + text


def frame(key: int, version: int, body: bytes, *, flexible: bool) -> bytes:
    """A whole request."""
    header = struct.pack(">hhi", key, version, 1) + string(CLIENT_ID) + (b"\x00" if flexible else b"")
    return struct.pack(">i", len(header) + len(body)) + header + body


def produce(topic: str, partition: int, records: bytes, *, acks: int = ACKS_ALL) -> bytes:
    """Produce v9 of one batch to one partition."""
    body = b"\x00" + struct.pack(">hi", acks, 30_000) + b"\x02" + compact(topic.encode())
    body += b"\x02" + struct.pack(">i", partition) + _uvarint(len(records) + 1) + records + b"\x00\x00\x00"
    return frame(PRODUCE, 9, body, flexible=True)


def produce_answer_size(topic: str) -> int:
    """How long a Produce v9 answer without an error text is, its size field included."""
    name = len(compact(topic.encode()))
    return 4 + 4 + 1 + 1 + name + 1 + (4 + 2 + 8 + 8 + 8 + 1 + 1 + 1) + 1 + 4 + 1


def produce_error(topic: str, answer: bytes) -> int:
    """The error code in a Produce v9 answer."""
    at = 4 + 4 + 1 + 1 + len(compact(topic.encode())) + 1 + 4
    return int(struct.unpack_from(">h", answer, at)[0])


def fetch(
    topic: str, partition: int, offset: int, *, max_bytes: int, max_wait_ms: int = 500, min_bytes: int = 1
) -> bytes:
    """Fetch v12 of one partition, outside any session."""
    body = struct.pack(">iiiibii", -1, max_wait_ms, min_bytes, max_bytes, 0, 0, -1)
    body += b"\x02" + compact(topic.encode()) + b"\x02"
    body += struct.pack(">iiqiqi", partition, -1, offset, -1, -1, max_bytes)
    body += b"\x00\x00\x01\x01\x00"  # tags of the partition and the topic, nothing forgotten, no rack, tags
    return frame(FETCH, 12, body, flexible=True)


def set_fetch_offset(frame: bytearray, offset: int) -> None:
    """Let a frame that `fetch` built ask for another offset."""
    struct.pack_into(">q", frame, len(frame) - FETCH_OFFSET_FROM_END, offset)


def fetched(topic: str, answer: bytes | bytearray | memoryview) -> Fetched:
    """What a Fetch v12 answer says about its partition."""
    at = 4 + 4 + 1 + (4 + 2 + 4) + 1 + len(compact(topic.encode())) + 1
    _, error, high_watermark, _, _ = struct.unpack_from(">ihqqq", answer, at)
    at += 4 + 2 + 24
    if answer[at] > 1:
        raise ValueError("aborted transactions: not expected here")
    at += 1 + 4
    size, shift = 0, 0
    while True:
        size |= (answer[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if answer[at - 1] < 0x80:
            break
    return Fetched(error, high_watermark, max(size - 1, 0))


def api_versions() -> bytes:
    """ApiVersions v3."""
    return frame(API_VERSIONS, 3, compact(b"bench") + compact(b"1") + b"\x00", flexible=True)


def create_topics(topics: dict[str, int], *, configs: dict[str, str] | None = None) -> bytes:
    """CreateTopics v4: name -> number of partitions, one replica."""
    settings = struct.pack(">i", len(configs or {}))
    for name, value in (configs or {}).items():
        settings += string(name.encode()) + string(value.encode())
    body = struct.pack(">i", len(topics))
    for name, partitions in topics.items():
        body += string(name.encode()) + struct.pack(">ihi", partitions, 1, 0) + settings
    return frame(CREATE_TOPICS, 4, body + struct.pack(">ib", 60_000, 0), flexible=False)


def create_topics_errors(answer: bytes) -> dict[str, tuple[int, str]]:
    """name -> (error, text) of the topics that a CreateTopics v4 answer refuses."""
    (count,) = struct.unpack_from(">i", answer, 12)
    at, refused = 16, {}
    for _ in range(count):
        name, at = read_string(answer, at)
        (error,) = struct.unpack_from(">h", answer, at)
        text, at = read_string(answer, at + 2)
        if error:
            refused[name] = (error, text)
    return refused


def alter_configs(kind: int, resource: str, values: dict[str, str]) -> bytes:
    """IncrementalAlterConfigs v0: set these of one resource."""
    body = struct.pack(">ib", 1, kind) + string(resource.encode()) + struct.pack(">i", len(values))
    for name, value in values.items():
        body += string(name.encode()) + b"\x00" + string(value.encode())
    return frame(INCREMENTAL_ALTER_CONFIGS, 0, body + b"\x00", flexible=False)


def alter_configs_error(answer: bytes) -> tuple[int, str]:
    """(error, text) of the one resource in an IncrementalAlterConfigs v0 answer."""
    (error,) = struct.unpack_from(">h", answer, 16)
    return error, read_string(answer, 18)[0]


def delete_topics(names: list[str]) -> bytes:
    """DeleteTopics v3."""
    body = struct.pack(">i", len(names)) + b"".join(string(n.encode()) for n in names)
    return frame(DELETE_TOPICS, 3, body + struct.pack(">i", 60_000), flexible=False)


def list_ends(topic: str, partitions: int) -> bytes:
    """ListOffsets v4 for the ends of all partitions."""
    body = struct.pack(">ibi", -1, 0, 1) + string(topic.encode()) + struct.pack(">i", partitions)
    body += b"".join(struct.pack(">iiq", p, -1, -1) for p in range(partitions))
    return frame(LIST_OFFSETS, 4, body, flexible=False)


def ends(answer: bytes) -> list[int]:
    """The offsets in a ListOffsets v4 answer, in partition order."""
    _, at = read_string(answer, 16)
    (count,) = struct.unpack_from(">i", answer, at)
    found: dict[int, int] = {}
    for i in range(count):
        partition, error, _, offset = struct.unpack_from(">ihqq", answer, at + 4 + 26 * i)
        if error:
            raise ValueError(f"ListOffsets: error {error} for partition {partition}")
        found[partition] = offset
    return [found[p] for p in sorted(found)]


def read_string(answer: bytes, at: int) -> tuple[str, int]:
    """A string, "" for null, and the position after it."""
    (size,) = struct.unpack_from(">h", answer, at)
    if size < 0:
        return "", at + 2
    return answer[at + 2 : at + 2 + size].decode(), at + 2 + size
