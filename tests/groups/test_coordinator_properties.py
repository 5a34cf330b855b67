"""Random histories of offsets against a naive dictionary, with restarts, and the power cut at every write."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.errors import ErrorCode
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
