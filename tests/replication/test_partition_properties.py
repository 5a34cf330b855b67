"""A partition under any order of batches, turns, flushes, full disks, deadlines and crashes: what is answered stays."""

from __future__ import annotations

import errno

from hypothesis import given
from hypothesis import strategies as st

from kbroker.errors import ErrorCode, KafkaError
from kbroker.replication.partition import COMMITTED
from tests.support.memory_disk import MemoryDisk
from tests.support.partitions import Stand

NONE = ErrorCode.NONE
STORAGE = ErrorCode.KAFKA_STORAGE_ERROR

ACKS = st.sampled_from([0, 1, -1])
PRODUCERS = st.integers(0, 2)  # 0: without an id
EVENTS = st.one_of(
    st.tuples(st.just("send"), PRODUCERS, ACKS),
    st.tuples(st.just("send"), PRODUCERS, ACKS),
    st.tuples(st.just("retry"), st.integers(1, 2), ACKS),
    st.tuples(st.just("turn")),
    st.tuples(st.just("flush")),
    st.tuples(st.just("late"), st.sampled_from([2000, 2000, 40_000])),
    st.tuples(st.just("full"), st.booleans()),
    st.tuples(st.just("crash"), st.sampled_from(["none", "torn", "all"])),
)


def sequenced(sequence: int, *, pid: int) -> dict[str, int]:
    return {"producer_id": pid, "producer_epoch": 0, "base_sequence": sequence}


def no_room(what: str, path: str) -> int | None:
    return errno.ENOSPC if what == "append" and path.endswith(".log") else None


class History:
    """Does events; remembers what was promised; checks it."""

    def __init__(self, seed: int) -> None:
        self.stand = Stand(MemoryDisk(seed=seed))
        self.epoch = 0
        self.names = 0
        # name -> base, value, acks: as long as it may be answered
        self.sent: dict[str, tuple[int, bytes, int]] = {}
        self.promised: dict[int, bytes] = {}  # offset -> value: durable, and answered so
        self.sequences = {1: 0, 2: 0}
        self.last: dict[int, tuple[int, bytes]] = {}  # producer -> its newest batch: sequence, value

    def do(self, what: str, *how) -> None:
        getattr(self, what)(*how)
        self.check()

    def send(self, pid: int, acks: int) -> None:
        value = b"%d" % self.names + b"." * (9000 if self.names % 7 == 6 else 0)
        fields = sequenced(self.sequences[pid], pid=pid) if pid else {}
        if self._append(value, acks, fields) and pid:
            self.last[pid] = self.sequences[pid], value
            self.sequences[pid] += 1

    def retry(self, pid: int, acks: int) -> None:
        if pid in self.last:
            sequence, value = self.last[pid]
            self._append(value, acks, sequenced(sequence, pid=pid))

    def _append(self, value: bytes, acks: int, fields: dict[str, int]) -> bool:
        self.names += 1
        name = f"{self.names}"
        try:
            appended = self.stand.send(name, value, acks=acks, **fields)
        except KafkaError as error:
            # sequences that a cut took back are asked for again: a real producer would begin a new epoch
            if error.code not in (STORAGE, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER):
                raise
            return False
        self.sent[name] = appended.base, value, acks
        return True

    def turn(self) -> None:
        self.stand.turn()

    def flush(self) -> None:
        self.stand.broker.threads.step()
        self.stand.turn()

    def late(self, ms: int) -> None:
        self.stand.clock.advance(ms)
        self.stand.partition.expire(self.stand.clock.monotonic())

    def full(self, now: bool) -> None:
        self.stand.disk.fail = None
        if now:
            self.stand.disk.fail = no_room

    def crash(self, keep: str) -> None:
        self.epoch += 1
        self.stand = self.stand.crash(keep, epoch=self.epoch)
        self.sent.clear()
        self.stand.settle()
        self.sequences = {
            pid: known.sent[-1].last_sequence + 1 if (known := self._known(pid)) else self.sequences[pid]
            for pid in self.sequences
        }
        self.last = {pid: last for pid, last in self.last.items() if last[0] + 1 == self.sequences[pid]}

    def _known(self, pid: int):
        return self.stand.log.producers.producers.get(pid)

    def check(self) -> None:
        log, partition = self.stand.log, self.stand.partition
        assert log.start <= partition.high_watermark <= log.flushed <= log.written <= log.end
        found = {each.offset: each.value for each in self.stand.records()}
        for name, code in self.stand.answers.items():
            if name in self.sent and code == NONE:
                base, value, acks = self.sent.pop(name)
                assert value == found[base]
                if acks == COMMITTED:
                    assert base < partition.high_watermark
                    self.promised[base] = value
        assert self.promised.items() <= found.items()


@given(seed=st.integers(0, 999), events=st.lists(EVENTS, min_size=20, max_size=60))
def test_whatever_happens_an_answered_record_is_in_the_log_at_its_offset(seed, events):
    history = History(seed)
    for event in events:
        history.do(*event)
    history.do("crash", "torn")
