"""The coordinator over a real log: which groups there are, what they have committed, what a restart leaves of it."""

from __future__ import annotations

import errno

import pytest

from kbroker.cluster.commands import CreatePartitions, MorePartitions
from kbroker.cluster.names import GROUPS_TOPIC
from kbroker.errors import ErrorCode
from kbroker.groups import coordinator
from kbroker.groups.coordinator import FETCHED_PER_SLICE, spread
from kbroker.groups.events import Beat, Beaten, Joined, Leave, Leaver, Left, Protocol, Sync, Synced
from kbroker.groups.ledger import MEMBER_BATCHES_MAX, REASONS_MAX, Ledger
from kbroker.groups.records import Unreadable
from tests.support.groups import GroupHouse

T = ("t", 0)
MINUTE_MS = 60_000


@pytest.fixture
def house():
    return GroupHouse()


# -- where a group is


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("", 0),
        ("a", 97),
        ("group", 98629247),
        ("my-consumer-group-1", 1322913907),
        ("grüße", 98768023),
        ("😀", 1772899),
        ("of one", 1021868899),  # below 0
        ("polygenelubricants", 0),  # -2^31
        ("Ω-group😀x", 1380594234),
    ],
)
def test_hashes_are_javas_without_their_sign(group, expected):
    assert expected == spread(group)


def test_long_ids_are_not_remembered():
    """65,536 of them are 2 GB."""
    before = coordinator._remembered.cache_info().currsize
    assert spread("x" * 32_767) == spread("x" * 32_767) == java_hash("x" * 32_767)
    assert before == coordinator._remembered.cache_info().currsize


def java_hash(ascii_only: str) -> int:
    value = 0
    for unit in ascii_only.encode():
        value = (31 * value + unit) % 2**32
    return abs(value - 2**32 if value >= 2**31 else value)


def test_a_partition_is_the_hash_modulo_the_topics_partitions():
    house = GroupHouse(partitions=50)

    assert 98629247 % 50 == house.groups.partition_of("group")


def test_a_topic_that_grows_keeps_its_groups(house):
    house.commit("group", {T: 5})
    topic = house.state.topics[GROUPS_TOPIC]
    house.do(CreatePartitions([MorePartitions(topic.id, 1, [(0,)] * 49)]))

    assert {T: 5} == house.committed("group")


def test_without_the_topic_nobody_is_the_coordinator(house):
    house.delete_topic(GROUPS_TOPIC)

    assert [ErrorCode.NOT_COORDINATOR] == house.commit("g", {T: 1})
    assert ErrorCode.NOT_COORDINATOR == house.groups.fetch("g", None).error
    assert ErrorCode.NOT_COORDINATOR == house.join("g")[0].error
    assert {"g": ErrorCode.NOT_COORDINATOR} == house.delete("g")
    assert (ErrorCode.NONE, []) == house.listed()


def test_partitions_are_opened_when_a_group_needs_them():
    house = GroupHouse(partitions=50)
    assert 0 == len(house.partitions)

    house.commit("g", {T: 1})

    assert 1 == len(house.partitions)


# -- offsets


def test_a_commit_counts_when_it_is_on_the_disk(house):
    answers = house.commit("g", {T: 5}, settle=False)
    house.broker.turn.run()
    assert ([], {}) == (answers, house.committed("g"))

    house.settle()

    assert ([ErrorCode.NONE], {T: 5}) == (answers, house.committed("g"))


def test_commits_of_a_turn_are_one_batch(house):
    for number in range(20):
        house.commit(f"g{number}", {T: number}, settle=False)
    house.settle()

    partition = house.partitions.get(GROUPS_TOPIC, 0)
    assert 20 == partition.log.end
    assert 1 == len(partition.log.segments[0].recent_lasts)


def test_all_of_an_offset_is_kept(house):
    offset = house.offset(7, leader_epoch=3, metadata="mine", topic_id=house.create("t"))
    house.commit("g", {T: offset})

    assert {T: offset} == house.groups.fetch("g", [T, ("t", 1), ("u", 0)]).offsets
    assert {T: offset} == house.again().groups.fetch("g", None).offsets


def test_many_offsets_are_fetched_in_slices_as_they_were_at_the_begin(house):
    count = 3 * FETCHED_PER_SLICE + 5
    house.commit("g", {("t", index): 1 for index in range(count)})
    worked, fetched = [], []

    def fetch():
        fetched.append((yield from house.groups.fetching("g", None)))

    steps = fetch()
    worked.append(next(steps))
    house.commit("g", {("t", index): 2 for index in range(count)})
    worked += steps

    assert [FETCHED_PER_SLICE] * 3 == worked
    assert {("t", index): 1 for index in range(count)} == {
        where: offset.offset for where, offset in fetched[0].offsets.items()
    }


