"""Compacted segments take their places: power cuts at every step, and what else may happen to the log meanwhile."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable

import pytest

from kbroker.protocol.records import RecordBatch, build_batch, record
from kbroker.seams import NotOpened
from kbroker.storage import scan, swapping
from kbroker.storage.cleaning import clean, remove_cleaned
from kbroker.storage.log import PartitionLog
from tests.support.compacting import batches, compact, job, made, no_pace, records
from tests.support.memory_disk import Crashed, MemoryDisk
from tests.support.storage import TOPIC_ID, TP, Broker, config, region_bytes

CONFIG = config(
    cleanup_policy=("compact",),
    segment_bytes=600,
    index_interval_bytes=100,
    retention_ms=-1,
    file_delete_delay_ms=0,
)
KEPT_FOR_EVER = 10**12
SEEDS = 8


def opened(disk: MemoryDisk) -> Broker:
    broker = Broker(disk)
    broker.directory.open(0, "cluster")
    return broker


def log_of(broker: Broker) -> PartitionLog:
    return broker.directory.log(TP, TOPIC_ID, CONFIG)


# -- the power goes


class Life:
    """One run of the scenario: what was appended, and what of it was promised, until the power went."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.disk = disk
        self.history: dict[int, tuple[bytes, bytes]] = {}  # offset -> key, value
        self.epochs: dict[int, int] = {}  # epoch -> where it began
        self.flushed = 0
        self.dirty = 0
        self.sequence = 0
        self.open()

    def open(self) -> None:
        self.broker = opened(self.disk)
        self.log = log_of(self.broker)
        self.settle()

    def settle(self) -> None:
        self.broker.settle()
        self.flushed = max(self.flushed, self.log.flushed)

    def append(self, epoch: int, *keys: str) -> None:
        self.epochs.setdefault(epoch, self.log.end)
        of = [record(b"at %d" % (self.log.end + at), key=key.encode()) for at, key in enumerate(keys)]
        raw = build_batch(of, producer_id=5, producer_epoch=0, base_sequence=self.sequence)
        self.sequence += len(keys)
        for at, one in enumerate(of):
            assert one.key is not None
            assert one.value is not None
            self.history[self.log.end + at] = (one.key, one.value)
        self.log.append(RecordBatch(memoryview(bytearray(raw))), epoch)
        self.settle()

    def compact(self) -> None:
        self.broker.directory.checkpoint()
        self.settle()
        asked = job(self.log, first_dirty=self.dirty, delete_retention_ms=KEPT_FOR_EVER)
        self.dirty = compact(self.broker, self.log, asked).end
        self.broker.directory.cleaned.move(TP, self.dirty)
        self.broker.clock.advance(1)
        self.settle()


def scenario(life: Life) -> None:
    for number in range(12):
        life.append(0, "a", f"only {number}", "b")
    life.append(1, "a", "c", "d")
    for number in range(6):
        life.append(1, "d", f"only {number}")
    life.log.roll()
    life.compact()
    for number in range(8):
        life.append(2, "a", f"only {number}", "e")
    life.log.roll()
    life.compact()
    life.broker.directory.close()
    life.open()
    life.append(3, "e", "a")


def test_the_scenario_itself_goes_well():
    life = Life(MemoryDisk())
    scenario(life)

    check(life, life.log)
    assert len(records(life.log)) < len(life.history) / 2


def _operations() -> list[tuple[str, str]]:
    disk = MemoryDisk()
    scenario(Life(disk))
    return disk.log


def test_the_last_record_of_no_key_is_lost_whenever_the_power_goes():
    for crash_at in range(1, len(_operations()) + 1):
        life = _crashed(crash_at, seed=crash_at)
        for keep in ("none", "torn", "all"):
            _check_after(life, keep, seed=crash_at)


def test_names_may_survive_a_power_cut_in_any_mixture():
    """The steps of a swap once more, each with many outcomes: what was not synced is there or not, each for itself."""
    for crash_at, (what, path) in enumerate(_operations(), 1):
        if what in ("rename", "sync_dir") and "orders-0" in path:
            life = _crashed(crash_at)
            for seed in range(SEEDS):
                _check_after(life, "torn", seed=seed)


