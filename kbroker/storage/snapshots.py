"""A partition's producer snapshots (`<offset>.snapshot`): when taken, which is used, what is scanned behind it.

A snapshot is a shortcut: unfit, missing or newer than the log, the state is read from the batches again. It holds
each producer's newest batch, as Kafka's does; the ones before it are read from the log when a retry asks for them.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from typing import TYPE_CHECKING

from kbroker.observe import logs
from kbroker.storage import scan
from kbroker.storage.producers import SEQUENCES, ProducerStates, Sent, coordinator_epoch_of
from kbroker.storage.segment import segment_name
from kbroker.storage.slices import SLICE_BYTES, Slices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kbroker.protocol.records import RecordBatch
    from kbroker.seams import Disk, File
    from kbroker.storage.segment import Segment

log = logs.get_logger("storage")

SUFFIX = ".snapshot"
SNAPSHOTS_KEPT = 2  # the newest, and one more should the newest be damaged
# How far before a snapshot retries are looked for, in steps: wider while few batches were found. Small batches lie
# close together; five requests of a megabyte, the most that stock producers have in flight, are in the widest.
RECALL_BYTES: tuple[int, ...] = (128 * 1024, 1024 * 1024, 8 * 1024 * 1024)
RECALL_BATCHES = 512
RECALL_BATCHES_EACH = 10  # of every producer there is: its last five may lie among later ones of others

_CONTROL = 0x20
_TRANSACTIONAL = 0x10


class Snapshots:
    """The snapshot files of one partition, by offset."""

    __slots__ = ("_disk", "_folder", "_fsync", "_went", "offsets")

    def __init__(self, disk: Disk, folder: str, *, fsync: bool) -> None:
        self._disk = disk
        self._folder = folder
        self._fsync = fsync
        self._went = False  # older ones were removed; whether for good is not known
        self.offsets: list[int] = []  # rising
        if disk.exists(folder):
            names = [name.removesuffix(SUFFIX) for name in disk.list(folder) if name.endswith(SUFFIX)]
            self.offsets = sorted(int(name) for name in names if name.isdigit())

    def take(self, states: ProducerStates, offset: int, *, flushed: int) -> File:
        """Write the state at log end `offset`. Returns the file, not synced; older ones go.

        The newest one below `flushed` stays: should the power go, the others may lie beyond what is left of the log,
        and the batches below them may have been deleted.
        """
        if offset in self.offsets:  # to write it again could, for a moment, leave none
            return self._disk.open(self._path(offset))
        file = self._disk.open(self._path(offset), create=True)
        try:
            if file.size:
                file.truncate(0)
            file.append([states.encode()])
        finally:
            file.close()
        self.offsets.append(offset)
        needless = min(len(self.offsets) - SNAPSHOTS_KEPT, bisect_left(self.offsets, flushed) - 1)
        for _ in range(needless):
            self._disk.remove(self._path(self.offsets[0]))
            del self.offsets[0]
            self._went = True
        return file

    def load(self, segments: list[Segment], end: int) -> Slices[ProducerStates]:
        """The state at log end `end`: from the newest fit snapshot, and the batches behind it."""
        self.truncate_to(end)
        states, offset = ProducerStates(), 0
        while self.offsets:
            offset = self.offsets[-1]
            try:
                states = ProducerStates.decode(self._disk.read(self._path(offset)))
                break
            except ValueError as error:
                log.warning("producer snapshot dropped", file=self._path(offset), why=str(error))
                self.truncate_to(offset - 1)
                states, offset = ProducerStates(), 0
        if states.producers:
            states.recall = partial(_recall, segments, offset)
        if offset < end:
            yield from _scan(states, segments, offset, end)
        states.settled()
        return states

    def truncate_to(self, end: int) -> None:
        """Remove those newer than the log. On the disk when this returns: what is written behind `end` is another
        history, and a power cut must not bring one back that says what was there before.
        """
        while self.offsets and self.offsets[-1] > end:
            self._disk.remove(self._path(self.offsets[-1]))
            self.offsets.pop()
            self._went = True
        if self._went and self._fsync:
            self._disk.sync_dir(self._folder)
            self._went = False

    def _path(self, offset: int) -> str:
        return f"{self._folder}/{segment_name(offset)}{SUFFIX}"


def took_batch(states: ProducerStates, batch: RecordBatch, base: int) -> None:
    """Bring `states` up to date with a batch of a producer."""
    attributes = batch.attributes
    if attributes & _CONTROL:
        epoch = coordinator_epoch_of(batch.view)
        states.took_marker(batch.producer_id, batch.producer_epoch, batch.max_timestamp, epoch)
        return
    states.took(
        batch.producer_id,
        batch.producer_epoch,
        batch.base_sequence,
        base,
        batch.last_offset_delta,
        batch.max_timestamp,
        attributes & _TRANSACTIONAL,
    )


def took_header(states: ProducerStates, batch: scan.Batch, file: File) -> None:
    """The same for a batch in a file."""
    if batch.attributes & _CONTROL:
        epoch = coordinator_epoch_of(scan.read_batch(file, batch))
        states.took_marker(batch.producer_id, batch.producer_epoch, batch.max_timestamp, epoch)
        return
    states.took(
        batch.producer_id,
        batch.producer_epoch,
        batch.base_sequence,
        batch.base,
        batch.last_offset_delta,
        batch.max_timestamp,
        batch.attributes & _TRANSACTIONAL,
    )


def _scan(states: ProducerStates, segments: list[Segment], offset: int, end: int) -> Slices[None]:
    """Take the batches from `offset` to `end`."""
    for number, segment in enumerate(segments):
        next_base = segments[number + 1].base if number + 1 < len(segments) else end
        if next_base <= offset or segment.base >= end:
            continue
        size = segment.file.size
        at = segment.indexed_position(offset) if offset > segment.base and segment.index is not None else 0
        for batch in scan.walk_produced_in_slices(segment.file, at, size):
            if batch is None:
                yield SLICE_BYTES
            elif offset <= batch.base < end:
                took_header(states, batch, segment.file)


def _recall(segments: list[Segment], offset: int, states: ProducerStates) -> None:
    """Tell `states` of the batches right before the snapshot at `offset`. OSError when they could not be read now."""
    found: list[scan.Batch] = []
    enough = max(RECALL_BATCHES, RECALL_BATCHES_EACH * len(states.producers))
    for reach in RECALL_BYTES:
        try:
            found = list(_before(segments, offset, reach))
        except scan.Damaged as error:
            log.warning("earlier batches of producers not read", below=offset, why=str(error))
            return
        if len(found) >= enough:
            break
    states.recalled([(batch.producer_id, batch.producer_epoch, _sent(batch)) for batch in found])


def _before(segments: list[Segment], offset: int, reach: int) -> Iterator[scan.Batch]:
    """Producers' data batches in the last `reach` bytes before `offset`, oldest first."""
    spans: list[tuple[Segment, int, int]] = []
    for segment in reversed(segments):
        if segment.base < offset and reach > 0:
            start, end = segment.span_before(offset, reach)
            spans.append((segment, start, end))
            reach -= end - start
    for segment, start, end in reversed(spans):
        for batch in scan.walk_produced(segment.file, start, end):
            if not batch.attributes & _CONTROL:
                yield batch


def _sent(batch: scan.Batch) -> Sent:
    last_sequence = (batch.base_sequence + batch.last_offset_delta) % SEQUENCES
    return Sent(batch.base_sequence, last_sequence, batch.last, batch.last_offset_delta, batch.max_timestamp)
