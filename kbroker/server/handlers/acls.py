"""DescribeAcls, CreateAcls, DeleteAcls: there are no ACLs yet. Answered as by a Kafka without an authorizer."""

from __future__ import annotations

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.security import (
    AclCreationResult,
    CreateAclsRequest,
    CreateAclsResponse,
    DeleteAclsFilterResult,
    DeleteAclsRequest,
    DeleteAclsResponse,
    DescribeAclsRequest,
    DescribeAclsResponse,
)
from kbroker.server.rooms import Call, Rooms

WHY = "No Authorizer is configured: there are no ACLs, and whoever may connect may do everything"
# Answers that carry the sentence: a request must not be answered by a multiple of its size.
MESSAGES_MAX = 1000


def handle_describe_acls(rooms: Rooms, call: Call, request: DescribeAclsRequest) -> DescribeAclsResponse:
    """DescribeAcls: v1-3.

    Not done: ACLs (SECURITY_DISABLED, whatever is asked for).
    v2 flexible · v3 user resources (KIP-373)
    """
    return DescribeAclsResponse(error_code=ErrorCode.SECURITY_DISABLED, error_message=WHY)


def handle_create_acls(rooms: Rooms, call: Call, request: CreateAclsRequest) -> CreateAclsResponse:
    """CreateAcls: v1-3.

    Not done: ACLs (SECURITY_DISABLED for each).
    v2 flexible · v3 user resources (KIP-373)
    """
    return CreateAclsResponse(
        results=[
            AclCreationResult(error_code=ErrorCode.SECURITY_DISABLED, error_message=_why(index))
            for index in range(len(request.creations))
        ]
    )


def handle_delete_acls(rooms: Rooms, call: Call, request: DeleteAclsRequest) -> DeleteAclsResponse:
    """DeleteAcls: v1-3.

    Not done: ACLs (SECURITY_DISABLED for each filter).
    v2 flexible · v3 user resources (KIP-373)
    """
    return DeleteAclsResponse(
        filter_results=[
            DeleteAclsFilterResult(error_code=ErrorCode.SECURITY_DISABLED, error_message=_why(index))
            for index in range(len(request.filters))
        ]
    )


def _why(index: int) -> str | None:
    return WHY if index < MESSAGES_MAX else None
