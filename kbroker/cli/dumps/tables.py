"""Dumps of producer snapshots, of aborted transactions (.txnindex) and of the checkpoints, which are text."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from kbroker.cli.dumps.common import Damage, Depth, parse_number, plain_name, read_small, shown, time_text
from kbroker.protocol.crc import crc32c

CHECKPOINTS = {
    "leader-epoch-checkpoint": ("epoch", "start_offset"),
    "recovery-point-offset-checkpoint": ("topic", "partition", "offset"),
    "log-start-offset-checkpoint": ("topic", "partition", "offset"),
    "replication-offset-checkpoint": ("topic", "partition", "offset"),
    "cleaner-offset-checkpoint": ("topic", "partition", "offset"),
}

_SNAPSHOT_HEAD = Struct(">hIi")  # version, CRC-32C of what follows it, number of entries
# producer id, epoch, last sequence, last offset, offset delta, timestamp, coordinator epoch, first offset of its txn
_PRODUCER = Struct(">qhiqiqiq")
_ABORTED = Struct(">hqqqq")  # version, producer id, first and last offset, last stable offset


def dump_snapshot(path: str, depth: Depth) -> Iterator[str]:
    """The producers of a .snapshot file."""
    data = read_small(path)
    if isinstance(data, Damage):
        yield data
        return
    if len(data) < _SNAPSHOT_HEAD.size:
        yield Damage(f"position=0: {len(data)} bytes, its head alone has {_SNAPSHOT_HEAD.size}")
        return
    version, crc, count = _SNAPSHOT_HEAD.unpack_from(data)
    if version != 1:
        yield Damage(f"position=0: version {version}; only 1 is known")
        return
    if crc32c(data[6:]) != crc:
        yield Damage("position=2: the CRC does not match the bytes after it")
    for position in range(_SNAPSHOT_HEAD.size, len(data) - _PRODUCER.size + 1, _PRODUCER.size):
        producer, epoch, sequence, offset, delta, timestamp, coordinator, txn = _PRODUCER.unpack_from(
            data, position
        )
        yield (
            f"producer={producer} epoch={epoch} last_sequence={sequence} last_offset={offset} offset_delta={delta}"
            f" timestamp={time_text(timestamp)} coordinator_epoch={coordinator} txn_first_offset={txn}"
        )
    if len(data) != _SNAPSHOT_HEAD.size + count * _PRODUCER.size:
        yield Damage(
            f"position=6: {count} producers announced, {len(data) - _SNAPSHOT_HEAD.size} bytes follow"
        )
    yield f"{count} producers"


def dump_aborted(path: str, depth: Depth) -> Iterator[str]:
    """The aborted transactions of a .txnindex file."""
    data = read_small(path)
    if isinstance(data, Damage):
        yield data
        return
    whole = len(data) // _ABORTED.size * _ABORTED.size
    for number, entry in enumerate(_ABORTED.iter_unpack(data[:whole])):
        version, producer, first, last, stable = entry
        if version != 0:
            yield Damage(f"entry={number}: version {version}; only 0 is known")
            return
        yield f"producer={producer} offsets={first}..{last} last_stable_offset={stable}"
        if not 0 <= first <= last:
            yield Damage(f"entry={number}: from offset {first} to {last}")
    if len(data) > whole:
        yield Damage(
            f"entry={whole // _ABORTED.size}: {len(data) - whole} bytes; an entry has {_ABORTED.size}"
        )


def dump_checkpoint(path: str, depth: Depth) -> Iterator[str]:
    """The lines of a checkpoint: `0`, their number, then fields set apart by a space, the last ones numbers."""
    fields = CHECKPOINTS[plain_name(path)]
    data = read_small(path)
    if isinstance(data, Damage):
        yield data
        return
    lines = data.decode("utf-8", "backslashreplace").split("\n")
    if lines[-1] == "":
        del lines[-1]
    if not lines:
        return  # Kafka makes a checkpoint before it has something to write
    if lines[0] != "0":
        yield Damage(f"line=1: version {shown(lines[0])}; only 0 is known")
        return
    if len(lines) < 2 or parse_number(lines[1]) != len(lines) - 2:
        announced = shown(lines[1]) if len(lines) > 1 else "nothing"
        yield Damage(f"line=2: {announced} announced, {max(len(lines) - 2, 0)} lines follow")
    last = (-1, -1)
    for number, line in enumerate(lines[2:], 3):
        words = line.split(" ")
        numbers = [parse_number(word) for word in words[-2:]]
        if len(words) != len(fields) or len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
            yield Damage(f"line={number}: not {' '.join(fields)}: {shown(line)}")
            continue
        yield " ".join(f"{field}={shown(word)}" for field, word in zip(fields, words, strict=True))
        if fields[0] == "epoch":
            if numbers[0] <= last[0] or numbers[1] < last[1]:
                yield Damage(f"line={number}: does not grow: epoch={numbers[0]} start_offset={numbers[1]}")
            last = (numbers[0], numbers[1])
