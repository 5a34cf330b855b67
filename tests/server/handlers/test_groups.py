"""JoinGroup, SyncGroup, Heartbeat, LeaveGroup: what groups hear of each version, and what each version hears of them."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest

from kbroker.errors import ErrorCode
from kbroker.groups.events import Beaten, Joined, Leaver, Left, Protocol, Synced
from kbroker.net.slots import Slot
from kbroker.protocol.codec import encode_body
from kbroker.protocol.messages.groups import (
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    LeaveGroupRequest,
    MemberIdentity,
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)
from kbroker.server.handlers.groups import (
    handle_heartbeat,
    handle_join_group,
    handle_leave_group,
    handle_sync_group,
)
from tests.support.fake_groups import FakeGroups
from tests.support.fake_net import Wire
from tests.support.rooms import House

REFUSED = Joined(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)


@pytest.fixture
def groups() -> FakeGroups:
    return FakeGroups()


@pytest.fixture
def house(tmp_path: Path, groups: FakeGroups) -> House:
    return House(tmp_path, groups=groups)


def join(**fields) -> JoinGroupRequest:
    fields = {
        "group_id": "group",
        "session_timeout_ms": 10_000,
        "rebalance_timeout_ms": 60_000,
        "member_id": "me",
        "protocol_type": "consumer",
        "protocols": [JoinGroupRequestProtocol(name="range", metadata=b"topics")],
        **fields,
    }
    return JoinGroupRequest(**fields)


# -- JoinGroup


@pytest.mark.parametrize(("version", "expected"), [(0, 10_000), (1, 60_000), (9, 60_000)])
async def test_the_rebalance_timeout_of_v0_is_its_sessions(house, groups, version, expected):
    groups.answer = REFUSED

    await house.ask(handle_join_group, join(), version=version)

    assert expected == groups.event.rebalance_timeout_ms


@pytest.mark.parametrize(
    ("version", "needs_id", "may_skip"),
    [(3, False, False), (4, True, False), (8, True, False), (9, True, True)],
)
async def test_new_members_need_an_id_from_v4_and_leaders_skip_from_v9(
    house, groups, version, needs_id, may_skip
):
    groups.answer = REFUSED

    await house.ask(handle_join_group, join(), version=version)

    assert (needs_id, may_skip) == (groups.event.needs_member_id, groups.event.may_skip_assignment)


async def test_a_group_hears_who_joins_and_from_where(house, groups):
    groups.answer = REFUSED

    await house.ask(handle_join_group, join(group_instance_id="i", reason=None), version=9)

    event = groups.event
    assert ("me", "i", "raw", "/127.0.0.1", "consumer", (Protocol("range", b"topics"),), "") == (
        event.member_id,
        event.instance_id,
        event.client_id,
        event.client_host,
        event.protocol_type,
        event.protocols,
        event.reason,
    )


async def test_a_client_without_a_name_is_called_nothing(house, groups):
    groups.answer = REFUSED

    await house.ask(handle_join_group, join(), version=9, client_id=None)

    assert "" == groups.event.client_id


@pytest.mark.parametrize(("version", "expected"), [(0, ""), (6, ""), (7, None), (9, None)])
async def test_no_protocol_is_empty_before_v7_and_null_from_then_on(house, groups, version, expected):
    groups.answer = Joined(ErrorCode.MEMBER_ID_REQUIRED, "me-1")

    answer = await house.ask(handle_join_group, join(), version=version)

    assert (79, "me-1", expected) == (answer.error_code, answer.member_id, answer.protocol_name)
    encode_body(answer, version)


@pytest.mark.parametrize("version", range(10))
async def test_the_leader_gets_the_members(house, groups, version):
    members = (("me", None, b"topics"), ("you", "i", b"others"))
    groups.answer = Joined(ErrorCode.NONE, "me", 3, "consumer", "range", "me", False, members)

    answer = await house.ask(handle_join_group, join(), version=version)

    assert (0, 3, "range", "me") == (
        answer.error_code,
        answer.generation_id,
        answer.protocol_name,
        answer.leader,
    )
    assert [("me", b"topics"), ("you", b"others")] == [
        (each.member_id, each.metadata) for each in answer.members
    ]
    encode_body(answer, version)


async def test_a_join_is_answered_when_the_group_says_so(house, groups):
    slot = handle_join_group(house.rooms, house.call(9), join())
    assert isinstance(slot, Slot)
    assert slot.response is None

    groups.tell(Joined(ErrorCode.NONE, "me", 1, "consumer", "range", "you"))

    assert 1 == slot.response.generation_id


async def test_a_lost_connection_leaves_nothing_behind(house, groups):
    """The group keeps whom it will answer; that must not keep the connection."""
    slot = handle_join_group(house.rooms, house.call(9), join())
    wire = Wire()
    slot.bind(wire.connection, 9, 1)

    slot.on_lost()
    kept = weakref.ref(wire)  # its connection holds it
    del slot, wire
    gc.collect()

    assert kept() is None
    groups.tell(Joined(ErrorCode.NONE, "me", 1, "consumer", "range", "you"))  # and this harms nobody


@pytest.mark.parametrize("version", (0, 9))
@pytest.mark.parametrize("milliseconds", (5_999, 1_800_001))
async def test_q41_sessions_have_limits_whoever_asks(house, groups, milliseconds, version):
    answer = await house.ask(handle_join_group, join(session_timeout_ms=milliseconds), version=version)

    assert (ErrorCode.INVALID_SESSION_TIMEOUT, "me") == (answer.error_code, answer.member_id)
    assert [] == groups.asked


# -- SyncGroup


@pytest.mark.parametrize("version", range(6))
async def test_assignments_go_to_the_group_and_ones_own_comes_back(house, groups, version):
    groups.answer = Synced(ErrorCode.NONE, "consumer", "range", b"mine")
    named = {"protocol_type": "consumer", "protocol_name": "range"} if version >= 5 else {}
    request = SyncGroupRequest(
        group_id="group",
        generation_id=3,
        member_id="me",
        assignments=[SyncGroupRequestAssignment(member_id="me", assignment=b"mine")],
        **named,
    )

    answer = await house.ask(handle_sync_group, request, version=version)

    event = groups.event
    assert (3, "me", None, (("me", b"mine"),)) == (
        event.generation,
        event.member_id,
        event.instance_id,
        event.assignments,
    )
    assert (0, b"mine") == (answer.error_code, answer.assignment)
    encode_body(answer, version)


@pytest.mark.parametrize("missing", ["protocol_type", "protocol_name"])
async def test_sync_from_v5_on_names_type_and_protocol(house, groups, missing):
    request = SyncGroupRequest(
        group_id="group",
        generation_id=1,
        member_id="me",
        **{"protocol_type": "consumer", "protocol_name": "range", missing: None},
    )

    answer = await house.ask(handle_sync_group, request, version=5)

    assert ErrorCode.INCONSISTENT_GROUP_PROTOCOL == answer.error_code
    assert [] == groups.asked


# -- Heartbeat


@pytest.mark.parametrize("code", [ErrorCode.NONE, ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.NOT_COORDINATOR])
async def test_a_heartbeat_hears_what_the_group_says(house, groups, code):
    groups.answer = Beaten(code)
    request = HeartbeatRequest(group_id="group", generation_id=3, member_id="me", group_instance_id="i")

    answer = await house.ask(handle_heartbeat, request, version=3)

    assert code == answer.error_code
    assert (3, "me", "i") == (groups.event.generation, groups.event.member_id, groups.event.instance_id)


async def test_a_heartbeat_while_the_group_is_loaded_is_well(house, groups):
    groups.answer = Beaten(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)

    answer = await house.ask(
        handle_heartbeat, HeartbeatRequest(group_id="group", generation_id=3, member_id="me"), version=4
    )

    assert ErrorCode.NONE == answer.error_code


# -- LeaveGroup


@pytest.mark.parametrize("version", (0, 1, 2))
async def test_before_v3_one_member_leaves_and_its_error_is_the_answers(house, groups, version):
    groups.answer = Left(ErrorCode.NONE, (("me", None, ErrorCode.UNKNOWN_MEMBER_ID),))

    answer = await house.ask(
        handle_leave_group, LeaveGroupRequest(group_id="group", member_id="me"), version=version
    )

    assert (Leaver("me", None),) == groups.event.members
    assert ErrorCode.UNKNOWN_MEMBER_ID == answer.error_code
    encode_body(answer, version)


@pytest.mark.parametrize("version", (3, 4, 5))
async def test_from_v3_on_many_members_leave_and_each_is_answered(house, groups, version):
    groups.answer = Left(
        ErrorCode.NONE, (("me", None, ErrorCode.NONE), ("", "i", ErrorCode.UNKNOWN_MEMBER_ID))
    )
    members = [
        MemberIdentity(member_id="me", reason="done" if version >= 5 else None),
        MemberIdentity(member_id="", group_instance_id="i"),
    ]

    answer = await house.ask(
        handle_leave_group, LeaveGroupRequest(group_id="group", members=members), version=version
    )

    assert (Leaver("me", None, "done" if version >= 5 else ""), Leaver("", "i")) == groups.event.members
    assert (0, [("me", None, 0), ("", "i", 25)]) == (
        answer.error_code,
        [(each.member_id, each.group_instance_id, each.error_code) for each in answer.members],
    )
    encode_body(answer, version)


@pytest.mark.parametrize("version", (0, 3))
async def test_leaving_a_group_that_is_not_here_is_refused_as_a_whole(house, groups, version):
    groups.answer = Left(ErrorCode.NOT_COORDINATOR)

    answer = await house.ask(handle_leave_group, LeaveGroupRequest(group_id="group"), version=version)

    assert ErrorCode.NOT_COORDINATOR == answer.error_code


# -- all of them


@pytest.mark.parametrize(
    ("handler", "request_", "version"),
    [
        (handle_join_group, join(group_id=""), 9),
        (handle_sync_group, SyncGroupRequest(group_id="", member_id="me"), 5),
        (handle_heartbeat, HeartbeatRequest(group_id="", member_id="me"), 4),
        (handle_leave_group, LeaveGroupRequest(group_id="", member_id="me"), 1),
        (handle_leave_group, LeaveGroupRequest(group_id=""), 5),
    ],
)
async def test_members_need_a_group_with_a_name(house, groups, handler, request_, version):
    answer = await house.ask(handler, request_, version=version)

    assert ErrorCode.INVALID_GROUP_ID == answer.error_code
    assert [] == groups.asked
    encode_body(answer, version)
