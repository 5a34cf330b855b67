"""Joining a group: who needs an id first, how long it waits for others, whose join makes a rebalance, who is refused."""

from __future__ import annotations

import pytest

from kbroker.errors import ErrorCode
from kbroker.groups import classic
from kbroker.groups.classic import State
from kbroker.groups.events import Leave, Leaver
from kbroker.groups.limits import GroupLimits
from tests.support.group_stage import Asked, Stage, subscription

NONE = ErrorCode.NONE
UNKNOWN = ErrorCode.UNKNOWN_MEMBER_ID
INCONSISTENT = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
REBALANCING = ErrorCode.REBALANCE_IN_PROGRESS
FULL = ErrorCode.GROUP_MAX_SIZE_REACHED


@pytest.fixture
def stage() -> Stage:
    return Stage()


# -- an id first


def test_a_new_member_comes_back_with_the_id_it_is_given(stage):
    first = stage.join("a")

    assert (ErrorCode.MEMBER_ID_REQUIRED, "a#1") == (first.error, first.answer.member_id)
    assert [] == stage.members()

    second = stage.join("a")
    stage.pass_time(3)

    assert (NONE, "a#1", 1) == (second.error, second.answer.member_id, second.answer.generation)


def test_an_old_client_and_a_static_member_need_no_id_first(stage):
    old, static = stage.join("old", version=3), stage.join("static", instance="S")
    stage.pass_time(6)

    assert (NONE, NONE) == (old.error, static.error)
    assert ("old#1", "S#2") == (old.answer.member_id, static.answer.member_id)


def test_only_the_leader_hears_who_the_members_are(stage):
    a, b = stage.join("a", version=3, metadata=b"A"), stage.join("b", instance="B", metadata=b"B")
    stage.pass_time(6)

    assert (("a#1", None, b"A"), ("B#2", "B", b"B")) == a.answer.members
    assert () == b.answer.members
    assert ("a#1", "a#1") == (a.answer.leader, b.answer.leader)
    assert ("consumer", "range") == (a.answer.protocol_type, a.answer.protocol_name)


def test_who_does_not_come_back_with_its_id_holds_a_rebalance_up_until_its_session_ends(stage):
    stage.settle("a")
    stage.join("b", session_ms=8_000)
    again = stage.join("a")

    stage.pass_time(7.9)
    assert again.waits
    stage.pass_time(0.3)
    assert (NONE, 2) == (again.error, again.answer.generation)
    assert UNKNOWN == stage.join("b").error


def test_who_was_given_an_id_may_leave_without_having_come_back(stage):
    stage.settle("a")
    stage.join("b")
    again = stage.join("a")
    assert again.waits

    left = stage.leave("b")

    assert ((("b#2", None, NONE),), NONE) == (left.answer.members, again.error)


def test_who_leaves_without_having_come_back_makes_no_rebalance(stage):
    stage.settle("a")
    stage.join("b")

    stage.leave("b")

    assert (State.STABLE, NONE) == (stage.state, stage.beat("a"))


def test_beyond_a_limit_the_oldest_given_id_is_forgotten(stage, monkeypatch):
    monkeypatch.setattr(classic, "PENDING_MAX", 2)
    for name in ("a", "b", "c"):
        stage.join(name)

    assert UNKNOWN == stage.join("a").error
    assert stage.join("b").waits
    assert stage.join("c").waits


def test_an_id_that_was_given_out_is_no_static_members(stage):
    stage.join("a")

    assert UNKNOWN == stage.join("a", instance="A").error
    assert State.EMPTY is stage.state


def test_a_long_client_id_makes_an_id_that_fits_into_a_record(stage):
    answer = stage.join("é" * 30_000).answer

    assert 2_002 == len(answer.member_id.encode())


# -- the first rebalance waits


def test_the_first_rebalance_waits_while_members_come():
    stage = Stage(GroupLimits(initial_rebalance_delay_ms=3000))
    a = stage.join("a", version=3)
    stage.pass_time(2)
    b = stage.join("b", version=3)
    stage.pass_time(2)  # 4 s: extended, since b came
    c = stage.join("c", version=3)
    stage.pass_time(1.9)
    assert a.waits
    stage.pass_time(3.2)  # 9 s, since c came; nobody did since

    assert [1, 1, 1] == [asked.answer.generation for asked in (a, b, c)]
    assert ["a", "b", "c"] == stage.members()


