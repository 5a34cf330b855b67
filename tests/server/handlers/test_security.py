"""DescribeUserScramCredentials."""

import pytest

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.security import DescribeUserScramCredentialsRequest, UserName
from kbroker.server.handlers import security
from kbroker.server.handlers.security import handle_describe_user_scram_credentials
from tests.support.rooms import House


async def described(folder, users):
    asked = None if users is None else [UserName(name=name) for name in users]
    request = DescribeUserScramCredentialsRequest(users=asked)
    response = await House(folder).ask(handle_describe_user_scram_credentials, request, version=0)
    assert ErrorCode.NONE == response.error_code
    return [(each.user, each.error_code, each.credential_infos) for each in response.results]


@pytest.mark.parametrize("users", [None, []])
async def test_nobody_has_credentials(tmp_path, users):
    assert [] == await described(tmp_path, users)


async def test_each_user_who_is_named_is_not_found(tmp_path):
    not_found = ErrorCode.RESOURCE_NOT_FOUND

    assert [("alice", not_found, []), ("", not_found, [])] == await described(tmp_path, ["alice", ""])


async def test_a_user_who_is_named_twice_is_refused_once(tmp_path):
    assert [("alice", ErrorCode.DUPLICATE_RESOURCE, [])] == await described(tmp_path, ["alice", "alice"])


async def test_many_answers_carry_no_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(security, "MESSAGES_MAX", 1)
    request = DescribeUserScramCredentialsRequest(users=[UserName(name=name) for name in "ab"])

    response = await House(tmp_path).ask(handle_describe_user_scram_credentials, request, version=0)

    assert [True, False] == [each.error_message is not None for each in response.results]
