"""The members of one classic group: who they are, who leads, who waits for an answer, which protocols all of them can.

No state of the group, no timers, no answers: `classic` decides, this keeps count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from kbroker.errors import ErrorCode
from kbroker.groups.events import MemberRecord, MemberView, Protocol

NOBODY: Any = object()  # nobody waits (`to` may be anything, None too)
NEVER = float("inf")


class Member:
    """One member."""

    __slots__ = (
        "assignment",
        "client_host",
        "client_id",
        "expires_at",
        "instance_id",
        "is_new",
        "join_to",
        "member_id",
        "protocols",
        "rebalance_timeout_ms",
        "session_timeout_ms",
        "sync_to",
    )

    def __init__(
        self,
        *,
        member_id: str,
        instance_id: str | None,
        client_id: str,
        client_host: str,
        rebalance_timeout_ms: int,
        session_timeout_ms: int,
        protocols: tuple[Protocol, ...],
        assignment: bytes = b"",
        is_new: bool = False,
    ) -> None:
        self.member_id = member_id
        self.instance_id = instance_id
        self.client_id = client_id
        self.client_host = client_host
        self.rebalance_timeout_ms = rebalance_timeout_ms
        self.session_timeout_ms = session_timeout_ms
        self.protocols = protocols
        self.assignment = assignment
        self.is_new = is_new  # in no generation yet: it knows no member id and cannot send heartbeats
        self.join_to: Any = NOBODY  # whoever waits for the answer to its JoinGroup; set by the Roster alone
        self.sync_to: Any = NOBODY  # ... to its SyncGroup
        self.expires_at = NEVER  # monotonic: without a word from it until then it is gone

    @classmethod
    def restored(cls, record: MemberRecord, protocol_name: str | None) -> Self:
        """As it was written down. Of what it can, only the protocol of its generation is known."""
        unsaid = record.rebalance_timeout_ms == -1  # written by an old broker
        return cls(
            member_id=record.member_id,
            instance_id=record.instance_id,
            client_id=record.client_id,
            client_host=record.client_host,
            rebalance_timeout_ms=record.session_timeout_ms if unsaid else record.rebalance_timeout_ms,
            session_timeout_ms=record.session_timeout_ms,
            protocols=(Protocol(protocol_name or "", record.subscription),),
            assignment=record.assignment,
        )

    @property
    def waits(self) -> bool:
        """Whether it has asked and waits: a sign of life in itself."""
        return self.join_to is not NOBODY or self.sync_to is not NOBODY

    def metadata(self, protocol_name: str | None) -> bytes:
        """What it said in this protocol."""
        for protocol in self.protocols:
            if protocol.name == protocol_name:
                return protocol.metadata
        return b""

    def record(self, protocol_name: str | None, assignment: bytes) -> MemberRecord:
        """This member, to be written down."""
        return MemberRecord(
            self.member_id,
            self.instance_id,
            self.client_id,
            self.client_host,
            self.rebalance_timeout_ms,
            self.session_timeout_ms,
            self.metadata(protocol_name),
            assignment,
        )

    def view(self, protocol_name: str | None) -> MemberView:
        """This member, to be looked at; without a protocol nothing of what it said."""
        return MemberView(
            self.member_id,
            self.instance_id,
            self.client_id,
            self.client_host,
            self.metadata(protocol_name),
            self.assignment,
        )


class Roster:
    """All members of a group. Its leader, if it has one, is a member; a group with members has one."""

    __slots__ = ("_instances", "_supporters", "joining", "leader", "members")

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}  # by id, those longest here first
        self.leader: str | None = None
        self.joining = 0  # members who wait for the answer to their JoinGroup
        self._instances: dict[str, str] = {}  # instance id -> member id
        self._supporters: dict[str, int] = {}  # protocol -> how many members can it; never 0

    def __len__(self) -> int:
        return len(self.members)

    def check(self, member_id: str, instance_id: str | None) -> ErrorCode:
        """Whether this is a member, and the one who has the instance id now (KIP-345)."""
        if instance_id is not None:
            holder = self._instances.get(instance_id)
            if holder is not None and holder != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
            if holder is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
        return ErrorCode.NONE if member_id in self.members else ErrorCode.UNKNOWN_MEMBER_ID

    def holder_of(self, instance_id: str | None) -> Member | None:
        """The static member of this instance id."""
        member_id = None if instance_id is None else self._instances.get(instance_id)
        return None if member_id is None else self.members[member_id]

    # -- who is in it

    def add(self, member: Member) -> None:
        """A new member, whose id and instance id nobody has. The first one leads."""
        self.members[member.member_id] = member
        if member.instance_id is not None:
            self._instances[member.instance_id] = member.member_id
        if self.leader is None:
            self.leader = member.member_id
        self._count(member.protocols, 1)

    def remove(self, member: Member) -> None:
        """It goes, answered already. If it led, the one longest here leads now."""
        assert not member.waits, "answered before it goes"
        del self.members[member.member_id]
        if member.instance_id is not None:
            del self._instances[member.instance_id]
        if self.leader == member.member_id:
            self.leader = next(iter(self.members), None)
        self._count(member.protocols, -1)

    def rename(self, member: Member, member_id: str) -> None:
        """A static member came back, or did not after all: it has another id now, and all else stays."""
        assert member.instance_id is not None, "only a static member"
        del self.members[member.member_id]
        if self.leader == member.member_id:
            self.leader = member_id
        member.member_id = member_id
        self.members[member_id] = member
        self._instances[member.instance_id] = member_id

    def update(
        self, member: Member, protocols: tuple[Protocol, ...], rebalance_ms: int, session_ms: int
    ) -> None:
        """What it said this time."""
        self._count(member.protocols, -1)
        member.protocols = protocols
        self._count(protocols, 1)
        member.rebalance_timeout_ms = rebalance_ms
        member.session_timeout_ms = session_ms

    # -- who has joined

    def wait_to_join(self, member: Member, to: Any) -> None:
        """It waits for the group to gather. Whoever waited for it before is answered already."""
        assert member.join_to is NOBODY, "one waits at a time"
        member.join_to = to
        self.joining += 1

    def take_joiner(self, member: Member) -> Any:
        """Who waits for the answer to its JoinGroup, to be answered now; NOBODY."""
        to = member.join_to
        if to is not NOBODY:
            member.join_to = NOBODY
            self.joining -= 1
        return to

    def elect_joined_leader(self) -> bool:
        """Whether somebody has joined; then the leader is one who has, the old one if possible."""
        if self.joining and self.leader is not None and self.members[self.leader].join_to is NOBODY:
            self.leader = next(m.member_id for m in self.members.values() if m.join_to is not NOBODY)
        return self.joining > 0

    # -- what they can

    def supports(self, protocols: Iterable[Protocol]) -> bool:
        """Whether all members can one of these."""
        return any(self._supporters.get(protocol.name, 0) == len(self.members) for protocol in protocols)

    def select_protocol(self) -> str:
        """Each member votes for the one it likes most among those that all can; the most votes win."""
        everybody = len(self.members)
        common = [name for name, supporters in self._supporters.items() if supporters == everybody]
        if len(common) == 1:
            return common[0]
        votes: dict[str, int] = {}
        for member in self.members.values():
            name = next(p.name for p in member.protocols if self._supporters[p.name] == everybody)
            votes[name] = votes.get(name, 0) + 1
        return max(votes, key=votes.__getitem__)

    def rebalance_timeout_ms(self) -> int:
        """The most patient member's."""
        return max(0, max((member.rebalance_timeout_ms for member in self.members.values()), default=0))

    def _count(self, protocols: tuple[Protocol, ...], step: int) -> None:
        for name in {protocol.name for protocol in protocols}:  # a list may name one twice
            supporters = self._supporters.get(name, 0) + step
            if supporters:
                self._supporters[name] = supporters
            else:
                del self._supporters[name]
