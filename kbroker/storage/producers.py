"""What a partition remembers of each producer: a function of its log, kept so that retries are recognised.

Knows batch headers and the `.snapshot` format (Kafka's); reads and writes no files itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.crc import crc32c

# Batches remembered per producer: a client keeps at most five in flight, so a retry is always among them.
BATCHES_KEPT = 5

SEQUENCES = 2**31  # a sequence number wraps from 2^31-1 to 0
_VERSION = 1
_HEAD = struct.Struct(">hI")
_COUNT = struct.Struct(">i")
_ENTRY = struct.Struct(">qhiqiqiq")
_RECORDS_AT = 61  # behind a batch's header
_MARKER_KEY_SIZE = 4  # key of a control record: version, type
_MARKER = struct.Struct(">hi")  # value of an end marker: version, coordinator epoch


class Sent(NamedTuple):
    """One batch of a producer."""

    first_sequence: int
    last_sequence: int
    last_offset: int
    offset_delta: int  # last offset - base offset
    timestamp: int


class Producer(NamedTuple):
    """One producer's newest batches, oldest first. Replaced, never changed: what was before can be put back."""

    epoch: int
    sent: tuple[Sent, ...]
    timestamp: int  # of its last batch or marker: its state expires by it
    coordinator_epoch: int = -1
    transaction_start: int = -1  # first offset of the transaction in progress; -1: none