def test_a_group_that_only_commits_is_empty_and_has_no_protocol(house):
    house.commit("g", {T: 5})

    error, [listed] = house.listed()
    assert (ErrorCode.NONE, "g", "", "Empty") == (error, listed.group_id, listed.protocol_type, listed.state)


def test_a_generation_of_a_group_that_nobody_knows_is_refused(house):
    assert [ErrorCode.GROUP_ID_NOT_FOUND] == house.commit("g", {T: 5}, generation=0)
    assert (ErrorCode.NONE, []) == house.listed()


def test_a_refused_commit_leaves_no_group(house):
    house.stable("g")

    assert [ErrorCode.UNKNOWN_MEMBER_ID] == house.commit("g", {T: 5})
    assert [ErrorCode.UNKNOWN_MEMBER_ID] == house.commit("g", {T: 5}, generation=1, member="who")
    assert {} == house.committed("g")


def test_a_commit_of_nothing_is_answered(house):
    assert [ErrorCode.NONE] == house.commit("g", {})
    assert (ErrorCode.NONE, []) == house.listed()


def test_members_commit(house):
    joined = house.stable("g", "t")

    assert [ErrorCode.NONE] == house.commit(
        "g", {T: 5}, generation=joined.generation, member=joined.member_id
    )
    assert {T: 5} == house.committed("g")


def test_unknown_groups_have_committed_nothing(house):
    assert (ErrorCode.NONE, {}) == house.groups.fetch("nobody", [T])
    assert (ErrorCode.NONE, {}) == house.groups.fetch("nobody", None)


def test_the_empty_group_id_may_commit_and_nothing_else(house):
    assert [ErrorCode.NONE] == house.commit("", {T: 5})
    assert {T: 5} == house.committed("")
    assert ErrorCode.INVALID_GROUP_ID == house.join("")[0].error
    assert ErrorCode.INVALID_GROUP_ID == house.forget("", T)[0].error
    assert {"": ErrorCode.NONE} == house.delete("")


def test_offsets_of_a_deleted_topic_are_forgotten(house):
    topic_id = house.create("t")
    house.commit("g", {T: house.offset(5, topic_id=topic_id), ("u", 0): 6})

    house.delete_topic("t")
    house.settle()

    assert {("u", 0): 6} == house.committed("g")
    assert {("u", 0): 6} == house.again().committed("g")


def test_a_commit_under_way_is_forgotten_with_its_topic(house):
    topic_id = house.create("t")
    house.commit("g", {T: house.offset(5, topic_id=topic_id)}, settle=False)

    house.delete_topic("t")
    house.settle()

    assert {} == house.committed("g")
    assert {} == house.again().committed("g")


def test_a_deletion_that_a_crash_cut_short_is_done_at_the_next_start(house):
    topic_id = house.create("t")
    house.commit("g", {T: house.offset(5, topic_id=topic_id), ("u", 0): 6})
    house.groups.stop()
    house.delete_topic("t")
    house.create("t")

    again = house.again(crash="all")

    assert {("u", 0): 6} == again.committed("g")
    assert {("u", 0): 6} == again.again().committed("g")


@pytest.mark.parametrize("alive", [0, 7, 20])
def test_a_topic_deleted_while_groups_come_to_life_is_forgotten_by_all(house, monkeypatch, alive):
    house.create("t")
    for number in range(20):
        house.commit(f"g{number}", {T: 5})
    again = house.again(start=False)
    finish = Ledger.finish

    def interrupted(ledger):
        for number, step in enumerate(finish(ledger)):
            if number == alive:
                again.delete_topic("t")
            yield step
        if alive == 20:
            again.delete_topic("t")

    monkeypatch.setattr(Ledger, "finish", interrupted)
    again.groups.start()
    again.settle()

    assert [{}] * 20 == [again.committed(f"g{number}") for number in range(20)]


def test_offsets_of_a_topic_that_is_not_there_stay(house):
    """A Kafka's log may hold offsets of topics that others hold."""
    house.commit("g", {T: house.offset(5, topic_id=bytes(range(16)))})

    assert {T: 5} == house.again().committed("g")


def test_a_topic_of_the_same_name_has_no_offsets_of_the_other(house):
    house.commit("g", {T: house.offset(5, topic_id=bytes(range(16))), ("t", 1): 6})
    house.create("t")

    assert {("t", 1): 6} == house.committed("g")
    assert {} == house.groups.fetch("g", [T]).offsets


