"""LocalLog: groups, failures, and that no crash at any point loses what was acknowledged."""

from __future__ import annotations

import errno
from uuid import UUID

import pytest

from kbroker.cluster import commands as c
from kbroker.cluster.journal import JOURNAL_HEADER, Entry, frame, journal_name, snapshot_name
from kbroker.cluster.local import LocalLog
from kbroker.cluster.state import ClusterState
from kbroker.config import ConfigOp
from kbroker.errors import ErrorCode, KafkaError, StartError
from kbroker.model import BrokerId
from tests.support.memory_disk import Crashed, MemoryDisk
from tests.support.storage import ManualThreads

FOLDER = "/data/cluster"
FIRST = f"{FOLDER}/{journal_name(1)}"


def new_disk(seed=0):
    disk = MemoryDisk(seed=seed)
    disk.mkdir("/data")
    disk.sync_dir("/")
    return disk


def crashed(disk, keep="none"):
    """`disk` after a loss of power."""
    disk.crash(keep)
    return disk


def failing(disk, failures):
    """`disk` fails at these of the operations to come, counted from 1."""
    numbers = {disk.operations + number: code for number, code in failures.items()}
    disk.fail = lambda what, path: numbers.get(disk.operations)


class Alone:
    """A log, its disk and its threads; what was answered, in order."""

    def __init__(self, disk=None, *, fsync=True, journal_bytes_max=1 << 20):
        self.disk = disk or new_disk()
        self.threads = ManualThreads()
        self.answers = []
        self.changes = []
        self.log = LocalLog(
            FOLDER,
            node_id=BrokerId(1),
            disk=self.disk,
            threads=self.threads,
            new_cluster_id=lambda: "new-cluster-id",
            fsync=fsync,
            journal_bytes_max=journal_bytes_max,
        )
        self.log.on_change(self.changes.append)

    def propose(self, command):
        self.log.propose(command, lambda result, error: self.answers.append(error or result))

    def settle(self):
        while self.threads.step():
            pass

    def do(self, *commands):
        for command in commands:
            self.propose(command)
            self.settle()
        return self.answers[-len(commands) :]


def ids(count=10):
    return c.AllocateProducerIds(1, count)


def topic(name, number):
    return c.CreateTopics([c.NewTopic(name, UUID(int=number), [(1,)], {"retention.ms": "5"})])


def config(value):
    return c.AlterConfigs([c.ConfigChange(4, "", [ConfigOp("num.io.threads", 0, value)])])


def test_a_new_folder_forms_a_cluster():
    first = Alone()

    assert first.log.formed
    assert "new-cluster-id" == first.log.state.cluster_id
    again = Alone(first.disk)
    assert not again.log.formed
    assert "new-cluster-id" == again.log.state.cluster_id


def test_what_was_done_is_there_after_the_next_start():
    alone = Alone()
    alone.do(topic("t", 5), config("9"), ids())

    again = Alone(crashed(alone.disk))

    assert alone.log.state.snapshot() == again.log.state.snapshot()
    assert [10] == again.do(ids())


def test_nothing_is_applied_or_answered_before_the_fsync():
    alone = Alone()
    alone.propose(ids())
    assert ([], 0) == (alone.answers, alone.log.state.next_producer_id)

    alone.settle()

    assert ([0], 10) == (alone.answers, alone.log.state.next_producer_id)


def test_commands_that_come_during_an_fsync_share_the_next():
    alone = Alone()
    before = alone.disk.operations
    for _ in range(20):
        alone.propose(ids())
    alone.settle()

    assert list(range(0, 200, 10)) == alone.answers
    assert 4 == alone.disk.operations - before  # two groups: append and sync each


def test_a_thousand_topics_are_one_entry_and_one_fsync():
    alone = Alone()
    before, index = alone.disk.operations, alone.log.status.index

    alone.do(c.CreateTopics([c.NewTopic(f"t{n}", UUID(int=n + 1), [(1,)]) for n in range(1000)]))

    assert 1000 == len(alone.log.state.topics)
    assert (2, 1) == (alone.disk.operations - before, alone.log.status.index - index)


