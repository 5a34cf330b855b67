"""Members of a group: their heartbeats and sessions, static members and who fences whom, leaving, commits."""

from __future__ import annotations

import pytest

from kbroker.errors import ErrorCode
from kbroker.groups.classic import State
from kbroker.groups.events import Described, Leave, Leaver, Listed, MemberView, Tick
from tests.support.group_stage import Asked, Stage

NONE = ErrorCode.NONE
UNKNOWN = ErrorCode.UNKNOWN_MEMBER_ID
ILLEGAL = ErrorCode.ILLEGAL_GENERATION
FENCED = ErrorCode.FENCED_INSTANCE_ID
REBALANCING = ErrorCode.REBALANCE_IN_PROGRESS


@pytest.fixture
def stage() -> Stage:
    return Stage()


# -- heartbeats


def test_a_heartbeat_hears_of_a_rebalance_only_while_the_group_gathers(stage):
    assert UNKNOWN == stage.beat("a"), "Empty"
    stage.settle("a", "b")
    assert NONE == stage.beat("b"), "Stable"

    stage.join("a")
    assert REBALANCING == stage.beat("b"), "PreparingRebalance"

    stage.join("b")
    assert (State.COMPLETING, NONE) == (stage.state, stage.beat("b")), "CompletingRebalance"


def test_a_heartbeat_of_another_generation_or_a_stranger_is_refused(stage):
    stage.settle("a")

    assert [ILLEGAL, ILLEGAL, ILLEGAL] == [stage.beat("a", generation=number) for number in (0, 2, -1)]
    assert [UNKNOWN, UNKNOWN] == [stage.beat("b"), stage.beat("a", instance="A")]


def test_a_member_that_is_not_heard_of_for_its_session_is_gone(stage):
    stage.settle("a", "b")
    stage.pass_time(9.9, beating="b")
    assert ["a", "b"] == stage.members()
    stage.pass_time(0.3, beating="b")

    assert (["b"], State.PREPARING, REBALANCING) == (stage.members(), stage.state, stage.beat("b"))
    b = stage.join("b")
    assert ("b#2", ("b#2",)) == (b.answer.leader, tuple(member[0] for member in b.answer.members))


def test_a_session_in_a_small_group_ends_punctually_also_where_a_heartbeat_moved_it(stage):
    stage.settle("a")
    stage.pass_time(5)
    stage.beat("a")
    stage.pass_time(9.999)
    assert ["a"] == stage.members()
    stage.pass_time(0.002)

    assert [] == stage.members()


def test_many_sessions_that_end_one_after_the_other_end_together(stage):
    names = [f"m{number}" for number in range(500)]
    stage.settle(*names)
    for name in names:
        stage.monotonic += 1e-5
        stage.beat(name)
    woken = 0
    while stage.members():
        stage.monotonic = stage.group.alarm_at
        stage.happen(Tick())
        woken += 1

    assert 3 >= woken


def test_a_group_whose_members_all_went_silent_is_empty(stage):
    stage.settle("a", "b")
    stage.pass_time(11)

    assert (State.EMPTY, 2, []) == (stage.state, stage.group.generation, stage.members())
    record = stage.written[-1].record
    assert (2, None, ()) == (record.generation, record.leader, record.members)


def test_a_group_is_woken_seldom_while_its_members_are_well(stage):
    stage.settle("a", "b")
    woken = 0
    for _ in range(60):
        stage.monotonic += 1
        stage.beat("a")
        stage.beat("b")
        if stage.group.alarm_at <= stage.monotonic:
            woken += 1
            stage.happen(Tick())

    assert 6 >= woken
    assert ["a", "b"] == stage.members()


def test_a_session_that_becomes_shorter_ends_sooner(stage):
    stage.settle("a", "b", session_ms=60_000)
    stage.join("b", metadata=b"news", session_ms=6_000)
    stage.join("a", session_ms=60_000)
    stage.sync_all("a", "b")
    stage.pass_time(6.2)

    assert ["a"] == stage.members()


# -- static members


