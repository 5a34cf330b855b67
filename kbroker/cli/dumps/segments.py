"""Dump of a .log file: its batches, their records, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from kbroker.cli.dumps.common import (
    Damage,
    Depth,
    base_offset_of,
    data_text,
    length_text,
    shown,
    size_of,
    time_text,
)
from kbroker.errors import KafkaError
from kbroker.protocol.compression import CODEC_NAMES
from kbroker.protocol.crc import crc32c
from kbroker.protocol.records import CRC_START, HEADER_BYTES, Record, RecordBatch, decode_records
from kbroker.protocol.validation import walk_slices

# A batch is read whole, and decompressed whole when its records are looked at. Brokers take requests of 100 MiB.
BATCH_BYTES_MAX = 256 * 1024 * 1024

CONTROL_TYPES = {0: "ABORT", 1: "COMMIT", 2: "LEADER_CHANGE", 3: "SNAPSHOT_HEADER", 4: "SNAPSHOT_FOOTER"}


def dump_segment(path: str, depth: Depth) -> Iterator[str]:
    """The batches of a .log file."""
    batches = records = 0
    first = next_offset = base_offset_of(path)
    with open(path, "rb") as file:
        size = size_of(file)
        position = 0
        for position, batch in _batches(file, size):
            if isinstance(batch, Damage):
                yield batch
                yield Damage(f"position={position}: the last {size - position} bytes cannot be read")
                return
            yield f"position={position} {_describe(batch)}"
            yield from _at(position, _check_batch(batch, next_offset, depth))
            batches, records = batches + 1, records + max(batch.count, 0)
            next_offset = max(next_offset, batch.next_offset)
    yield f"{batches} batches, {records} records, offsets {first}..{next_offset} (exclusive), {size} bytes"


def _batches(file: BinaryIO, size: int) -> Iterator[tuple[int, RecordBatch | Damage]]:
    """(position, batch) for each whole batch; where one is not, a Damage, and the end."""
    position = 0
    while position < size:
        head = file.read(HEADER_BYTES)
        why = unfit(head, size - position)
        if why is not None:
            yield position, Damage(f"position={position}: {why}")
            return
        length = RecordBatch(memoryview(head)).size
        data = head + file.read(length - HEADER_BYTES)
        if len(data) < length:
            yield position, Damage(f"position={position}: the file became shorter while it was read")
            return
        yield position, RecordBatch(memoryview(data))
        position += length


def unfit(head: bytes, left: int) -> str | None:
    """Why no batch starts with `head` and has `left` bytes at most."""
    if len(head) < HEADER_BYTES:
        return f"{left} bytes, a batch's header alone has {HEADER_BYTES}"
    if not any(head):
        return "zeros: space that was reserved and never written, or lost in a crash"
    batch = RecordBatch(memoryview(head))
    if batch.magic != 2:
        return f"magic {batch.magic}; only record batches (2) are known"
    if batch.size < HEADER_BYTES:
        return f"batch of {batch.size} bytes, a batch's header alone has {HEADER_BYTES}"
    if batch.size > left:
        return f"batch of {batch.size} bytes, {left} left"
    if batch.size > BATCH_BYTES_MAX:
        return f"batch of {batch.size} bytes, more than {BATCH_BYTES_MAX}"
    return None


def _check_batch(batch: RecordBatch, next_offset: int, depth: Depth) -> Iterator[str]:
    """Its records, as deep as wanted, and what is wrong with the batch."""
    if batch.base_offset < next_offset:
        yield Damage(f"offset {batch.base_offset} where {next_offset} or more was due")
    if batch.last_offset_delta < 0 or batch.count < 0 or batch.count > batch.last_offset_delta + 1:
        yield Damage(f"{batch.count} records in offsets {batch.base_offset}..{batch.last_offset}")
    if not batch.crc_ok:
        yield Damage(
            f"CRC {crc32c(batch.view[CRC_START:]):#010x} of the bytes, {batch.crc:#010x} in the header"
        )
        return
    try:
        if depth.records:
            for record in decode_records(batch, decompressed_max=BATCH_BYTES_MAX):
                yield "  " + _describe_record(record, batch, depth)
        elif depth.verify:
            for _ in walk_slices(batch, decompressed_max=BATCH_BYTES_MAX):
                pass
    except KafkaError as error:
        yield Damage(error.message or str(error))


def _at(position: int, lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield Damage(f"position={position}: {line}") if isinstance(line, Damage) else line


def _describe(batch: RecordBatch) -> str:
    times = "LogAppendTime" if batch.is_log_append_time else "CreateTime"
    line = (
        f"offsets={batch.base_offset}..{batch.last_offset} count={batch.count} size={batch.size} epoch={batch.epoch}"
        f" codec={CODEC_NAMES.get(batch.codec, batch.codec)} {times}={time_text(batch.max_timestamp)}"
    )
    if batch.producer_id >= 0:
        line += (
            f" producer={batch.producer_id} producer_epoch={batch.producer_epoch}"
            f" sequences={batch.base_sequence}..{batch.last_sequence}"
        )
    flags = (
        ("transactional", batch.is_transactional),
        ("control", batch.is_control),
        (f"delete_horizon={time_text(batch.base_timestamp)}", batch.has_delete_horizon),
    )
    return line + "".join(f" {name}" for name, on in flags if on) + f" crc={batch.crc:#010x}"


def _describe_record(record: Record, batch: RecordBatch, depth: Depth) -> str:
    line = f"offset={record.offset} timestamp={time_text(record.timestamp)}"
    if batch.is_control and record.key is not None and len(record.key) >= 4:
        kind = int.from_bytes(record.key[2:4], "big", signed=True)
        line += f" control={CONTROL_TYPES.get(kind, kind)}"
        if kind in (0, 1) and record.value is not None and len(record.value) >= 6:
            line += f" coordinator_epoch={int.from_bytes(record.value[2:6], 'big', signed=True)}"
    elif not depth.data:
        line += (
            f" key={length_text(record.key)} value={length_text(record.value)} headers={len(record.headers)}"
        )
    else:
        line += f" key={data_text(record.key)} value={data_text(record.value)}"
        line += "".join(f" header {shown(name)}={data_text(value)}" for name, value in record.headers)
    return line
