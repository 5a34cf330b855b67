"""Groups of thousands, and thousands of groups: what is done for all of them at once is done slice by slice."""

from __future__ import annotations

import pytest

from kbroker.errors import ErrorCode
from kbroker.groups import ledger, records
from kbroker.groups.events import (
    Beat,
    Beaten,
    ForgetOffsets,
    Forgotten,
    Join,
    Joined,
    Leave,
    Leaver,
    Left,
    Protocol,
    Sync,
    Synced,
)
from tests.support.groups import GroupHouse, subscription

MEMBERS = 45
SLICE = 10
T = ("t", 0)


@pytest.fixture
def house(monkeypatch) -> GroupHouse:
    monkeypatch.setattr(ledger, "REPLIES_PER_SLICE", SLICE)
    monkeypatch.setattr(ledger, "BURIED_PER_SLICE", SLICE)
    monkeypatch.setattr(ledger, "OFFSETS_PER_SLICE", SLICE)
    monkeypatch.setattr(records, "MEMBERS_PER_SLICE", SLICE)
    return GroupHouse(settings={"group.initial.rebalance.delay.ms": "1000"})


def gather(house: GroupHouse, answers: list, members: int = MEMBERS) -> None:
    """A generation of so many, of which the first slice has been answered."""
    for number in range(members):
        house.groups.handle(
            "g",
            Join(
                answers.append,
                "",
                None,
                f"c{number}",
                "/127.0.0.1",
                1_800_000,
                60_000,
                "consumer",
                (Protocol("range", subscription("t")),),
                False,
                False,
            ),
        )
    while not answers:
        house.clock.advance(1000)


def sync(house: GroupHouse, joined: list[Joined]) -> list[Synced]:
    """All ask for their assignments, the leader last."""
    answers: list[Synced] = []
    given = tuple((each.member_id, each.member_id.encode()) for each in joined)
    for each in sorted(joined, key=lambda each: each.member_id == each.leader):
        leads = each.member_id == each.leader
        house.groups.handle(
            "g",
            Sync(answers.append, each.generation, each.member_id, None, None, None, given if leads else ()),
        )
    return answers


def test_members_of_a_generation_are_answered_slice_by_slice(house):
    answers: list[Joined] = []
    gather(house, answers)

    seen = [len(answers)]
    while len(answers) < MEMBERS:
        house.clock.advance(0)
        seen.append(len(answers))

    assert [10, 20, 30, 40, 45] == seen
    assert {(ErrorCode.NONE, 1)} == {(each.error, each.generation) for each in answers}
    assert [MEMBERS] == [len(each.members) for each in answers if each.members]


def test_who_asks_meanwhile_is_answered_behind_them(house):
    answers: list = []
    gather(house, answers)

    house.groups.handle("g", Leave(answers.append, (Leaver(answers[0].member_id, None),)))
    house.settle()

    assert [Joined] * MEMBERS + [Left] == [type(each) for each in answers]


def test_a_heartbeat_of_a_member_that_is_answered_already_is_served(house):
    answers: list[Joined] = []
    gather(house, answers)
    house.settle()
    beats: list[Beaten] = []

    house.groups.handle("g", Beat(beats.append, 1, answers[0].member_id, None))

    assert [Beaten(ErrorCode.NONE)] == beats


def test_a_large_group_is_written_down_and_shared_out_slice_by_slice(house):
    joined: list[Joined] = []
    gather(house, joined)
    house.settle()

    answers = sync(house, joined)
    slices = 0
    while not answers:
        house.broker.settle()
        house.clock.advance(0)
        slices += 1
    house.settle()

    assert 5 <= slices  # that many to make the record, then all is there at once but the answers
    assert MEMBERS == len(answers)
    assert {each.member_id.encode() for each in joined} == {each.assignment for each in answers}
    described = house.groups.describe("g")
    assert "Stable" == described.state
    assert described == house.again().groups.describe("g")


def test_a_deletion_stands_in_the_log_behind_all_that_was_to_be_written(house):
    joined: list[Joined] = []
    gather(house, joined)
    house.settle()
    sync(house, joined)
    house.groups.handle("g", Leave(joined.append, tuple(Leaver(each.member_id, None) for each in joined)))

    assert {"g": ErrorCode.NONE} == house.delete("g")

    assert (b"\0\2\0\1g", None) == (house.log_of("g")[-1].key, house.log_of("g")[-1].value)
    assert (ErrorCode.NONE, []) == house.again().listed()


