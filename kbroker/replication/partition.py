"""One partition of a topic on this broker: role, leader epoch, in-sync set, high watermark, and who waits for what.

Owns when a record counts; its `PartitionLog` owns where it lies. Knows no sockets: waiters and watchers are plain
callables and objects. high_watermark <= log.flushed <= log.written <= log.end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import NamedTuple, Protocol
from uuid import UUID

from kbroker.cluster.names import INTERNAL_TOPICS
from kbroker.config import TopicConfig
from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import NO_BROKER, NO_EPOCH, BrokerId, TopicPartition
from kbroker.observe import logs
from kbroker.protocol import compression
from kbroker.protocol.records import CODEC_MASK, TRANSACTIONAL, RecordBatch, recompress
from kbroker.protocol.validation import check_header, check_produced, check_slices, is_big
from kbroker.seams import Clock
from kbroker.storage.log import PartitionLog, Region
from kbroker.turn import Turn

# What an answer to Produce waits for: the leader's file, or the disks of the in-sync set.
WRITTEN = 1
COMMITTED = -1

log = logs.get_logger("replication")

_tuple = tuple.__new__

Waiter = Callable[[ErrorCode], None]


class Limits(NamedTuple):
    """What this broker spends on checking a batch."""

    decompressed_max: int  # bytes (kbroker.batch.decompressed.bytes.max)
    walk: bool  # the records, not only the batch (kbroker.produce.validation=records)


class Appended(NamedTuple):
    """Where records went: the term they were taken in, first offset, the offset after the last, and when the log took
    them."""

    term: int
    base: int
    end: int
    append_time_ms: int  # -1: their timestamps are the producer's


class Watcher(Protocol):
    """Wants to know when something that a reader sees of a partition moved."""

    def partition_moved(self) -> None: ...


# The offset that must be passed, the deadline in monotonic seconds, and who waits.
_Waiting = tuple[int, float, Waiter]


# A batch up to this size is given another codec on the loop: gzip, the slowest, takes 7 ms for it.
RECOMPRESSED_ON_LOOP_BYTES_MAX = 128 * 1024

# compression.type: what the topic's batches must be compressed with, whatever the producer chose
CODECS = {
    "uncompressed": compression.NONE,
    "gzip": compression.GZIP,
    "snappy": compression.SNAPPY,
    "lz4": compression.LZ4,
    "zstd": compression.ZSTD,
}


def _recompressed(batch: RecordBatch, config: TopicConfig, decompressed_max: int) -> RecordBatch:
    codec = CODECS[config.compression_type]
    if batch.attributes & CODEC_MASK == codec:
        return batch
    levels = {
        compression.GZIP: config.compression_gzip_level,
        compression.LZ4: config.compression_lz4_level,
        compression.ZSTD: config.compression_zstd_level,
    }
    again = recompress(batch, codec, level=levels.get(codec), decompressed_max=decompressed_max)
    return RecordBatch(memoryview(bytearray(again)))


class Recompression:
    """A batch on its way to its topic's codec: called in a thread, the batch must stay as it is until then."""

    __slots__ = ("_batch", "_config", "_decompressed_max", "_error")

    def __init__(self, batch: RecordBatch, config: TopicConfig, decompressed_max: int) -> None:
        self._batch = batch
        self._config = config
        self._decompressed_max = decompressed_max
        self._error: KafkaError | None = None

    def __call__(self) -> None:
        try:
            self._batch = _recompressed(self._batch, self._config, self._decompressed_max)
        except KafkaError as error:  # for the one who goes on, not for the thread
            self._error = error

    def batch(self) -> RecordBatch:
        """What came of it."""
        if self._error is not None:
            raise self._error
        return self._batch


def _tell(waiter: Waiter, error: ErrorCode) -> None:
    """End one's wait; the others are told whatever it makes of that."""
    try:
        waiter(error)
    except Exception as raised:  # a door: it is no fault of the partition
        log.exception("whoever waited failed to hear how it ended", raised, ended=error.name)


