"""The leader's assignment: who waits for it, what becomes of it when it cannot be written down, what a restart leaves."""

from __future__ import annotations

import pytest

from kbroker.errors import ErrorCode
from kbroker.groups.classic import State
from kbroker.groups.events import GroupRecord, MemberRecord, Write, Written
from tests.support.group_stage import START_MS, Stage, subscription

NONE = ErrorCode.NONE
UNKNOWN = ErrorCode.UNKNOWN_MEMBER_ID
INCONSISTENT = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
REBALANCING = ErrorCode.REBALANCE_IN_PROGRESS


@pytest.fixture
def stage() -> Stage:
    return Stage()


def completing(stage: Stage, *names: str, **join: object) -> None:
    """They are members, and have yet to ask for their assignments."""
    for name in names:
        stage.join(name, "", version=3, **join)
    stage.pass_time(6)
    assert State.COMPLETING is stage.state


# -- who waits


def test_followers_wait_for_the_leader_and_the_leader_until_its_assignment_is_written_down(stage):
    completing(stage, "a", "b")
    stage.commits = False
    b = stage.sync("b")
    a = stage.sync("a", {"a": b"A", "b": b"B"})

    assert (True, True, State.COMPLETING) == (a.waits, b.waits, stage.state)
    stage.committed()
    assert (b"A", b"B", State.STABLE) == (a.answer.assignment, b.answer.assignment, stage.state)
    assert ("consumer", "range") == (b.answer.protocol_type, b.answer.protocol_name)


def test_who_asks_after_the_leader_is_answered_at_once(stage):
    completing(stage, "a", "b")
    stage.sync("a", {"a": b"A", "b": b"B"})

    assert b"B" == stage.sync("b").answer.assignment
    assert b"B" == stage.sync("b").answer.assignment


def test_a_member_that_the_leader_gives_nothing_hears_of_nothing(stage):
    completing(stage, "a", "b")
    a = stage.sync("a", {"stranger": b"X"})

    assert (NONE, b"") == (a.error, a.answer.assignment)
    assert (NONE, b"") == (stage.sync("b").error, stage.sync("b").answer.assignment)
    assert [b"", b""] == [member.assignment for member in stage.written[-1].record.members]


def test_assignments_of_followers_are_of_no_account(stage):
    completing(stage, "a", "b")
    b = stage.sync("b", {"a": b"mine", "b": b"mine"})
    assert b.waits
    stage.sync("a", {"b": b"B"})

    assert b"B" == b.answer.assignment


@pytest.mark.parametrize("how", ["leaves", "goes", "brings news"])
def test_a_leader_that_is_lost_frees_those_who_wait_for_it(stage, how):
    completing(stage, "a", "b", rebalance_ms=10_000)
    b = stage.sync("b")
    match how:
        case "leaves":
            stage.leave("a")
        case "goes":
            stage.pass_time(10.1)
        case "brings news":
            stage.join("a", metadata=b"news")

    assert (REBALANCING, State.PREPARING) == (b.error, stage.state)


def test_an_earlier_sync_of_the_same_member_need_not_wait(stage):
    completing(stage, "a", "b")
    earlier, later = stage.sync("b"), stage.sync("b")

    assert (REBALANCING, True) == (earlier.error, later.waits)
    stage.sync("a", {"b": b"B"})
    assert b"B" == later.answer.assignment


def test_a_leader_that_asks_again_while_its_assignment_is_being_written_writes_it_once(stage):
    completing(stage, "a")
    stage.commits = False
    earlier = stage.sync("a", {"a": b"first"})
    later = stage.sync("a", {"a": b"second"})
    stage.committed()

    assert (REBALANCING, b"first", 1) == (earlier.error, later.answer.assignment, len(stage.written))


def test_a_member_that_leaves_while_it_waits_is_told_so(stage):
    completing(stage, "a", "b")
    b = stage.sync("b")
    stage.leave("b")

    assert UNKNOWN == b.error