def test_a_static_member_that_starts_anew_gets_a_new_id_and_no_rebalance(stage):
    stage.settle_static("a", "b")
    old = stage.ids["b"]
    again = stage.join("b", "", instance="B")

    assert (NONE, "B#3", "A#1") == (again.error, again.answer.member_id, again.answer.leader)
    assert 1 == again.answer.generation
    assert (State.STABLE, False, ()) == (stage.state, again.answer.skip_assignment, again.answer.members)
    assert (NONE, b"b") == (stage.sync("b", instance="B").error, stage.sync("b").answer.assignment)
    stage.ids["old"] = old
    assert [FENCED, UNKNOWN, NONE] == [
        stage.beat("old", instance="B"),
        stage.beat("old"),
        stage.beat("b", instance="B"),
    ]
    assert [FENCED, FENCED] == [stage.sync("old", instance="B").error, stage.commit("old", instance="B")]
    assert FENCED == stage.join("old", instance="B").error


def test_a_static_leader_that_starts_anew_hears_that_it_must_not_divide(stage):
    stage.settle_static("a", "b")
    again = stage.join("a", "", instance="A")

    assert (True, "A#3", "A#3") == (again.answer.skip_assignment, again.answer.leader, again.answer.member_id)
    assert {"A#3", "B#2"} == {member[0] for member in again.answer.members}


def test_an_old_static_leader_that_starts_anew_hears_of_its_old_id_as_the_leader(stage):
    stage.settle_static("a", "b")
    again = stage.join("a", "", instance="A", version=8)

    assert (False, "A#1", "A#3", ()) == (
        again.answer.skip_assignment,
        again.answer.leader,
        again.answer.member_id,
        again.answer.members,
    )
    assert State.STABLE is stage.state


def test_a_static_members_new_id_counts_once_it_is_written_down(stage):
    stage.settle_static("a", "b")
    stage.commits = False
    again = stage.join("b", "", instance="B")
    assert again.waits
    stage.committed()

    assert (NONE, "B#3") == (again.error, again.answer.member_id)
    assert "B#3" in [member.member_id for member in stage.written[-1].record.members]


def test_a_static_member_whose_new_id_cannot_be_written_down_keeps_the_old_one(stage):
    stage.settle_static("a", "b")
    stage.commits = False
    again = stage.join("b", "", instance="B", metadata=b"news", session_ms=20_000)
    stage.committed(ErrorCode.NOT_LEADER_OR_FOLLOWER)

    assert (ErrorCode.NOT_COORDINATOR, "") == (again.error, again.answer.member_id)
    assert (State.STABLE, NONE) == (stage.state, stage.beat("b", instance="B")), "ids holds the old one"
    assert [b"", b""] == [member.metadata for member in stage.group.described().members]


def test_a_static_member_whose_new_id_was_long_in_writing_has_a_session_from_then(stage):
    stage.settle_static("a", "b")
    stage.commits = False
    stage.join("b", "", instance="B")
    stage.pass_time(30, beating="a")
    assert ["a", "b"] == stage.members(), "it waits, so it is alive"
    stage.committed()
    stage.pass_time(9.9, beating="a")
    assert ["a", "b"] == stage.members()
    stage.pass_time(0.3, beating="a")

    assert ["a"] == stage.members()


def test_a_static_member_that_starts_anew_must_still_ask_for_its_assignment(stage):
    for name in "ab":
        stage.join(name, "", instance=name.upper(), rebalance_ms=20_000)
    stage.pass_time(6)
    stage.sync("a", {"b": b"B"})
    stage.join("b", "", instance="B", rebalance_ms=20_000)
    stage.pass_time(20, beating="ab")

    assert (["a"], State.PREPARING) == (stage.members(), stage.state)


def test_a_static_member_whose_new_id_a_rebalance_overtook_is_answered_by_that(stage):
    stage.settle_static("a", "b")
    stage.commits = False
    again = stage.join("b", "", instance="B")
    c = stage.join("c", version=3)
    a = stage.join("a", instance="A")
    assert [2, 2, 2] == [asked.answer.generation for asked in (a, again, c)]
    stage.committed(ErrorCode.REQUEST_TIMED_OUT)

    assert NONE == stage.beat("b", instance="B")


