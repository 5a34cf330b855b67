"""LocalLog: groups, failures, and that no crash at any point loses what was acknowledged."""

from __future__ import annotations

import errno
from itertools import pairwise
from uuid import UUID

import pytest

from kbroker.cluster import commands as c
from kbroker.cluster.journal import journal_name, snapshot_name
from kbroker.cluster.local import LocalLog
from kbroker.cluster.state import ClusterState
from kbroker.config import ConfigOp
from kbroker.errors import ErrorCode, KafkaError, StartError
from kbroker.model import BrokerId
from tests.support.storage import ManualThreads

FOLDER = "/data/cluster"
FIRST = f"{FOLDER}/{journal_name(1)}"


class PowerCut(BaseException):
    """The machine stops here."""


class Bytes:
    """What is in a file, and what of it an fsync has put on the disk."""

    def __init__(self):
        self.now = b""
        self.safe = b""


class CuttingDisk:
    """Forgets what was not synced, names too. Stops the machine, or fails, at a chosen operation."""

    def __init__(self, *, cut_at=None, fail_at=None):
        self.names = {}  # path -> Bytes
        self.safe_names = {}
        self.folders = {"/data"}
        self.safe_folders = {"/data"}
        self.operations = 0
        self.cut_at = cut_at
        self.fail_at = fail_at  # {operation: OSError}

    def operation(self):
        self.operations += 1
        if self.operations == self.cut_at:
            raise PowerCut
        if self.fail_at and self.operations in self.fail_at:
            raise self.fail_at[self.operations]

    def after_power_cut(self, *, names_kept, tail):
        """The disk as the next start finds it. `tail`: how much of unsynced bytes is there (0 to 1)."""
        disk = CuttingDisk()
        disk.folders = set(self.folders if names_kept else self.safe_folders)
        for path, data in (self.names if names_kept else self.safe_names).items():
            if path.rpartition("/")[0] not in disk.folders:
                continue
            kept = disk.names[path] = Bytes()
            if data.now.startswith(data.safe):
                unsynced = data.now[len(data.safe) :]
                kept.now = data.safe + unsynced[: int(len(unsynced) * tail)]
            else:  # truncated since it was synced, and maybe the truncation was lost
                kept.now = data.now if tail == 1 else data.safe
            kept.safe = kept.now
        disk.safe_names = dict(disk.names)
        disk.safe_folders = set(disk.folders)
        return disk

    def open(self, path, *, create=False):
        if path not in self.names:
            if not create:
                raise FileNotFoundError(path)
            self.operation()
            self.names[path] = Bytes()
        return CuttingFile(self, path)

    def exists(self, path):
        return path in self.names or path in self.folders

    def list(self, folder):
        return sorted(path.rpartition("/")[2] for path in self.names if path.startswith(folder + "/"))

    def read(self, path):
        return self.names[path].now

    def mkdir(self, folder):
        self.operation()
        self.folders.add(folder)

    def rename(self, old, new):
        self.operation()
        self.names[new] = self.names.pop(old)

    def remove(self, path):
        self.operation()
        del self.names[path]

    def sync_dir(self, folder):
        self.operation()
        self.safe_folders |= {each for each in self.folders if each.rpartition("/")[0] == folder}
        inside = {path: data for path, data in self.names.items() if path.startswith(folder + "/")}
        self.safe_names = {
            path: data for path, data in self.safe_names.items() if not path.startswith(folder + "/")
        } | inside


