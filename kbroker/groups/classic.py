"""A group of the classic kind: JoinGroup, SyncGroup, Heartbeat and LeaveGroup, as one pure state machine.

Events and the time come in, answers and what to write down go out. Knows no clock, no log, no wire versions; what the
members tell each other stays opaque, but for the topics they subscribe to.

                     join                        all have joined, or time is up
        Empty ───────────────► PreparingRebalance ───────────────► CompletingRebalance
          ▲                     │   ▲        ▲                              │     │ the leader's assignment
          └─── nobody left ─────┘   │        └── join, leave, expiry ───────┘     ▼ is written down
                                    └─────────────── join, leave, expiry ─────── Stable
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple, Self

from kbroker.errors import ErrorCode
from kbroker.groups.events import (
    Answer,
    Beat,
    Beaten,
    Commit,
    Described,
    Effect,
    Event,
    GroupRecord,
    Join,
    Joined,
    Leave,
    Leaver,
    Left,
    Listed,
    Now,
    Protocol,
    Reply,
    Sync,
    Synced,
    Tick,
    Write,
    Written,
)
from kbroker.groups.failures import told
from kbroker.groups.gathering import Gathering
from kbroker.groups.limits import (
    MEMBER_ID_PREFIX_MAX,
    NEW_MEMBER_JOIN_TIMEOUT_S,
    PENDING_MAX,
    POSTPONE_MIN_S,
    PROTOCOLS_MAX,
    SESSION_GRAIN_PER_MEMBER_S,
    SESSION_GRAIN_S_MAX,
    GroupLimits,
)
from kbroker.groups.members import NEVER, NOBODY, Member, Roster
from kbroker.groups.subscriptions import topics_of

CONSUMER_PROTOCOL_TYPE = "consumer"


class State(StrEnum):
    """As Kafka calls them."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


class _Assigned(NamedTuple):
    """A write under way: the leader's assignment."""

    generation: int
    assignments: dict[str, bytes]


class _Renamed(NamedTuple):
    """A write under way: a static member that came back under a new id, and how it was before."""

    member_id: str
    may_skip_assignment: bool
    old_member_id: str
    old_leader: str
    old_protocols: tuple[Protocol, ...]
    old_rebalance_timeout_ms: int
    old_session_timeout_ms: int


_ALIVE = Beaten(ErrorCode.NONE)