def test_whoever_waits_for_its_slice_is_answered_when_the_broker_stops(house):
    answers: list[Joined] = []
    gather(house, answers)
    assert SLICE == len(answers)

    house.groups.stop()

    assert [1] * MEMBERS == [each.generation for each in answers]


# -- a topic that many groups have read


def committed(house: GroupHouse, groups: int) -> None:
    topic_id = house.create("t")
    for number in range(groups):
        house.commit(f"g{number}", {T: house.offset(5, topic_id=topic_id)})


def test_offsets_of_a_deleted_topic_are_forgotten_slice_by_slice(house):
    committed(house, 10)
    before = house.partitions.get("__consumer_offsets", 0).log.end

    house.delete_topic("t")
    ends = []
    for _ in range(10):
        house.broker.settle()
        ends.append(house.partitions.get("__consumer_offsets", 0).log.end - before)
        house.clock.advance(0)

    assert ends == sorted(ends)
    assert (True, 10) == (1 <= ends[0] <= 2, ends[-1])
    assert [{}] * 10 == [house.committed(f"g{number}") for number in range(10)]
    again = house.again()
    assert [{}] * 10 == [again.committed(f"g{number}") for number in range(10)]


def test_what_is_committed_to_a_topic_made_anew_meanwhile_stays(house):
    committed(house, 10)

    house.delete_topic("t")
    topic_id = house.create("t")
    house.commit("g8", {T: house.offset(3, topic_id=topic_id)}, settle=False)
    house.broker.settle()  # committed
    house.commit("g9", {T: house.offset(4, topic_id=topic_id)}, settle=False)  # under way
    house.settle()

    expected = [{}] * 8 + [{T: 3}, {T: 4}]
    assert expected == [house.committed(f"g{number}") for number in range(10)]
    again = house.again()
    assert expected == [again.committed(f"g{number}") for number in range(10)]


def test_many_offsets_of_one_group_are_forgotten_slice_by_slice(house):
    topic_id = house.create("t", 45)
    house.commit("g", {("t", index): house.offset(5, topic_id=topic_id) for index in range(45)})
    before = house.partitions.get("__consumer_offsets", 0).log.end

    house.delete_topic("t")
    ends = []
    for _ in range(5):
        house.broker.settle()
        ends.append(house.partitions.get("__consumer_offsets", 0).log.end - before)
        house.clock.advance(0)

    assert [10, 20, 30, 40, 45] == ends
    assert {} == house.again().committed("g")


def test_a_deletion_that_a_new_reading_of_the_log_cut_short_is_done_behind_it(house):
    committed(house, 10)
    house.delete_topic("t")

    house.groups._ledgers[0].shard.read_anew()
    house.settle()

    assert [{}] * 10 == [house.committed(f"g{number}") for number in range(10)]


def test_deletions_that_wait_for_each_other_are_all_done_behind_a_new_reading(house, caplog):
    committed(house, 10)
    house.create("u")
    house.commit("g0", {("u", 0): 6})
    house.delete_topic("t")
    house.delete_topic("u")

    house.groups._ledgers[0].shard.read_anew()
    house.settle()

    assert [{}] * 10 == [house.committed(f"g{number}") for number in range(10)]
    assert "work on groups ended" not in caplog.text


# -- very many offsets that are forgotten on demand


def kept(house: GroupHouse) -> list[tuple[str, int]]:
    """A group that has committed to two topics, and left."""
    where = [(topic, index) for topic in ("t", "u") for index in range(15)]
    house.commit("g", dict.fromkeys(where, 5))
    return where


def forget(house: GroupHouse, where: list[tuple[str, int]]) -> list[Forgotten]:
    answers: list[Forgotten] = []
    house.groups.forget("g", ForgetOffsets(answers.append, tuple(where)))
    return answers