class CuttingFile:
    def __init__(self, disk, path):
        self.disk, self.path = disk, path
        self.data = disk.names[path]
        self.size = len(self.data.now)
        self.closed = False

    def append(self, parts):
        data = b"".join(parts)
        try:
            self.disk.operation()
        except BaseException:
            self.data.now += data[: len(data) // 2]  # torn
            raise
        self.data.now += data
        self.size += len(data)

    def truncate(self, size):
        self.disk.operation()
        self.data.now = self.data.now[:size]
        self.size = size

    def sync(self):
        self.disk.operation()
        self.data.safe = self.data.now

    def close(self):
        self.closed = True


class Alone:
    """A log, its disk and its threads; what was answered, in order."""

    def __init__(self, disk=None, *, fsync=True, journal_bytes_max=1 << 20):
        self.disk = disk or CuttingDisk()
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

    again = Alone(alone.disk.after_power_cut(names_kept=False, tail=0))

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
    disk = CuttingDisk()
    alone = Alone(disk)
    disk.fail_at = {disk.operations + 1: OSError(errno.ENOSPC, "No space left on device")}

    [refused, first] = alone.do(ids(), ids())

    assert ErrorCode.KAFKA_STORAGE_ERROR == refused.code
    assert "No space left on device" in refused.message
    assert 0 == first
    assert 10 == Alone(disk.after_power_cut(names_kept=False, tail=0)).log.state.next_producer_id


@pytest.mark.parametrize(
    "failing", [2, (1, 2), (1, 3)], ids=["fsync", "append and truncate", "append, sync of the cut"]
)
def test_a_failed_fsync_stops_the_log_for_good(failing):
    disk = CuttingDisk()
    alone = Alone(disk)
    numbers = failing if isinstance(failing, tuple) else (failing,)
    disk.fail_at = {disk.operations + number: OSError(errno.EIO, "Input/output error") for number in numbers}
    alone.propose(ids())
    alone.propose(ids())
    alone.settle()

    [later] = alone.do(ids())

    assert [ErrorCode.KAFKA_STORAGE_ERROR] * 3 == [answer.code for answer in alone.answers]
    assert later is alone.answers[-1]
    assert "Input/output error" in alone.log.status.failed
    assert 0 == alone.log.state.next_producer_id


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
    again = Alone(alone.disk.after_power_cut(names_kept=False, tail=0))
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


def test_a_failed_compaction_stops_the_log_and_loses_nothing():
    disk = CuttingDisk()
    alone = Alone(disk, journal_bytes_max=200)
    while disk.list(FOLDER) == [journal_name(1)] and len(alone.answers) < 50:
        alone.propose(ids())
        alone.threads.step()
        if alone.threads.waiting:  # the compaction
            disk.fail_at = {disk.operations + 1: OSError(errno.ENOSPC, "No space left on device")}
            break
    alone.settle()

    assert "not compacted" in alone.log.status.failed
    assert (
        alone.log.state.next_producer_id
        == Alone(disk.after_power_cut(names_kept=False, tail=0)).log.state.next_producer_id
    )


@pytest.mark.parametrize("missing", ["journal", "snapshot"])
def test_a_missing_file_stops_the_start(missing):
    alone = Alone(journal_bytes_max=200)
    alone.do(*[ids() for _ in range(30)])
    [path] = [path for path in alone.disk.names if f"/{missing}." in path]
    del alone.disk.names[path]

    with pytest.raises(StartError, match="is missing"):
        Alone(alone.disk)


def test_an_entry_that_is_no_command_stops_the_start():
    disk = CuttingDisk()
    alone = Alone(disk)
    alone.do(ids())
    from kbroker.cluster.journal import Entry, frame

    disk.names[FIRST].now += frame([Entry(3, 1, b"\xc1")], synced_before=True)

    with pytest.raises(StartError, match="entry 3 is not a command"):
        Alone(disk)


def test_a_lost_entry_stops_the_start():
    disk = CuttingDisk()
    Alone(disk)
    from kbroker.cluster.journal import Entry, frame

    disk.names[FIRST].now += frame([Entry(3, 1, c.encode(ids()))], synced_before=True)

    with pytest.raises(StartError, match="entry 2 is missing"):
        Alone(disk)


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


def run_until(cut_at):
    """The scenario, cut at an operation: disk, answers given, commands proposed, whether it came to its end."""
    disk = CuttingDisk(cut_at=cut_at)
    answers, proposed = [], 0
    try:
        alone = Alone(disk, journal_bytes_max=JOURNAL_MAX)
        answers = alone.answers
        for first, second in zip(SCENARIO[::2], SCENARIO[1::2], strict=True):
            proposed += 1
            alone.propose(first)
            proposed += 1
            alone.propose(second)
            alone.settle()
    except PowerCut:
        return disk, len(answers), proposed, False
    return disk, len(answers), proposed, True


def count_operations():
    disk, answers, _, ended = run_until(None)
    assert (len(SCENARIO), True) == (answers, ended)
    return disk.operations


@pytest.mark.parametrize("tail", [0, 0.5, 0.9, 1])
@pytest.mark.parametrize("names_kept", [False, True])
def test_a_power_cut_at_any_operation_loses_nothing_that_was_answered(names_kept, tail):
    for cut_at in range(1, count_operations() + 1):
        disk, answered, proposed, ended = run_until(cut_at)
        assert not ended

        again = Alone(disk.after_power_cut(names_kept=names_kept, tail=tail), journal_bytes_max=JOURNAL_MAX)

        there = again.log.state.snapshot()
        assert there in STATES[answered : proposed + 1], f"cut at {cut_at}, {answered} answered"
        assert_goes_on(again)


@pytest.mark.parametrize("names_kept", [False, True])
def test_a_power_cut_while_starting_after_a_power_cut_loses_nothing_either(names_kept):
    for cut_at in range(1, count_operations() + 1, 3):
        disk, answered, _, _ = run_until(cut_at)
        for second_cut in range(1, 5):
            found = disk.after_power_cut(names_kept=names_kept, tail=0.5)
            found.cut_at = second_cut
            try:
                Alone(found, journal_bytes_max=JOURNAL_MAX)
            except PowerCut:
                pass
            again = Alone(found.after_power_cut(names_kept=names_kept, tail=0))
            assert again.log.state.snapshot() in STATES[answered:], f"cut at {cut_at}, then {second_cut}"


def assert_goes_on(alone):
    before = alone.log.state.next_producer_id
    assert [before, before + 10] == alone.do(ids(), ids())
    again = Alone(alone.disk.after_power_cut(names_kept=False, tail=0))
    assert alone.log.state.snapshot() == again.log.state.snapshot()
    assert all(a < b for a, b in pairwise([before, again.log.state.next_producer_id]))
