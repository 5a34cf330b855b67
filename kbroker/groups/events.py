"""What happens to a group, what it asks for, and what its members are answered. Data only; knows no wire versions.

Whoever asks comes with `to`: the group gives it back in a `Reply`, at once or later, once. It never looks at it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from kbroker.errors import ErrorCode


class Now(NamedTuple):
    """The time of an event: `monotonic` in seconds for what waits, `wall_ms` for what is written down."""

    monotonic: float
    wall_ms: int


# -- events


class Protocol(NamedTuple):
    """One way to divide partitions that a member offers, with what it wants to say in it (its subscription)."""

    name: str
    metadata: bytes


class Join(NamedTuple):
    """JoinGroup."""

    to: Any
    member_id: str  # "" for one who is new
    instance_id: str | None  # of a static member (KIP-345)
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: tuple[Protocol, ...]  # the one it likes most first
    needs_member_id: bool  # v4+: a new dynamic member must come back with the id it is given (KIP-394)
    may_skip_assignment: bool  # v9+: a static leader that comes back may be told so (KIP-814)
    reason: str = ""


class Sync(NamedTuple):
    """SyncGroup."""

    to: Any
    generation: int
    member_id: str
    instance_id: str | None
    protocol_type: str | None  # None: not said (before v5)
    protocol_name: str | None
    assignments: tuple[tuple[str, bytes], ...]  # by member id; only the leader has any


class Beat(NamedTuple):
    """Heartbeat."""

    to: Any
    generation: int
    member_id: str
    instance_id: str | None


class Leaver(NamedTuple):
    """One of those who leave."""

    member_id: str  # "" with an instance id: whoever has that now
    instance_id: str | None
    reason: str = ""


class Leave(NamedTuple):
    """LeaveGroup."""

    to: Any
    members: tuple[Leaver, ...]


class Tick(NamedTuple):
    """The time that the group asked for in `alarm_at` has come, perhaps a little early."""


class Written(NamedTuple):
    """How the `Write` of this token ended: NONE once it is committed."""

    token: int
    error: ErrorCode


Event = Join | Sync | Beat | Leave | Tick | Written


# -- effects


class MemberRecord(NamedTuple):
    """A member, as it is written down."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    subscription: bytes
    assignment: bytes


class GroupRecord(NamedTuple):
    """A group of the classic kind, as it is written down (GroupMetadataValue)."""

    protocol_type: str
    generation: int
    protocol: str | None
    leader: str | None
    state_timestamp_ms: int  # wall clock, when it came into its state
    members: tuple[MemberRecord, ...]


class Reply(NamedTuple):
    """Give `answer` to whoever asked."""

    to: Any
    answer: Answer


class Write(NamedTuple):
    """Write the group down; its outcome comes back as `Written(token)`. Writes of one group are kept in order."""

    token: int
    record: GroupRecord


Effect = Reply | Write


# -- answers


class Joined(NamedTuple):
    """Answer to Join."""

    error: ErrorCode
    member_id: str = ""
    generation: int = -1
    protocol_type: str | None = None
    protocol_name: str | None = None
    leader: str = ""
    skip_assignment: bool = False
    members: tuple[tuple[str, str | None, bytes], ...] = ()  # id, instance id, metadata: for the leader only


class Synced(NamedTuple):
    """Answer to Sync."""

    error: ErrorCode
    protocol_type: str | None = None
    protocol_name: str | None = None
    assignment: bytes = b""


class Beaten(NamedTuple):
    """Answer to Beat."""

    error: ErrorCode


class Left(NamedTuple):
    """Answer to Leave: per member, in the order asked."""

    error: ErrorCode
    members: tuple[tuple[str, str | None, ErrorCode], ...] = ()


# -- offsets


class Offset(NamedTuple):
    """How far a group has come in one partition."""

    offset: int
    leader_epoch: int  # -1: not said
    metadata: str
    commit_ms: int  # wall clock
    expire_ms: int  # wall clock; -1: as the broker's retention says
    topic_id: bytes  # 16 bytes; zero: not known


class Commit(NamedTuple):
    """OffsetCommit, of partitions that exist and whose metadata is not too long."""

    to: Any
    generation: int  # -1: by nobody in particular
    member_id: str
    instance_id: str | None
    offsets: tuple[tuple[str, int, Offset], ...]  # topic, partition, what to keep


class Committed(NamedTuple):
    """Answer to Commit: one error for all of it."""

    error: ErrorCode


class ForgetOffsets(NamedTuple):
    """OffsetDelete."""

    to: Any
    partitions: tuple[tuple[str, int], ...]


class Forgotten(NamedTuple):
    """Answer to ForgetOffsets: of the group, then per partition (GROUP_SUBSCRIBED_TO_TOPIC, UNKNOWN_TOPIC...)."""

    error: ErrorCode
    partitions: tuple[ErrorCode, ...] = ()


class Fetched(NamedTuple):
    """Committed offsets of one group, all or those asked for that there are."""

    error: ErrorCode
    offsets: dict[tuple[str, int], Offset]


# -- looking at groups


class Listed(NamedTuple):
    """A line of ListGroups."""

    group_id: str
    protocol_type: str
    state: str  # Kafka's names: PreparingRebalance, CompletingRebalance, Stable, Dead, Empty
    kind: str  # "classic" | "consumer" | "share" | "streams"


class MemberView(NamedTuple):
    """A member, as DescribeGroups shows it."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    metadata: bytes
    assignment: bytes


class Described(NamedTuple):
    """A group, as DescribeGroups shows it. A group that is not there: GROUP_ID_NOT_FOUND and state Dead."""

    error: ErrorCode
    state: str
    protocol_type: str = ""
    protocol_name: str = ""  # chosen; only of a Stable group
    members: tuple[MemberView, ...] = ()


Answer = Joined | Synced | Beaten | Left | Committed | Forgotten
