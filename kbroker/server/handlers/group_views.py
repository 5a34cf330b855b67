"""ListGroups, DescribeGroups, DeleteGroups: looking at groups, and removing those without members."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any

from kbroker.errors import ErrorCode
from kbroker.groups.events import Listed
from kbroker.protocol.messages.groups import (
    DeletableGroupResult,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
    DescribedGroup,
    DescribedGroupMember,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    ListedGroup,
    ListGroupsRequest,
    ListGroupsResponse,
)
from kbroker.server.handlers.pending import Pending
from kbroker.server.handlers.shared import GROUP_OPERATIONS, OPERATIONS_NOT_ASKED, named_too_often
from kbroker.server.rooms import Call, Later, Rooms
from kbroker.server.slices import SLICE, Awaited, Large, Pace, Steps, in_slices

NOT_FOUND_FROM = 6  # DescribeGroups says that a group is not there; before, that it is dead


def handle_list_groups(
    rooms: Rooms, call: Call, request: ListGroupsRequest
) -> ListGroupsResponse | Coroutine[Any, Any, Large[ListGroupsResponse]]:
    """ListGroups: v0-5.

    Filters take names of states and types in any case; one that nobody knows matches nothing, as in Kafka.
    v3 flexible · v4 states and a filter for them (KIP-518) · v5 types and a filter for them (KIP-848)
    """
    error, groups = rooms.groups.list()
    if error is not ErrorCode.NONE:
        return ListGroupsResponse(error_code=error)
    states = {state.strip().lower() for state in request.states_filter}
    kinds = {kind.lower() for kind in request.types_filter}
    return in_slices(call, _list(groups, states, kinds))


def _list(groups: Iterable[Listed], states: set[str], kinds: set[str]) -> Steps[ListGroupsResponse]:
    response, pace = ListGroupsResponse(), Pace()
    for group in groups:
        if _matches(group, states, kinds):
            response.groups.append(
                ListedGroup(
                    group_id=group.group_id,
                    protocol_type=group.protocol_type,
                    group_state=group.state,
                    group_type=group.kind,
                )
            )
        if pace.over():
            yield None
    return response


def _matches(group: Listed, states: set[str], kinds: set[str]) -> bool:
    return (not states or group.state.lower() in states) and (not kinds or group.kind.lower() in kinds)


def handle_describe_groups(
    rooms: Rooms, call: Call, request: DescribeGroupsRequest
) -> DescribeGroupsResponse | Coroutine[Any, Any, Large[DescribeGroupsResponse]]:
    """DescribeGroups: v0-6.

    A group that is not there is Dead: an error from v6 on, none before. One that is named too often is refused.
    v3 authorized operations (KIP-430) · v4 instance ids (KIP-345) · v5 flexible · v6 GROUP_ID_NOT_FOUND (KIP-1043)
    """
    return in_slices(call, _describe(rooms, call.version, request))


def _describe(rooms: Rooms, version: int, request: DescribeGroupsRequest) -> Steps[DescribeGroupsResponse]:
    asked = request.include_authorized_operations
    refused = named_too_often(request.groups)
    response = DescribeGroupsResponse()
    pace = Pace()
    for group_id in request.groups:
        if group_id in refused:
            group = DescribedGroup(
                error_code=ErrorCode.INVALID_REQUEST,
                group_id=group_id,
                authorized_operations=OPERATIONS_NOT_ASKED,
            )
        else:
            group = _described(rooms, version, group_id, asked)
        response.groups.append(group)
        if pace.over(1 + len(group.members)):
            yield None
    return response


def _described(rooms: Rooms, version: int, group_id: str, operations: bool) -> DescribedGroup:
    view = rooms.groups.describe(group_id)
    error, message = view.error, None
    if error is ErrorCode.GROUP_ID_NOT_FOUND:
        if version >= NOT_FOUND_FROM:
            message = f"Group {group_id} not found."
        else:
            error = ErrorCode.NONE
    return DescribedGroup(
        error_code=error,
        error_message=message,
        group_id=group_id,
        group_state=view.state,
        protocol_type=view.protocol_type,
        protocol_data=view.protocol_name,
        members=[
            DescribedGroupMember(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                member_metadata=member.metadata,
                member_assignment=member.assignment,
            )
            for member in view.members
        ],
        authorized_operations=(
            GROUP_OPERATIONS if operations and error is ErrorCode.NONE else OPERATIONS_NOT_ASKED
        ),
    )


def handle_delete_groups(
    rooms: Rooms, call: Call, request: DeleteGroupsRequest
) -> DeleteGroupsResponse | Later | Coroutine[Any, Any, Large[DeleteGroupsResponse]]:
    """DeleteGroups: v0-2.

    Groups with members are refused, each by itself. Answers when the deletion is durable; a name that comes twice is
    answered once.
    v2 flexible
    """
    names = list(dict.fromkeys(request.groups_names))
    if len(names) > SLICE:
        return in_slices(call, _delete(rooms, names))
    to = Pending(_deleted, call.version)
    rooms.groups.delete(names, to)
    return to.outcome()


def _deleted(errors: dict[str, ErrorCode], version: int) -> DeleteGroupsResponse:
    return DeleteGroupsResponse(
        results=[
            DeletableGroupResult(group_id=group_id, error_code=error) for group_id, error in errors.items()
        ]
    )


def _delete(rooms: Rooms, names: list[str]) -> Steps[DeleteGroupsResponse]:
    """A slice of them is written down, and its end awaited, before the next begins."""
    results: list[DeletableGroupResult] = []
    for at in range(0, len(names), SLICE):
        ended = Awaited[dict[str, ErrorCode]]()
        rooms.groups.delete(names[at : at + SLICE], ended)
        yield ended
        results += _deleted(ended.value, 0).results
    return DeleteGroupsResponse(results=results)
