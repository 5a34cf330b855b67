"""DescribeAcls, CreateAcls, DeleteAcls."""

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.security import (
    AclCreation,
    CreateAclsRequest,
    DeleteAclsFilter,
    DeleteAclsRequest,
    DescribeAclsRequest,
)
from kbroker.server.handlers import acls
from kbroker.server.handlers.acls import handle_create_acls, handle_delete_acls, handle_describe_acls
from tests.support.rooms import House

DISABLED = ErrorCode.SECURITY_DISABLED


async def test_who_asks_for_acls_is_told_that_there_are_none(tmp_path):
    response = await House(tmp_path).ask(handle_describe_acls, DescribeAclsRequest(), version=3)

    assert (DISABLED, []) == (response.error_code, response.resources)
    assert response.error_message.startswith("No Authorizer is configured")


async def test_each_acl_to_create_is_refused(tmp_path):
    request = CreateAclsRequest(creations=[AclCreation(), AclCreation()])

    response = await House(tmp_path).ask(handle_create_acls, request, version=3)

    assert [DISABLED, DISABLED] == [each.error_code for each in response.results]


async def test_each_filter_of_acls_to_delete_is_refused(tmp_path):
    request = DeleteAclsRequest(filters=[DeleteAclsFilter(), DeleteAclsFilter()])

    response = await House(tmp_path).ask(handle_delete_acls, request, version=3)

    assert [(DISABLED, [])] * 2 == [(each.error_code, each.matching_acls) for each in response.filter_results]


async def test_many_refusals_carry_no_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(acls, "MESSAGES_MAX", 1)
    request = CreateAclsRequest(creations=[AclCreation(), AclCreation()])

    response = await House(tmp_path).ask(handle_create_acls, request, version=3)

    assert [True, False] == [each.error_message is not None for each in response.results]