def _crashed(crash_at: int, *, seed: int = 0) -> Life:
    """A run that the power went in. The seed says how much of an append that did not end was written."""
    disk = MemoryDisk(seed=seed)
    disk.crash_at = crash_at
    life = Life.__new__(Life)
    life.disk = disk
    with pytest.raises(Crashed):
        _live(life, disk)
    return life


def _live(life: Life, disk: MemoryDisk) -> None:
    life.__init__(disk)
    scenario(life)


def _check_after(life: Life, keep: str, *, seed: int) -> None:
    """Bring the power back with one of the states that the disk may then be in; `life` stays as it is."""
    disk = life.disk.copied(seed)
    crash_at = disk.operations
    disk.crash(keep)
    again = Life(disk)
    again.history, again.epochs = getattr(life, "history", {}), getattr(life, "epochs", {})
    again.flushed, again.sequence = getattr(life, "flushed", 0), getattr(life, "sequence", 0)
    try:
        check(again, again.log)
        again.sequence -= len(again.history) - again.log.end
        again.history = {offset: of for offset, of in again.history.items() if offset < again.log.end}
        again.epochs = {epoch: at for epoch, at in again.epochs.items() if at < again.log.end}
        for number in range(3):
            again.append(9, "a", f"only {number}")
        again.log.roll()
        again.compact()
        check(again, again.log)
        left = {name.rpartition(".")[2] for name in disk.list("/data/orders-0")}
        assert not left & {"swap", "cleaned", "deleted"}
    except AssertionError as error:
        raise AssertionError(
            f"crash at {crash_at} {disk.log[crash_at - 3 : crash_at]}, keep={keep}"
        ) from error


def test_the_start_that_completes_a_swap_may_be_cut_short_too():
    operations = _operations()
    first = next(at for at, (what, path) in enumerate(operations) if ".log.swap" in path)
    synced = next(at for at in range(first, len(operations)) if operations[at][0] == "sync_dir")
    life = _crashed(synced + 4)  # names of the old segments are on their way out
    for second in range(1, 60):
        for seed in range(SEEDS):
            disk = life.disk.copied(seed)
            disk.crash("torn")
            disk.crash_at = disk.operations + second
            try:
                Life(disk)
            except Crashed:
                pass
            disk.crash("torn")
            again = Life(disk)
            again.history, again.epochs, again.flushed = life.history, life.epochs, life.flushed
            check(again, again.log)


def check(life: Life, log: PartitionLog) -> None:
    """Nothing invented, nothing twice, of what was flushed the last record of each key; epochs and sequences as written."""
    assert not log.lost
    assert log.end >= life.flushed
    found = {each.offset: (each.key, each.value) for each in records(log)}
    offsets = [each.offset for each in records(log)]
    assert offsets == sorted(set(offsets))
    assert found.items() <= life.history.items()
    last = {key: offset for offset, (key, _) in life.history.items() if offset < log.end}
    assert set(last.values()) <= found.keys()
    for segment, after in itertools.pairwise(log.segments):
        lasts = [one.last for one in scan.walk(segment.file, 0, segment.file.size)]
        assert lasts == sorted(set(lasts))
        assert lasts[-1] < after.base
    ends = -1
    for one in batches(log):
        assert one.crc_ok
        assert one.base_offset > ends
        ends = one.last_offset
        assert one.epoch == log.epochs.epoch_at(one.base_offset)
    assert [(epoch, at) for epoch, at in life.epochs.items() if at < log.end] == log.epochs.pairs
    if log.end:
        assert log.end - 1 == log.producers.producers[5].sent[-1].last_offset


# -- what happens to the log in the middle of a swap


@pytest.fixture
def broker() -> Broker:
    return opened(MemoryDisk())


