"""Groups of the new kind (KIP-848): answered as by a Kafka whose group.version is 0.

There are none yet. Their requests are served all the same: clients that were told to use them learn why they cannot from
an answer, while some wait without a word for a broker that serves none.
"""

from __future__ import annotations

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.consumer_groups import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    DescribedConsumerGroup,
)
from kbroker.server.handlers.shared import OPERATIONS_NOT_ASKED
from kbroker.server.rooms import Call, Rooms


def handle_consumer_group_heartbeat(
    rooms: Rooms, call: Call, request: ConsumerGroupHeartbeatRequest
) -> ConsumerGroupHeartbeatResponse:
    """ConsumerGroupHeartbeat: v0-1.

    Whatever is asked: UNSUPPORTED_VERSION, which every client takes as final.
    v1 the member makes its id, subscriptions by pattern (KIP-848)
    """
    rooms.refusals.tell(
        call,
        "consumer of the new group protocol refused",
        group=request.group_id,
        cure="that protocol (KIP-848) is not here yet: set group.protocol=classic in the consumer's configuration",
    )
    return ConsumerGroupHeartbeatResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)


def handle_consumer_group_describe(
    rooms: Rooms, call: Call, request: ConsumerGroupDescribeRequest
) -> ConsumerGroupDescribeResponse:
    """ConsumerGroupDescribe: v0-1.

    UNSUPPORTED_VERSION for each group that is named: admin clients then ask DescribeGroups.
    v1 the type of a member (KIP-1099)
    """
    return ConsumerGroupDescribeResponse(
        groups=[
            DescribedConsumerGroup(
                error_code=ErrorCode.UNSUPPORTED_VERSION,
                group_id=group_id,
                authorized_operations=OPERATIONS_NOT_ASKED,
            )
            for group_id in request.group_ids
        ]
    )
