"""The cluster log's files: `journal.<first index>` and `snapshot.<last index>`. Bytes and file names; runs nothing.

Journal: 8 bytes of header ("kbroker", version 1), then frames, one per group of entries written and synced together:

    magic "kbJ1" | length of the body u32 | CRC-32C of the body u32 | body
    body:  flags u8 (bit 0: all before this frame was synced when it was written) | entries
    entry: length of the command u32 | index u64 | term u64 | command

Snapshot: 8 bytes of header ("kbrosnp", version 1), CRC-32C of the rest u32, index u64, term u64, state. Integers are big
endian, indexes grow by one, both names carry 20 digits. A snapshot is written under another name and renamed; a frame
that is not whole at the journal's end was never acknowledged and is cut. One that is followed by a frame which vouches
for it is damage, and never cut.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from kbroker.errors import StartError
from kbroker.protocol.crc import crc32c

JOURNAL_HEADER = b"kbroker\x01"
SNAPSHOT_HEADER = b"kbrosnp\x01"
MAGIC = b"kbJ1"
SYNCED_BEFORE = 1

_FRAME = struct.Struct(">4sII")
_ENTRY = struct.Struct(">IQQ")
_SNAPSHOT = struct.Struct(">8sIQQ")


class Entry(NamedTuple):
    """One command at its place in the log: its index (`number`, as tuples have a method of that name) and term."""

    number: int
    term: int
    command: bytes


class Journal(NamedTuple):
    """What a journal holds: its entries and where its good bytes end."""

    entries: list[Entry]
    end: int


def journal_name(first_index: int) -> str:
    """The name of the journal that begins with this entry."""
    return f"journal.{first_index:020d}"


def snapshot_name(index: int) -> str:
    """The name of the snapshot of the state after this entry."""
    return f"snapshot.{index:020d}"


def index_of(name: str, kind: str) -> int | None:
    """The index in the name of a file of this kind ("journal", "snapshot"); None for other names."""
    prefix, _, digits = name.partition(".")
    return int(digits) if prefix == kind and len(digits) == 20 and digits.isdigit() else None


def frame(entries: Sequence[Entry], *, synced_before: bool) -> bytes:
    """A group of entries, as one append."""
    parts = [bytes((SYNCED_BEFORE if synced_before else 0,))]
    for number, term, command in entries:
        parts += (_ENTRY.pack(len(command), number, term), command)
    body = b"".join(parts)
    return _FRAME.pack(MAGIC, len(body), crc32c(body)) + body


def read_journal(data: bytes, path: str) -> Journal:
    """The entries of a journal; what is torn at its end is left out, what is damaged before is a StartError."""
    if _is_torn_header(data):
        return Journal([], 0)
    if not data.startswith(JOURNAL_HEADER):
        raise damaged(path, "its header is not this version's")
    entries: list[Entry] = []
    at = len(JOURNAL_HEADER)
    while at < len(data):
        body = _body(data, at)
        if body is None:
            _check_torn(data, at, path)
            break
        entries += _entries(body, path)
        at += _FRAME.size + len(body)
    return Journal(entries, at)


def _is_torn_header(data: bytes) -> bool:
    """Whether power went before the header was synced, so that nothing follows it: some of its bytes, zeros for others."""
    if len(data) > len(JOURNAL_HEADER) or data == JOURNAL_HEADER:
        return False
    return all(byte in (0, wanted) for byte, wanted in zip(data, JOURNAL_HEADER, strict=False))


def _body(data: bytes, at: int) -> memoryview | None:
    """The body of the frame at `at`, or None where there is no whole one."""
    if at + _FRAME.size > len(data):
        return None
    magic, length, crc = _FRAME.unpack_from(data, at)
    body = memoryview(data)[at + _FRAME.size : at + _FRAME.size + length]
    if magic != MAGIC or not 0 < length == len(body) or crc32c(body) != crc:
        return None
    return body


def _check_torn(data: bytes, at: int, path: str) -> None:
    """Raise if a later frame says that what is broken at `at` had been synced."""
    later = data.find(MAGIC, at + 1)
    while later != -1:
        body = _body(data, later)
        if body is not None and body[0] & SYNCED_BEFORE:
            raise damaged(path, f"a bad checksum at byte {at}, before what was acknowledged later")
        later = data.find(MAGIC, later + 1)


def _entries(body: memoryview, path: str) -> list[Entry]:
    entries = []
    at = 1
    while at < len(body):
        if at + _ENTRY.size > len(body):
            raise damaged(path, "an entry reaches beyond its frame")
        length, number, term = _ENTRY.unpack_from(body, at)
        at += _ENTRY.size
        if at + length > len(body):
            raise damaged(path, "an entry reaches beyond its frame")
        entries.append(Entry(number, term, bytes(body[at : at + length])))
        at += length
    return entries


def snapshot_file(index: int, term: int, state: bytes) -> bytes:
    """The bytes of a snapshot file."""
    rest = struct.pack(">QQ", index, term) + state
    return SNAPSHOT_HEADER + struct.pack(">I", crc32c(rest)) + rest


def read_snapshot(data: bytes, path: str) -> Entry:
    """Index, term and state of a snapshot file; StartError when it is damaged."""
    if len(data) < _SNAPSHOT.size:
        raise damaged(path, "it is too short")
    header, crc, index, term = _SNAPSHOT.unpack_from(data)
    if header != SNAPSHOT_HEADER:
        raise damaged(path, "its header is not this version's")
    if crc32c(memoryview(data)[12:]) != crc:
        raise damaged(path, "its checksum is wrong")
    return Entry(index, term, data[_SNAPSHOT.size :])


def damaged(path: str, why: str) -> StartError:
    """The refusal to start on a file of the cluster log."""
    return StartError(
        f"{path} is damaged ({why}): restore it from a copy, or move its folder away to take the topics over "
        "from the partition folders (topic configs and other cluster settings are then lost)"
    )
