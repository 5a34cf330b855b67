"""Reading a shard's log into its machine, in slices, so that the loop serves others meanwhile.

Records are decoded on the loop: threads that compute would take the interpreter from it for longer than a slice lasts.
Of many shards one has the floor at a time, so that all together hold the loop no longer than one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from kbroker.errors import ErrorCode, KafkaError, ProtocolError
from kbroker.observe import logs
from kbroker.protocol.records import RecordBatch, decode_records, split_batches
from kbroker.replication.partition import Partition
from kbroker.replication.shard_records import ABORT, COMMIT
from kbroker.seams import Clock, Threads
from kbroker.storage.log import Region

log = logs.get_logger("replication")

# Read in one go: some thousand records.
LOAD_BYTES = 256 * 1024
# The loop is held for so long at most, then others have their turn.
SLICE_SECONDS = 0.004
SLICE_RECORDS = 100  # between two looks at the clock
# A read that fails because files are being replaced (compaction) is tried again so often, with a pause that grows.
READS_MAX = 5
READ_PAUSE_SECONDS = 0.05


class Machine(Protocol):
    """What the log means."""

    def decode(self, key: bytes | None, value: bytes | None) -> Any:
        """What a record says; None: nothing."""

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


class Floor:
    """Whose turn it is to work through what was read."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._taken = False
        self._queue: deque[Callable[[], None]] = deque()  # one entry per shard that is loading, at most

    def take(self, work: Callable[[], None]) -> None:
        """Call `work` when nobody else has the floor; it ends with `leave`."""
        if self._taken:
            self._queue.append(work)
        else:
            self._taken = True
            work()

    def leave(self) -> None:
        """The next one's turn, after the loop's."""
        if self._queue:
            self._clock.call_at(self._clock.monotonic(), self._queue.popleft())
        else:
            self._taken = False


