"""The small text files beside the data: offset checkpoints, leader epochs, meta.properties, partition.metadata.

Formats are Kafka's. Knows how to read them and how to replace one so that a crash leaves the old or the new, whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from functools import lru_cache
from uuid import UUID

from kbroker.model import TopicPartition, uuid_of, uuid_text
from kbroker.seams import Buffer, Disk, File

EPOCHS_FILE = "leader-epoch-checkpoint"
METADATA_FILE = "partition.metadata"

_VERSION = "0"  # first line of every checkpoint


TEMPORARY = ".tmp"


def replace_file(disk: Disk, path: str, content: Buffer, *, fsync: bool) -> None:
    """Put `content` at `path` in one step: a crash shows the old file or the new one, whole. Durable if `fsync`."""
    prepare_file(disk, path, content, fsync=fsync)
    put_in_place(disk, path)
    if fsync:
        disk.sync_dir(path.rpartition("/")[0])


def prepare_file(disk: Disk, path: str, content: Buffer, *, fsync: bool, suffix: str = TEMPORARY) -> str:
    """The first half: write it beside. Returns where."""
    file = write_beside(disk, path, content, suffix=suffix)
    if fsync:
        file.sync()
        file.close()
    return path + suffix


def write_beside(disk: Disk, path: str, content: Buffer, *, suffix: str = TEMPORARY) -> File:
    """Write `content` to a new file beside `path`; returns it, not synced."""
    file = disk.open(path + suffix, create=True)
    try:
        if file.size:  # left by a crash
            file.truncate(0)
        file.append([content])
    finally:
        file.close()
    return file


def put_in_place(disk: Disk, path: str) -> None:
    """The second half: the file beside takes the name."""
    disk.rename(path + TEMPORARY, path)


def read_offsets(disk: Disk, path: str) -> dict[TopicPartition, int]:
    """An offset checkpoint; empty when missing. ValueError when it is not one."""
    offsets = {}
    for line in _lines(disk, path):
        topic, partition, offset = line.split(" ")
        offsets[TopicPartition(topic, int(partition))] = int(offset)
    return offsets


def encode_offsets(offsets: Mapping[TopicPartition, int]) -> bytes:
    """An offset checkpoint's content."""
    return _checkpoint([f"{topic} {partition} {offset}" for (topic, partition), offset in offsets.items()])


def read_epochs(disk: Disk, path: str) -> list[tuple[int, int]]:
    """`leader-epoch-checkpoint`: (epoch, start offset) pairs, both rising. ValueError when it is not one."""
    pairs: list[tuple[int, int]] = []
    for line in _lines(disk, path):
        epoch, start = line.split(" ")
        pairs.append((int(epoch), int(start)))
    for before, after in itertools.pairwise(pairs):
        if before[0] >= after[0] or before[1] > after[1]:
            raise ValueError(f"{path}: epoch {after[0]} at {after[1]} after epoch {before[0]} at {before[1]}")
    return pairs


def encode_epochs(pairs: Iterable[tuple[int, int]]) -> bytes:
    """Content of `leader-epoch-checkpoint`."""
    return _checkpoint([f"{epoch} {start}" for epoch, start in pairs])


def read_properties(disk: Disk, path: str) -> dict[str, str]:
    """A Java properties file of plain `name=value` lines."""
    values = {}
    for line in disk.read(path).decode().splitlines():
        line = line.strip()
        if line and line[0] not in "#!":
            name, separator, value = line.partition("=")
            if not separator:
                raise ValueError(f"{path}: no '=' in {line!r}")
            values[name.strip()] = value.strip()
    return values


def write_properties(disk: Disk, path: str, values: Mapping[str, str], *, fsync: bool) -> None:
    """Replace a properties file."""
    lines = "".join(f"{name}={value}\n" for name, value in values.items())
    replace_file(disk, path, lines.encode(), fsync=fsync)


def partition_metadata(topic_id: UUID) -> bytes:
    """Content of `partition.metadata`."""
    return f"version: 0\ntopic_id: {uuid_text(topic_id)}\n".encode()


def read_partition_metadata(disk: Disk, folder: str) -> UUID | None:
    """The topic id that a partition's folder belongs to; None when its file is missing or torn."""
    try:
        return _topic_id(disk.read(f"{folder}/{METADATA_FILE}"))
    except (FileNotFoundError, KeyError, ValueError):
        return None


@lru_cache(maxsize=1024)
def _topic_id(metadata: bytes) -> UUID | None:
    """A topic's partitions say the same."""
    fields = dict(line.split(": ", 1) for line in metadata.decode().splitlines() if line)
    return uuid_of(fields["topic_id"]) if fields.get("version") == "0" else None


def _checkpoint(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in (_VERSION, str(len(lines)), *lines)).encode()


def _lines(disk: Disk, path: str) -> list[str]:
    try:
        raw = disk.read(path)
    except FileNotFoundError:
        return []
    lines = raw.decode().splitlines()
    if not lines:  # Kafka makes the file before it has anything to say
        return []
    if len(lines) < 2 or lines[0] != _VERSION or int(lines[1]) != len(lines) - 2:
        raise ValueError(f"{path} is no checkpoint of version {_VERSION}, or is torn")
    return lines[2:]