class ProducerStates:
    """The producers of one partition."""

    __slots__ = ("_before", "producers", "recall")

    def __init__(self) -> None:
        self.producers: dict[int, Producer] = {}
        # A snapshot has each producer's newest batch only: this reads the ones before it from the log. Called when a
        # batch comes that is neither known nor next (it may be a retry from before the stop), until it does not raise.
        self.recall: Callable[[ProducerStates], None] | None = None
        # what producers touched since the last `settled` were before (None: unknown): a failed write goes back to it
        self._before: dict[int, Producer | None] = {}

    def check(self, producer_id: int, epoch: int, first: int, count: int) -> int | None:
        """Whether a batch may be appended: None, or the base offset of the batch that it repeats.

        KafkaError INVALID_PRODUCER_EPOCH for an older epoch, OUT_OF_ORDER_SEQUENCE_NUMBER for a gap. OSError when
        that cannot be told: what the log holds had to be read.
        """
        known = self.producers.get(producer_id)
        if known is None:
            return None  # an unknown producer may start anywhere: its state may have expired
        if epoch < known.epoch:
            why = f"producer {producer_id} comes with epoch {epoch}, epoch {known.epoch} has written"
            raise KafkaError(ErrorCode.INVALID_PRODUCER_EPOCH, why)
        if epoch > known.epoch:
            if first != 0:
                why = f"epoch {epoch} of producer {producer_id} starts at sequence {first} instead of 0"
                raise KafkaError(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, why)
            return None
        last = (first + count - 1) % SEQUENCES
        for sent in known.sent:
            if sent.first_sequence == first and sent.last_sequence == last:
                return sent.last_offset - sent.offset_delta
        expected = (known.sent[-1].last_sequence + 1) % SEQUENCES if known.sent else 0
        if first != expected:
            if self.recall is not None:
                self.recall(self)
                self.recall = None
                return self.check(producer_id, epoch, first, count)
            why = f"producer {producer_id} sends sequence {first}, {expected} is next"
            raise KafkaError(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, why)
        return None

    def timestamp_of(self, producer_id: int, base: int) -> int:
        """The largest timestamp of a batch that `check` found at `base`."""
        return next(
            sent.timestamp
            for sent in self.producers[producer_id].sent
            if sent.last_offset - sent.offset_delta == base
        )

    def took(
        self,
        producer_id: int,
        epoch: int,
        first: int,
        base: int,
        delta: int,
        timestamp: int,
        transactional: int,
    ) -> None:
        """A data batch of a producer is in the log."""
        producers = self.producers
        known = producers.get(producer_id)
        if producer_id not in self._before:
            self._before[producer_id] = known
        sent = Sent(first, (first + delta) % SEQUENCES, base + delta, delta, timestamp)
        if known is None:
            producers[producer_id] = Producer(epoch, (sent,), timestamp, -1, base if transactional else -1)
            return
        start = known.transaction_start
        if transactional and start < 0:
            start = base
        kept = known.sent[1 - BATCHES_KEPT :] if known.epoch == epoch else ()
        producers[producer_id] = Producer(epoch, (*kept, sent), timestamp, known.coordinator_epoch, start)

    def took_marker(self, producer_id: int, epoch: int, timestamp: int, coordinator_epoch: int) -> None:
        """A transaction's end marker is in the log."""
        known = self.producers.get(producer_id)
        if producer_id not in self._before:
            self._before[producer_id] = known
        kept = known.sent if known is not None and known.epoch == epoch else ()
        self.producers[producer_id] = Producer(epoch, kept, timestamp, coordinator_epoch, -1)

    def recalled(self, batches: Iterable[tuple[int, int, Sent]]) -> None:
        """What the log holds of earlier batches, oldest first: (producer id, epoch, batch)."""
        earlier: dict[int, list[Sent]] = {}
        for producer_id, epoch, sent in batches:
            known = self.producers.get(producer_id)
            if known is None or known.epoch != epoch or not known.sent:
                continue
            if sent.last_offset < known.sent[0].last_offset:
                earlier.setdefault(producer_id, []).append(sent)
        for producer_id, before in earlier.items():
            known = self.producers[producer_id]
            self.producers[producer_id] = known._replace(sent=(*before, *known.sent)[-BATCHES_KEPT:])

    def settled(self) -> None:
        """What was taken is written: no way back."""
        if self._before:
            self._before.clear()

    def take_back(self) -> None:
        """Forget what was taken since the last `settled`."""
        for producer_id, before in self._before.items():
            if before is None:
                self.producers.pop(producer_id, None)
            else:
                self.producers[producer_id] = before
        self._before.clear()

    def expire(self, before_ms: int) -> None:
        """Forget producers whose last batch is older, but for those in a transaction."""
        old = [
            producer_id
            for producer_id, known in self.producers.items()
            if known.timestamp < before_ms and known.transaction_start < 0
        ]
        for producer_id in old:
            del self.producers[producer_id]
            self._before.pop(producer_id, None)

    def encode(self) -> bytes:
        """A `.snapshot` file: each producer with its newest batch."""
        parts = [_COUNT.pack(len(self.producers))]
        for producer_id, known in self.producers.items():
            newest = known.sent[-1] if known.sent else Sent(-1, -1, -1, 0, known.timestamp)
            parts.append(
                _ENTRY.pack(
                    producer_id,
                    known.epoch,
                    newest.last_sequence,
                    newest.last_offset,
                    newest.offset_delta,
                    known.timestamp,
                    known.coordinator_epoch,
                    known.transaction_start,
                )
            )
        body = b"".join(parts)
        return _HEAD.pack(_VERSION, crc32c(body)) + body

    @staticmethod
    def decode(raw: bytes) -> ProducerStates:
        """The other way round. ValueError when torn or of another version."""
        states = ProducerStates()
        if len(raw) < _HEAD.size + _COUNT.size:
            raise ValueError("the snapshot is torn")
        version, crc = _HEAD.unpack_from(raw)
        if version != _VERSION:
            raise ValueError(f"a snapshot of version {version}")
        if crc32c(raw[_HEAD.size :]) != crc:
            raise ValueError("the snapshot's CRC is wrong")
        (count,) = _COUNT.unpack_from(raw, _HEAD.size)
        entries = raw[_HEAD.size + _COUNT.size :]
        if count < 0 or len(entries) != count * _ENTRY.size:
            raise ValueError(f"a snapshot of {count} producers in {len(entries)} bytes")
        for entry in _ENTRY.iter_unpack(entries):
            producer_id, epoch, last_sequence, last_offset, delta, timestamp, coordinator_epoch, start = entry
            sent: tuple[Sent, ...] = ()
            if last_offset >= 0 and last_sequence >= 0:
                sent = (
                    Sent((last_sequence - delta) % SEQUENCES, last_sequence, last_offset, delta, timestamp),
                )
            states.producers[producer_id] = Producer(epoch, sent, timestamp, coordinator_epoch, start)
        return states


def coordinator_epoch_of(batch: memoryview) -> int:
    """The coordinator epoch in an end marker: a control batch of one record, never compressed. -1: unknown."""
    if len(batch) == _RECORDS_AT:  # compaction has emptied it
        return -1
    at = _skip_varint(batch, _RECORDS_AT)  # length
    at = _skip_varint(batch, at + 1)  # attributes, timestamp delta
    at = _skip_varint(batch, at)  # offset delta
    at = _skip_varint(batch, at) + _MARKER_KEY_SIZE  # key
    at = _skip_varint(batch, at)  # length of the value
    return int(_MARKER.unpack_from(batch, at)[1])


def _skip_varint(view: memoryview, at: int) -> int:
    while view[at] & 0x80:
        at += 1
    return at + 1
