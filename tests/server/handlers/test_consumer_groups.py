"""ConsumerGroupHeartbeat and ConsumerGroupDescribe: refused in an answer, not by silence."""

import pytest

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.consumer_groups import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    DescribedConsumerGroup,
)
from kbroker.server.handlers.consumer_groups import (
    handle_consumer_group_describe,
    handle_consumer_group_heartbeat,
)
from tests.support.rooms import House

UNSUPPORTED = ErrorCode.UNSUPPORTED_VERSION


@pytest.mark.parametrize("epoch", [0, 1, -1])
async def test_no_member_joins_stays_or_leaves(tmp_path, epoch):
    request = ConsumerGroupHeartbeatRequest(group_id="g", member_id="m", member_epoch=epoch)

    house = House(tmp_path)
    house.rooms = house.rooms_with(clock=house.clock)

    answer = await house.ask(handle_consumer_group_heartbeat, request, version=1)

    assert ConsumerGroupHeartbeatResponse(error_code=UNSUPPORTED) == answer


async def test_each_group_that_is_named_is_refused(tmp_path):
    request = ConsumerGroupDescribeRequest(group_ids=["a", "b", "a"], include_authorized_operations=True)

    answer = await House(tmp_path).ask(handle_consumer_group_describe, request, version=1)

    groups = [DescribedConsumerGroup(error_code=UNSUPPORTED, group_id=name) for name in ("a", "b", "a")]
    assert ConsumerGroupDescribeResponse(groups=groups) == answer