# -- refused


def test_a_sync_of_another_generation_protocol_or_member_is_refused(stage):
    completing(stage, "a", "b")

    assert UNKNOWN == stage.sync("stranger").error
    assert UNKNOWN == stage.sync("a", instance="A").error
    assert ErrorCode.ILLEGAL_GENERATION == stage.sync("a", generation=0).error
    assert ErrorCode.ILLEGAL_GENERATION == stage.sync("a", generation=2).error
    assert INCONSISTENT == stage.sync("a", protocol_type="connect").error
    assert INCONSISTENT == stage.sync("a", protocol_name="sticky").error
    assert stage.sync("b", protocol_type="consumer", protocol_name="range").waits


def test_a_sync_while_the_group_gathers_is_told_to_join(stage):
    stage.settle("a", "b")
    stage.join("a")

    assert REBALANCING == stage.sync("b").error


# -- who does not ask


@pytest.mark.parametrize("leader_asks", [True, False])
def test_members_who_do_not_ask_for_their_assignment_in_time_are_removed(stage, leader_asks):
    completing(stage, "a", "b", "c", rebalance_ms=20_000)
    if leader_asks:
        stage.sync("a", {})
    b = stage.sync("b")
    stage.pass_time(19.9, beating="abc")
    assert ["a", "b", "c"] == stage.members()
    stage.pass_time(0.2, beating="b")

    assert ((["a", "b"] if leader_asks else ["b"]), State.PREPARING) == (stage.members(), stage.state)
    assert (NONE if leader_asks else REBALANCING) == b.error
    assert UNKNOWN == stage.beat("c")


def test_a_follower_that_waits_for_its_assignment_is_alive_however_long(stage):
    completing(stage, "a", "b")
    b = stage.sync("b")
    stage.pass_time(50, beating="a")
    assert (True, ["a", "b"]) == (b.waits, stage.members())

    stage.sync("a", {"b": b"B"})
    stage.pass_time(9.9, beating="a")
    assert ["a", "b"] == stage.members(), "its session began with the answer"
    stage.pass_time(0.3, beating="a")
    assert ["a"] == stage.members()


# -- what is written down


def test_what_is_written_down_is_the_generation_with_its_assignment(stage):
    completing(stage, "a", metadata=subscription("t"))
    stage.sync("a", {"a": b"A"})

    member = MemberRecord("a#1", None, "a", "/127.0.0.1", 60_000, 10_000, subscription("t"), b"A")
    assert GroupRecord("consumer", 1, "range", "a#1", START_MS + 3000, (member,)) == stage.written[-1].record


def test_a_group_that_becomes_empty_is_written_down_as_such(stage):
    stage.settle("a")
    stage.leave("a")

    assert GroupRecord("consumer", 2, None, None, START_MS + 6000, ()) == stage.written[-1].record
    assert (State.EMPTY, NONE) == (stage.state, stage.group.deletable())


@pytest.mark.parametrize(
    "failure, told",
    [
        (ErrorCode.REQUEST_TIMED_OUT, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.RECORD_LIST_TOO_LARGE, ErrorCode.UNKNOWN_SERVER_ERROR),
        (ErrorCode.POLICY_VIOLATION, ErrorCode.POLICY_VIOLATION),
    ],
)
def test_an_assignment_that_cannot_be_written_down_is_nobodys_and_the_group_gathers(stage, failure, told):
    completing(stage, "a", "b")
    stage.commits = False
    asked = stage.sync_all("a", "b")
    stage.committed(failure)

    assert ([told, told], [b"", b""]) == ([a.error for a in asked], [a.answer.assignment for a in asked])
    assert State.PREPARING is stage.state
    a, b = stage.join("a"), stage.join("b")
    assert [2, 2] == [a.answer.generation, b.answer.generation]