def test_listeners_hear_of_a_change_before_the_answer():
    alone = Alone(fsync=False)
    heard = []
    alone.log.on_change(lambda change: heard.append(("change", len(change.topics_created))))

    alone.log.propose(topic("t", 5), lambda result, error: heard.append(("answer", len(result))))
    alone.log.propose(ids(), lambda result, error: heard.append(("answer", result)))

    assert [("change", 1), ("answer", 1), ("answer", 0)] == heard


def test_without_fsync_all_is_done_inside_propose():
    alone = Alone(fsync=False)
    alone.propose(ids())
    assert [0] == alone.answers
    assert [] == alone.threads.waiting
    assert 10 == Alone(alone.disk).log.state.next_producer_id


def test_an_answer_may_propose_again():
    alone = Alone(fsync=False)

    alone.log.propose(ids(), lambda result, error: alone.propose(ids()))

    assert [10] == alone.answers


def test_one_who_fails_to_listen_does_not_keep_the_others_from_hearing():
    alone = Alone(fsync=False)

    def fails(change):
        raise RuntimeError("a bug in a listener")

    alone.log.on_change(fails)
    alone.log.on_change(alone.changes.append)
    with pytest.raises(RuntimeError, match="a bug in a listener"):
        alone.propose(topic("t", 5))

    assert (2, 1) == (len(alone.changes), len(alone.answers))
    assert [0] == alone.do(ids())


def test_a_barrier_passes_after_what_was_proposed_before():
    alone = Alone()
    alone.propose(ids())
    alone.log.barrier(lambda result, error: alone.answers.append("barrier"))
    assert [] == alone.answers

    alone.settle()

    assert [0, "barrier"] == alone.answers


def test_a_barrier_with_nothing_before_passes_and_writes_nothing():
    alone = Alone()
    before = alone.disk.operations

    alone.log.barrier(lambda result, error: alone.answers.append("barrier"))
    alone.settle()

    assert (["barrier"], before) == (alone.answers, alone.disk.operations)


def test_a_full_disk_refuses_and_the_next_command_goes_on():
    disk = new_disk()
    alone = Alone(disk)
    failing(disk, {1: errno.ENOSPC})

    [refused, first] = alone.do(ids(), ids())

    assert ErrorCode.KAFKA_STORAGE_ERROR == refused.code
    assert "append failed" in refused.message
    assert 0 == first
    assert 10 == Alone(crashed(disk)).log.state.next_producer_id


@pytest.mark.parametrize(
    "numbers", [[2], [1, 2], [1, 3]], ids=["fsync", "append and truncate", "append, sync of the cut"]
)
def test_a_failed_fsync_stops_the_log_for_good(numbers):
    disk = new_disk()
    alone = Alone(disk)
    failing(disk, dict.fromkeys(numbers, errno.EIO))
    alone.propose(ids())
    alone.propose(ids())
    alone.settle()

    [later] = alone.do(ids())

    assert [ErrorCode.KAFKA_STORAGE_ERROR] * 3 == [answer.code for answer in alone.answers]
    assert later is alone.answers[-1]
    assert "failed" in alone.log.status.failed
    assert 0 == alone.log.state.next_producer_id


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("written", [False, True], ids=["", "written"])
def test_without_descriptors_commands_are_refused_and_later_ones_go_on(code, written):
    disk = new_disk()
    alone = Alone(disk)
    if written:  # and the fsync finds no descriptor
        disk.fail = lambda what, path: setattr(disk, "no_descriptors", code) if what == "append" else None
    else:
        disk.no_descriptors = code

    refused = alone.do(ids(), ids())
    disk.fail = disk.no_descriptors = None
    taken = alone.do(ids(), ids())

    assert [ErrorCode.KAFKA_STORAGE_ERROR] * 2 == [answer.code for answer in refused]
    assert [0, 10] == taken
    assert 20 == Alone(crashed(disk)).log.state.next_producer_id