def test_many_offsets_are_forgotten_on_demand_slice_by_slice(house):
    where = kept(house)
    before = house.partitions.get("__consumer_offsets", 0).log.end

    answers = forget(house, [*where, ("v", 0)])
    ends = []
    for _ in range(4):
        house.broker.settle()
        ends.append(house.partitions.get("__consumer_offsets", 0).log.end - before)
        house.clock.advance(0)

    assert [10, 20, 30, 30] == ends
    assert [Forgotten(ErrorCode.NONE, (ErrorCode.NONE,) * 31)] == answers
    assert {} == house.committed("g") == house.again().committed("g")


def test_a_member_that_comes_meanwhile_keeps_what_it_reads(house):
    where = kept(house)
    answers = forget(house, where)

    joined: list[Joined] = []
    house.groups.handle(
        "g",
        Join(
            joined.append,
            "",
            None,
            "c",
            "/1",
            10_000,
            60_000,
            "consumer",
            (Protocol("range", subscription("u")),),
            False,
            False,
        ),
    )
    house.clock.advance(1000)
    house.settle()

    refused = [error is ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC for error in answers[0].partitions]
    assert [False] * 10 == refused[:10]
    assert [not gone for gone in refused] == [each not in house.committed("g") for each in where]
    assert house.committed("g") == house.again().committed("g")


def test_a_group_that_is_deleted_meanwhile_is_told_so(house):
    answers = forget(house, kept(house))

    assert {"g": ErrorCode.NONE} == house.delete("g")
    house.settle()

    assert [Forgotten(ErrorCode.NOT_COORDINATOR)] == answers


# -- a commit of very many offsets


def commit(house: GroupHouse, value: int, count: int = 45) -> list[ErrorCode]:
    return house.commit("g", {("t", index): value for index in range(count)}, settle=False)


def test_records_of_a_large_commit_are_made_slice_by_slice(house):
    answers = commit(house, 5)

    slices = 1
    while not house.log_of("g"):
        house.broker.settle()
        house.clock.advance(0)
        slices += 1
    house.settle()

    assert 6 == slices  # and the turn in which they are written
    assert [ErrorCode.NONE] == answers
    assert {("t", index): 5 for index in range(45)} == house.committed("g") == house.again().committed("g")


def test_a_large_commit_that_counts_is_seen_whole(house):
    answers = commit(house, 5)
    while not answers:
        house.broker.settle()
        house.clock.advance(0)
    assert house.groups._ledgers[0].groups["g"].keeping is not None  # it is not all among the others yet

    assert {("t", index): 5 for index in range(45)} == house.committed("g")


def test_commits_of_a_group_count_in_the_order_of_the_log(house):
    commit(house, 5)
    commit(house, 6)
    house.commit("g", {T: 7}, settle=False)
    house.settle()

    assert house.committed("g") == house.again().committed("g")


def test_a_group_that_is_deleted_before_its_large_commit_is_written_has_none(house):
    house.commit("g", {T: 4})
    answers = commit(house, 5)

    assert {"g": ErrorCode.NONE} == house.delete("g")

    assert [ErrorCode.NOT_COORDINATOR] == answers
    assert (ErrorCode.NONE, []) == house.listed()
    assert (ErrorCode.NONE, []) == house.again().listed()


def test_a_large_commit_of_a_generation_that_ended_meanwhile_overwrites_nothing(house):
    """The next generation has committed by then, and was told that it counts."""
    first = house.join("g", topics=["t"])
    house.clock.advance(1000)
    [joined] = first
    house.sync("g", joined)
    offsets = {("t", index): 5 for index in range(45)}
    late = house.commit("g", offsets, generation=1, member=joined.member_id, settle=False)

    house.groups.handle("g", Leave(lambda _: None, (Leaver(joined.member_id, None),)))
    early = house.commit("g", {T: 7}, settle=False)
    house.settle()

    assert ([ErrorCode.NONE], [ErrorCode.UNKNOWN_MEMBER_ID]) == (early, late)
    assert {T: 7} == house.committed("g") == house.again().committed("g")


def test_a_large_commit_that_cannot_be_written_down_is_answered(house):
    offsets = {("t", index): house.offset(5, metadata="x" * 40_000) for index in range(45)}

    answers = house.commit("g", offsets)

    assert [ErrorCode.UNKNOWN_SERVER_ERROR] == answers
    assert {} == house.committed("g")
