"""What the dumpers share: lines and damage, names of files, and values as text that no terminal obeys."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

# Checkpoints and snapshots are small; a line or an entry beyond this is not worth the memory of finding out.
SMALL_FILE_BYTES_MAX = 64 * 1024 * 1024

WORK_SUFFIXES = (".deleted", ".cleaned", ".swap")  # what a segment's files are called while they come or go

_TIME_END_MS = 253_402_300_800_000  # the year 10000, where datetime ends


class Damage(str):
    """A line about something that should not be in the file."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Depth:
    """How closely to look."""

    records: bool = False  # decode each record and show it
    data: bool = False  # keys, values and headers too
    verify: bool = False  # the records must fill their batch


Dump = Callable[[str, Depth], Iterator[str]]


def plain_name(path: str) -> str:
    name = os.path.basename(path)
    for suffix in WORK_SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def base_offset_of(path: str) -> int:
    """The offset in a file's name; 0 for a name without one."""
    return max(parse_number(os.path.splitext(plain_name(path))[0]) or 0, 0)


def size_of(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def read_small(path: str) -> bytes | Damage:
    with open(path, "rb") as file:
        data = file.read(SMALL_FILE_BYTES_MAX + 1)
    if len(data) > SMALL_FILE_BYTES_MAX:
        return Damage(f"position=0: more than {SMALL_FILE_BYTES_MAX} bytes")
    return data


def parse_number(text: str) -> int | None:
    """A decimal number of up to twenty digits, as in the names of segments; or None."""
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else None


def time_text(timestamp: int) -> str:
    if not 0 <= timestamp < _TIME_END_MS:
        return str(timestamp)
    return f"{timestamp}({datetime.fromtimestamp(timestamp / 1000, UTC).isoformat(timespec='milliseconds')[:-6]}Z)"


def length_text(data: bytes | None) -> str:
    return "null" if data is None else f"{len(data)}B"


def data_text(data: bytes | None) -> str:
    """Text as text, all else as hex: nothing that a terminal would obey."""
    if data is None:
        return "null"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return f"0x{data.hex()}"
    return shown(text) if text.isprintable() else f"0x{data.hex()}"


def shown(text: str) -> str:
    """Text that a terminal takes as text, in quotes where its ends would be unclear."""
    if not text.isprintable():
        return ascii(text)
    return text if text and " " not in text else f"'{text}'"