def _tell_moved(watcher: Watcher) -> None:
    """Tell one; the others are told whatever it makes of that."""
    try:
        watcher.partition_moved()
    except Exception as raised:  # a door: as above
        log.exception("a watcher failed to hear that a partition moved", raised)


class Partition:
    """A hosted partition. `lead` makes it serve; every change of role raises or replaces the epoch."""

    __slots__ = (
        "_committed_waiters",
        "_ended",
        "_limits",
        "_marked",
        "_monotonic",
        "_on_waiting",
        "_term",
        "_turn",
        "_wall_ms",
        "_watchers",
        "_written_waiters",
        "config",
        "gone",
        "has_deadlines",
        "high_watermark",
        "internal",
        "is_leader",
        "isr",
        "leader",
        "leader_epoch",
        "log",
        "replicas",
        "topic_id",
        "tp",
    )

    def __init__(
        self,
        tp: TopicPartition,
        topic_id: UUID,
        log: PartitionLog,
        *,
        config: TopicConfig,
        limits: Limits,
        turn: Turn,
        clock: Clock,
        on_waiting: Callable[[Partition], None],
    ) -> None:
        self.tp = tp
        self.topic_id = topic_id
        self.internal = tp.topic in INTERNAL_TOPICS  # written by the broker itself
        self.log = log
        self.config = config
        self._limits = limits
        self._turn = turn
        self._wall_ms = clock.wall_ms
        self._monotonic = clock.monotonic
        # called when somebody starts to wait here, so that deadlines are looked after
        self._on_waiting = on_waiting
        self._marked = False
        # Rises when records that nobody waits for yet may have ceased to count: a new epoch, a cut, the end. Offsets
        # alone do not tell: after a cut others take them.
        self._term = 0
        self._ended = ErrorCode.NOT_LEADER_OR_FOLLOWER  # why the term before did
        self._written_waiters: deque[_Waiting] | None = None
        self._committed_waiters: deque[_Waiting] | None = None
        self._watchers: dict[Watcher, None] | None = None
        self.gone: ErrorCode | None = None  # why this object serves no more: deleted
        self.has_deadlines = False  # somebody looks after the deadlines of those who wait here
        self.is_leader = False
        self.leader: BrokerId = NO_BROKER
        self.leader_epoch: int = NO_EPOCH
        self.isr: tuple[int, ...] = ()
        self.replicas = 0  # how many there are, in sync or not
        self.high_watermark = log.flushed  # every in-sync replica has flushed up to here
        log.observer = self

    # -- role

    def lead(self, leader: BrokerId, epoch: int, isr: tuple[int, ...], replicas: int) -> None:
        """Serve as the leader of `epoch`. Waiters and watchers of an older epoch learn that it ended."""
        if self.gone is not None:
            return
        before = self.leader_epoch
        assert epoch >= before, f"{self.tp}: leader epoch {epoch} after {before}"
        self.leader, self.leader_epoch, self.isr, self.is_leader = leader, epoch, isr, True
        self.replicas = replicas
        if epoch != before:
            self._fail_waiters(ErrorCode.NOT_LEADER_OR_FOLLOWER)
            self._tell_watchers()
        self.log_moved()

    def drop(self, why: ErrorCode) -> None:
        """This partition is no longer hosted here: whoever waits or watches learns why."""
        self.gone = why
        self.is_leader = False
        self._fail_waiters(why)
        self._tell_watchers()

    def check_epoch(self, asked: int) -> None:
        """KIP-320: a client that names a leader epoch must name ours; -1 does not ask."""
        if self.gone is not None:
            raise KafkaError(self.gone)
        if not self.is_leader:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if asked >= 0 and asked != self.leader_epoch:
            older = asked < self.leader_epoch
            raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH if older else ErrorCode.UNKNOWN_LEADER_EPOCH)

    # -- write

    def append(self, records: memoryview, acks: int) -> Appended:
        """Check a producer's batch, stamp it in place and append it. Raises KafkaError; nothing is kept then.

        A batch that is already in the log (idempotent producer) is not appended again: its first place is returned,
        and the caller waits for that like for a new one.
        """
        config = self.config
        if not self.is_leader or config.min_insync_replicas > 1:
            config = self._may_append(acks)
        now_ms = self._wall_ms()
        decompressed_max, walk = self._limits
        batch = check_produced(records, config, now_ms, self.tp, decompressed_max, walk)
        if (
            batch.producer_id >= 0
            or batch.attributes & TRANSACTIONAL
            or config.compression_type != "producer"
            or config.message_timestamp_type != "CreateTime"
        ):
            return self._accept(batch, config, now_ms)
        base = self.log.append(batch, self.leader_epoch)
        # an Appended, at half the price of calling it
        return _tuple(Appended, (self._term, base, base + batch.last_offset_delta + 1, -1))

    def is_slow(self, records: memoryview) -> bool:
        """Whether a batch is for `append_in_slices`: the loop would stand still too long."""
        if len(records) > RECOMPRESSED_ON_LOOP_BYTES_MAX and self.config.compression_type != "producer":
            return True
        return is_big(records)

    def append_in_slices(
        self, records: memoryview, acks: int
    ) -> Generator[Recompression | None, None, Appended]:
        """The same for a batch that would hold up the loop: it breathes at each `yield`. What is yielded, if it is
        not None, is to be called in a thread meanwhile."""
        config, limits = self._may_append(acks), self._limits
        now_ms = self._wall_ms()
        batch = check_header(records, config)
        yield from check_slices(batch, config, now_ms, self.tp, limits.decompressed_max, limits.walk)
        if config.compression_type != "producer" and len(records) > RECOMPRESSED_ON_LOOP_BYTES_MAX:
            again = Recompression(batch, config, limits.decompressed_max)
            yield again
            batch = again.batch()
        return self._accept(batch, self._may_append(acks), now_ms)

    def append_own(self, batch: RecordBatch) -> Appended:
        """Append a batch that this broker made itself, in a writable buffer, as with acks=all; what is in it is
        believed."""
        return self._accept(batch, self._may_append(COMMITTED), self._wall_ms())

    def _may_append(self, acks: int) -> TopicConfig:
        if not self.is_leader:
            raise KafkaError(self.gone or ErrorCode.NOT_LEADER_OR_FOLLOWER)
        config = self.config
        in_sync = len(self.isr)
        # KIP-966: nobody can ask for more in-sync replicas than there are replicas
        if acks == COMMITTED and in_sync < config.min_insync_replicas and in_sync < self.replicas:
            raise KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS)
        return config

    def _accept(self, batch: RecordBatch, config: TopicConfig, now_ms: int) -> Appended:
        log = self.log
        if batch.attributes & TRANSACTIONAL:
            raise KafkaError(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
        if batch.producer_id >= 0:
            try:
                original = log.check_sequence(batch)
            except OSError as error:  # what it knows of producers had to be read first
                raise KafkaError(
                    ErrorCode.KAFKA_STORAGE_ERROR, f"{self.tp} cannot be read: {error}"
                ) from error
            if original is not None:
                # Kafka tells the time it has of the first one, whoever's time it is
                time_ms = log.producers.timestamp_of(batch.producer_id, original)
                return Appended(self._term, original, original + batch.last_offset_delta + 1, time_ms)
        append_time_ms = -1
        if config.compression_type != "producer":
            batch = _recompressed(batch, config, self._limits.decompressed_max)
        if config.message_timestamp_type == "LogAppendTime":
            batch.stamp_append_time(now_ms)
            append_time_ms = now_ms
        base = log.append(batch, self.leader_epoch)
        return Appended(self._term, base, base + batch.last_offset_delta + 1, append_time_ms)

    def when(self, appended: Appended, durability: int, timeout_ms: int, waiter: Waiter) -> None:
        """Call `waiter(NONE)` when `appended` is WRITTEN or COMMITTED, or with the error that ended the wait."""
        if appended.term != self._term:  # nobody knows whether it still counts: it must be sent again
            return waiter(self._ended)
        entry = (appended.end, self._monotonic() + timeout_ms * 0.001, waiter)
        if durability == COMMITTED:
            waiters = self._committed_waiters
            if waiters is None:
                waiters = self._committed_waiters = deque()
        else:
            waiters = self._written_waiters
            if waiters is None:
                waiters = self._written_waiters = deque()
        waiters.append(entry)
        if not self.has_deadlines:
            self.has_deadlines = True
            self._on_waiting(self)
        if appended.end <= self.log.written:  # a duplicate: nothing new will move
            self.log_moved()

    def when_readable(self, timeout_ms: int, waiter: Waiter) -> None:
        """Call `waiter` when the watermark has passed all that the log holds now, or with the error that ended the wait."""
        end = self.log.end
        self.when(Appended(self._term, end, end, -1), COMMITTED, timeout_ms, waiter)

    def delete_records(self, offset: int, done: Callable[[int, KafkaError | None], None]) -> None:
        """Move the log start to `offset` (exclusive; -1: the high watermark).

        Readers see it at once; `done(low watermark, None)` once it is on the disk, or `done(-1, error)`.
        """
        if not self.is_leader:
            raise KafkaError(self.gone or ErrorCode.NOT_LEADER_OR_FOLLOWER)
        target = self.high_watermark if offset == -1 else offset
        if target < 0 or target > self.high_watermark:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
        log = self.log
        if target <= log.saved_start:
            return done(log.start, None)
        before = log.start

        def moved(error: BaseException | None) -> None:
            if error is not None:
                return done(-1, KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(error)))
            done(log.start, None)

        # Also where somebody has asked before: that may be on its way, or it failed.
        log.delete_before(target, moved)
        if log.start != before:
            self._tell_watchers()

    def retain(self, now_ms: int) -> None:
        """Let old segments go as the topic's config says, and producers that were silent for long."""
        if self.log.retain(now_ms, self.high_watermark):
            self._tell_watchers()

    # -- read

    def read(self, offset: int, max_bytes: int, *, at_least_one: bool) -> Region | None:
        """Whole batches from the one that holds `offset`, below the high watermark; None when there are none.

        OFFSET_OUT_OF_RANGE below the log's start or beyond its end; between watermark and end a reader waits.
        """
        log = self.log
        if offset < log.start or offset > log.end:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
        if offset >= self.high_watermark:
            return None
        return log.read(offset, up_to=self.high_watermark, max_bytes=max_bytes, min_one=at_least_one)

    @property
    def last_stable_offset(self) -> int:
        """Up to here transactions are decided: the high watermark, while there are none."""
        return self.high_watermark

    def watch(self, watcher: Watcher) -> None:
        """Tell `watcher` once, when the watermark, the log's start or the role moves next, or the end is taken back."""
        if self._watchers is None:
            self._watchers = {}
        self._watchers[watcher] = None

    def unwatch(self, watcher: Watcher) -> None:
        """Tell it no more. Idempotent."""
        if self._watchers is not None:
            self._watchers.pop(watcher, None)
            if not self._watchers:
                self._watchers = None

    def epoch_at(self, offset: int) -> int:
        """The leader epoch of the record at `offset`, at the log's end of the next one; -1 before the first known."""
        # As in `end_of_epoch`: the current epoch counts before it has records.
        return self.leader_epoch if offset == self.log.end else self.log.epochs.epoch_at(offset)

    def end_of_epoch(self, epoch: int) -> tuple[int, int]:
        """KIP-101: the largest epoch <= `epoch` in the log and the offset where it ends (exclusive); (-1, -1) for one
        that the log does not know."""
        log = self.log
        if epoch < 0 or epoch > self.leader_epoch:
            return -1, -1
        if epoch == self.leader_epoch:
            return epoch, log.end
        last = log.epochs.last
        if epoch <= last:
            return log.epochs.end_of(epoch, log.end)
        # The log knows an epoch by its records. The current one counts before it has any: KIP-101 has the leader note
        # its start when it begins to lead.
        return (last if last >= 0 else epoch), log.end

    # -- what the log says

    def log_moved(self) -> None:
        """Written or flushed moved (or a duplicate asks): settle at this turn's end."""
        if not self._marked:
            self._marked = True
            self._turn.settle(self)

    def log_cut(self, end: int, error: BaseException) -> None:
        """A failed write took back what lies at `end` and beyond: whoever waits for it learns so."""
        del error  # the log has said it in the broker's log
        self._end_term(ErrorCode.KAFKA_STORAGE_ERROR)
        self._take_out(lambda entry: entry[0] > end, ErrorCode.KAFKA_STORAGE_ERROR)
        self.log_moved()
        self._tell_watchers()

    def settle(self) -> None:
        """Raise the watermark and call whom that frees. The only place where a watermark rises."""
        self._marked = False
        log = self.log
        flushed = log.flushed
        moved = flushed > self.high_watermark
        if moved:
            self.high_watermark = flushed
        waiters = self._written_waiters
        if waiters:
            written = log.written
            while waiters and waiters[0][0] <= written:
                waiters.popleft()[2](ErrorCode.NONE)
        waiters = self._committed_waiters
        if waiters:
            watermark = self.high_watermark
            while waiters and waiters[0][0] <= watermark:
                waiters.popleft()[2](ErrorCode.NONE)
        if moved and self._watchers is not None:
            self._tell_watchers()

    def failed(self, error: BaseException) -> None:
        """Settling broke a promise of ours: this partition stops, the others go on."""
        self.is_leader = False
        self.gone = ErrorCode.KAFKA_STORAGE_ERROR
        log.error("partition stopped", partition=str(self.tp), exc_info=error)
        self._fail_waiters(ErrorCode.KAFKA_STORAGE_ERROR)
        self._tell_watchers()

    def expire(self, now: float) -> bool:
        """Answer those whose time is over (REQUEST_TIMED_OUT: the outcome stays open). True while others wait."""
        self._take_out(lambda entry: entry[1] <= now, ErrorCode.REQUEST_TIMED_OUT)
        if not self._written_waiters:
            self._written_waiters = None  # an empty deque is 600 bytes, too much for a partition that is idle
        if not self._committed_waiters:
            self._committed_waiters = None
        self.has_deadlines = self._written_waiters is not None or self._committed_waiters is not None
        if self.has_deadlines:
            self.log_moved()  # a duplicate whose original is durable may have stood behind one that was taken out
        return self.has_deadlines

    def _take_out(self, ended: Callable[[_Waiting], bool], error: ErrorCode) -> None:
        """Call the waiters that `ended` picks with `error`; the others stay in their order."""
        for waiters in (self._written_waiters, self._committed_waiters):
            if not waiters:
                continue
            taken = [entry for entry in waiters if ended(entry)]
            if taken:
                kept = [entry for entry in waiters if not ended(entry)]
                waiters.clear()
                waiters.extend(kept)
                for entry in taken:
                    _tell(entry[2], error)

    def _end_term(self, why: ErrorCode) -> None:
        self._term += 1
        self._ended = self.gone or why

    def _fail_waiters(self, error: ErrorCode) -> None:
        self._end_term(error)
        for waiters in (self._written_waiters, self._committed_waiters):
            while waiters:
                _tell(waiters.popleft()[2], error)

    def _tell_watchers(self) -> None:
        watchers, self._watchers = self._watchers, None
        if watchers is not None:
            for watcher in watchers:
                _tell_moved(watcher)
