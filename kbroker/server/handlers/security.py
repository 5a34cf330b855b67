"""DescribeUserScramCredentials: users with a password. There are none yet, and tools ask (kafka-configs for users)."""

from __future__ import annotations

from collections import Counter

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.security import (
    DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
)
from kbroker.server.rooms import Call, Rooms

# Answers that carry a sentence: a request must not be answered by a multiple of its size.
MESSAGES_MAX = 1000


def handle_describe_user_scram_credentials(
    rooms: Rooms, call: Call, request: DescribeUserScramCredentialsRequest
) -> DescribeUserScramCredentialsResponse:
    """DescribeUserScramCredentials: v0.

    Nobody has credentials: all of them (null, or none named) is an empty list, a user who is named answers
    RESOURCE_NOT_FOUND, one who is named twice DUPLICATE_RESOURCE.
    """
    times = Counter(user.name for user in request.users or ())
    results = [_result(name, count) for name, count in times.items()]
    for result in results[MESSAGES_MAX:]:
        result.error_message = None
    return DescribeUserScramCredentialsResponse(error_message="", results=results)


def _result(user: str, times: int) -> DescribeUserScramCredentialsResult:
    if times > 1:
        code = ErrorCode.DUPLICATE_RESOURCE
        why = f"Cannot describe SCRAM credentials for the same user twice in a single request: {user}"
    else:
        code = ErrorCode.RESOURCE_NOT_FOUND
        why = f"Attempt to describe a user credential that does not exist: {user}"
    return DescribeUserScramCredentialsResult(user=user, error_code=code, error_message=why)