def test_closing_finishes_what_is_being_written_and_refuses_what_waits():
    alone = Alone()
    alone.propose(ids())
    alone.propose(ids())

    alone.log.close()
    alone.settle()
    alone.propose(ids())

    assert [ErrorCode.BROKER_NOT_AVAILABLE, 0, ErrorCode.BROKER_NOT_AVAILABLE] == [
        answer.code if isinstance(answer, KafkaError) else answer for answer in alone.answers
    ]


def test_a_long_journal_becomes_a_snapshot():
    alone = Alone(journal_bytes_max=200)

    alone.do(*[ids() for _ in range(30)])

    status = alone.log.status
    assert status.snapshot_index > 10
    assert {snapshot_name(status.snapshot_index), journal_name(status.snapshot_index + 1)} == set(
        alone.disk.list(FOLDER)
    )
    again = Alone(crashed(alone.disk))
    assert (300, status.index) == (again.log.state.next_producer_id, again.log.status.index)


def test_a_big_state_is_not_written_again_for_every_command():
    """The snapshot of a cluster may be longer than the journal is allowed to be."""
    alone = Alone(journal_bytes_max=200)
    alone.do(c.CreateTopics([c.NewTopic(f"t{n}", UUID(int=n + 1), [(1,)]) for n in range(100)]))
    before = alone.log.status.snapshot_index

    alone.do(*[ids() for _ in range(5)])

    assert before == alone.log.status.snapshot_index


def test_commands_wait_for_a_compaction_and_are_done_after_it():
    alone = Alone(journal_bytes_max=200)
    for _ in range(30):
        alone.propose(ids())
        alone.threads.step()
    alone.settle()

    assert list(range(0, 300, 10)) == alone.answers


def until_compaction(alone):
    before = len(alone.disk.log)
    while not any(".new" in path for _, path in alone.disk.log[before:]) and len(alone.answers) < 100:
        alone.do(ids())


@pytest.mark.parametrize("of", ["snapshot", "journal"])
@pytest.mark.parametrize("what", ["create", "append", "sync", "rename"])
def test_a_compaction_that_fails_before_it_took_a_place_is_tried_later(what, of):
    disk = new_disk()
    alone = Alone(disk, journal_bytes_max=200)
    before = len(disk.log)
    disk.fail = lambda did, path: errno.ENOSPC if did == what and f"{of}.new" in path else None
    until_compaction(alone)
    first = len(alone.answers)
    alone.do(*[ids() for _ in range(20)])
    tries = len([path for did, path in disk.log[before:] if did == what and f"{of}.new" in path])
    disk.fail = None
    alone.do(*[ids() for _ in range(20)])

    assert 1 < tries < 20
    assert list(range(0, 10 * (first + 40), 10)) == alone.answers
    assert alone.log.status.snapshot_index > first
    assert 2 == len(disk.list(FOLDER))
    assert 10 * (first + 40) == Alone(crashed(disk)).log.state.next_producer_id


@pytest.mark.parametrize("keep", ["none", "torn", "all"])
def test_a_power_cut_after_a_failed_compaction_loses_nothing(keep):
    for what in ("create", "append", "sync", "rename"):
        for of in ("snapshot", "journal"):
            for seed in range(10):
                disk = new_disk(seed)
                alone = Alone(disk, journal_bytes_max=200)
                disk.fail = lambda did, path, what=what, of=of: (
                    errno.EIO if did == what and f"{of}.new" in path else None
                )
                until_compaction(alone)
                alone.do(ids(), ids())
                assert 10 * len(alone.answers) == Alone(crashed(disk, keep)).log.state.next_producer_id


@pytest.mark.parametrize("keep", ["none", "torn", "all"])
def test_without_descriptors_for_its_folder_a_new_journal_takes_nothing_until_there_are_some(keep):
    for seed in range(10):
        disk = new_disk(seed)
        alone = Alone(disk, journal_bytes_max=200)
        disk.fail = no_descriptors_from(disk, "rename", "journal.new")
        until_compaction(alone)
        done = len(alone.answers)
        [refused] = alone.do(ids())
        assert ErrorCode.KAFKA_STORAGE_ERROR == refused.code
        disk.fail = disk.no_descriptors = None
        assert [10 * done, 10 * done + 10] == alone.do(ids(), ids())

        assert 10 * done + 20 == Alone(crashed(disk, keep)).log.state.next_producer_id