def test_the_first_rebalance_waits_no_longer_than_the_rebalance_timeout():
    stage = Stage(GroupLimits(initial_rebalance_delay_ms=3000))
    a = stage.join("a", version=3, rebalance_ms=10_000)
    for n in range(9):
        stage.pass_time(1)
        assert a.waits
        stage.join(f"b{n}", version=3, rebalance_ms=10_000)
    stage.pass_time(1)

    assert (NONE, 10) == (a.error, len(a.answer.members))


def test_without_a_delay_the_first_member_is_a_group_at_once():
    stage = Stage(GroupLimits(initial_rebalance_delay_ms=0))

    assert 1 == stage.join("a", version=3).answer.generation
    assert stage.join("b", version=3).waits


def test_a_group_whose_members_left_before_it_began_is_empty_again(stage):
    stage.join("a", version=3)
    stage.happen(Leave(Asked("a"), (Leaver("a#1", None),)))
    assert State.PREPARING is stage.state
    stage.pass_time(3)

    assert (State.EMPTY, 1) == (stage.state, stage.group.generation)
    assert stage.join("x", version=3, protocol_type="connect").waits, "another type may come now"


# -- refused


@pytest.mark.parametrize(
    "session_ms, error", [(5_999, 26), (6_000, 0), (1_800_000, 0), (1_800_001, 26), (-1, 26)]
)
def test_a_session_is_neither_too_short_nor_too_long(stage, session_ms, error):
    asked = stage.join("a", "", session_ms=session_ms, version=3)
    stage.pass_time(3)

    assert error == asked.error


def test_a_join_without_protocols_or_without_a_type_is_refused(stage):
    assert INCONSISTENT == stage.join("a", protocols=()).error
    assert INCONSISTENT == stage.join("a", protocol_type="").error
    assert stage.group.is_empty


def test_a_join_with_more_protocols_than_anybody_has_is_refused(stage):
    names = tuple(str(number) for number in range(1001))

    assert INCONSISTENT == stage.join("a", protocols=names).error
    assert ErrorCode.MEMBER_ID_REQUIRED == stage.join("a", protocols=names[:1000]).error


def test_a_join_that_not_all_members_can_follow_is_refused(stage):
    stage.settle("a", protocols=("range", "sticky"))
    stage.join("b", version=3, protocols=("sticky",))

    assert INCONSISTENT == stage.join("c", protocols=("range",)).error
    assert INCONSISTENT == stage.join("c", protocol_type="connect", protocols=("sticky",)).error
    assert INCONSISTENT == stage.join("a", protocols=("range",)).error


def test_a_protocol_named_twice_counts_once(stage):
    a = stage.join("a", version=3, protocols=("range", "range"))
    b = stage.join("b", version=3, protocols=("range",))
    stage.pass_time(6)

    assert ("range", "range") == (a.answer.protocol_name, b.answer.protocol_name)


def test_the_protocol_is_the_one_with_most_votes_among_those_that_all_can(stage):
    a = stage.join("a", version=3, protocols=("own", "range", "sticky"))
    stage.join("b", version=3, protocols=("sticky", "range"))
    stage.join("c", version=3, protocols=("sticky", "range"))
    stage.pass_time(6)

    assert "sticky" == a.answer.protocol_name


def test_nobody_joins_with_an_id_that_nobody_was_given(stage):
    assert UNKNOWN == stage.join("a", "a#99").error
    stage.settle("a")
    assert UNKNOWN == stage.join("b", "b#99").error
    assert UNKNOWN == stage.join("a", instance="A").error, "not by that instance id"


def test_a_full_group_takes_no_more_members_but_lets_static_ones_come_back():
    stage = Stage(GroupLimits(size_max=2))
    stage.settle_static("a", "b")

    assert (FULL, "") == (stage.join("c").error, stage.join("c").answer.member_id)
    assert FULL == stage.join("c", version=3).error
    assert FULL == stage.join("c", instance="C").error
    assert NONE == stage.join("a", "", instance="A").error
    assert State.STABLE is stage.state


def test_of_a_group_that_became_too_large_those_who_join_again_first_stay():
    stage = Stage()
    stage.settle("a", "b", "c")
    stage.limits = GroupLimits(size_max=2)

    stage.restart()

    assert (State.PREPARING, REBALANCING) == (stage.state, stage.beat("a"))
    b, c = stage.join("b"), stage.join("c")
    assert (FULL, "") == (stage.join("a").error, stage.join("a").answer.member_id)
    assert (NONE, NONE) == (b.error, c.error), "nobody is missing now"
    assert ["b", "c"] == stage.members()


# -- who makes a rebalance


