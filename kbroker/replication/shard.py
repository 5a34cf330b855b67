"""A state machine whose log is one partition: its state is read from the log, its changes are appended to it.

Knows records as bytes, and nothing of what they mean: that is its `Machine`'s. A change counts, and is told to the
machine, when it is committed and in the order of the log, so a write that fails leaves nothing to take back: what is in
memory is what a restart reads. One that outlives its time is answered REQUEST_TIMED_OUT and still counts if it is
committed later. The log is read anew where a part of a change got into it and another did not, and where a change fails
whose end was told before (REQUEST_TIMED_OUT): whoever asked may have gone on as if it counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum

from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import TopicPartition
from kbroker.observe import logs
from kbroker.protocol import compression
from kbroker.protocol.records import HEADER_BYTES, RecordBatch
from kbroker.replication.partition import COMMITTED, Partition
from kbroker.replication.shard_changes import Change, Sent
from kbroker.replication.shard_loading import Floor, Loading, Machine
from kbroker.replication.shard_records import RECORD_OVERHEAD_MAX, Record, build
from kbroker.seams import Clock, Threads, Timer
from kbroker.turn import Turn

log = logs.get_logger("replication")

# Records that are written in one turn, or a batch, if it has more: some ten milliseconds.
RECORDS_PER_TURN = 5000

# Partitions give up on nobody who waits here: whether a change counts must be known in the end.
FOREVER_MS = 1 << 40


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
        floor: Floor | None = None,
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
        self._floor = floor or Floor(clock)  # shared by the shards that load beside each other
        self._loading: Loading | None = None
        self._began = 0.0
        self._waiting: list[Change] = []  # for the end of this turn
        self._writing: list[Change] = []  # taken from there, and not all written yet
        self._steps: Iterator[None] | None = None  # what writes these
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
        self.state = State.LOADING
        self._began = self._clock.monotonic()
        self._loading = Loading(
            self.partition,
            self._machine,
            floor=self._floor,
            threads=self._threads,
            clock=self._clock,
            done=self._loaded,
        )
        self._loading.start()

    def read_anew(self) -> None:
        """What is in memory may not be what the log says. Whoever waits is told as at its end."""
        log.warning("state read anew from the log", partition=str(self.tp))
        self.end()
        self.load()

    def end(self, error: ErrorCode = ErrorCode.NOT_COORDINATOR) -> None:
        """Serve no more. Whoever waits learns `error`: nobody knows whether that change counts."""
        if self.state is State.ENDED:
            return
        self.state = State.ENDED
        if self._loading is not None:
            self._loading.stop()
            self._loading = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = self._writing + self._waiting
        self._writing, self._waiting, self._steps = [], [], None
        for sent in self._sent:
            waiting += sent.changes
            sent.changes, sent.parts = [], []  # it is still on its way, and nobody's any more
        self._sent.clear()
        for change in waiting:
            change.answer(error)

    def _loaded(self, error: KafkaError | None) -> None:
        loading, self._loading = self._loading, None
        assert loading is not None
        if error is not None:
            return self._fail(error)
        self.state = State.SERVING
        if loading.records:
            log.info(
                "state loaded",
                partition=str(self.tp),
                records=loading.records,
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
        if self._steps is None:
            self._ask()

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._turn.write(self)

    def write_out(self) -> None:
        """Turn's end: what was asked for in it becomes one batch, or as many as its size demands; very many records are
        written in several turns, and what comes meanwhile waits."""
        self._asked = False
        if self._steps is None:
            self._writing, self._waiting = self._waiting, []
            self._steps = self._write(self._writing)
        for _ in self._steps:
            self._clock.call_at(self._clock.monotonic(), self._write_on)
            return
        self._steps, self._writing = None, []
        if self._waiting:
            self._ask()

    def _write_on(self) -> None:
        if self._steps is not None:
            self._ask()

    def _write(self, waiting: list[Change]) -> Iterator[None]:
        written = 0
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
                        written += len(records)
                        records, changes, parts, size = [], [], [], 0
                        if written >= RECORDS_PER_TURN:
                            written = 0
                            yield
                    records.append(record)
                    size += bytes_
            changes.append(change)
        self._send(records, changes, parts)

    def failed(self, error: BaseException) -> None:
        """`write_out` broke: our own fault. What is in the log says what counts."""
        log.error("shard broke", partition=str(self.tp), exc_info=error)
        self.read_anew()

    def _send(self, records: list[Record], changes: list[Change], parts: list[Change]) -> None:
        if self.state is not State.SERVING:
            return  # a batch before broke it off: all are answered
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
            elif change.in_log or not error or change.answered:
                in_doubt = True
            change.answer(why)
        if in_doubt:
            self.read_anew()

    def _look_at_deadlines(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        for sent in list(self._sent):
            if sent.deadline <= now:
                for change in sent.changes:
                    change.answer(ErrorCode.REQUEST_TIMED_OUT)
            elif self._timer is None:
                self._timer = self._clock.call_at(sent.deadline, self._look_at_deadlines)