def no_descriptors_from(disk, what, of):
    def fail(did, path):
        if did == what and of in path:
            disk.no_descriptors = errno.EMFILE

    return fail


@pytest.mark.parametrize("keep", ["none", "torn", "all"])
def test_what_could_not_be_removed_after_a_compaction_is_passed_over(keep):
    for seed in range(10):
        disk = new_disk(seed)
        alone = Alone(disk, journal_bytes_max=200)
        disk.fail = lambda what, path: errno.EIO if what == "remove" and ".0" in path else None
        until_compaction(alone)
        alone.do(ids(), ids())
        assert 10 * len(alone.answers) == Alone(crashed(disk, keep)).log.state.next_producer_id


def test_a_failed_sync_of_the_folder_stops_the_log_and_loses_nothing():
    disk = new_disk()
    alone = Alone(disk, journal_bytes_max=200)
    disk.fail = lambda what, path: errno.EIO if what == "sync_dir" else None
    until_compaction(alone)

    assert "not compacted" in alone.log.status.failed
    assert alone.log.state.next_producer_id == Alone(crashed(disk)).log.state.next_producer_id


def test_a_failed_sync_of_the_folder_when_there_are_descriptors_again_stops_the_log():
    disk = new_disk()
    alone = Alone(disk, journal_bytes_max=200)
    disk.fail = no_descriptors_from(disk, "rename", "journal.new")
    until_compaction(alone)
    disk.no_descriptors = None
    disk.fail = lambda what, path: errno.EIO if what == "sync_dir" else None
    alone.do(ids())
    disk.fail = None

    assert ErrorCode.KAFKA_STORAGE_ERROR == alone.do(ids())[0].code
    assert "not written" in alone.log.status.failed


def test_a_journal_whose_snapshot_a_power_cut_took_does_not_take_the_old_ones_place_later():
    """Its name was on the disk, the snapshot's was not: a start goes on in the old journal."""
    disk = new_disk()
    alone = Alone(disk)
    alone.do(ids(), ids())
    begun = f"{FOLDER}/{journal_name(alone.log.status.index + 1)}"
    disk.open(begun, create=True).append([JOURNAL_HEADER])
    disk.crash("all")

    again = Alone(disk, journal_bytes_max=200)
    disk.fail = lambda what, path: errno.EIO if what == "rename" and "journal.new" in path else None
    while not any(name.startswith("snapshot.0") for name in disk.list(FOLDER)):
        again.do(ids())

    assert 10 * (2 + len(again.answers)) == Alone(crashed(disk, "all")).log.state.next_producer_id
    assert not disk.exists(begun)


def test_a_journal_with_entries_whose_snapshot_is_missing_stops_the_start():
    disk = new_disk()
    alone = Alone(disk)
    alone.do(ids())
    later = alone.log.status.index + 2
    disk.open(f"{FOLDER}/{journal_name(later)}", create=True).append(
        [JOURNAL_HEADER, frame([Entry(later, 1, c.encode(ids()))], synced_before=True)]
    )
    disk.crash("all")

    with pytest.raises(StartError, match="what comes before is missing"):
        Alone(disk)


@pytest.mark.parametrize("missing", ["journal", "snapshot"])
def test_a_missing_file_stops_the_start(missing):
    alone = Alone(journal_bytes_max=200)
    alone.do(*[ids() for _ in range(30)])
    [name] = [name for name in alone.disk.list(FOLDER) if name.startswith(missing)]
    alone.disk.remove(f"{FOLDER}/{name}")

    with pytest.raises(StartError, match="is missing"):
        Alone(alone.disk)


def test_an_entry_that_is_no_command_stops_the_start():
    disk = new_disk()
    alone = Alone(disk)
    alone.do(ids())
    disk.open(FIRST).append([frame([Entry(3, 1, b"\xc1")], synced_before=True)])

    with pytest.raises(StartError, match="entry 3 is not a command"):
        Alone(disk)


