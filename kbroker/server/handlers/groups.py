"""JoinGroup, SyncGroup, Heartbeat, LeaveGroup: members of groups. Translates wire versions to the events that groups know.

Looking at groups and deleting them: `group_views`. Whether and when a member is answered is the group's matter.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from kbroker.errors import ErrorCode
from kbroker.groups.events import Beat, Beaten, Join, Joined, Leave, Leaver, Left, Protocol, Sync, Synced
from kbroker.groups.limits import PROTOCOLS_MAX
from kbroker.protocol.messages.groups import (
    HeartbeatRequest,
    HeartbeatResponse,
    JoinGroupRequest,
    JoinGroupResponse,
    JoinGroupResponseMember,
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberIdentity,
    MemberResponse,
    SyncGroupRequest,
    SyncGroupResponse,
)
from kbroker.server.handlers.pending import Pending
from kbroker.server.rooms import Call, Later, Rooms
from kbroker.server.slices import SLICE, Awaited, Large, Steps, in_slices

# First versions in which JoinGroup...
REBALANCE_TIMEOUT_FROM = 1  # ... has a rebalance timeout of its own
MEMBER_ID_REQUIRED_FROM = 4  # ... sends new members back with an id (KIP-394)
NO_PROTOCOL_IS_NULL_FROM = 7  # ... says null, and "" before, where no protocol is chosen
SKIPS_ASSIGNMENT_FROM = 9  # ... tells a static leader not to assign again (KIP-814)

PROTOCOL_REQUIRED_FROM = 5  # SyncGroup must name protocol type and protocol
MANY_LEAVE_FROM = 3  # LeaveGroup names many members


def handle_join_group(rooms: Rooms, call: Call, request: JoinGroupRequest) -> JoinGroupResponse | Later:
    """JoinGroup: v0-9.

    Answered when the generation it leads to begins, or at once where it is refused. Requests behind it on the same
    connection wait, as with Kafka; if the connection ends, the member stays until its session does.
    v1 rebalance timeout · v4 MEMBER_ID_REQUIRED (KIP-394) · v5 instance ids (KIP-345) · v6 flexible · v7 protocol type
    (KIP-559) · v8 reason (KIP-800) · v9 skip assignment (KIP-814)
    """
    version, settings = call.version, rooms.settings
    if not request.group_id:
        return _joined(Joined(ErrorCode.INVALID_GROUP_ID, request.member_id), version)
    shortest, longest = settings.group_min_session_timeout_ms, settings.group_max_session_timeout_ms
    if not shortest <= request.session_timeout_ms <= longest:  # before anybody looks for the member, as Kafka
        return _joined(Joined(ErrorCode.INVALID_SESSION_TIMEOUT, request.member_id), version)
    to = Pending(_joined, version)
    rebalance_timeout_ms = (
        request.rebalance_timeout_ms if version >= REBALANCE_TIMEOUT_FROM else request.session_timeout_ms
    )
    join = Join(
        to=to,
        member_id=request.member_id,
        instance_id=request.group_instance_id,
        client_id=call.client_id or "",
        client_host=call.client_host,
        session_timeout_ms=request.session_timeout_ms,
        rebalance_timeout_ms=rebalance_timeout_ms,
        protocol_type=request.protocol_type,
        protocols=tuple(
            # one too many is refused as all of them would be
            [Protocol(each.name, each.metadata) for each in request.protocols[: PROTOCOLS_MAX + 1]]
        ),
        needs_member_id=version >= MEMBER_ID_REQUIRED_FROM,
        may_skip_assignment=version >= SKIPS_ASSIGNMENT_FROM,
        reason=request.reason or "",
    )
    rooms.groups.handle(request.group_id, join)
    return to.outcome()


def _joined(joined: Joined, version: int) -> JoinGroupResponse:
    return JoinGroupResponse(
        error_code=joined.error,
        generation_id=joined.generation,
        protocol_type=joined.protocol_type,
        protocol_name=joined.protocol_name or (None if version >= NO_PROTOCOL_IS_NULL_FROM else ""),
        leader=joined.leader,
        skip_assignment=joined.skip_assignment,
        member_id=joined.member_id,
        members=[
            JoinGroupResponseMember(member_id=member_id, group_instance_id=instance_id, metadata=metadata)
            for member_id, instance_id, metadata in joined.members
        ],
    )


def handle_sync_group(rooms: Rooms, call: Call, request: SyncGroupRequest) -> SyncGroupResponse | Later:
    """SyncGroup: v0-5.

    The leader's carries the assignments; a follower's waits for it, in its connection's order.
    v3 instance ids (KIP-345) · v4 flexible · v5 protocol type and name (KIP-559), which must be there then
    """
    version = call.version
    if not request.group_id:
        return SyncGroupResponse(error_code=ErrorCode.INVALID_GROUP_ID)
    if version >= PROTOCOL_REQUIRED_FROM and (request.protocol_type is None or request.protocol_name is None):
        return SyncGroupResponse(error_code=ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    to = Pending(_synced, version)
    sync = Sync(
        to=to,
        generation=request.generation_id,
        member_id=request.member_id,
        instance_id=request.group_instance_id,
        protocol_type=request.protocol_type,
        protocol_name=request.protocol_name,
        assignments=tuple([(each.member_id, each.assignment) for each in request.assignments]),
    )
    rooms.groups.handle(request.group_id, sync)
    return to.outcome()


def _synced(synced: Synced, version: int) -> SyncGroupResponse:
    return SyncGroupResponse(
        error_code=synced.error,
        protocol_type=synced.protocol_type,
        protocol_name=synced.protocol_name,
        assignment=synced.assignment,
    )


def handle_heartbeat(rooms: Rooms, call: Call, request: HeartbeatRequest) -> HeartbeatResponse | Later:
    """Heartbeat: v0-4.

    While the group is being loaded the answer is that all is well, as Kafka's: a member must not leave for that.
    v3 instance ids (KIP-345) · v4 flexible
    """
    if not request.group_id:
        return HeartbeatResponse(error_code=ErrorCode.INVALID_GROUP_ID)
    to = Pending(_beaten, call.version)
    rooms.groups.handle(
        request.group_id, Beat(to, request.generation_id, request.member_id, request.group_instance_id)
    )
    return to.outcome()


def _beaten(beaten: Beaten, version: int) -> HeartbeatResponse:
    error = beaten.error
    return HeartbeatResponse(
        error_code=ErrorCode.NONE if error is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS else error
    )


def handle_leave_group(
    rooms: Rooms, call: Call, request: LeaveGroupRequest
) -> LeaveGroupResponse | Later | Coroutine[Any, Any, Large[LeaveGroupResponse]]:
    """LeaveGroup: v0-5.

    Members are answered one by one, in the order named; before v3 there is one, and its error is the answer's.
    v3 many members, instance ids (KIP-345) · v4 flexible · v5 reason (KIP-800)
    """
    if not request.group_id:
        return LeaveGroupResponse(error_code=ErrorCode.INVALID_GROUP_ID)
    if len(request.members) > SLICE:
        return in_slices(call, _leave_many(rooms, request))
    to = Pending(_left, call.version)
    if call.version >= MANY_LEAVE_FROM:
        members = _leavers(request.members)
    else:
        members = (Leaver(request.member_id, None),)
    rooms.groups.handle(request.group_id, Leave(to, members))
    return to.outcome()


def _leavers(members: list[MemberIdentity]) -> tuple[Leaver, ...]:
    return tuple([Leaver(each.member_id, each.group_instance_id, each.reason or "") for each in members])


def _leave_many(rooms: Rooms, request: LeaveGroupRequest) -> Steps[LeaveGroupResponse]:
    """They leave slice by slice, as by so many requests. An error of the whole is that of each one in a later slice: those
    before have left."""
    response = LeaveGroupResponse()
    for at in range(0, len(request.members), SLICE):
        members = request.members[at : at + SLICE]
        ended: Awaited[Left] = Awaited()
        rooms.groups.handle(request.group_id, Leave(ended, _leavers(members)))
        yield ended
        left = ended.value
        if left.error is ErrorCode.NONE:
            response.members += _responses(left)
        elif not at:
            return LeaveGroupResponse(error_code=left.error)
        else:
            response.members += [
                MemberResponse(
                    member_id=each.member_id,
                    group_instance_id=each.group_instance_id,
                    error_code=left.error,
                )
                for each in members
            ]
        yield None
    return response


def _responses(left: Left) -> list[MemberResponse]:
    return [
        MemberResponse(member_id=member_id, group_instance_id=instance_id, error_code=error)
        for member_id, instance_id, error in left.members
    ]


def _left(left: Left, version: int) -> LeaveGroupResponse:
    if version >= MANY_LEAVE_FROM:
        return LeaveGroupResponse(error_code=left.error, members=_responses(left))
    error = left.error
    if error is ErrorCode.NONE and left.members:
        [(_, _, error)] = left.members
    return LeaveGroupResponse(error_code=error)