class Loading:
    """One reading of a partition's log, from its start to its end of now. `done` is told how it ended, unless it was
    stopped."""

    def __init__(
        self,
        partition: Partition,
        machine: Machine,
        *,
        floor: Floor,
        threads: Threads,
        clock: Clock,
        done: Callable[[KafkaError | None], None],
    ) -> None:
        self.records = 0
        self._partition = partition
        self._machine = machine
        self._floor = floor
        self._threads = threads
        self._clock = clock
        self._done = done
        self._stopped = False
        self._at = partition.log.start  # the next offset to read
        self._until = partition.log.end
        self._reads = 0  # that failed, one after another
        self._open: dict[int, list[Any]] = {}  # what transactions say whose end was not read yet, by producer
        self._damaged = 0  # batches left out
        self._damage = ""  # why, of the first

    def start(self) -> None:
        """Begin. Where there is nothing to read it ends at once."""
        self._machine.reset()
        if self._at >= self._until:
            for _ in self._machine.finish():
                pass
            return self._done(None)
        self._go_on()

    def stop(self) -> None:
        """What it began ends in nothing."""
        self._stopped = True
        self._partition.unwatch(self)

    def partition_moved(self) -> None:
        """The watermark rose, or the end was taken back: what was not committed before is by now, or never will be."""
        if not self._stopped:
            self._go_on()

    def _go_on(self) -> None:
        self._floor.take(self._read)

    def _read(self) -> None:
        """The next region, by a thread; or the end."""
        if self._stopped:
            return self._floor.leave()
        partition = self._partition
        self._at = max(self._at, partition.log.start)
        self._until = min(self._until, partition.log.end)  # a failed write may have taken the end back
        try:
            region = None
            if self._at < self._until:
                region = partition.read(self._at, LOAD_BYTES, at_least_one=True)
        except KafkaError as error:
            return self._end(error)
        if region is not None:
            self._threads.run(partial(_bytes_of, region), partial(self._work_through, region))
        elif partition.high_watermark < self._until:
            self._floor.leave()
            partition.watch(self)
        else:
            self._tell_what_was_left_out()
            self._in_slices(self._machine.finish(), partial(self._end, None))

    def _work_through(self, region: Region, data: memoryview | None, error: BaseException | None) -> None:
        if self._stopped:
            return self._floor.leave()
        if error is None and data is not None and not region.stale:
            self._reads = 0
            return self._in_slices(self._batches(data), self._next)
        if error is not None and not isinstance(error, (OSError, EOFError)):
            return self._end(KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, repr(error)))
        self._reads += 1
        if self._reads >= READS_MAX:
            return self._end(KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, str(error)))
        self._floor.leave()
        self._clock.call_at(self._clock.monotonic() + READ_PAUSE_SECONDS * self._reads, self.partition_moved)

    def _in_slices(self, steps: Iterator[None], then: Callable[[], None]) -> None:
        """Take steps until a slice is over, then again in the loop's next turn."""
        if self._stopped:
            return self._floor.leave()
        clock = self._clock
        deadline = clock.monotonic() + SLICE_SECONDS
        try:
            for _ in steps:
                if clock.monotonic() >= deadline:
                    clock.call_at(clock.monotonic(), partial(self._in_slices, steps, then))
                    return
        except Exception as error:  # a door: nobody else may be kept from loading
            log.exception("a shard's machine broke", error, partition=str(self._partition.tp))
            return self._end(KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, repr(error)))
        then()

    def _next(self) -> None:
        self._floor.leave()
        self._go_on()

    def _end(self, error: KafkaError | None) -> None:
        self._floor.leave()
        self._done(error)

    # -- what the log says

    def _batches(self, data: memoryview) -> Iterator[None]:
        """A damaged batch is left out and counted: an older state of some is better than none for all of them."""
        for batch in split_batches(data):
            said: list[Any] = []
            try:
                if not batch.crc_ok:
                    raise ProtocolError("its checksum is wrong")
                if batch.is_control:
                    said = self._ended(batch.producer_id, _marker(batch))
                else:
                    yield from self._decode(batch, said)
            except (KafkaError, ProtocolError) as error:
                self._damaged += 1
                self._damage = self._damage or f"batch at offset {batch.base_offset}: {error}"
            else:
                if batch.is_transactional and not batch.is_control:
                    self._open.setdefault(batch.producer_id, []).extend(said)
                else:
                    yield from self._tell(said)
            self._at = batch.next_offset
            yield

    def _decode(self, batch: RecordBatch, said: list[Any]) -> Iterator[None]:
        decode, start = self._machine.decode, self._at
        for number, record in enumerate(decode_records(batch), 1):
            if record.offset >= start:
                each = decode(record.key, record.value)
                if each is not None:
                    said.append(each)
            if number % SLICE_RECORDS == 0:
                yield

    def _ended(self, producer_id: int, marker: int) -> list[Any]:
        """What a transaction says counts when its end says so."""
        said = self._open.pop(producer_id, [])
        return said if marker == COMMIT else []

    def _tell(self, said: list[Any]) -> Iterator[None]:
        self.records += len(said)
        apply = self._machine.apply
        for number, each in enumerate(said, 1):
            apply(each)
            if number % SLICE_RECORDS == 0:
                yield

    def _tell_what_was_left_out(self) -> None:
        partition = str(self._partition.tp)
        if self._damaged:
            log.error("batches left out", partition=partition, why=self._damage, count=self._damaged)
        if self._open:
            log.warning("open transactions left out", partition=partition, producers=len(self._open))


def _bytes_of(region: Region) -> memoryview:
    """Whole batches; in a thread, which touches nothing but the file."""
    view = memoryview(bytearray(region.size))
    have = region.file.read_into(view, region.at)
    if have < region.size:
        raise EOFError(f"{have} bytes instead of {region.size}")
    return view


def _marker(batch: RecordBatch) -> int:
    """ABORT or COMMIT, in the second int16 of a control record's key; an emptied batch ends nothing."""
    for record in decode_records(batch):
        key = record.key or b""
        return COMMIT if key[2:4] == b"\0\1" else ABORT
    return ABORT