@pytest.mark.parametrize("outcome", [NONE, ErrorCode.REQUEST_TIMED_OUT])
def test_an_assignment_that_a_rebalance_overtook_is_forgotten(stage, outcome):
    completing(stage, "a", "b")
    stage.commits = False
    asked = stage.sync_all("a", "b")
    overtaken = stage.written[-1]
    a, b = stage.join("b", metadata=b"news"), stage.join("a")
    assert [REBALANCING, REBALANCING] == [one.error for one in asked]
    assert [2, 2] == [a.answer.generation, b.answer.generation]

    stage.happen(Written(overtaken.token, outcome))

    assert (State.COMPLETING, 2) == (stage.state, stage.group.generation)


def test_news_of_a_write_that_nobody_waits_for_changes_nothing(stage):
    stage.settle("a")
    for token in (stage.written[-1].token, 0, 99):
        stage.happen(Written(token, ErrorCode.REQUEST_TIMED_OUT))

    assert State.STABLE is stage.state


# -- after a restart


def test_after_a_restart_members_go_on_in_their_generation(stage):
    stage.settle("a", "b")
    stage.restart()

    assert (State.STABLE, 1, NONE, NONE) == (
        stage.state,
        stage.group.generation,
        stage.beat("a"),
        stage.beat("b"),
    )
    assert (NONE, b"b") == (stage.sync("b").error, stage.sync("b").answer.assignment)
    assert 1 == stage.join("b").answer.generation
    assert NONE == stage.commit("b")
    assert stage.join("a").waits, "the leader still leads"


def test_after_a_restart_sessions_begin_anew(stage):
    stage.settle("a", "b")
    stage.pass_time(9)
    stage.restart()
    stage.pass_time(9.9, beating="b")
    assert ["a", "b"] == stage.members()
    stage.pass_time(0.2, beating="b")

    assert ["b"] == stage.members()


def test_after_a_restart_an_empty_group_keeps_its_generation(stage):
    stage.settle("a")
    stage.leave("a")
    stage.restart()

    assert (State.EMPTY, 2, "consumer") == (stage.state, stage.group.generation, stage.group.protocol_type)
    assert START_MS + 6000 == stage.group.state_timestamp_ms
    joined = stage.join("a", "", version=3)
    stage.pass_time(3)
    assert 3 == joined.answer.generation


def test_static_members_are_known_after_a_restart(stage):
    stage.settle_static("a", "b")
    stage.restart()

    assert (NONE, 1) == (stage.join("b", "", instance="B").error, stage.group.generation)


def test_a_record_of_members_that_contradict_each_other_keeps_the_first(stage):
    twin = MemberRecord("x", "X", "x", "/", -1, 6_000, b"", b"")
    stage.restart(GroupRecord("consumer", 5, "range", "gone", 1, (twin, twin, twin._replace(member_id="y"))))

    assert (["x"], NONE) == (stage.members(), stage.commit("x"))


# -- closed


def test_a_group_that_goes_elsewhere_tells_all_who_wait_and_those_who_come(stage):
    completing(stage, "a", "b")
    b = stage.sync("b")
    stage.perform(stage.group.close(ErrorCode.NOT_COORDINATOR, stage.now))

    assert (ErrorCode.NOT_COORDINATOR, State.DEAD) == (b.error, stage.state)
    gone = ErrorCode.COORDINATOR_NOT_AVAILABLE
    errors = (
        stage.join("a").error,
        stage.sync("a").error,
        stage.beat("a"),
        stage.leave("a").error,
        stage.commit("a"),
    )
    assert (gone,) * 5 == errors
    assert float("inf") == stage.group.alarm_at


def test_a_group_that_goes_elsewhere_frees_those_who_join(stage):
    a = stage.join("a", version=3)
    effects = stage.group.close(ErrorCode.NOT_COORDINATOR, stage.now)
    stage.perform(effects)

    assert (ErrorCode.NOT_COORDINATOR, "a#1") == (a.error, a.answer.member_id)
    assert not any(isinstance(effect, Write) for effect in effects)
