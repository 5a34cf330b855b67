"""The records of a shard, built into batches cheaply. Pure.

A commit of ten offsets is ten small records, so building a batch is most of what a commit costs beside the network.
"""

from __future__ import annotations

from collections.abc import Sequence

from kbroker.protocol import compression
from kbroker.protocol.records import append_varint, seal_records

Record = tuple[bytes, bytes | None]  # key and value; a value of None is a tombstone

# A record's bytes beside key and value: its length and theirs (5 each at most), the offset delta (5), attributes,
# timestamp delta and the number of headers (1 each).
RECORD_OVERHEAD_MAX = 23

ABORT, COMMIT = 0, 1  # how a transaction ended, in the key of a control record

_TABLE = 2048  # sizes and offset deltas beyond it are rare, and made when needed


def _varint(value: int) -> bytes:
    out = bytearray()
    append_varint(out, value)
    return bytes(out)


_VARINTS = tuple(_varint(value) for value in range(_TABLE))
_NULL = _varint(-1)


def build(records: Sequence[Record], timestamp_ms: int, codec: int = compression.NONE) -> bytearray:
    """A batch of `records`, all of one time. Its offset and epoch are stamped by the log."""
    varints = _VARINTS
    parts: list[bytes] = []
    for delta, (key, value) in enumerate(records):
        key_size = len(key)
        head = b"\0\0" + (varints[delta] if delta < _TABLE else _varint(delta))  # attributes, time, offset
        head += varints[key_size] if key_size < _TABLE else _varint(key_size)
        if value is None:
            middle, value = _NULL, b""
        else:
            value_size = len(value)
            middle = varints[value_size] if value_size < _TABLE else _varint(value_size)
        size = len(head) + key_size + len(middle) + len(value) + 1
        parts += (varints[size] if size < _TABLE else _varint(size), head, key, middle, value, b"\0")
    return seal_records(b"".join(parts), len(records), timestamp_ms, codec)