def test_a_lost_entry_stops_the_start():
    disk = new_disk()
    Alone(disk)
    disk.open(FIRST).append([frame([Entry(3, 1, c.encode(ids()))], synced_before=True)])

    with pytest.raises(StartError, match="entry 2 is missing"):
        Alone(disk)


def test_what_a_start_has_shown_stays_when_the_power_goes_after_it():
    """A killed process leaves entries in the page cache only: the next start makes them durable before it uses them."""
    disk = new_disk()
    Alone(disk)
    disk.open(FIRST).append([frame([Entry(2, 1, c.encode(ids()))], synced_before=True)])

    assert 10 == Alone(disk).log.state.next_producer_id
    assert 10 == Alone(crashed(disk)).log.state.next_producer_id


def test_the_names_that_a_start_has_found_stay_when_the_power_goes_after_it():
    """A process that is killed before it has synced its folder leaves them in the page cache only."""
    disk = new_disk()
    alone = Alone(disk, journal_bytes_max=200)
    disk.fail = no_descriptors_from(disk, "rename", "journal.new")
    until_compaction(alone)
    disk.fail = disk.no_descriptors = None

    again = Alone(disk)
    again.do(ids())

    assert again.log.state.next_producer_id == Alone(crashed(disk)).log.state.next_producer_id


# Crash points -------------------------------------------------------------------------------------------------------

SCENARIO = [
    topic(f"t{n}", n) if n % 3 == 0 else config(str(n)) if n % 3 == 1 else ids(n) for n in range(1, 25)
]
JOURNAL_MAX = 400  # two compactions on the way


def histories():
    """The state after each number of commands."""
    state = ClusterState()
    state.apply(c.FormCluster("new-cluster-id"))
    states = [state.snapshot()]
    for command in SCENARIO:
        state.apply(command)
        states.append(state.snapshot())
    return states


STATES = histories()


def run_until(crash_at, *, seed=0):
    """The scenario, without power from an operation on: disk, number of answers given, of commands proposed."""
    disk = new_disk(seed)
    disk.crash_at = None if crash_at is None else disk.operations + crash_at
    answers, proposed = [], 0
    try:
        alone = Alone(disk, journal_bytes_max=JOURNAL_MAX)
        answers = alone.answers
        for pair in zip(SCENARIO[::2], SCENARIO[1::2], strict=True):
            for command in pair:
                proposed += 1
                alone.propose(command)
            alone.settle()
    except Crashed:
        assert crash_at is not None
    return disk, len(answers), proposed


def count_operations():
    disk, answered, _ = run_until(None)
    assert len(SCENARIO) == answered
    return disk.operations - new_disk().operations


@pytest.mark.parametrize("keep, seeds", [("none", 1), ("all", 1), ("torn", 8)])
def test_a_power_cut_at_any_operation_loses_nothing_that_was_answered(keep, seeds):
    for crash_at in range(1, count_operations() + 1):
        for seed in range(seeds):
            disk, answered, proposed = run_until(crash_at, seed=seed)

            again = Alone(crashed(disk, keep), journal_bytes_max=JOURNAL_MAX)

            there = again.log.state.snapshot()
            assert there in STATES[answered : proposed + 1], (
                f"crash at {crash_at}, seed {seed}, {answered} answered"
            )
            assert_goes_on(again)


@pytest.mark.parametrize("keep", ["none", "all", "torn"])
def test_a_power_cut_in_the_start_after_a_power_cut_loses_nothing_either(keep):
    for crash_at in range(1, count_operations() + 1, 3):
        for second in range(1, 5):
            disk, answered, _ = run_until(crash_at, seed=second)
            disk.crash(keep)
            disk.crash_at = disk.operations + second
            try:
                Alone(disk, journal_bytes_max=JOURNAL_MAX)
            except Crashed:
                pass
            again = Alone(crashed(disk, keep))
            assert again.log.state.snapshot() in STATES[answered:], f"crash at {crash_at}, then {second}"


def assert_goes_on(alone):
    before = alone.log.state.next_producer_id
    assert [before, before + 10] == alone.do(ids(), ids())
    state = alone.log.state.snapshot()
    assert state == Alone(crashed(alone.disk)).log.state.snapshot()