def test_a_static_member_that_starts_anew_twice_fences_its_first_try(stage):
    stage.settle_static("a", "b")
    stage.commits = False
    first = stage.join("b", "", instance="B")
    first_write = stage.written[-1].token
    second = stage.join("b", "", instance="B")
    assert (FENCED, "B#3") == (first.error, first.answer.member_id)

    stage.commits = True
    stage.committed()
    assert (NONE, "B#4", True) == (
        second.error,
        second.answer.member_id,
        first_write < stage.written[-1].token,
    )


def test_a_static_member_that_comes_back_without_the_chosen_protocol_makes_a_rebalance(stage):
    stage.settle_static("a", "b", protocols=("range", "sticky"))
    again = stage.join("b", "", instance="B", protocols=("sticky",))
    assert (True, State.PREPARING) == (again.waits, stage.state)
    stage.join("a", instance="A", protocols=("range", "sticky"))

    assert "sticky" == again.answer.protocol_name


def test_a_static_member_that_comes_back_before_the_assignment_makes_a_rebalance(stage):
    for name in "ab":
        stage.join(name, "", instance=name.upper())
    stage.pass_time(6)
    waiting = stage.sync("b", instance="B")
    again = stage.join("b", "", instance="B")

    assert (FENCED, True, State.PREPARING) == (waiting.error, again.waits, stage.state)


def test_a_static_member_that_starts_anew_while_the_group_gathers_takes_its_old_place(stage):
    stage.settle_static("a", "b")
    stage.join("c", version=3)
    first = stage.join("b", instance="B")
    second = stage.join("b", "", instance="B")
    assert (FENCED, True) == (first.error, second.waits)
    stage.join("a", "", instance="A")

    assert (2, ["a", "b", "c"]) == (second.answer.generation, stage.members())


def test_a_static_member_that_is_away_keeps_its_place_until_its_session_ends(stage):
    stage.settle_static("a", "b", rebalance_ms=8_000, session_ms=20_000)
    again = stage.join("b", instance="B", metadata=b"news", rebalance_ms=8_000, session_ms=20_000)
    stage.pass_time(8.1)

    assert (2, "B#2") == (again.answer.generation, again.answer.leader), "who is here leads"
    assert {"A#1", "B#2"} == {member[0] for member in again.answer.members}
    stage.sync("b", {"a": b"kept", "b": b"B"})
    back = stage.join("a", "", instance="A", rebalance_ms=8_000, session_ms=20_000)
    assert (2, "B#2") == (back.answer.generation, back.answer.leader)
    assert b"kept" == stage.sync("a").answer.assignment
    stage.pass_time(9, beating="ab")
    assert State.STABLE is stage.state, "it asked for its assignment under its new id"


def test_a_group_whose_static_members_are_all_away_waits_for_them(stage):
    stage.settle_static("a", "b", session_ms=20_000)
    record = stage.written[-1].record
    stage.restart(record._replace(members=tuple(m._replace(rebalance_timeout_ms=0) for m in record.members)))
    stage.join("c", version=3, rebalance_ms=0)
    stage.happen(Leave(Asked("c"), (Leaver("c#3", None),)))
    assert State.PREPARING is stage.state
    ticks = 0
    while stage.state is State.PREPARING and ticks < 100:
        stage.monotonic = max(stage.monotonic, stage.group.alarm_at)
        stage.happen(Tick())
        ticks += 1

    assert (State.EMPTY, True) == (stage.state, ticks < 30)


# -- leaving


def test_each_of_those_who_leave_is_answered(stage):
    stage.settle_static("a", "b")
    leavers = (
        Leaver("", "A"),
        Leaver("A#1", "B"),
        Leaver("B#2", None),
        Leaver("B#2", "B"),
        Leaver("stranger", None),
        Leaver("", "Z"),
        Leaver("", None),
    )
    left = stage.ask(Leave(Asked("admin"), leavers))

    assert NONE == left.error
    assert [NONE, FENCED, NONE, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN] == [
        error for _, _, error in left.answer.members
    ]
    assert [(who.member_id, who.instance_id) for who in leavers] == [m[:2] for m in left.answer.members]
    assert State.EMPTY is stage.state


