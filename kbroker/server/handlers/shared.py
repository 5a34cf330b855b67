"""What several handlers need: bits of authorized operations, ids on the wire, endpoints, commands. Knows no API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from kbroker.cluster.state import ClusterState
from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import Endpoint
from kbroker.protocol.wire import ZERO_UUID
from kbroker.server.rooms import Rooms

# Codes of Kafka's AclOperation. An answer that was asked for authorized operations (KIP-430) has a bit for each;
# without an authorizer these are all that the resource knows.
READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, CLUSTER_ACTION = range(3, 10)
DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE = range(10, 13)

TOPIC_OPERATIONS = sum(
    1 << operation
    for operation in (READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS)
)
CLUSTER_OPERATIONS = sum(
    1 << operation
    for operation in (
        CREATE,
        ALTER,
        DESCRIBE,
        CLUSTER_ACTION,
        DESCRIBE_CONFIGS,
        ALTER_CONFIGS,
        IDEMPOTENT_WRITE,
    )
)
GROUP_OPERATIONS = sum(
    1 << operation for operation in (READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS)
)
OPERATIONS_NOT_ASKED = -(2**31)

# Times that a request may name one group, or on average each partition of it that has an offset. All that a group holds is
# told each time; a few KB that name it thousands of times would ask for gigabytes. Clients name each once.
TIMES_MAX = 10


def named_too_often(groups: Sequence[str]) -> frozenset[str]:
    """Those that are named more than TIMES_MAX times."""
    if len(groups) <= TIMES_MAX:
        return frozenset()
    return frozenset(group for group, times in Counter(groups).items() if times > TIMES_MAX)


def uuid_of(wire: bytes) -> UUID | None:
    """An id as it came in a message; None for the zero id, which means none."""
    return None if wire == ZERO_UUID else UUID(bytes=wire)


def endpoint_of(state: ClusterState, broker_id: int, listener: str) -> Endpoint | None:
    """Where clients of `listener` reach a broker; None when it is unknown or has no such listener."""
    broker = state.brokers.get(broker_id)
    return None if broker is None else broker.endpoint(listener)


def reachable(state: ClusterState, listener: str) -> dict[int, Endpoint]:
    """Where clients of `listener` reach each broker that has it."""
    found = ((broker_id, broker.endpoint(listener)) for broker_id, broker in state.brokers.items())
    return {broker_id: endpoint for broker_id, endpoint in found if endpoint is not None}


async def proposed(rooms: Rooms, command: object, count: int) -> Sequence[object]:
    """The results of a command about `count` things; where it could not be decided, its error for each of them."""
    try:
        results: Sequence[object] = await rooms.propose(command)
    except KafkaError as error:
        return [error] * count
    return results


def reason(error: KafkaError) -> str:
    """What a response's error message says: the error's own words, else its name."""
    return error.message if error.message is not None else _WORDS.get(error.code, error.code.name)


# For codes raised without words of their own where a response has room for some.
_WORDS = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: "There is no such topic or partition.",
    ErrorCode.UNKNOWN_TOPIC_ID: "There is no topic of this id.",
    ErrorCode.NOT_CONTROLLER: "The broker that orders changes to the cluster is not known at the moment.",
    ErrorCode.REQUEST_TIMED_OUT: "The change was not decided in time; it may still happen.",
}
