"""A state machine whose log is one partition: its state is read from the log, its changes are appended to it.

Knows records as bytes, and nothing of what they mean: that is its `Machine`'s. A change counts, and is told to the
machine, when it is committed and in the order of the log, so a write that fails leaves nothing to take back: what is in
memory is what a restart reads. One that outlives its time is answered REQUEST_TIMED_OUT and still counts if it is
committed later. Only where a part of a change got into the log and another did not is the log read anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import partial
from typing import Any, Protocol

from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import TopicPartition
from kbroker.observe import logs
from kbroker.protocol import compression
from kbroker.protocol.records import HEADER_BYTES, RecordBatch
from kbroker.replication.partition import COMMITTED, Partition
from kbroker.replication.shard_changes import Change, Sent
from kbroker.replication.shard_records import (
    RECORD_OVERHEAD_MAX,
    Loaded,
    Record,
    build,
    read_region,
)
from kbroker.seams import Clock, Threads, Timer
from kbroker.turn import Turn

log = logs.get_logger("replication")

# Read and decoded in one go, in a thread: some thousand records.
LOAD_BYTES = 1 << 20
# The loop is held by applying what was read for so long at most, then others have their turn.
SLICE_SECONDS = 0.004
SLICE_RECORDS = 100  # between two looks at the clock
# A read that fails because files are being replaced (compaction) is tried again so often, with a pause.
READS_MAX = 5
READ_PAUSE_SECONDS = 0.05
# Partitions give up on nobody who waits here: whether a change counts must be known in the end.
FOREVER_MS = 1 << 40


class Machine(Protocol):
    """What the log means. All but `decode` is called on the loop."""

    def decode(self, key: bytes | None, value: bytes | None) -> Any:
        """What a record says; None: nothing. Pure: it runs in a thread."""

    def reset(self) -> None:
        """Forget everything: the log is about to be read."""

    def apply(self, said: Any) -> None:
        """The next thing that the log says."""

    def finish(self) -> Iterator[None]:
        """The log has been read to its end: what is left to be done before anybody is served, in small steps."""

    def loaded(self) -> None:
        """Changes may be appended from now on."""

    def failed(self, error: KafkaError) -> None:
        """The log cannot be read: this shard serves nobody."""


class State(Enum):
    """Where a shard stands."""

    LOADING = 1
    SERVING = 2
    ENDED = 3


class Shard:
    """One partition's state machine. `load`, then `append` while `state` is SERVING; `end` when another leads.

    What waits to be written or committed is bounded by those who wait for it: a connection has few requests in flight.
    """

    def __init__(
        self,
        partition: Partition,
        machine: Machine,
        *,
        turn: Turn,
        threads: Threads,
        clock: Clock,
        timeout_ms: Callable[[], int],
        codec: int = compression.NONE,
    ) -> None:
        self.partition = partition
        self.state = State.LOADING
        self._machine = machine
        self._turn = turn
        self._threads = threads
        self._clock = clock
        self._timeout_ms = timeout_ms
        self._codec = codec
        self._life = 0  # rises with each load, so that what an older one began ends in nothing
        self._at = 0  # the next offset to read
        self._until = 0
        self._reads = 0
        self._records = 0
        self._began = 0.0
        self._open: dict[
            int, list[Any]
        ] = {}  # what transactions say whose end has not been read, by producer
        self._waiting: list[Change] = []  # for the end of this turn
        self._asked = False
        self._sent: deque[Sent] = deque()
        self._timer: Timer | None = None

    @property
    def tp(self) -> TopicPartition:
        """The partition that is its log."""
        return self.partition.tp

    # -- loading

    def load(self) -> None:
        """Read the log from its start to its end of now; what it says goes to the machine in slices."""
        log_ = self.partition.log
        self.state = State.LOADING
        self._life += 1
        self._at, self._until = log_.start, log_.end
        self._reads = self._records = 0
        self._open.clear()
        self._began = self._clock.monotonic()
        self._machine.reset()
        self._read_on(self._life)

    def end(self, error: ErrorCode = ErrorCode.NOT_COORDINATOR) -> None:
        """Serve no more. Whoever waits learns `error`: nobody knows whether that change counts."""
        if self.state is State.ENDED:
            return
        self.state = State.ENDED
        self._life += 1
        self.partition.unwatch(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for sent in self._sent:
            waiting += sent.changes
        self._sent.clear()
        for change in waiting:
            change.answer(error)

    def partition_moved(self) -> None:
        """The watermark rose while the log was being read."""
        if self.state is State.LOADING:
            self._read_on(self._life)

    def _read_on(self, life: int) -> None:
        if life != self._life:
            return
        partition = self.partition
        self._at = max(self._at, partition.log.start)
        try:
            region = None
            if self._at < self._until:
                region = partition.read(self._at, LOAD_BYTES, at_least_one=True)
        except KafkaError as error:
            return self._fail(error)
        if region is not None:
            self._threads.run(
                partial(read_region, region, self._at, self._machine.decode), partial(self._read, life)
            )
        elif partition.high_watermark < self._until:
            partition.watch(self)
        else:
            self._read_to_the_end(life)

    def _read(self, life: int, loaded: Loaded | None, error: BaseException | None) -> None:
        if life != self._life:
            return
        if error is None and loaded is not None and not loaded.region.stale:
            self._reads = 0
            if loaded.damage:
                log.error("records left out", partition=str(self.tp), why=loaded.damage, count=loaded.damaged)
            return self._apply(life, loaded, iter(loaded.batches))
        if error is not None and not isinstance(error, (OSError, EOFError)):
            return self._fail(KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, repr(error)))
        self._reads += 1
        if self._reads >= READS_MAX:
            return self._fail(KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(error)))
        self._clock.call_at(
            self._clock.monotonic() + READ_PAUSE_SECONDS * self._reads, partial(self._read_on, life)
        )

    def _apply(self, life: int, loaded: Loaded, batches: Iterator[tuple[int, int, list[Any]]]) -> None:
        """A slice: whole batches until the time is over."""
        if life != self._life:
            return
        clock = self._clock
        deadline, since = clock.monotonic() + SLICE_SECONDS, 0
        for producer_id, marker, said in batches:
            since += len(said) + 1
            self._take(producer_id, marker, said)
            if since >= SLICE_RECORDS:
                since = 0
                if clock.monotonic() >= deadline:
                    clock.call_at(clock.monotonic(), partial(self._apply, life, loaded, batches))
                    return
        self._at = loaded.end
        self._read_on(life)

    def _finish(self, life: int, steps: Iterator[None]) -> None:
        """The same with what the machine does at the end."""
        if life != self._life:
            return
        clock = self._clock
        deadline = clock.monotonic() + SLICE_SECONDS
        for number, _ in enumerate(steps, 1):
            if number % SLICE_RECORDS == 0 and clock.monotonic() >= deadline:
                clock.call_at(clock.monotonic(), partial(self._finish, life, steps))
                return
        self._serve()

    def _take(self, producer_id: int, marker: int, said: list[Any]) -> None:
        """One batch: outside transactions it counts at once, in them when their end says so."""
        self._records += len(said)
        if producer_id < 0:
            self._tell(said)
        elif marker < 0:
            self._open.setdefault(producer_id, []).extend(said)
        else:
            ended = self._open.pop(producer_id, [])
            if marker:
                self._tell(ended)

    def _tell(self, said: list[Any]) -> None:
        apply = self._machine.apply
        for each in said:
            apply(each)

    def _read_to_the_end(self, life: int) -> None:
        if self._open:
            log.warning("open transactions left out", partition=str(self.tp), producers=len(self._open))
            self._open.clear()
        self._finish(life, self._machine.finish())

    def _serve(self) -> None:
        self.state = State.SERVING
        if self._records:
            log.info(
                "state loaded",
                partition=str(self.tp),
                records=self._records,
                seconds=round(self._clock.monotonic() - self._began, 3),
            )
        self._machine.loaded()

    def _fail(self, error: KafkaError) -> None:
        log.error(
            "state not loaded: nobody is served from this partition",
            partition=str(self.tp),
            why=str(error),
            cure="look at the partition's files with kbroker dump-log --verify",
        )
        self.end()
        self._machine.failed(error)

    # -- changing

    def append(
        self,
        records: Sequence[Record],
        done: Callable[[ErrorCode], None],
        committed: Callable[[], None],
    ) -> None:
        """Write records down, with all that others change in this turn.

        `committed()` is called when they count, in the order of the log; `done` once, with NONE after that or with the
        error that ended the wait: REQUEST_TIMED_OUT (they may count yet), MESSAGE_TOO_LARGE (one alone is larger than
        the topic's max.message.bytes or segment), or what the partition says.
        """
        change = Change(records, done, committed)
        if self.state is not State.SERVING:
            return change.answer(ErrorCode.NOT_COORDINATOR)
        self._waiting.append(change)
        if not self._asked:
            self._asked = True
            self._turn.write(self)

    def write_out(self) -> None:
        """Turn's end: what was asked for in it becomes one batch, or as many as its size demands."""
        self._asked = False
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        config = self.partition.config
        room = min(config.max_message_bytes, config.segment_bytes) - HEADER_BYTES
        records: list[Record] = []
        changes: list[Change] = []
        parts: list[Change] = []
        size = 0
        for change in waiting:
            sizes = [
                len(key) + (0 if value is None else len(value)) + RECORD_OVERHEAD_MAX
                for key, value in change.records
            ]
            if max(sizes, default=0) > room:
                change.answer(ErrorCode.MESSAGE_TOO_LARGE)
                continue
            total = sum(sizes)
            if size + total <= room:
                records += change.records
                size += total
            else:
                for number, (record, bytes_) in enumerate(zip(change.records, sizes, strict=True)):
                    if size + bytes_ > room:
                        if number:
                            parts.append(change)
                        self._send(records, changes, parts)
                        records, changes, parts, size = [], [], [], 0
                    records.append(record)
                    size += bytes_
            changes.append(change)
        self._send(records, changes, parts)

    def failed(self, error: BaseException) -> None:
        """`write_out` broke: our own fault. What is in the log says what counts."""
        log.error("shard broke", partition=str(self.tp), exc_info=error)
        self._reload()

    def _send(self, records: list[Record], changes: list[Change], parts: list[Change]) -> None:
        now = self._clock.monotonic()
        sent = Sent(self, changes, parts, now + self._timeout_ms() * 0.001)
        if not records:
            return self._settle(sent, ErrorCode.NONE)
        partition = self.partition
        try:
            data = build(records, self._clock.wall_ms(), self._codec)
            appended = partition.append_own(RecordBatch(memoryview(data)))
        except KafkaError as error:
            return self._settle(sent, error.code)
        self._sent.append(sent)
        partition.when(appended, COMMITTED, FOREVER_MS, sent)
        if self._timer is None and self._sent:
            self._timer = self._clock.call_at(sent.deadline, self._look_at_deadlines)

    def ended(self, sent: Sent, error: ErrorCode) -> None:
        """A batch is committed, or never will be."""
        while self._sent and self._sent[0].over:
            self._sent.popleft()
        if self.state is State.SERVING:
            self._settle(sent, error)

    def _settle(self, sent: Sent, error: ErrorCode) -> None:
        in_doubt = False
        for change in sent.parts:
            if error:
                change.error = error
            else:
                change.in_log = True
                in_doubt = in_doubt or change.over
        for change in sent.changes:
            change.over = True
            why = change.error or error
            if not why:
                try:
                    change.committed()
                except Exception as raised:  # a door: the others count too
                    log.exception("a change was not taken over", raised, partition=str(self.tp))
                    in_doubt = True
            elif change.in_log or not error:
                in_doubt = True
            change.answer(why)
        if in_doubt:
            self._reload()

    def _reload(self) -> None:
        """What is in memory may not be what the log says."""
        log.warning("state read anew from the log", partition=str(self.tp))
        self.end()
        self.load()

    def _look_at_deadlines(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        for sent in list(self._sent):
            if sent.deadline <= now:
                for change in sent.changes:
                    change.answer(ErrorCode.REQUEST_TIMED_OUT)
            elif self._timer is None:
                self._timer = self._clock.call_at(sent.deadline, self._look_at_deadlines)
