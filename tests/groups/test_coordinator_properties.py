"""Random histories of offsets against a naive dictionary, with restarts, and the power cut at every write."""

from __future__ import annotations

import errno
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.errors import ErrorCode
from kbroker.groups.events import ForgetOffsets, Join, Protocol, Sync
from tests.support.groups import GroupHouse
from tests.support.memory_disk import Crashed, MemoryDisk

GROUPS = ["a", "b", "c"]
TOPICS = ["t", "u"]
PARTITIONS = 3
RETENTION_MS = 60 * 60_000

where = st.tuples(st.sampled_from(TOPICS), st.integers(0, PARTITIONS - 1))
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("commit"), st.sampled_from(GROUPS), st.dictionaries(where, st.integers(0, 99), min_size=1)
        ),
        st.tuples(st.just("forget"), st.sampled_from(GROUPS), st.lists(where, min_size=1, max_size=3)),
        st.tuples(st.just("delete"), st.sampled_from(GROUPS)),
        st.tuples(st.just("delete topic"), st.sampled_from(TOPICS)),
        st.tuples(st.just("wait"), st.sampled_from([10, 35, 70])),
        st.tuples(st.just("restart"), st.sampled_from([None, "all", "none", "torn"])),
    ),
    max_size=25,
)


class Naive:
    """What ought to be there: group -> where -> (offset, committed at)."""

    def __init__(self):
        self.groups = {}

    def do(self, house, step):
        match step:
            case ("commit", group, offsets):
                now = house.clock.now_ms
                self.groups.setdefault(group, {}).update({at: (value, now) for at, value in offsets.items()})
            case ("forget", group, gone):
                for at in gone:
                    self.groups.get(group, {}).pop(at, None)
            case ("delete", group):
                self.groups.pop(group, None)
            case ("delete topic", topic):
                for offsets in self.groups.values():
                    for at in [at for at in offsets if at[0] == topic]:
                        del offsets[at]
            case ("wait", _):
                now = house.clock.now_ms
                for offsets in self.groups.values():
                    for at in [at for at, (_, then) in offsets.items() if now - then >= RETENTION_MS]:
                        del offsets[at]

    def committed(self, group):
        return {at: value for at, (value, _) in self.groups.get(group, {}).items()}


def do(house, step):
    """The step, to its end; the house that it leads to."""
    match step:
        case ("commit", group, offsets):
            assert [ErrorCode.NONE] == house.commit(
                group,
                {
                    (t, p): house.offset(v, topic_id=house.state.topics[t].id.bytes)
                    for (t, p), v in offsets.items()
                },
            )
        case ("forget", group, gone):
            house.forget(group, *gone)
        case ("delete", group):
            house.delete(group)
        case ("delete topic", topic):
            house.delete_topic(topic)
            house.create(topic, PARTITIONS)
            house.settle()
        case ("wait", minutes):
            house.clock.advance(minutes * 60_000)
            house.settle()
            house.clock.advance(11 * 60_000)  # the next round
            house.settle()
        case ("restart", crash):
            return house.again(crash=crash)
    return house


def begin(**fields):
    house = GroupHouse(settings={"offsets.retention.minutes": "60"}, partitions=2, **fields)
    for topic in TOPICS:
        house.create(topic, PARTITIONS)
    return house


@given(steps)
def test_offsets_are_a_dictionary_that_survives(history):
    house, naive = begin(topic={"segment.bytes": "1048576"}), Naive()
    for step in history:
        house = do(house, step)
        naive.do(house, step)
        for group in GROUPS:
            assert naive.committed(group) == house.committed(group), step
    house = house.again()
    assert {group: naive.committed(group) for group in GROUPS} == {
        group: house.committed(group) for group in GROUPS
    }


@pytest.mark.parametrize("keep", ["none", "all", "torn"])
@pytest.mark.parametrize("seed", range(3))
def test_what_was_answered_is_there_wherever_the_power_is_cut(seed, keep):
    """A cut at each change of the disk in turn: answered commits and generations are there, and nothing that was never
    sent."""
    cuts = 0
    for cut in range(1, 400):
        rng = random.Random(seed)
        house = begin(disk=MemoryDisk(seed=seed * 1000 + cut))
        house.disk.crash_at = house.disk.operations + cut
        sent: dict[tuple[str, int], list[int]] = {}
        answered: dict[tuple[str, int], int] = {}
        generation = None
        try:
            joined = house.stable("members", "t")
            generation = joined.generation
            for number in range(12):
                group, partition = rng.choice(GROUPS), rng.randrange(PARTITIONS)
                sent.setdefault((group, partition), []).append(number)
                if house.commit(group, {("t", partition): number}) == [ErrorCode.NONE]:
                    answered[group, partition] = number
        except Crashed:
            cuts += 1
        else:
            break
        house.disk.crash_at = None
        again = house.again(crash=keep)

        for (group, partition), numbers in sent.items():
            found = again.committed(group).get(("t", partition), -1)
            least = answered.get((group, partition), -1)
            assert found in [-1, *numbers], (cut, group, partition)
            assert found >= least, (cut, group, partition)
        if generation is not None:
            described = again.groups.describe("members")
            assert ("Stable", [b"mine"]) == (described.state, [each.assignment for each in described.members])
        assert again.commit("a", {("t", 0): 99}) == [ErrorCode.NONE]
        assert 99 == again.again(crash="none").committed("a")["t", 0]
    assert cuts > 10