def filled(broker: Broker) -> PartitionLog:
    """Five segments, two of them closed and full of superseded records."""
    log = log_of(broker)
    for number in range(30):
        of = [record(b"at %d" % number, key=b"k%d" % (number % 3), timestamp=1000 + number)]
        log.append(RecordBatch(memoryview(bytearray(build_batch(of)))), 0)
    broker.settle()
    assert len(log.segments) > 3
    return log


class Steps:
    """A swap, step by step."""

    def __init__(self, broker: Broker, log: PartitionLog) -> None:
        self.broker = broker
        self.log = log
        self.answers: list[bool] = []
        [self.cleaned] = made(broker, log, job(log, last=-2, segment_bytes=10_000))
        log.swap(self.cleaned, log.truncations, self.answers.append)

    def take(self, number: int) -> None:
        for _ in range(number):
            assert self.broker.threads.step()


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_truncation_ends_a_swap_where_it_is(broker, steps):
    log = filled(broker)
    swap = Steps(broker, log)
    swap.take(steps)

    log.truncate_to(2)

    assert [steps > 0] == swap.answers
    assert log.swap_pending is None
    assert not [name for name in broker.disk.list(log.folder) if name.endswith(".swap")]
    broker.settle()
    assert [steps > 0] == swap.answers
    expected = [0, 1] if not steps else []
    assert expected == [each.offset for each in records(log)]


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_new_beginning_ends_a_swap_where_it_is(broker, steps):
    log = filled(broker)
    swap = Steps(broker, log)
    swap.take(steps)

    log.restart_at(1000)
    broker.settle()

    assert (1000, 1000, 0) == (log.start, log.end, log.size)
    assert 1 == len(swap.answers)
    again = log_of(after_a_kill(broker))
    assert (1000, 1000) == (again.start, again.end)


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_clean_stop_in_the_middle_leaves_nothing_to_do(broker, steps):
    log = filled(broker)
    swap = Steps(broker, log)
    swap.take(steps)
    before = records(log)

    broker.directory.close()
    remove_cleaned(broker.disk, log.folder)

    again = log_of(opened(broker.disk))
    assert before == records(again)
    assert 1 == len(swap.answers)


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_topic_may_be_deleted_in_the_middle(broker, steps):
    log = filled(broker)
    region = log.read(0, up_to=log.end, max_bytes=300)
    swap = Steps(broker, log)
    swap.take(steps)
    later = log.read(27, up_to=log.end, max_bytes=300)

    broker.directory.delete(TP)
    assert region_bytes(region)
    assert region_bytes(later)
    broker.settle()

    assert 1 == len(swap.answers)
    broker.clock.advance(1)
    broker.settle()
    assert not [name for name in broker.disk.list("/data") if name.startswith("orders-0")]


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_records_may_be_deleted_in_the_middle(broker, steps):
    log = filled(broker)
    swap = Steps(broker, log)
    swap.take(steps)
    errors: list[BaseException | None] = []

    log.delete_before(log.segments[-1].base, errors.append)
    broker.settle()

    assert [None] == errors
    assert 1 == len(log.segments)
    assert log.segments[0].base == log.start
    assert 1 == len(swap.answers)


def test_a_swap_that_begins_while_segments_are_on_their_way_out_comes_to_its_end_before_they_go(broker):
    log = filled(broker)
    [cleaned] = made(broker, log, job(log, last=-2, segment_bytes=10_000))
    log.roll()  # what follows the segments is to be synced before they go
    log.delete_before(log.segments[-2].base, lambda error: None)
    broker.threads.step()
    broker.threads.step()
    answers: list[bool] = []
    assert 1 == len(broker.threads.waiting)

    log.swap(cleaned, log.truncations, answers.append)
    for _ in range(3):  # the first of them is that sync
        broker.threads.step()
    assert [] == answers
    broker.settle()

    assert [True] == answers
    assert log.saved_start == log.segments[0].base
    assert log.broken is None


