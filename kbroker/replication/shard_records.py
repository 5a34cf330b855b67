"""The records of a shard: built into batches cheaply, read back from a region of a segment file. Pure but for the read.

A commit of ten offsets is ten small records, so building a batch is most of what a commit costs beside the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kbroker.errors import KafkaError, ProtocolError
from kbroker.protocol import compression
from kbroker.protocol.records import RecordBatch, append_varint, decode_records, seal_records, split_batches
from kbroker.storage.log import Region

Record = tuple[bytes, bytes | None]  # key and value; a value of None is a tombstone
Decode = Callable[[bytes | None, bytes | None], Any]

# A record's bytes beside key and value: its length and theirs (5 each at most), the offset delta (5), attributes,
# timestamp delta and the number of headers (1 each).
RECORD_OVERHEAD_MAX = 23

NO_MARKER, ABORT, COMMIT = -1, 0, 1

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


class Loaded(NamedTuple):
    """What a region of the log says: per batch (producer id in a transaction or -1, marker or -1, what was said)."""

    region: Region
    batches: list[tuple[int, int, list[Any]]]
    end: int  # offset after the last batch
    damaged: int = 0  # batches left out
    damage: str = ""  # why, of the first


def read_region(region: Region, start: int, decode: Decode) -> Loaded:
    """Read whole batches and decode their records from offset `start` on. In a thread: touches nothing but the file.

    A damaged batch is left out and counted: an older offset of some groups is better than none for all of them.
    """
    view = memoryview(bytearray(region.size))
    have = region.file.read_into(view, region.at)
    if have < region.size:
        raise EOFError(f"{have} bytes instead of {region.size}")
    found: list[tuple[int, int, list[Any]]] = []
    damaged, damage, end = 0, "", start
    for batch in split_batches(view):
        end = batch.next_offset
        try:
            found.append(_read_batch(batch, start, decode))
        except (KafkaError, ProtocolError) as error:
            damaged += 1
            damage = damage or f"batch at offset {batch.base_offset}: {error}"
    return Loaded(region, found, end, damaged, damage)


def _read_batch(batch: RecordBatch, start: int, decode: Decode) -> tuple[int, int, list[Any]]:
    if not batch.crc_ok:
        raise ProtocolError("its checksum is wrong")
    if batch.is_control:
        return batch.producer_id, _marker(batch), []
    said = []
    for record in decode_records(batch):
        if record.offset >= start:
            each = decode(record.key, record.value)
            if each is not None:
                said.append(each)
    return batch.producer_id if batch.is_transactional else -1, NO_MARKER, said


def _marker(batch: RecordBatch) -> int:
    """ABORT or COMMIT, in the second int16 of a control record's key; an emptied batch ends nothing."""
    for record in decode_records(batch):
        key = record.key or b""
        return COMMIT if key[2:4] == b"\0\1" else ABORT
    return ABORT
