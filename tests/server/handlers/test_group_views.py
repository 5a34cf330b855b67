"""ListGroups, DescribeGroups, DeleteGroups: what is seen of groups, by version."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbroker.errors import ErrorCode
from kbroker.groups.events import Described, Listed, MemberView
from kbroker.protocol.codec import encode_body
from kbroker.protocol.messages.groups import DeleteGroupsRequest, DescribeGroupsRequest, ListGroupsRequest
from kbroker.server.handlers.group_views import (
    handle_delete_groups,
    handle_describe_groups,
    handle_list_groups,
)
from tests.support.fake_groups import FakeGroups
from tests.support.rooms import House

NOT_ASKED = -(2**31)


@pytest.fixture
def groups() -> FakeGroups:
    groups = FakeGroups()
    groups.listed = (
        ErrorCode.NONE,
        [
            Listed("stable", "consumer", "Stable", "classic"),
            Listed("empty", "", "Empty", "classic"),
            Listed("new", "consumer", "Stable", "consumer"),
        ],
    )
    return groups


@pytest.fixture
def house(tmp_path: Path, groups: FakeGroups) -> House:
    return House(tmp_path, groups=groups)


@pytest.mark.parametrize("version", range(6))
async def test_all_groups_are_listed_without_filters(house, version):
    answer = await house.ask(handle_list_groups, ListGroupsRequest(), version=version)

    assert [("stable", "consumer", "Stable", "classic"), ("empty", "", "Empty", "classic")] == [
        (each.group_id, each.protocol_type, each.group_state, each.group_type) for each in answer.groups[:2]
    ]
    encode_body(answer, version)


@pytest.mark.parametrize(
    ("states", "kinds", "expected"),
    [
        (["sTABLE "], [], ["stable", "new"]),
        (["Empty", "no such state"], [], ["empty"]),
        (["no such state"], [], []),
        ([], ["Consumer"], ["new"]),
        ([], ["no such type"], []),
        ([], ["no such type", "CLASSIC"], ["stable", "empty"]),
        (["stable"], ["classic"], ["stable"]),
    ],
)
async def test_filters_take_any_case_and_unknown_names_match_nothing(house, states, kinds, expected):
    answer = await house.ask(
        handle_list_groups, ListGroupsRequest(states_filter=states, types_filter=kinds), version=5
    )

    assert (0, expected) == (answer.error_code, [each.group_id for each in answer.groups])


async def test_groups_are_not_listed_while_some_are_loaded(house, groups):
    groups.listed = (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, [])

    answer = await house.ask(handle_list_groups, ListGroupsRequest(), version=5)

    assert (14, []) == (answer.error_code, answer.groups)


@pytest.mark.parametrize("version", range(7))
async def test_a_group_is_described_with_its_members(house, groups, version):
    member = MemberView("me", "i", "client", "/10.0.0.1", b"topics", b"partitions")
    groups.described["group"] = Described(ErrorCode.NONE, "Stable", "consumer", "range", (member,))

    answer = await house.ask(handle_describe_groups, DescribeGroupsRequest(groups=["group"]), version=version)

    [group] = answer.groups
    assert (0, "group", "Stable", "consumer", "range", NOT_ASKED) == (
        group.error_code,
        group.group_id,
        group.group_state,
        group.protocol_type,
        group.protocol_data,
        group.authorized_operations,
    )
    [one] = group.members
    assert ("me", "client", "/10.0.0.1", b"topics", b"partitions") == (
        one.member_id,
        one.client_id,
        one.client_host,
        one.member_metadata,
        one.member_assignment,
    )
    encode_body(answer, version)


# READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS
OPERATIONS = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (0, (0, "Dead", None, NOT_ASKED)),
        (5, (0, "Dead", None, OPERATIONS)),
        (6, (69, "Dead", "Group nobody not found.", NOT_ASKED)),
    ],
)
async def test_q44_an_unknown_group_is_dead_and_from_v6_on_an_error(house, version, expected):
    request = DescribeGroupsRequest(groups=["nobody"], include_authorized_operations=version >= 3)

    answer = await house.ask(handle_describe_groups, request, version=version)

    [group] = answer.groups
    assert expected == (
        group.error_code,
        group.group_state,
        group.error_message,
        group.authorized_operations,
    )
    encode_body(answer, version)


async def test_a_group_that_is_named_too_often_is_not_described(house, groups):
    request = DescribeGroupsRequest(groups=["group"] * 11 + ["nobody"], include_authorized_operations=True)

    answer = await house.ask(handle_describe_groups, request, version=5)

    assert [(42, "", [])] * 11 + [(0, "Dead", [])] == [
        (group.error_code, group.group_state, group.members) for group in answer.groups
    ]


async def test_a_groups_operations_are_told_where_asked_for(house, groups):
    groups.described["group"] = Described(ErrorCode.NONE, "Empty")
    request = DescribeGroupsRequest(groups=["group"], include_authorized_operations=True)

    answer = await house.ask(handle_describe_groups, request, version=6)

    assert [OPERATIONS] == [group.authorized_operations for group in answer.groups]


@pytest.mark.parametrize("version", range(3))
async def test_groups_are_deleted_one_by_one_and_each_name_once(house, groups, version):
    groups.errors = {"full": ErrorCode.NON_EMPTY_GROUP}

    answer = await house.ask(
        handle_delete_groups, DeleteGroupsRequest(groups_names=["a", "full", "a"]), version=version
    )

    assert [("a", 0), ("full", 68)] == [(each.group_id, each.error_code) for each in answer.results]
    encode_body(answer, version)
