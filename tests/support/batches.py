"""Record batches for tests: built, and broken in one place with the rest kept consistent."""

from __future__ import annotations

import struct
from types import SimpleNamespace

from crc32c import crc32c
from hypothesis import strategies as st

from kbroker.protocol.records import Record, RecordBatch, build_batch, record

NOW = 1_700_000_000_000
HOUR = 3_600_000

# where the header's fields lie, and how they are written
FIELDS = {
    "base_offset": (">q", 0),
    "batch_length": (">i", 8),
    "epoch": (">i", 12),
    "magic": (">b", 16),
    "crc": (">I", 17),
    "attributes": (">h", 21),
    "last_offset_delta": (">i", 23),
    "base_timestamp": (">q", 27),
    "max_timestamp": (">q", 35),
    "producer_id": (">q", 43),
    "producer_epoch": (">h", 51),
    "base_sequence": (">i", 53),
    "count": (">i", 57),
}


def three(**options) -> bytes:
    """A batch of three records with keys."""
    return build_batch([record(b"v%d" % n, key=b"k", timestamp=NOW) for n in range(3)], **options)


def with_crc(batch: bytes) -> bytes:
    """The batch with the CRC of its bytes."""
    return batch[:17] + struct.pack(">I", crc32c(batch[21:])) + batch[21:]


def with_fields(batch: bytes, **fields: int) -> bytes:
    """The batch with header fields changed, and a CRC that agrees unless `crc` is one of them."""
    changed = bytearray(batch)
    for name, value in fields.items():
        layout, at = FIELDS[name]
        struct.pack_into(layout, changed, at, value)
    return bytes(changed) if "crc" in fields else with_crc(bytes(changed))


def with_records(batch: bytes, records: bytes) -> bytes:
    """The batch with other bytes after its header; length and CRC agree."""
    return with_fields(batch[:61] + records, batch_length=49 + len(records))


def writable(batch: bytes) -> memoryview:
    """A view as the connection's buffer gives it."""
    return memoryview(bytearray(batch))


def view_of(batch: bytes) -> RecordBatch:
    return RecordBatch(writable(batch))


def topic_config(**changes) -> SimpleNamespace:
    """What validation reads of a topic's config, with Kafka's defaults."""
    defaults = {
        "max_message_bytes": 1_048_588,
        "cleanup_policy": frozenset({"delete"}),
        "message_timestamp_type": "CreateTime",
        "message_timestamp_before_max_ms": 2**63 - 1,
        "message_timestamp_after_max_ms": HOUR,
    }
    return SimpleNamespace(**defaults | changes)


payloads = st.none() | st.binary(max_size=200) | st.sampled_from([63, 64, 8191, 8192]).map(lambda n: b"x" * n)
headers = st.lists(st.tuples(st.text(max_size=10), st.none() | st.binary(max_size=20)), max_size=3).map(tuple)


@st.composite
def record_lists(draw) -> list[Record]:
    """One to six records at offsets from 0 on, in the times of a working producer."""
    number = draw(st.integers(1, 6))
    times = st.integers(0, 2**42)
    return [Record(n, draw(times), draw(payloads), draw(payloads), draw(headers)) for n in range(number)]
