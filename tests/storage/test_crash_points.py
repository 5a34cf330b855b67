"""A scenario of everything a log does, with the power cut before every single change to the disk."""

from __future__ import annotations

import random
from collections.abc import Callable
from uuid import UUID

import pytest

from kbroker.model import TopicPartition
from kbroker.protocol.records import split_batches
from kbroker.storage import log as module
from kbroker.storage.log import COPIED_BATCH_BYTES_MAX, PartitionLog
from kbroker.storage.producers import ProducerStates
from kbroker.storage.snapshots import took_batch
from tests.support.memory_disk import Crashed, MemoryDisk
from tests.support.storage import TOPIC_ID, TP, Broker, batch, config, region_bytes

CONFIG = config(
    segment_bytes=700,
    index_interval_bytes=150,
    segment_index_bytes=96,
    retention_ms=-1,
    file_delete_delay_ms=0,
)
OTHER = TopicPartition("orders", 1)


class Life:
    """One run of the scenario: what was promised until the power went."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.disk = disk
        self.acked: dict[int, bytes] = {}  # base offset -> batch: flushed, so it must be there
        self.appended: dict[int, bytes] = {}
        self.start = 0  # an acknowledged log start
        self.sequence = 0
        self.open()

    def open(self) -> None:
        self.broker = Broker(self.disk)
        self.broker.directory.open(0, "cluster")
        self.log = self.broker.directory.log(TP, TOPIC_ID, CONFIG)
        self.other = self.broker.directory.log(OTHER, TOPIC_ID, CONFIG)
        self.broker.settle()

    def append(self, epoch: int, *sizes: int) -> None:
        turn = self.broker.turn
        turn.lend()
        views = []
        for size in sizes:
            one = batch(b"x" * size, b"y", producer_id=7, producer_epoch=0, base_sequence=self.sequence)
            self.sequence += 2
            base = self.log.append(one, epoch)
            self.appended[base] = bytes(one.view)
            views.append(one.view)
            self.other.append(batch(b"z"), epoch)
        turn.take_back()
        for view in views:
            view[:] = bytes(len(view))  # the next read's bytes
        self.settle()

    def settle(self) -> None:
        for _ in range(100):
            self.broker.turn.run()
            self._note()
            if not self.broker.threads.step() and not self.broker.turn.busy:
                return
        raise AssertionError("it never settles")

    def stop(self) -> None:
        """A clean stop whose waits for the disk are in threads."""
        saved: list[bool] = []
        self.broker.directory.save(lambda: saved.append(True))
        self.settle()
        assert saved == [True]
        operations = self.disk.operations
        self.broker.directory.close()
        synced = [path for what, path in self.disk.log[operations:] if what.startswith("sync")]
        assert not [path for path in synced if "orders" in path], synced

    def _note(self) -> None:
        for base, raw in self.appended.items():
            if base + 2 <= self.log.flushed:
                self.acked[base] = raw

    def truncate_to(self, offset: int) -> None:
        self.acked = {base: raw for base, raw in self.acked.items() if base < offset}
        self.sequence -= self.log.end - offset
        try:
            self.log.truncate_to(offset)
        finally:
            self.appended = {base: raw for base, raw in self.appended.items() if base < offset}

    def delete_before(self, offset: int) -> None:
        self.acked = {base: raw for base, raw in self.acked.items() if base + 2 > offset}

        def done(error: BaseException | None) -> None:
            assert error is None
            self.start = offset

        self.log.delete_before(offset, done)
        self.settle()


def scenario(life: Life) -> None:
    life.append(0, 1, 100, 300)
    life.broker.directory.checkpoint()
    life.append(0, 300, 50)
    life.append(2, 20, 400, 20)
    life.broker.directory.checkpoint()
    life.append(2, 100)
    life.settle()
    life.truncate_to(10)
    life.append(3, 50, 60)
    life.delete_before(5)
    life.append(3, 300, 300)
    life.broker.directory.checkpoint()
    life.settle()
    life.append(3, 20)
    life.stop()
    life.open()
    life.append(4, 10, 200)
    life.truncate_to(16)
    life.append(5, 10)
    life.broker.directory.close()
    life.open()


def test_the_scenario_itself_goes_well() -> None:
    life = Life(MemoryDisk())
    scenario(life)
    check(life, life.log)
    assert not life.disk.list("/data/orders-0")[0].endswith(".tmp")


def _operations() -> int:
    disk = MemoryDisk()
    life = Life(disk)
    scenario(life)
    return disk.operations


@pytest.mark.parametrize("copied_max", [COPIED_BATCH_BYTES_MAX, 150], ids=["copied", "lent"])
def test_nothing_flushed_is_lost_whenever_the_power_goes(
    copied_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COPIED_BATCH_BYTES_MAX", copied_max)
    for crash_at in range(1, _operations() + 1):
        disk = MemoryDisk(seed=crash_at)
        disk.crash_at = crash_at
        life = Life.__new__(Life)
        with pytest.raises(Crashed):
            _live(life, disk)
        for keep in ("none", "torn", "all"):
            _check_after(life, disk.copied(crash_at), keep)


def _live(life: Life, disk: MemoryDisk) -> None:
    life.__init__(disk)  # type: ignore[misc]
    scenario(life)


def _check_after(life: Life, disk: MemoryDisk, keep: str) -> None:
    """Bring the power back, with some of what was not synced."""
    crash_at = disk.operations
    disk.crash(keep)
    again = Life(disk)
    again.acked, again.start = dict(getattr(life, "acked", {})), getattr(life, "start", 0)
    try:
        check(again, again.log)
        check(again, again.other, acked={})
        before = again.log.end
        epoch = again.log.epochs.last + 1
        assert before == again.log.append(batch(b"after"), epoch)
        again.broker.settle()
        check(again, again.log)
    except AssertionError as error:
        raise AssertionError(f"crash at {crash_at} ({disk.log[crash_at - 1]}), keep={keep}") from error


def check(life: Life, log: PartitionLog, acked: dict[int, bytes] | None = None) -> None:
    """No promise broken, offsets without a hole, epochs and producers as the batches say."""
    acked = life.acked if acked is None else acked
    assert log.end == log.flushed
    assert not log.lost
    batches = read_all(log)
    if log.tp == TP:
        assert log.start >= life.start
    expected = log.start
    for base, raw in batches.items():
        (one,) = split_batches(memoryview(raw))
        assert one.crc_ok
        assert base <= expected
        expected = one.last_offset + 1
    assert expected == log.end
    for base, raw in acked.items():
        if base + 2 > log.start:
            assert raw == batches[base], f"the batch at {base} is gone"
    _check_epochs(log, batches)
    _check_producers(log)


def read_all(log: PartitionLog) -> dict[int, bytes]:
    """Every batch, by its base offset."""
    found = {}
    offset = log.start
    while offset < log.end:
        region = log.read(offset, up_to=log.end, max_bytes=1)
        assert region is not None
        (one,) = split_batches(memoryview(region_bytes(region)))
        found[one.base_offset] = bytes(one.view)
        offset = one.last_offset + 1
    return found


def _check_epochs(log: PartitionLog, batches: dict[int, bytes]) -> None:
    for base, raw in batches.items():
        (one,) = split_batches(memoryview(raw))
        assert one.epoch == log.epochs.epoch_at(max(base, log.start))
    epochs = [epoch for epoch, _ in log.epochs.pairs]
    assert epochs == sorted(set(epochs))
    assert all(start <= log.end for _, start in log.epochs.pairs)


def _check_producers(log: PartitionLog) -> None:
    states = ProducerStates()
    for segment in log.segments:
        raw = memoryview(bytearray(segment.file.size))
        segment.file.read_into(raw, 0)
        for one in split_batches(raw):
            if one.producer_id >= 0:
                took_batch(states, one, one.base_offset)
    for producer_id, known in states.producers.items():
        assert known.sent[-1] == log.producers.producers[producer_id].sent[-1]


def _delete_and_make_again(
    disk: MemoryDisk, note: Callable[[str], None], *, checkpoint: bool, in_between: bool
) -> None:
    broker = Broker(disk)
    broker.directory.open(0, "cluster")
    first = broker.directory.log(TP, TOPIC_ID, CONFIG)
    first.append(batch(b"old"), 0)
    first.append(batch(b"old" * 100, b"old"), 0)
    broker.settle()
    first.delete_before(2, lambda _: None)
    broker.directory.checkpoint({TP: 3})
    broker.settle()
    note("deleting")
    if checkpoint and in_between:
        broker.directory.checkpoint({})
        broker.turn.run()
        while broker.threads.step() and not disk.exists("/data/recovery-point-offset-checkpoint.tmp"):
            pass
    broker.directory.delete(TP)
    broker.turn.run()
    if checkpoint:
        broker.directory.checkpoint({})
        broker.settle()
    second = broker.directory.log(TP, UUID(int=2), CONFIG)
    second.append(batch(b"new"), 0)
    broker.settle()
    note("made again")
    broker.clock.advance(1000)
    broker.settle()


@pytest.mark.parametrize("in_between", [False, True], ids=["", "deleted-in-a-checkpoint"])
@pytest.mark.parametrize("checkpoint", [False, True], ids=["", "checkpoint"])
@pytest.mark.parametrize("keep", ["none", "torn", "all"])
def test_a_topic_made_again_never_shows_what_the_deleted_one_held(
    keep: str, checkpoint: bool, in_between: bool
) -> None:
    how = {"checkpoint": checkpoint, "in_between": in_between}
    disk = MemoryDisk()
    _delete_and_make_again(disk, lambda _: None, **how)
    for crash_at in range(1, disk.operations + 2):  # the last one: after the end
        _delete_crash_check(crash_at, keep, how)


def _delete_crash_check(crash_at: int, keep: str, how: dict[str, bool]) -> None:
    disk = MemoryDisk(seed=crash_at)
    disk.crash_at = crash_at
    notes: list[str] = []
    try:
        _delete_and_make_again(disk, notes.append, **how)
    except Crashed:
        pass
    disk.crash(keep)
    broker = Broker(disk)
    opened = broker.directory.open(0, "cluster")
    topic_id = UUID(int=2) if "deleting" in notes else TOPIC_ID
    log = broker.directory.log(TP, topic_id, CONFIG)
    broker.settle()
    values = [b"old" in raw for raw in read_all(log).values()]
    if "deleting" in notes:
        assert not any(values), f"crash at {crash_at} {disk.log[crash_at - 1 :]}"
        assert not log.lost
    if "made again" in notes:
        assert [False] == values, f"crash at {crash_at} {disk.log[crash_at - 1 :]}"
        assert TP not in opened.lost
    broker.clock.advance(1000)
    broker.settle()
    assert [name for name in disk.list("/data") if name.endswith("-delete")] == []


def _lose_the_folder(disk: MemoryDisk, how: str) -> None:
    """Ten records, three of them deleted; then the folder, or what says whose it is, is gone."""
    broker = Broker(disk)
    broker.directory.open(0, "cluster")
    log = broker.directory.log(TP, TOPIC_ID, CONFIG)
    for _ in range(5):
        log.append(batch(b"old" * 50, b"old"), 0)
    broker.settle()
    log.delete_before(3, lambda _: None)
    broker.settle()
    broker.directory.close()
    if how == "folder":
        disk.rename("/data/orders-0", "/elsewhere")
    else:
        disk.remove("/data/orders-0/partition.metadata")
    for folder in ("/", "/data", "/data/orders-0"):
        if disk.exists(folder):
            disk.sync_dir(folder)


def _go_on(disk: MemoryDisk, acked: list[int]) -> None:
    broker = Broker(disk)
    broker.directory.random = random.Random(2)
    broker.directory.open(0, "cluster")
    log = broker.directory.log(TP, TOPIC_ID, CONFIG)
    for number in range(4):
        base = log.append(batch(b"new" * 100), 1)
        broker.settle()
        acked.append(base)
        if number == 1:
            broker.directory.checkpoint()
            broker.settle()
    broker.directory.close()


@pytest.mark.parametrize("how", ["folder", "metadata"])
@pytest.mark.parametrize("keep", ["none", "torn", "all"])
def test_what_is_written_after_a_folder_was_lost_is_kept_under_offsets_of_its_own(
    keep: str, how: str
) -> None:
    disk = MemoryDisk()
    _lose_the_folder(disk, how)
    before = disk.operations
    _go_on(disk, [])
    for crash_at in range(before + 1, disk.operations + 1):
        _lose_crash_check(crash_at, keep, how)


def _lose_crash_check(crash_at: int, keep: str, how: str) -> None:
    disk = MemoryDisk(seed=crash_at)
    acked: list[int] = []
    _lose_the_folder(disk, how)
    disk.crash_at = crash_at
    with pytest.raises(Crashed):
        _go_on(disk, acked)
    disk.crash(keep)
    broker = Broker(disk)
    broker.directory.random = random.Random(3)
    broker.directory.open(0, "cluster")
    log = broker.directory.log(TP, TOPIC_ID, CONFIG)
    broker.settle()
    assert 10 == log.start, f"crash at {crash_at} {disk.log[crash_at - 1 :]}"
    found = read_all(log)
    assert all(b"new" in found[base] for base in acked), f"crash at {crash_at} {disk.log[crash_at - 1 :]}"
    assert list(range(10, log.end)) == list(found)