# -- OffsetDelete


def test_offsets_are_forgotten_on_demand(house):
    house.commit("g", {T: 5, ("t", 1): 6})

    [forgotten] = house.forget("g", T, ("t", 7))

    assert (ErrorCode.NONE, (ErrorCode.NONE, ErrorCode.NONE)) == forgotten
    assert {("t", 1): 6} == house.committed("g")
    assert {("t", 1): 6} == house.again().committed("g")


def test_what_members_read_is_not_forgotten(house):
    joined = house.stable("g", "t")
    house.commit("g", {T: 5, ("u", 0): 6}, generation=joined.generation, member=joined.member_id)

    [forgotten] = house.forget("g", T, ("u", 0))

    assert (ErrorCode.NONE, (ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC, ErrorCode.NONE)) == forgotten
    assert {T: 5} == house.committed("g")


def test_members_that_are_no_consumers_keep_all(house):
    house.join("g", protocol_type="connect")

    assert ErrorCode.NON_EMPTY_GROUP == house.forget("g", T)[0].error


def test_a_group_that_nobody_knows_cannot_forget(house):
    assert ErrorCode.GROUP_ID_NOT_FOUND == house.forget("nobody", T)[0].error


# -- members


def test_a_member_of_a_group_that_nobody_knows_is_unknown(house):
    answers: list[object] = []

    house.groups.handle("g", Beat(answers.append, 1, "m", None))
    house.groups.handle("g", Sync(answers.append, 1, "m", None, None, None, ()))
    house.groups.handle("g", Leave(answers.append, (Leaver("m", None), Leaver("", "i"))))
    unknown = ErrorCode.UNKNOWN_MEMBER_ID

    assert [
        Beaten(unknown),
        Synced(unknown),
        Left(ErrorCode.NONE, (("m", None, unknown), ("", "i", unknown))),
    ] == answers
    assert unknown == house.join("g", "m")[0].error
    assert (ErrorCode.NONE, []) == house.listed()


def test_a_refused_join_leaves_no_group(house):
    assert ErrorCode.INVALID_SESSION_TIMEOUT == house.join("g", session_timeout_ms=1)[0].error
    assert (ErrorCode.NONE, []) == house.listed()


