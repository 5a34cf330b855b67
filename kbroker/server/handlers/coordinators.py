"""FindCoordinator: which broker coordinates a group; makes the topic that groups are kept in when it is missing."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from kbroker.cluster.commands import CreateTopics, NewTopic
from kbroker.cluster.names import GROUPS_TOPIC
from kbroker.cluster.placement import place
from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import NO_BROKER, BrokerId, new_uuid
from kbroker.observe import logs
from kbroker.protocol.messages.groups import Coordinator, FindCoordinatorRequest, FindCoordinatorResponse
from kbroker.server.handlers.shared import endpoint_of
from kbroker.server.rooms import Call, Rooms
from kbroker.server.slices import Large, Pace, Steps, in_slices

log = logs.get_logger("groups")

Found = FindCoordinatorResponse | Large[FindCoordinatorResponse]

GROUP, TRANSACTION, SHARE = range(3)  # key types
MANY_KEYS_FROM = 4


def handle_find_coordinator(
    rooms: Rooms, call: Call, request: FindCoordinatorRequest
) -> Found | Coroutine[Any, Any, Found]:
    """FindCoordinator: v0-6.

    A group's coordinator is the broker that leads its partition of `__consumer_offsets`. The first to ask for one waits
    for that topic to be made, one fsync, and is answered like all others; Kafka answers COORDINATOR_NOT_AVAILABLE then.
    Not done: transactions (this broker is named, and refuses the producer at InitProducerId: an error here is retried
    by sarama fifty times, and KafkaJS does not tell which it was), share groups (INVALID_REQUEST, as for any other type
    of key).
    v1 key types (KIP-98) · v3 flexible · v4 many keys at once (KIP-699) · v5 TRANSACTION_ABORTABLE (KIP-890) · v6 share
    groups (KIP-932)
    """
    if request.key_type == GROUP and GROUPS_TOPIC not in rooms.cluster.state.topics:
        return _created_first(rooms, call, request)
    return _answer(rooms, call, request)


async def _created_first(rooms: Rooms, call: Call, request: FindCoordinatorRequest) -> Found:
    await create_groups_topic(rooms)
    answer = _answer(rooms, call, request)
    return answer if isinstance(answer, FindCoordinatorResponse) else await answer


async def create_groups_topic(rooms: Rooms) -> None:
    """Make `__consumer_offsets`, as the broker's options say; where that cannot be, one log line says why."""
    try:
        results: Sequence[object] = await rooms.propose(CreateTopics([groups_topic(rooms)]))
    except KafkaError as error:
        results = [error]
    for result in results:
        # others may have made it meanwhile
        if isinstance(result, KafkaError) and result.code is not ErrorCode.TOPIC_ALREADY_EXISTS:
            log.warning("topic of the groups not created", topic=GROUPS_TOPIC, error=str(result))


def groups_topic(rooms: Rooms) -> NewTopic:
    """The topic that groups are kept in, with Kafka's configs for it. There are not more replicas than brokers."""
    settings, brokers = rooms.settings, rooms.cluster.state.brokers
    replicas = place(
        brokers.values(),
        partitions=settings.offsets_topic_num_partitions,
        replication_factor=max(1, min(settings.offsets_topic_replication_factor, len(brokers))),
        start=rooms.random.randrange(0, max(len(brokers), 1)),
    )
    configs = {
        "cleanup.policy": "compact",
        "compression.type": "producer",
        "segment.bytes": str(settings.offsets_topic_segment_bytes),
    }
    return NewTopic(GROUPS_TOPIC, new_uuid(rooms.random), replicas, settings.check_topic(configs))


def _answer(
    rooms: Rooms, call: Call, request: FindCoordinatorRequest
) -> FindCoordinatorResponse | Coroutine[Any, Any, Large[FindCoordinatorResponse]]:
    if call.version >= MANY_KEYS_FROM:
        return in_slices(call, _many(rooms, call, request))
    one = _coordinator(rooms, call, request.key_type, request.key)
    return FindCoordinatorResponse(
        error_code=one.error_code,
        error_message=one.error_message or "NONE",  # Kafka names the error also where there is none
        node_id=one.node_id,
        host=one.host,
        port=one.port,
    )


def _many(rooms: Rooms, call: Call, request: FindCoordinatorRequest) -> Steps[FindCoordinatorResponse]:
    found: list[Coordinator] = []
    pace = Pace()
    for key in request.coordinator_keys:
        found.append(_coordinator(rooms, call, request.key_type, key))
        if pace.over():
            yield None
    return FindCoordinatorResponse(coordinators=found)


def _coordinator(rooms: Rooms, call: Call, key_type: int, key: str) -> Coordinator:
    if key_type == TRANSACTION:
        return _here(rooms, call, key, rooms.node_id)
    if key_type != GROUP:
        return _none(key, ErrorCode.INVALID_REQUEST, f"This broker has no keys of type {key_type}.")
    topic = rooms.cluster.state.topics.get(GROUPS_TOPIC)
    if topic is None:
        return _none(key, ErrorCode.COORDINATOR_NOT_AVAILABLE, f"The topic {GROUPS_TOPIC} cannot be made.")
    return _here(rooms, call, key, topic.partitions[rooms.groups.partition_of(key)].leader)


def _here(rooms: Rooms, call: Call, key: str, node_id: BrokerId) -> Coordinator:
    endpoint = endpoint_of(rooms.cluster.state, node_id, call.listener)
    if endpoint is None:
        return _none(key, ErrorCode.COORDINATOR_NOT_AVAILABLE, "No broker answers for this key now.")
    return Coordinator(key=key, node_id=node_id, host=endpoint.host, port=endpoint.port, error_message="")


def _none(key: str, code: ErrorCode, why: str) -> Coordinator:
    return Coordinator(key=key, node_id=NO_BROKER, port=-1, error_code=code, error_message=why)
