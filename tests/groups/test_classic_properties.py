"""Whatever clients do, however late the log is and whoever dies: what always holds of a group, and that it comes to rest.

The twin is naive: it keeps what it was told, counts everything anew after each step, and says what a heartbeat, a commit
and a sync must be answered from how the group describes itself.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kbroker.errors import ErrorCode
from kbroker.groups.classic import State
from kbroker.groups.events import Answer, Joined, Leave, Leaver, Tick, Written
from kbroker.groups.limits import SESSION_GRAIN_S_MAX, GroupLimits
from kbroker.groups.members import NOBODY
from tests.support.group_stage import Asked, Stage

NONE = ErrorCode.NONE
WHO = st.sampled_from("abcd")  # c and d are static members
SESSIONS = st.sampled_from([6_000, 10_000])
REBALANCES = st.sampled_from([5_000, 20_000, 20_000, 0])
PROTOCOLS = st.sampled_from([("range",), ("range", "sticky"), ("sticky", "range"), ("sticky",)])
NEWS = st.sampled_from([b"", b"news"])
SLACK_S = SESSION_GRAIN_S_MAX + 1e-6


def instance_of(who: str) -> str | None:
    return who.upper() if who in "cd" else None


class WatchedStage(Stage):
    """A stage that notes all that is asked and answered."""

    def __post_init__(self) -> None:
        self.waiting: list[Asked] = []
        self.told: tuple[int, set[str]] | None = None  # what a leader heard last: generation, members
        super().__post_init__()

    def ask(self, event: Any) -> Asked:
        self.waiting.append(event.to)
        return super().ask(event)

    def answered(self, asked: Asked, answer: Answer) -> None:
        super().answered(asked, answer)
        self.waiting.remove(asked)
        if isinstance(answer, Joined) and answer.error is NONE:
            assert answer.generation <= self.group.generation
            assert answer.leader, "each generation has a leader"
            if answer.members:
                self.told = (
                    answer.generation,
                    {instance or member_id for member_id, instance, _ in answer.members},
                )


class Groups(RuleBasedStateMachine):
    @initialize(
        delay=st.sampled_from([0, 3_000]),
        size=st.sampled_from([100, 100, 100, 4, 2]),
        commits=st.booleans(),
        first=st.sets(WHO),
    )
    def begin(self, delay: int, size: int, commits: bool, first: set[str]) -> None:
        limits = GroupLimits(initial_rebalance_delay_ms=delay, size_max=size)
        self.stage = WatchedStage(limits, commits)
        self.outcomes = 0  # of how many writes the group has heard
        self.generation = 0
        self.behave(first, 12, True)

    # -- what clients do

    @rule(
        who=WHO,
        anew=st.booleans(),
        news=NEWS,
        protocols=PROTOCOLS,
        session=SESSIONS,
        rebalance=REBALANCES,
        version=st.sampled_from([3, 4, 8, 9]),
    )
    def join(
        self,
        who: str,
        anew: bool,
        news: bytes,
        protocols: tuple[str, ...],
        session: int,
        rebalance: int,
        version: int,
    ) -> None:
        self.stage.join(
            who,
            "" if anew else None,
            instance=instance_of(who),
            metadata=news,
            protocols=protocols,
            session_ms=session,
            rebalance_ms=rebalance,
            version=version,
        )

    @rule(who=WHO, assigned=st.sets(WHO), late=st.booleans())
    def sync(self, who: str, assigned: set[str], late: bool) -> None:
        generation = self.stage.group.generation - late
        expected = self.expected(who, generation)
        given = {name: name.encode() for name in assigned}
        asked = self.stage.sync(who, given, generation=generation, instance=instance_of(who))
        if expected:
            assert expected is asked.error
        elif self.stage.state is State.STABLE and not asked.waits:
            assert NONE is asked.error

    @rule(who=WHO, late=st.booleans())
    def beat(self, who: str, late: bool) -> None:
        generation = self.stage.group.generation - late
        expected = self.expected(who, generation)
        assert expected is self.stage.beat(who, generation=generation, instance=instance_of(who))

    @rule(who=WHO, late=st.booleans())
    def commit(self, who: str, late: bool) -> None:
        generation = self.stage.group.generation - late
        if generation < 0:
            return
        expected = self.expected(who, generation)
        if expected is ErrorCode.REBALANCE_IN_PROGRESS:
            expected = NONE
        elif expected is NONE and self.stage.state is State.COMPLETING:
            expected = ErrorCode.REBALANCE_IN_PROGRESS
        assert expected is self.stage.commit(who, generation=generation, instance=instance_of(who))

    @rule(who=st.lists(WHO, max_size=3), by_instance=st.booleans())
    def leave(self, who: list[str], by_instance: bool) -> None:
        ids = self.stage.ids
        leavers = [
            Leaver("" if by_instance and instance_of(name) else ids.get(name, name), instance_of(name))
            for name in who
        ]
        assert NONE is self.stage.ask(Leave(Asked("leaver"), tuple(leavers))).error

    @rule(names=st.sets(WHO, min_size=1), seconds=st.sampled_from([4, 12]), writes=st.booleans())
    def behave(self, names: set[str], seconds: int, writes: bool) -> None:
        """Some do as they are told for a while; so does the log, or it hangs."""
        consumers = [Consumer(self.stage, name) for name in sorted(names)]
        for _ in range(seconds):
            for consumer in consumers:
                consumer.poll()
            while writes and self.outcomes < len(self.stage.written):
                self.written(NONE)
            self.stage.pass_time(1)

    # -- what happens to them

    @rule(seconds=st.sampled_from([0.05, 1.0, 3.0, 5.0, 7.0, 21.0]), beating=st.sets(WHO))
    def pass_time(self, seconds: float, beating: set[str]) -> None:
        self.stage.pass_time(seconds, beating=sorted(beating))

    @rule()
    def tick_early(self) -> None:
        self.stage.happen(Tick())

    @precondition(lambda self: self.outcomes < len(self.stage.written) and not self.stage.commits)
    @rule(error=st.sampled_from([NONE, NONE, ErrorCode.REQUEST_TIMED_OUT, ErrorCode.NOT_LEADER_OR_FOLLOWER]))
    def written(self, error: ErrorCode) -> None:
        token = self.stage.written[self.outcomes].token
        self.outcomes += 1
        self.stage.happen(Written(token, error))

    @precondition(lambda self: self.stage.written)
    @rule()
    def restart(self) -> None:
        """All connections are gone; the last write was committed or not, but all before it were."""
        self.stage.waiting.clear()
        self.stage.told = None
        record = self.stage.written[-1].record
        self.stage.restart(record)
        self.outcomes = len(self.stage.written)
        assert record.generation == self.stage.group.generation
        if len(record.members) <= self.stage.limits.size_max:
            assert (State.STABLE if record.members else State.EMPTY) is self.stage.state
        self.generation = record.generation

    # -- what always holds

    def expected(self, who: str, generation: int) -> ErrorCode:
        """What a heartbeat is answered, going by how the group looks."""
        views = self.stage.group.described().members
        member_id, instance = self.stage.ids.get(who, who), instance_of(who)
        if instance is not None:
            holders = [view.member_id for view in views if view.instance_id == instance]
            if not holders:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if [member_id] != holders:
                return ErrorCode.FENCED_INSTANCE_ID
        if member_id not in [view.member_id for view in views]:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if generation != self.stage.group.generation:
            return ErrorCode.ILLEGAL_GENERATION
        return ErrorCode.REBALANCE_IN_PROGRESS if self.stage.state is State.PREPARING else NONE

    @invariant()
    def the_generation_never_falls(self) -> None:
        assert self.generation <= self.stage.group.generation
        self.generation = self.stage.group.generation

    @invariant()
    def one_leads_who_is_a_member(self) -> None:
        roster = self.stage.group._roster
        assert (roster.leader in roster.members) if roster.members else roster.leader is None

    @invariant()
    def an_empty_group_has_no_members_and_others_have_some(self) -> None:
        size = len(self.stage.group.described().members)
        match self.stage.state:
            case State.EMPTY:
                assert 0 == size
            case State.COMPLETING | State.STABLE:
                assert size > 0

    @invariant()
    def members_are_those_that_the_leader_heard_of(self) -> None:
        told = self.stage.told
        if self.stage.state in (State.COMPLETING, State.STABLE) and told is not None:
            members = {view.instance_id or view.member_id for view in self.stage.group.described().members}
            assert (self.stage.group.generation, members) == told

    @invariant()
    def counts_are_what_counting_says(self) -> None:
        roster = self.stage.group._roster
        members = list(roster.members.values())
        assert [m.member_id for m in members] == list(roster.members)
        assert roster.joining == sum(m.join_to is not NOBODY for m in members)
        assert roster._instances == {m.instance_id: m.member_id for m in members if m.instance_id}
        assert roster._supporters == dict(Counter(p.name for m in members for p in m.protocols))
        assert not members or roster.select_protocol() in {p.name for p in members[0].protocols}

    @invariant()
    def all_who_are_not_answered_wait_in_a_members_name(self) -> None:
        members = self.stage.group._roster.members.values()
        waiting = [to for m in members for to in (m.join_to, m.sync_to) if to is not NOBODY]
        assert sorted(map(id, self.stage.waiting)) == sorted(map(id, waiting))
        for member in members:
            assert member.sync_to is NOBODY or self.stage.state is State.COMPLETING

    @invariant()
    def members_of_a_generation_can_all_do_its_protocol(self) -> None:
        group = self.stage.group
        if group.state in (State.COMPLETING, State.STABLE):
            for member in group._roster.members.values():
                assert group.protocol_name in [protocol.name for protocol in member.protocols]

    @invariant()
    def nobody_stays_beyond_its_session(self) -> None:
        group = self.stage.group
        for member in group._roster.members.values():
            assert member.expires_at + SLACK_S > self.stage.monotonic
            if not member.waits:
                assert member.expires_at <= self.stage.monotonic + member.session_timeout_ms / 1000
        assert all(at + SLACK_S > self.stage.monotonic for at in group._pending.values())
        assert group._unsynced <= set(group._roster.members)

    @invariant()
    def the_alarm_is_never_late(self) -> None:
        group = self.stage.group
        sessions = [m.expires_at for m in group._roster.members.values()] + list(group._pending.values())
        due = min([group._gathering.ends_at, group._sync_at, *(at + SLACK_S for at in sessions)])
        assert group.alarm_at <= due
        assert (group.state is State.PREPARING) == (group._gathering.ends_at < float("inf"))

    # -- the end

    def teardown(self) -> None:
        """First all behave, then all are silent."""
        if not hasattr(self, "stage"):
            return
        if not self.stage.commits:
            while self.outcomes < len(self.stage.written):
                self.written(NONE)
            self.stage.commits = True
        self.polite_members_make_a_stable_group()
        self.the_alarm_is_never_late()
        self.stage.pass_time(400)
        assert ([], State.EMPTY, float("inf")) == (
            self.stage.waiting,
            self.stage.state,
            self.stage.group.alarm_at,
        )

    def polite_members_make_a_stable_group(self) -> None:
        names = "abcd"[: self.stage.limits.size_max]
        consumers = [Consumer(self.stage, name) for name in names]
        for _ in range(120):
            for consumer in consumers:
                consumer.poll()
            self.stage.pass_time(1)
        assert State.STABLE is self.stage.state
        assert [b"mine"] * len(names) == [
            member.assignment for member in self.stage.group.described().members
        ]
        assert sorted(names) == self.stage.members()


class Consumer:
    """Does as it is told."""

    def __init__(self, stage: Stage, who: str) -> None:
        self.stage = stage
        self.who = who
        self.joining: Asked | None = None
        self.syncing: Asked | None = None
        self.generation: int | None = stage.group.generation if who in stage.ids else None

    def poll(self) -> None:
        if self.joining is not None:
            self.after_join()
        elif self.syncing is not None:
            self.after_sync()
        elif self.generation is None or self.beat() is not NONE:
            self.join()

    def beat(self) -> ErrorCode:
        return self.stage.beat(self.who, generation=self.generation, instance=instance_of(self.who))

    def join(self) -> None:
        self.generation = None
        instance = instance_of(self.who)
        known = None if self.stage.ids.get(self.who) else ""
        self.joining = self.stage.join(
            self.who, known, instance=instance, protocols=("range", "sticky"), metadata=b"p"
        )

    def after_join(self) -> None:
        assert self.joining is not None
        if self.joining.waits:
            return
        answer, self.joining = self.joining.answer, None
        if answer.error in (
            ErrorCode.UNKNOWN_MEMBER_ID,
            ErrorCode.FENCED_INSTANCE_ID,
            ErrorCode.GROUP_MAX_SIZE_REACHED,
        ):
            self.stage.ids.pop(self.who, None)
        elif answer.error is NONE:
            self.generation = answer.generation
            given = {member_id: b"mine" for member_id, _, _ in answer.members}
            instance = instance_of(self.who)
            self.syncing = self.stage.sync(self.who, given, generation=self.generation, instance=instance)

    def after_sync(self) -> None:
        assert self.syncing is not None
        if self.syncing.waits:
            return
        answer, self.syncing = self.syncing.answer, None
        if answer.error is not NONE:
            self.generation = None
            if answer.error is not ErrorCode.REBALANCE_IN_PROGRESS:
                self.stage.ids.pop(self.who, None)


Groups.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestGroups = Groups.TestCase