def test_segments_that_retention_took_are_not_swapped(broker):
    log = filled(broker)
    [cleaned] = made(broker, log, job(log, last=-2, segment_bytes=10_000))
    log.delete_before(log.segments[1].base, lambda error: None)
    broker.settle()
    answers: list[bool] = []

    log.swap(cleaned, log.truncations, answers.append)

    assert [False] == answers


def test_segments_of_a_log_that_was_cut_are_not_swapped(broker):
    log = filled(broker)
    truncations = log.truncations
    [cleaned] = made(broker, log, job(log, last=-2, segment_bytes=10_000))
    log.truncate_to(log.end - 1)
    answers: list[bool] = []

    log.swap(cleaned, truncations, answers.append)

    assert [False] == answers


def test_a_round_whose_segments_went_ends_with_what_the_system_says(broker):
    log = filled(broker)
    outcomes = clean(broker.disk, job(log), no_pace)
    log.delete_before(log.segments[2].base, lambda error: None)
    broker.settle()

    with pytest.raises(FileNotFoundError):
        list(outcomes)


def test_whoever_reads_the_old_segments_goes_on(broker):
    log = filled(broker)
    region = log.read(4, up_to=log.end, max_bytes=200)
    before = region_bytes(region)

    for _ in range(2):  # their names may be taken by those of an older swap
        compact(broker, log, job(log, segment_bytes=10_000))
        region.file.close()
        assert before == region_bytes(region)
        assert not region.stale
        log.append(RecordBatch(memoryview(bytearray(build_batch([record(b"x", key=b"k0")])))), 0)
        broker.settle()
        log.roll()


def test_names_and_sizes_follow(broker):
    log = filled(broker)
    size = log.size

    compact(broker, log, job(log, segment_bytes=10_000))
    broker.clock.advance(1)
    broker.settle()

    assert sum(segment.size for segment in log.segments) == log.size < size
    names = broker.disk.list(log.folder)
    assert [f"{each.base:020d}.log" for each in log.segments] == [
        name for name in names if name.endswith("log")
    ]
    assert all(segment.file.path == segment.paths[0] for segment in log.segments)


# -- what the disk does


def failing(what: str, number: int, code: int) -> Callable[[str, str], int | None]:
    """The disk's `fail`: operation number `number` of a kind fails."""
    left = [number]

    def fail(operation: str, path: str) -> int | None:
        if operation != what:
            return None
        left[0] -= 1
        return code if left[0] == -1 else None

    return fail


@pytest.mark.parametrize("number", range(3))
def test_a_failed_sync_of_the_folder_ends_it_and_the_next_start_goes_on(broker, number):
    log = filled(broker)
    before = records(log)
    broker.disk.fail = failing("sync_dir", number, errno.EIO)
    swap = Steps(broker, log)
    broker.settle()

    assert [False] == swap.answers
    assert broker.directory.failed is not None
    again = log_of(after_a_kill(broker))
    assert before[-3:] == records(again)[-3:]


@pytest.mark.parametrize("number", range(10))
def test_a_failed_rename_stops_the_partition_at_most(broker, number):
    log = filled(broker)
    last = records(log)[-3:]
    broker.disk.fail = failing("rename", number, errno.EIO)
    swap = Steps(broker, log)
    broker.settle()
    broker.disk.fail = None

    assert 1 == len(swap.answers)
    again = log_of(after_a_kill(broker))
    assert last == records(again)[-3:]


def test_a_folder_that_cannot_be_opened_now_is_synced_later(broker):
    log = filled(broker)
    swap = Steps(broker, log)
    broker.disk.no_descriptors = errno.EMFILE
    with pytest.raises(NotOpened):
        broker.disk.sync_dir(log.folder)
    broker.settle()
    assert [] == swap.answers
    broker.disk.no_descriptors = None

    broker.clock.advance(int(swapping.AGAIN_SECONDS * 1000))
    broker.settle()

    assert [True] == swap.answers


def after_a_kill(broker: Broker) -> Broker:
    broker.disk.crash("all")
    again = opened(broker.disk)
    log_of(again)
    again.settle()
    return again