class ClassicGroup:
    """One group. `handle` is its only way to change, but for a commit, which is a sign of life, and `close`."""

    __slots__ = (
        "_effects",
        "_gathering",
        "_limits",
        "_new_member_id",
        "_now",
        "_pending",
        "_roster",
        "_subscribed",
        "_sync_at",
        "_tokens",
        "_unsynced",
        "_writes",
        "alarm_at",
        "generation",
        "group_id",
        "protocol_name",
        "protocol_type",
        "state",
        "state_timestamp_ms",
    )

    kind = "classic"

    def __init__(
        self, group_id: str, *, limits: GroupLimits, new_member_id: Callable[[str], str], now: Now
    ) -> None:
        self.group_id = group_id
        self.state = State.EMPTY
        self.state_timestamp_ms = now.wall_ms  # -1: not known
        self.protocol_type = ""  # "": nobody ever joined; kept when the last member goes
        self.protocol_name: str | None = None  # chosen for this generation
        self.generation = 0  # never falls
        self.alarm_at = NEVER  # monotonic. May be early, never late
        self._limits = limits
        self._new_member_id = new_member_id
        self._roster = Roster()
        self._pending: dict[str, float] = {}  # id given, not back with it yet -> monotonic: its end
        self._unsynced: set[str] = set()  # members of this generation who have not asked for their assignment
        self._subscribed: frozenset[str] | None = None
        self._writes: dict[int, _Assigned | _Renamed] = {}  # under way, by token
        self._tokens = 0
        self._gathering = Gathering()  # whoever has not joined by its end is left out
        self._sync_at = NEVER  # monotonic: whoever has not synced by then is removed
        # For the length of one `handle`
        self._now = now
        self._effects: list[Effect] = []

    @classmethod
    def restore(
        cls,
        group_id: str,
        record: GroupRecord,
        *,
        limits: GroupLimits,
        new_member_id: Callable[[str], str],
        now: Now,
    ) -> Self:
        """The group as it was written down. Its members go on in their generation; their sessions begin anew."""
        group = cls(group_id, limits=limits, new_member_id=new_member_id, now=now)
        group.state_timestamp_ms = record.state_timestamp_ms
        group.protocol_type = record.protocol_type
        group.protocol_name = (record.protocol or "") if record.members else None
        group.generation = record.generation
        for written in record.members:
            member = Member.restored(written, record.protocol)
            known = member.member_id in group._roster.members or group._roster.holder_of(member.instance_id)
            if not known:  # ids are unique, unless a broker that lost count wrote this
                group._roster.add(member)
                group._heard(member)
        if record.leader in group._roster.members:
            group._roster.leader = record.leader
        group._subscribed = group._topics()
        if group._roster.members:
            group.state = State.STABLE
        if len(group._roster) > limits.size_max:
            group._prepare()  # it was allowed to be larger: those who join again first may stay
        return group

    # -- what happens

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """One event; what is to be done because of it, in order."""
        if type(event) is Beat:
            error = self._beat(event, now)
            return [Reply(event.to, Beaten(error) if error else _ALIVE)]
        effects: list[Effect] = []
        self._effects, self._now = effects, now
        match event:
            case Join():
                self._join(event)
            case Sync():
                self._sync(event)
            case Leave():
                self._leave(event)
            case Tick():
                self._tick()
            case Written():
                self._written(event)
        self._effects = []
        return effects

    def close(self, error: ErrorCode, now: Now) -> list[Effect]:
        """It goes elsewhere, or away: whoever waits is told so, and whoever still comes to look again."""
        effects: list[Effect] = []
        self._effects, self._now = effects, now
        for member in self._roster.members.values():
            self._dismiss(member, Joined(error, member.member_id), Synced(error))
        self._enter(State.DEAD)
        self._roster = Roster()
        self._pending.clear()
        self._unsynced.clear()
        self._writes.clear()
        self._gathering.end()
        self.alarm_at = self._sync_at = NEVER
        self._effects = []
        return effects

    def check_commit(self, commit: Commit, now: Now) -> ErrorCode:
        """Whether these offsets may be committed. One by a member is a sign of its life."""
        if self.state is State.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if commit.generation < 0 and self.state is State.EMPTY:
            return ErrorCode.NONE  # an admin tool, or a consumer that assigns its partitions itself
        if commit.generation < 0 and not commit.member_id and commit.instance_id is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if error := self._roster.check(commit.member_id, commit.instance_id):
            return error
        if commit.generation != self.generation:
            return ErrorCode.ILLEGAL_GENERATION
        if self.state is State.COMPLETING:
            # It knows the generation but not yet its part of it: whatever it commits is from before.
            return ErrorCode.REBALANCE_IN_PROGRESS
        self._now = now
        self._heard(self._roster.members[commit.member_id])
        return ErrorCode.NONE

    # -- how it looks

    @property
    def is_empty(self) -> bool:
        """Whether it has no members, and nobody is about to be one."""
        return self.state is State.EMPTY and not self._pending

    @property
    def members(self) -> int:
        """How many there are."""
        return len(self._roster.members)

    def subscribed(self) -> frozenset[str] | None:
        """Topics that the members of the last generation read; None: not known, or no group of consumers."""
        return self._subscribed

    def deletable(self) -> ErrorCode:
        """Whether it may be deleted."""
        if self.state in (State.EMPTY, State.DEAD):
            return ErrorCode.NONE
        return ErrorCode.NON_EMPTY_GROUP

    def listed(self) -> Listed:
        """Its line of ListGroups."""
        return Listed(self.group_id, self.protocol_type, self.state.value, self.kind)

    def described(self) -> Described:
        """As DescribeGroups shows it. Only a Stable group has a protocol for sure that all its members know."""
        stable = self.state is State.STABLE
        return Described(
            ErrorCode.NONE,
            self.state.value,
            self.protocol_type,
            (self.protocol_name or "") if stable else "",
            tuple(
                member.view(self.protocol_name if stable else None)
                for member in self._roster.members.values()
            ),
        )

    # -- JoinGroup

    def _join(self, event: Join) -> None:
        if error := self._join_error(event):
            self._reply(event.to, Joined(error, event.member_id))
        elif not self._has_room_for(event):
            self._turn_away(event)
        elif not event.member_id:
            self._join_first(event)
        elif event.member_id in self._pending and event.instance_id is None:
            del self._pending[event.member_id]
            self._add(event, event.member_id)
        elif error := self._roster.check(event.member_id, event.instance_id):
            self._reply(event.to, Joined(error, event.member_id))
        else:
            self._join_again(event, self._roster.members[event.member_id])

    def _join_error(self, event: Join) -> ErrorCode:
        """Why this join cannot be, whoever it is."""
        limits = self._limits
        if not limits.session_timeout_ms_min <= event.session_timeout_ms <= limits.session_timeout_ms_max:
            return ErrorCode.INVALID_SESSION_TIMEOUT
        if self.state is State.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if len(event.protocols) > PROTOCOLS_MAX:
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if self.state is State.EMPTY:
            fits = bool(event.protocol_type and event.protocols)
        else:
            fits = event.protocol_type == self.protocol_type and self._roster.supports(event.protocols)
        return ErrorCode.NONE if fits else ErrorCode.INCONSISTENT_GROUP_PROTOCOL

    def _has_room_for(self, event: Join) -> bool:
        """Whether the group stays within its size with this member (group.max.size)."""
        member = self._roster.members.get(event.member_id) or self._roster.holder_of(event.instance_id)
        match self.state:
            case State.PREPARING:
                # Those who wait count, not all members: of a group that became too large, the last ones have to go.
                waits = member is not None and member.join_to is not NOBODY
                return waits or self._roster.joining < self._limits.size_max
            case State.COMPLETING | State.STABLE:
                return member is not None or len(self._roster) < self._limits.size_max
            case _:
                return True

    def _turn_away(self, event: Join) -> None:
        """No room. A member that comes back to a group that is full is one no longer."""
        self._reply(event.to, Joined(ErrorCode.GROUP_MAX_SIZE_REACHED))
        self._pending.pop(event.member_id, None)
        member = self._roster.members.get(event.member_id)
        if member is not None:
            self._remove(member)
        self._complete_if_all_joined()

    def _join_first(self, event: Join) -> None:
        """A join of somebody without a member id."""
        prefix = event.client_id if event.instance_id is None else event.instance_id
        member_id = self._new_member_id(prefix[:MEMBER_ID_PREFIX_MAX])
        holder = self._roster.holder_of(event.instance_id)
        if holder is not None:
            self._come_back(event, holder, member_id)
        elif event.instance_id is None and event.needs_member_id:
            # KIP-394: a client whose join times out joins again. If it had no id, each try would leave a member behind.
            if len(self._pending) >= PENDING_MAX:
                del self._pending[next(iter(self._pending))]
            self._pending[member_id] = self._alarm_in(event.session_timeout_ms / 1000)
            self._reply(event.to, Joined(ErrorCode.MEMBER_ID_REQUIRED, member_id))
        else:
            self._add(event, member_id)

    def _add(self, event: Join, member_id: str) -> None:
        """One member more."""
        member = Member(
            member_id=member_id,
            instance_id=event.instance_id,
            client_id=event.client_id,
            client_host=event.client_host,
            rebalance_timeout_ms=event.rebalance_timeout_ms,
            session_timeout_ms=event.session_timeout_ms,
            protocols=event.protocols,
            is_new=True,
        )
        member.expires_at = self._alarm_in(NEW_MEMBER_JOIN_TIMEOUT_S)
        if not self._roster.members:
            self.protocol_type = event.protocol_type
        self._gathering.newcomers = True
        self._roster.add(member)
        self._roster.wait_to_join(member, event.to)
        self._rebalance()

    def _join_again(self, event: Join, member: Member) -> None:
        """A join of a member. Only one that brings news, or the leader, who may have seen some, makes a rebalance."""
        unchanged = member.protocols == event.protocols
        if self.state is State.COMPLETING and unchanged:
            # It may not have got the answer.
            self._reply(event.to, self._joined(member))
        elif self.state is State.STABLE and unchanged and member.member_id != self._roster.leader:
            self._reply(event.to, self._joined(member))
        else:
            self._wait_to_join(event, member)
            self._rebalance()

    def _wait_to_join(self, event: Join, member: Member) -> None:
        """It waits, with what it said this time. An earlier try of its own is answered: that one need not wait."""
        to = self._roster.take_joiner(member)
        if to is not NOBODY:
            self._reply(to, Joined(ErrorCode.REBALANCE_IN_PROGRESS, member.member_id))
        self._roster.update(member, event.protocols, event.rebalance_timeout_ms, event.session_timeout_ms)
        self._roster.wait_to_join(member, event.to)

    # -- static members

    def _come_back(self, event: Join, member: Member, member_id: str) -> None:
        """A static member starts anew (KIP-345): it gets a new id, and whoever had its old one is fenced.

        A Stable group goes on without a rebalance if its protocol stays the same.
        """
        old_id = member.member_id
        fenced = ErrorCode.FENCED_INSTANCE_ID
        self._dismiss(member, Joined(fenced, old_id), Synced(fenced))
        change = _Renamed(
            member_id,
            event.may_skip_assignment,
            old_id,
            self._roster.leader or "",
            member.protocols,
            member.rebalance_timeout_ms,
            member.session_timeout_ms,
        )
        self._rename(member, member_id)
        member.is_new = False
        self._wait_to_join(event, member)
        if self.state is State.STABLE and self._roster.select_protocol() == self.protocol_name:
            self._write({m.member_id: m.assignment for m in self._roster.members.values()}, change)
        else:
            # In CompletingRebalance, too: the leader may already be dividing, and knows but the old id.
            self._rebalance()

    def _rename(self, member: Member, member_id: str) -> None:
        if member.member_id in self._unsynced:
            self._unsynced.remove(member.member_id)
            self._unsynced.add(member_id)
        self._roster.rename(member, member_id)

    def _renamed(self, change: _Renamed, error: ErrorCode) -> None:
        """A static member's new id is written down, or could not be."""
        member = self._roster.members.get(change.member_id)
        if member is None or member.join_to is NOBODY or self.state is not State.STABLE:
            return  # a rebalance overtook it, and answers it
        to = self._roster.take_joiner(member)
        if error:
            self._rename(member, change.old_member_id)
            self._roster.update(
                member, change.old_protocols, change.old_rebalance_timeout_ms, change.old_session_timeout_ms
            )
            answer = self._joined(member, error=error, member_id="", leader=change.old_leader, members=())
        elif change.may_skip_assignment:
            # KIP-814: a leader learns that it leads, and that it must not divide.
            answer = self._joined(member, skip=member.member_id == self._roster.leader)
        else:
            # A client that cannot be told so would divide anew if it heard that it leads; it hears its old id.
            answer = self._joined(member, leader=change.old_leader, members=())
        self._heard(member)
        self._reply(to, answer)

    # -- the rebalance

    def _rebalance(self) -> None:
        """Somebody came, went or brought news: gather all members; if they are gathering, see whether all are there."""
        if self.state is State.PREPARING:
            self._complete_if_all_joined()
        else:
            self._prepare()

    def _prepare(self) -> None:
        if self.state is State.COMPLETING:
            self._share_out({}, ErrorCode.REBALANCE_IN_PROGRESS)
        self._unsynced.clear()
        self._sync_at = NEVER
        is_first = self.state is State.EMPTY
        self._enter(State.PREPARING)
        now, timeout_ms = self._now.monotonic, self._roster.rebalance_timeout_ms()
        delay_ms = self._limits.initial_rebalance_delay_ms
        if is_first and delay_ms > 0:
            self._gathering.begin_first(delay_ms, timeout_ms, now)
        elif is_first or self._all_joined():
            self._complete()
        else:
            self._gathering.begin(timeout_ms, now)
        self._alarm_at(self._gathering.ends_at)

    def _all_joined(self) -> bool:
        return self._roster.joining == len(self._roster) and not self._pending

    def _complete_if_all_joined(self) -> None:
        # The first rebalance waits its time: others may follow.
        if self.state is State.PREPARING and not self._gathering.is_first and self._all_joined():
            self._complete()

    def _time_to_gather_is_over(self) -> None:
        if not self._gathering.extend(self._limits.initial_rebalance_delay_ms, self._now.monotonic):
            self._complete()

    def _complete(self) -> None:
        """Those who have joined are the next generation, and static members, who have until their session ends."""
        roster = self._roster
        for member in [m for m in roster.members.values() if m.join_to is NOBODY and m.instance_id is None]:
            self._remove(member)
        if roster.members and not roster.elect_joined_leader():
            self._gathering.postpone(
                max(roster.rebalance_timeout_ms() / 1000, POSTPONE_MIN_S), self._now.monotonic
            )
            self._alarm_at(self._gathering.ends_at)
            return
        self._gathering.end()
        self.generation += 1
        if roster.members:
            self._begin_generation()
        else:
            self.protocol_name = None
            self._subscribed = self._topics()
            self._enter(State.EMPTY)
            self._write({}, None)

    def _begin_generation(self) -> None:
        """All hear of the new generation; now they are to ask for their assignments, the leader with all of them."""
        roster = self._roster
        self.protocol_name = roster.select_protocol()
        self._subscribed = self._topics()
        self._enter(State.COMPLETING)
        self._unsynced = set(roster.members)
        self._sync_at = self._alarm_in(roster.rebalance_timeout_ms() / 1000)
        leader, said = roster.leader or "", (self.generation, self.protocol_type, self.protocol_name)
        for member in roster.members.values():  # thousands: nothing here looks at all of them
            member.is_new = False
            self._heard(member)
            to = roster.take_joiner(member)
            if to is NOBODY:
                continue
            if member.member_id == leader:
                self._reply(to, self._joined(member))
            else:
                self._reply(to, Joined(ErrorCode.NONE, member.member_id, *said, leader))

    # -- SyncGroup

    def _sync(self, event: Sync) -> None:
        if error := self._sync_error(event):
            self._reply(event.to, Synced(error))
            return
        member = self._roster.members[event.member_id]
        self._unsynced.discard(member.member_id)
        if not self._unsynced:
            self._sync_at = NEVER
        if self.state is State.STABLE:
            self._reply(event.to, self._synced(member))
            return
        if member.sync_to is not NOBODY:  # an earlier try of its own: that one need not wait
            self._reply(member.sync_to, Synced(ErrorCode.REBALANCE_IN_PROGRESS))
        member.sync_to = event.to
        if member.member_id == self._roster.leader and not self._assignment_under_way():
            given = dict(event.assignments)
            assignments = {member_id: given.get(member_id, b"") for member_id in self._roster.members}
            self._write(assignments, _Assigned(self.generation, assignments))

    def _sync_error(self, event: Sync) -> ErrorCode:
        if self.state is State.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if error := self._roster.check(event.member_id, event.instance_id):
            return error
        if event.generation != self.generation:
            return ErrorCode.ILLEGAL_GENERATION
        if event.protocol_type not in (None, self.protocol_type):
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if event.protocol_name is not None and self.protocol_name not in (None, event.protocol_name):
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        return ErrorCode.REBALANCE_IN_PROGRESS if self.state is State.PREPARING else ErrorCode.NONE

    def _assignment_under_way(self) -> bool:
        return any(type(w) is _Assigned and w.generation == self.generation for w in self._writes.values())

    def _assigned(self, assigned: _Assigned, error: ErrorCode) -> None:
        """The leader's assignment is written down, or could not be."""
        if self.state is not State.COMPLETING or assigned.generation != self.generation:
            return  # a rebalance overtook it
        if error:
            self._share_out({}, error)
            self._prepare()
        else:
            self._enter(State.STABLE)
            self._share_out(assigned.assignments, ErrorCode.NONE)

    def _share_out(self, assignments: dict[str, bytes], error: ErrorCode) -> None:
        """Give each member its part, and tell those who wait for it."""
        for member in self._roster.members.values():
            member.assignment = assignments.get(member.member_id, b"")
            if member.sync_to is not NOBODY:
                to, member.sync_to = member.sync_to, NOBODY
                self._heard(member)
                self._reply(to, Synced(error) if error else self._synced(member))

    # -- Heartbeat

    def _beat(self, event: Beat, now: Now) -> ErrorCode:
        # Each member sends one every few seconds: no effects, no timers, nothing that walks.
        member = self._roster.members.get(event.member_id)
        if member is None or (event.instance_id is not None and event.instance_id != member.instance_id):
            if self.state is State.DEAD:
                return ErrorCode.COORDINATOR_NOT_AVAILABLE
            return self._roster.check(event.member_id, event.instance_id)
        if event.generation != self.generation:
            return ErrorCode.ILLEGAL_GENERATION
        at = member.expires_at = now.monotonic + member.session_timeout_ms / 1000
        if at < self.alarm_at:
            self.alarm_at = at
        return ErrorCode.REBALANCE_IN_PROGRESS if self.state is State.PREPARING else ErrorCode.NONE

    # -- LeaveGroup

    def _leave(self, event: Leave) -> None:
        if self.state is State.DEAD:
            self._reply(event.to, Left(ErrorCode.COORDINATOR_NOT_AVAILABLE))
            return
        size = len(self._roster)
        answers = tuple((who.member_id, who.instance_id, self._leave_one(who)) for who in event.members)
        self._reply(event.to, Left(ErrorCode.NONE, answers))
        if len(self._roster) < size:
            self._rebalance()
        else:
            self._complete_if_all_joined()  # it may have waited for one that was not even a member yet

    def _leave_one(self, who: Leaver) -> ErrorCode:
        if not who.member_id:
            member = self._roster.holder_of(who.instance_id)  # an administrator removes it by its instance id
            if member is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
        elif self._pending.pop(who.member_id, None) is not None:
            return ErrorCode.NONE
        else:
            if error := self._roster.check(who.member_id, who.instance_id):
                return error
            member = self._roster.members[who.member_id]
        self._remove(member)
        return ErrorCode.NONE

    # -- time

    def _tick(self) -> None:
        self._expire_sessions()
        if self._gathering.ends_at <= self._now.monotonic:
            self._time_to_gather_is_over()
        if self._sync_at <= self._now.monotonic:
            self._time_to_sync_is_over()
        grain = min(
            (len(self._roster) + len(self._pending)) * SESSION_GRAIN_PER_MEMBER_S, SESSION_GRAIN_S_MAX
        )
        self.alarm_at = min(self._gathering.ends_at, self._sync_at, self._first_session_end() + grain)

    def _expire_sessions(self) -> None:
        now = self._now.monotonic
        roster, pending = self._roster, self._pending
        before = len(roster), len(pending)
        for member_id in [member_id for member_id, at in pending.items() if at <= now]:
            del pending[member_id]
        for member in [m for m in roster.members.values() if m.expires_at <= now]:
            if member.waits and not member.is_new:
                member.expires_at = NEVER  # to wait is to live; its session begins anew with the answer
            else:
                self._remove(member)
        if self.state is State.PREPARING:
            if before != (len(roster), len(pending)) and self._all_joined():
                self._complete()
        elif len(roster) < before[0]:
            self._prepare()

    def _time_to_sync_is_over(self) -> None:
        """Whoever has not asked for its assignment is gone, or stuck."""
        for member_id in list(self._unsynced):
            self._remove(self._roster.members[member_id])
        self._prepare()

    def _first_session_end(self) -> float:
        members = min((member.expires_at for member in self._roster.members.values()), default=NEVER)
        return min(members, min(self._pending.values(), default=NEVER))

    def _heard(self, member: Member) -> None:
        """It lives: its session begins anew."""
        member.expires_at = self._alarm_in(member.session_timeout_ms / 1000)

    def _alarm_in(self, seconds: float) -> float:
        """Monotonic, that much later; the group is woken then at the latest."""
        at = self._now.monotonic + seconds
        self._alarm_at(at)
        return at

    def _alarm_at(self, at: float) -> None:
        if at < self.alarm_at:
            self.alarm_at = at

    # -- writing down

    def _write(self, assignments: dict[str, bytes], what: _Assigned | _Renamed | None) -> None:
        self._tokens += 1
        if what is not None:
            self._writes[self._tokens] = what
        self._effects.append(Write(self._tokens, self._record(assignments)))

    def _record(self, assignments: dict[str, bytes]) -> GroupRecord:
        members = self._roster.members.values()
        return GroupRecord(
            self.protocol_type,
            self.generation,
            self.protocol_name,
            self._roster.leader,
            self.state_timestamp_ms,
            tuple(member.record(self.protocol_name, assignments[member.member_id]) for member in members),
        )

    def _written(self, event: Written) -> None:
        what = self._writes.pop(event.token, None)
        error = told(event.error)
        # An Empty group that could not be written down comes back after a restart with members, who are not heard of.
        match what:
            case _Assigned():
                self._assigned(what, error)
            case _Renamed():
                self._renamed(what, error)

    # -- answers

    def _reply(self, to: Any, answer: Answer) -> None:
        self._effects.append(Reply(to, answer))

    def _joined(
        self,
        member: Member,
        *,
        error: ErrorCode = ErrorCode.NONE,
        member_id: str | None = None,
        leader: str | None = None,
        members: tuple[tuple[str, str | None, bytes], ...] | None = None,
        skip: bool = False,
    ) -> Joined:
        """This generation, for a member; for the leader with everybody in it."""
        if members is None:
            members = self._everybody() if member.member_id == self._roster.leader else ()
        return Joined(
            error,
            member.member_id if member_id is None else member_id,
            self.generation,
            self.protocol_type,
            self.protocol_name,
            (self._roster.leader or "") if leader is None else leader,
            skip,
            members,
        )

    def _everybody(self) -> tuple[tuple[str, str | None, bytes], ...]:
        name = self.protocol_name
        return tuple((m.member_id, m.instance_id, m.metadata(name)) for m in self._roster.members.values())

    def _synced(self, member: Member) -> Synced:
        return Synced(ErrorCode.NONE, self.protocol_type, self.protocol_name, member.assignment)

    def _dismiss(self, member: Member, joined: Joined, synced: Synced) -> None:
        """Whoever waits in its name need not wait any longer."""
        to = self._roster.take_joiner(member)
        if to is not NOBODY:
            self._reply(to, joined)
        if member.sync_to is not NOBODY:
            to, member.sync_to = member.sync_to, NOBODY
            self._reply(to, synced)

    # -- the state

    def _remove(self, member: Member) -> None:
        """It is a member no longer. If it waits after all it hears so, and may join as a new one."""
        gone = ErrorCode.UNKNOWN_MEMBER_ID
        self._dismiss(member, Joined(gone), Synced(gone))
        self._roster.remove(member)
        self._unsynced.discard(member.member_id)

    def _enter(self, state: State) -> None:
        self.state = state
        self.state_timestamp_ms = self._now.wall_ms

    def _topics(self) -> frozenset[str] | None:
        if self.protocol_type != CONSUMER_PROTOCOL_TYPE:
            return None
        return topics_of(member.metadata(self.protocol_name) for member in self._roster.members.values())