class Chaos:
    """Commits, deletions and members at once, on a disk that is full now and then, slow, and never waited for."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.full = 0.0  # how likely a write fails
        small = (
            {"max.message.bytes": "600"} if self.rng.random() < 0.6 else {}
        )  # large commits are many batches
        self.house = GroupHouse(partitions=2, topic={"segment.bytes": "1048576", **small})
        self.house.create("t", 30)
        self.house.disk.fail = self._fails
        self.asked = []  # what was done to which group, and the answers

    def _fails(self, what, path):
        is_log = what == "append" and path.endswith(".log")
        return errno.ENOSPC if is_log and self.rng.random() < self.full else None

    def step(self, number):
        house, rng = self.house, self.rng
        group, answers = rng.choice(GROUPS), []
        match rng.choices(
            ["commit", "delete", "forget", "join", "sync", "disk", "time", "write", "settle"],
            [50, 6, 6, 8, 8, 5, 6, 6, 4],
        )[0]:
            case "commit":
                offsets = {("t", at): number for at in rng.sample(range(30), rng.choice([1, 2, 25]))}
                self.asked.append((group, offsets, house.commit(group, offsets, settle=False)))
            case "delete":
                house.groups.delete([group], answers.append)
                self.asked.append((group, None, answers))
            case "forget":
                every = tuple(("t", at) for at in range(30))
                house.groups.forget(group, ForgetOffsets(answers.append, every))
                self.asked.append((group, None, answers))
            case "join":
                instance = rng.choice([None, "i", "j"])
                protocols = (Protocol("range", b""),)
                house.groups.handle(
                    "members",
                    Join(
                        answers.append,
                        "",
                        instance,
                        "c",
                        "/",
                        10_000,
                        5_000,
                        "consumer",
                        protocols,
                        False,
                        False,
                    ),
                )
                self.asked.append(("members", {}, answers))
            case "sync":
                self._sync()
            case "disk":
                self.full = rng.choice([0, 0, 0.3, 1])
            case "time":
                house.clock.advance(rng.choice([10, 2_000, 5_000, 12_000]))
            case "write":
                house.broker.turn.run()
                house.broker.threads.step()
            case "settle":
                house.settle()

    def _sync(self):
        joined = [a[0] for group, _, a in self.asked if group == "members" and a and hasattr(a[0], "leader")]
        for each in joined:
            answers = []
            parts = ((each.member_id, b"x"),)
            sync = Sync(answers.append, each.generation, each.member_id, None, None, None, parts)
            self.house.groups.handle("members", sync)
            self.asked.append(("members", {}, answers))

    def calm(self):
        """The disk is well again, and everybody who waits has had the time to be answered."""
        self.full = 0.0
        for _ in range(40):
            self.house.clock.advance(1_000)
            self.house.settle()

    def least(self, group):
        """Offsets that must be there: the last that were answered, unless something may have taken them away since."""
        found = {}
        for asked, offsets, answers in self.asked:
            if asked == group:
                if offsets is None:
                    found = {}
                elif answers == [ErrorCode.NONE]:
                    found.update(offsets)
        return found


@pytest.mark.parametrize("seed", range(20))
def test_on_a_disk_that_is_full_now_and_then_memory_is_what_a_restart_reads(seed):
    chaos = Chaos(seed)
    for number in range(60):
        chaos.step(number)
    chaos.calm()

    assert {1} == {len(answers) for _, _, answers in chaos.asked}, "each is answered once"
    there = {group: chaos.house.committed(group) for group in GROUPS}
    for group in GROUPS:
        assert all(there[group].get(at, -1) >= offset for at, offset in chaos.least(group).items())
    again = chaos.house.again()
    assert there == {group: again.committed(group) for group in GROUPS}