def test_a_member_that_brings_no_news_hears_of_the_generation_it_is_in(stage):
    stage.settle("a", "b")

    again = stage.join("b")

    assert (NONE, 1, ()) == (again.error, again.answer.generation, again.answer.members)
    assert State.STABLE is stage.state


@pytest.mark.parametrize("who, news", [("a", b""), ("a", b"news"), ("b", b"news")])
def test_a_member_that_brings_news_makes_a_rebalance_and_so_does_the_leader(stage, who, news):
    stage.settle("a", "b")

    again = stage.join(who, metadata=news)
    assert (True, State.PREPARING) == (again.waits, stage.state)
    other = stage.join("b" if who == "a" else "a")

    assert [2, 2] == [again.answer.generation, other.answer.generation]
    assert State.COMPLETING is stage.state


def test_who_joins_again_before_the_assignment_hears_the_same_again_the_leader_too(stage):
    a, b = stage.join("a", version=3), stage.join("b", version=3)
    stage.pass_time(6)

    assert (a.answer, b.answer) == (stage.join("a").answer, stage.join("b").answer)
    assert State.COMPLETING is stage.state


def test_news_before_the_assignment_make_a_rebalance_and_free_those_who_wait(stage):
    stage.join("a", version=3)
    stage.join("b", version=3)
    stage.pass_time(6)
    waiting = stage.sync("b")

    again = stage.join("a", metadata=b"news")

    assert (REBALANCING, True) == (waiting.error, again.waits)


def test_an_earlier_join_of_the_same_member_need_not_wait(stage):
    stage.settle("a", "b")
    earlier = stage.join("a")
    later = stage.join("a")

    assert (REBALANCING, True) == (earlier.error, later.waits)
    stage.join("b")
    assert 2 == later.answer.generation


# -- who does not come


def test_members_who_do_not_join_again_in_time_are_left_out(stage):
    stage.settle("a", "b", "c", rebalance_ms=20_000)
    b = stage.join("b", metadata=b"news", rebalance_ms=20_000)
    stage.join("c", rebalance_ms=20_000)
    stage.pass_time(19.9, beating="a")
    assert ["a", "b", "c"] == stage.members()
    stage.pass_time(0.2)

    assert (["b", "c"], UNKNOWN) == (stage.members(), stage.beat("a"))
    assert stage.ids["b"] == b.answer.leader


def test_the_most_patient_member_says_how_long_the_others_have(stage):
    stage.join("a", version=3, rebalance_ms=5_000)
    stage.join("b", version=3, rebalance_ms=30_000)
    stage.pass_time(6)
    stage.sync_all("a", "b")
    again = stage.join("a", rebalance_ms=5_000)

    stage.pass_time(29, beating="b")
    assert again.waits
    stage.pass_time(2, beating="b")
    assert 2 == again.answer.generation


def test_a_new_member_that_waits_too_long_is_taken_for_gone(stage):
    stage.settle("a", rebalance_ms=1_000_000)
    b = stage.join("b", version=3, rebalance_ms=1_000_000)

    stage.pass_time(299, beating="a")
    assert b.waits
    stage.pass_time(2, beating="a")

    assert (UNKNOWN, "") == (b.error, b.answer.member_id)
    assert ["a"] == stage.members()


def test_a_member_that_waits_to_join_is_alive_however_long(stage):
    stage.settle("a", "b", rebalance_ms=100_000)
    b = stage.join("b", metadata=b"news", rebalance_ms=100_000)

    stage.pass_time(99, beating="a")

    assert (True, ["a", "b"]) == (b.waits, stage.members())


def test_topics_are_those_that_the_members_of_the_generation_read(stage):
    assert stage.group.subscribed() is None
    stage.settle("a", metadata=subscription("one", "two"))
    assert frozenset({"one", "two"}) == stage.group.subscribed()

    stage.join("b", version=3, metadata=subscription("three"))
    assert frozenset({"one", "two"}) == stage.group.subscribed()
    stage.join("a", metadata=subscription("one"))
    assert frozenset({"one", "three"}) == stage.group.subscribed()

    stage.leave("a", "b")
    assert frozenset() == stage.group.subscribed()


def test_topics_of_members_who_say_something_else_are_not_known(stage):
    stage.settle("a", metadata=b"\x00")

    assert (State.STABLE, None) == (stage.state, stage.group.subscribed())


def test_rebalance_timeouts_below_zero_are_none():
    stage = Stage(GroupLimits(initial_rebalance_delay_ms=0))
    a = stage.join("a", version=3, rebalance_ms=-(2**31))
    stage.pass_time(0.1)

    assert (1, State.EMPTY) == (a.answer.generation, stage.state), "nobody had time to ask for an assignment"