def test_a_member_may_offer_as_much_as_some_batches_of_the_groups_topic():
    """It stays in memory for as long as its session lasts, whatever becomes of its connection."""
    house = GroupHouse(topic={"max.message.bytes": "1000"})
    most = 1000 * MEMBER_BATCHES_MAX
    half = Protocol("range", bytes(most // 2))

    def join(rest: bytes) -> list[Joined]:
        return house.join("g", protocols=(half, Protocol("sticky", rest)))

    [refused] = join(bytes(most // 2 + 1))
    assert (ErrorCode.MESSAGE_TOO_LARGE, (ErrorCode.NONE, [])) == (refused.error, house.listed())
    [joined] = join(bytes(most // 2))
    assert (ErrorCode.NONE, 1) == (joined.error, joined.generation)


def test_a_member_that_never_comes_back_with_its_id_leaves_no_group(house):
    assert ErrorCode.MEMBER_ID_REQUIRED == house.join("g", needs_member_id=True)[0].error
    assert 1 == len(house.listed()[1])

    house.clock.advance(10_200)
    house.settle()

    assert (ErrorCode.NONE, []) == house.listed()


def test_members_go_on_after_a_restart(house):
    joined = house.stable("g", "t")

    again = house.again()
    answers: list[object] = []
    again.groups.handle("g", Beat(answers.append, joined.generation, joined.member_id, None))

    assert [Beaten(ErrorCode.NONE)] == answers
    described = again.groups.describe("g")
    assert ("Stable", "range") == (described.state, described.protocol_name)
    assert [(joined.member_id, b"mine")] == [(each.member_id, each.assignment) for each in described.members]


@pytest.mark.parametrize("crash", ["none", "all"])
def test_a_generation_that_was_answered_outlives_a_crash(house, crash):
    joined = house.stable("g", "t")

    again = house.again(crash=crash)

    assert [ErrorCode.NONE] == again.commit(
        "g", {T: 5}, generation=joined.generation, member=joined.member_id
    )


def test_a_silent_member_is_given_up_also_after_a_restart(house):
    house.stable("g", "t")

    again = house.again()
    again.clock.advance(10_200)
    again.settle()

    assert "Empty" == again.groups.describe("g").state
    assert "Empty" == again.again().groups.describe("g").state


def test_whoever_waits_at_the_end_is_told_to_look_again(house):
    house.stable("g")
    waiting = house.join("g")
    assert [] == waiting

    house.groups.stop()

    assert [ErrorCode.NOT_COORDINATOR] == [each.error for each in waiting]
    assert ErrorCode.COORDINATOR_NOT_AVAILABLE == house.groups.fetch("g", None).error


def test_the_deletion_of_the_topic_ends_all_groups(house):
    house.stable("g")
    waiting = house.join("g")

    house.delete_topic(GROUPS_TOPIC)

    assert [ErrorCode.NOT_COORDINATOR] == [each.error for each in waiting]
    house.create(GROUPS_TOPIC, 1)
    assert (ErrorCode.NONE, []) == house.listed()
    assert [ErrorCode.NONE] == house.commit("g", {T: 1})


# -- looking at groups, and deleting them


def test_a_group_that_nobody_knows_is_dead(house):
    assert (ErrorCode.GROUP_ID_NOT_FOUND, "Dead") == house.groups.describe("nobody")[:2]


def test_groups_without_members_are_deleted(house):
    house.commit("simple", {T: 5, ("t", 1): 6})
    house.stable("busy")

    assert {
        "simple": ErrorCode.NONE,
        "busy": ErrorCode.NON_EMPTY_GROUP,
        "nobody": ErrorCode.GROUP_ID_NOT_FOUND,
    } == house.delete("simple", "busy", "nobody", "simple")
    assert {} == house.committed("simple")
    again = house.again()
    assert ["busy"] == [each.group_id for each in again.listed()[1]]
    assert {} == again.committed("simple")


def test_nothing_is_deleted_where_nothing_is_asked(house):
    assert {} == house.delete()


def test_a_commit_under_way_is_deleted_with_its_group(house):
    house.commit("g", {T: 5}, settle=False)

    assert {"g": ErrorCode.NONE} == house.delete("g")
    assert {} == house.committed("g")
    assert {} == house.again().committed("g")


def test_a_group_that_comes_back_at_once_is_a_new_one(house):
    house.commit("g", {T: 5, ("t", 1): 6})
    deleted: list[dict[str, ErrorCode]] = []
    house.groups.delete(["g"], deleted.append)
    house.commit("g", {T: 7})

    assert [{"g": ErrorCode.NONE}] == deleted
    assert {T: 7} == house.committed("g")
    assert {T: 7} == house.again().committed("g")


def test_a_group_whose_deletion_was_given_up_and_fails_after_all_is_still_there(house):
    house.commit("g", {T: 5})
    deleted: list[dict[str, ErrorCode]] = []
    house.groups.delete(["g"], deleted.append)
    house.broker.turn.run()
    house.clock.advance(5_000)
    house.disk.fail = lambda what, path: errno.EIO if what == "sync" else None
    house.settle()

    assert [{"g": ErrorCode.COORDINATOR_NOT_AVAILABLE}] == deleted
    assert {T: 5} == house.committed("g")


def test_a_group_whose_deletion_fails_is_still_there(house):
    house.commit("g", {T: 5, ("t", 1): 6})
    house.disk.fail = lambda what, path: errno.ENOSPC if what == "append" else None

    assert {"g": ErrorCode.NOT_COORDINATOR} == house.delete("g")
    assert {T: 5, ("t", 1): 6} == house.committed("g")


def test_a_commit_under_way_outlives_a_deletion_that_fails_though_there_is_a_new_group(house):
    house.commit("g", {T: 5})
    answers = house.commit("g", {("t", 1): 6}, settle=False)
    house.broker.turn.run()
    house.disk.fail = lambda what, path: errno.ENOSPC if what == "append" else None
    deleted: list[dict[str, ErrorCode]] = []
    house.groups.delete(["g"], deleted.append)
    house.commit("g", {("t", 2): 7}, settle=False)
    house.settle()

    assert [{"g": ErrorCode.NOT_COORDINATOR}] == deleted
    assert 1 == len(answers)
    assert {T: 5, ("t", 1): 6} == house.committed("g") == house.again().committed("g")


# -- what is kept for how long


def test_old_offsets_go_with_their_group():
    house = GroupHouse(settings={"offsets.retention.minutes": "60"})
    house.commit("old", {T: 5})
    house.clock.advance(59 * MINUTE_MS)
    house.settle()
    house.commit("new", {T: 6})
    house.clock.advance(10 * MINUTE_MS)
    house.settle()

    assert ["new"] == [each.group_id for each in house.listed()[1]]
    assert ["new"] == [each.group_id for each in house.again().listed()[1]]


def test_a_commit_that_is_not_yet_on_the_disk_keeps_its_offset():
    house = GroupHouse(settings={"offsets.retention.minutes": "60"})
    house.commit("g", {T: 5})
    house.clock.now_ms += 61 * MINUTE_MS
    house.commit("g", {T: 6}, settle=False)
    house.clock.advance(0)
    house.settle()

    assert {T: 6} == house.committed("g")
    assert {T: 6} == house.again().committed("g")


def test_groups_without_members_and_offsets_go():
    house = GroupHouse()
    house.stable("g")
    house.clock.advance(10_200)
    house.settle()
    assert 1 == len(house.listed()[1])

    house.clock.advance(10 * MINUTE_MS)
    house.settle()

    assert (ErrorCode.NONE, []) == house.listed()
    assert (ErrorCode.NONE, []) == house.again().listed()


# -- loading


def test_damage_of_many_kinds_is_told_in_few_lines(house, caplog):
    house.commit("g", {T: 5})
    [ledger] = house.groups._ledgers.values()
    for number in range(100):
        ledger.apply(Unreadable(f"damage of kind {number}"))
    for _ in ledger.finish():
        pass

    told = [line for line in caplog.messages if "records left out" in line]
    assert REASONS_MAX + 1 == len(told)
    assert "other reasons" in told[-1]
    assert f"count={100 - REASONS_MAX}" in told[-1]


def test_while_it_is_read_nobody_is_served():
    house = GroupHouse()
    house.commit("g", {T: 5})
    again = house.again(start=False)
    again.groups.start()
    loading = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS

    assert [loading] == again.commit("g", {T: 6}, settle=False)
    assert loading == again.groups.fetch("g", None).error
    assert (loading, []) == again.listed()
    assert loading == again.groups.describe("g").error
    again.settle()
    assert {T: 5} == again.committed("g")


def test_another_epoch_is_read_anew(house):
    house.commit("g", {T: 5})
    waiting = house.commit("g", {T: 6}, settle=False)

    house._register()
    house.settle()

    assert [ErrorCode.NOT_COORDINATOR] == waiting
    assert house.committed("g") in ({T: 5}, {T: 6})
    assert [ErrorCode.NONE] == house.commit("g", {T: 7})


def test_of_large_groups_fewer_are_looked_at_in_one_go(monkeypatch):
    house = GroupHouse(settings={"offsets.retention.minutes": "1"})
    for number in range(5):
        house.commit(f"g{number}", {("t", index): 1 for index in range(10)})
    monkeypatch.setattr(coordinator, "OFFSETS_PER_SLICE", 15)
    looked: list[str] = []
    monkeypatch.setattr(
        Ledger, "expire", lambda ledger, hosted, retention_ms: looked.append(hosted.group.group_id)
    )

    house.clock.advance(10 * MINUTE_MS)
    assert 2 == len(looked)
    for _ in range(3):
        house.clock.advance(100)

    assert [f"g{number}" for number in range(5)] == looked


def test_a_group_with_thousands_of_commits_under_way_knows_them_all(house):
    answers = [house.commit("g", {("t", number): 5}, settle=False) for number in range(1000)]
    [hosted] = house.groups._everybody()
    assert 1000 == len(hosted.where(lambda topic: True))

    house.settle()

    assert [[ErrorCode.NONE]] * 1000 == answers
    assert (None, 1000) == (hosted.under_way, len(house.committed("g")))


def test_a_disk_that_takes_no_writes_is_said_once_and_nothing_is_forgotten(caplog):
    house = GroupHouse(settings={"offsets.retention.minutes": "1"})
    for number in range(5):
        house.commit(f"g{number}", {T: number})
    house.disk.fail = lambda what, path: errno.ENOSPC if what == "append" else None

    house.clock.advance(10 * MINUTE_MS)
    house.settle()

    assert 1 == sum("old offsets not forgotten" in line for line in caplog.messages)
    assert 5 == len(house.listed()[1])


# -- what the broker's log says


def test_a_rebalance_is_a_line_and_so_is_its_end(house, caplog):
    """Nobody who is woken at night asks the members first."""
    caplog.set_level("INFO", logger="kbroker")
    first = house.stable("g", "t")
    house.join("g", reason="x" * 30_000)

    stable, rebalances = [line for line in caplog.messages if line.startswith("group ") and "group=g" in line]

    assert f"group stable group=g generation={first.generation} members=1" == stable
    assert rebalances.startswith(f'group rebalances group=g generation={first.generation} why="c joins: xxx')
    assert len(rebalances) < 300