def test_a_member_that_leaves_makes_a_rebalance_of_the_others(stage):
    stage.settle("a", "b", "c")
    stage.leave("a", "c")

    assert (REBALANCING, ["b"], UNKNOWN) == (stage.beat("b"), stage.members(), stage.beat("a"))
    assert (2, "b#2") == (stage.join("b").answer.generation, stage.join("b").answer.leader)


def test_the_last_one_missing_leaves_and_the_others_go_on(stage):
    stage.settle("a", "b")
    a = stage.join("a")
    assert a.waits
    stage.leave("b")

    assert 2 == a.answer.generation


def test_a_member_that_leaves_while_it_joins_is_told_so(stage):
    stage.settle("a", "b")
    b = stage.join("b", metadata=b"news")
    stage.leave("b")

    assert (UNKNOWN, "") == (b.error, b.answer.member_id)


def test_who_leaves_and_is_no_member_changes_nothing(stage):
    stage.settle("a")
    assert [UNKNOWN] == [error for *_, error in stage.leave("stranger").answer.members]
    assert (NONE, ()) == (
        stage.ask(Leave(Asked("x"), ())).error,
        stage.ask(Leave(Asked("x"), ())).answer.members,
    )

    assert State.STABLE is stage.state


# -- commits


def test_who_is_no_member_commits_to_an_empty_group_only(stage):
    assert NONE == stage.commit("", generation=-1)
    assert UNKNOWN == stage.commit("", generation=0)
    stage.settle("a")

    assert UNKNOWN == stage.commit("", generation=-1)
    assert UNKNOWN == stage.commit("stranger", generation=-1)
    assert UNKNOWN == stage.commit("stranger")
    assert ILLEGAL == stage.commit("a", generation=-1)


def test_a_member_commits_in_its_generation_but_not_before_it_has_its_assignment(stage):
    stage.settle("a", "b")
    assert (NONE, ILLEGAL) == (stage.commit("a"), stage.commit("a", generation=0)), "Stable"
    stage.join("a")
    assert (NONE, NONE) == (stage.commit("b"), stage.commit("a")), (
        "PreparingRebalance: before it gives partitions up"
    )
    stage.join("b")
    assert (REBALANCING, ILLEGAL) == (stage.commit("b"), stage.commit("b", generation=1)), (
        "CompletingRebalance"
    )
    stage.sync_all("a", "b")
    assert NONE == stage.commit("b")


def test_a_member_that_commits_is_alive(stage):
    stage.settle("a")
    for _ in range(5):
        stage.pass_time(9)
        assert NONE == stage.commit("a")

    assert ["a"] == stage.members()
    stage.pass_time(10.2)
    assert [] == stage.members()


# -- how it looks


def test_a_stable_group_shows_its_protocol_and_what_its_members_said(stage):
    assert Described(NONE, "Empty") == stage.group.described()
    stage.settle("a", metadata=b"said")

    view = MemberView("a#1", None, "a", "/127.0.0.1", b"said", b"a")
    assert Described(NONE, "Stable", "consumer", "range", (view,)) == stage.group.described()
    assert Listed("g", "consumer", "Stable", "classic") == stage.group.listed()
    assert (ErrorCode.NON_EMPTY_GROUP, False) == (stage.group.deletable(), stage.group.is_empty)

    stage.join("a", metadata=b"news")
    stage.join("b", version=3)
    described = stage.group.described()
    assert ("PreparingRebalance", "", b"") == (
        described.state,
        described.protocol_name,
        described.members[0].metadata,
    )


def test_a_group_that_somebody_is_about_to_join_is_not_idle(stage):
    stage.join("a")
    assert not stage.group.is_empty
    assert NONE == stage.group.deletable()
    stage.pass_time(10.2)

    assert stage.group.is_empty
