"""Metadata, DescribeCluster: who leads what. Answered from the cluster's state in memory.

Addresses are those of the listener by which the request came.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any
from uuid import UUID

from kbroker.cluster.names import GROUPS_TOPIC, INTERNAL_TOPICS, check_topic_name
from kbroker.cluster.state import Topic
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.cluster import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
)
from kbroker.protocol.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponseTopic,
)
from kbroker.protocol.wire import ZERO_UUID
from kbroker.server.handlers.coordinators import create_groups_topic
from kbroker.server.handlers.shared import (
    CLUSTER_OPERATIONS,
    OPERATIONS_NOT_ASKED,
    TOPIC_OPERATIONS,
    reachable,
)
from kbroker.server.handlers.topics import CLUSTER_METADATA_TOPIC, auto_create
from kbroker.server.rooms import Call, Rooms
from kbroker.server.slices import SLICE, Large, Pace, Steps, in_slices, result_of


def handle_metadata(
    rooms: Rooms, call: Call, request: MetadataRequest
) -> MetadataResponse | Coroutine[Any, Any, MetadataResponse | Large[MetadataResponse]]:
    """Metadata: v0-13.

    Topics are answered in the order asked for, each once. A topic that is missing is created first where the broker
    and the request allow it, and then answered like any other: it is there within the time of one fsync, so nobody
    needs the round of UNKNOWN_TOPIC_OR_PARTITION and retries. The broker that answers names itself as the controller:
    each one takes administrative requests.
    Not done: internal topics of transactions and share groups are not made by asking for them.
    v1 null for all topics, controller, racks · v2 cluster id · v4 auto creation can be refused · v5 offline replicas
    (KIP-112) · v7 leader epochs (KIP-320) · v8 authorized operations (KIP-430) · v9 flexible · v10, v12 topic ids
    (KIP-516) · v11 no cluster operations (KIP-700) · v13 an error for the whole answer (KIP-1102)
    """
    asked = request.topics
    answer = _Answer(rooms, call, request)
    if asked is None or (call.version == 0 and not asked):
        return answer.of(list(map(answer.topic, rooms.cluster.state.topics.values())))
    if len(asked) > SLICE:
        return in_slices(call, _describe_many(rooms, call, request, asked))
    refusal = _refusal(call.version, asked)
    if refusal is not None:
        return _refused(call.version, asked, refusal)
    missing = [name for name in _creatable(rooms, call, request, asked) if _is_missing(rooms, name)]
    if missing:
        return _created_first(rooms, call, request, asked, missing)
    return answer.of(answer.asked_for(asked))


def _describe_many(
    rooms: Rooms, call: Call, request: MetadataRequest, asked: list[MetadataRequestTopic]
) -> Steps[MetadataResponse]:
    """The same with pauses; what is looked at once for all of them takes some hundredths of a second for a million."""
    refusal = _refusal(call.version, asked)
    yield None
    topics: list[MetadataResponseTopic] = []
    if refusal is not None:
        for at in range(0, len(asked), SLICE):
            topics += _refused(call.version, asked[at : at + SLICE], refusal).topics
            yield None
        return MetadataResponse(topics=topics, error_code=refusal)
    refused: dict[str, KafkaError] = {}
    missing: list[str] = []
    pace = Pace()
    for name in _creatable(rooms, call, request, asked):
        if _is_missing(rooms, name):
            missing.append(name)
        if pace.over():
            yield None
    if missing:
        refused = yield from result_of(_create(rooms, call, missing))
    answer = _Answer(rooms, call, request)
    for topic in answer.each(asked, refused):
        topics.append(topic)
        if pace.over():
            yield None
    return _Answer(rooms, call, request).of(topics)


def _refusal(version: int, asked: list[MetadataRequestTopic]) -> ErrorCode | None:
    """Why the request as a whole is refused."""
    if version >= 12:
        nameless = any(topic.name is None and topic.topic_id == ZERO_UUID for topic in asked)
        return ErrorCode.INVALID_REQUEST if nameless else None
    if version >= 10 and any(topic.name is None or topic.topic_id != ZERO_UUID for topic in asked):
        return ErrorCode.INVALID_REQUEST  # the fields are there from v10 on, their meaning from v12
    return None


def _refused(version: int, asked: list[MetadataRequestTopic], code: ErrorCode) -> MetadataResponse:
    topics = [
        MetadataResponseTopic(
            error_code=code,
            name=topic.name if topic.name is not None or version >= 12 else "",
            topic_id=topic.topic_id,
        )
        for topic in asked
    ]
    return MetadataResponse(topics=topics, error_code=code)


def _creatable(
    rooms: Rooms, call: Call, request: MetadataRequest, asked: list[MetadataRequestTopic]
) -> Iterable[str]:
    """Names of the topics that this request creates where they are missing."""
    allowed = request.allow_auto_topic_creation or call.version < 4
    if not allowed or not rooms.settings.auto_create_topics_enable or _by_id(asked):
        return []
    return dict.fromkeys([topic.name for topic in asked if topic.name is not None])


def _is_missing(rooms: Rooms, name: str) -> bool:
    """Whether there is no such topic, and might be one."""
    return (
        name not in rooms.cluster.state.topics
        and (name == GROUPS_TOPIC or name not in INTERNAL_TOPICS)  # nothing writes to the others yet
        and name != CLUSTER_METADATA_TOPIC
        and _why_missing(name) is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    )


def _why_missing(name: str) -> ErrorCode:
    try:
        check_topic_name(name)
    except KafkaError as error:
        return error.code
    return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def _created_first(
    rooms: Rooms, call: Call, request: MetadataRequest, asked: list[MetadataRequestTopic], missing: list[str]
) -> MetadataResponse:
    refused = await _create(rooms, call, missing)
    answer = _Answer(rooms, call, request)
    return answer.of(answer.asked_for(asked, refused))


async def _create(rooms: Rooms, call: Call, missing: list[str]) -> dict[str, KafkaError]:
    if GROUPS_TOPIC in missing:
        await create_groups_topic(rooms)  # with configs of its own
    return await auto_create(rooms, call, [name for name in missing if name != GROUPS_TOPIC])


def _by_id(asked: list[MetadataRequestTopic]) -> bool:
    """Whether ids are asked for: names beside them are then ignored, as Kafka does."""
    return any(topic.topic_id != ZERO_UUID for topic in asked)


class _Answer:
    """The parts of one answer, from the state as it is now."""

    __slots__ = ("_answers", "_reachable", "_request", "_rooms", "_state", "_topic_operations", "_view")

    def __init__(self, rooms: Rooms, call: Call, request: MetadataRequest) -> None:
        self._rooms = rooms
        self._request = request
        self._state = rooms.cluster.state
        self._answers = rooms.topic_answers
        self._reachable = reachable(self._state, call.listener)
        self._view = self._answers.view(self._state, self._reachable, call.version)
        self._topic_operations = (
            TOPIC_OPERATIONS if request.include_topic_authorized_operations else OPERATIONS_NOT_ASKED
        )

    def of(self, topics: list[MetadataResponseTopic]) -> MetadataResponse:
        """The whole answer."""
        state = self._state
        return MetadataResponse(
            brokers=[
                MetadataResponseBroker(
                    node_id=broker_id,
                    host=endpoint.host,
                    port=endpoint.port,
                    rack=state.brokers[broker_id].rack,
                )
                for broker_id, endpoint in self._reachable.items()
            ],
            cluster_id=state.cluster_id,
            controller_id=self._rooms.node_id,
            topics=topics,
            cluster_authorized_operations=(
                CLUSTER_OPERATIONS
                if self._request.include_cluster_authorized_operations
                else OPERATIONS_NOT_ASKED
            ),
        )

    def asked_for(
        self, asked: list[MetadataRequestTopic], refused: dict[str, KafkaError] | None = None
    ) -> list[MetadataResponseTopic]:
        """The topics of a request, each once. `refused`: those that could not be created, and why."""
        return list(self.each(asked, refused or {}))

    def each(
        self, asked: list[MetadataRequestTopic], refused: dict[str, KafkaError]
    ) -> Iterable[MetadataResponseTopic]:
        """The same, one after another."""
        if _by_id(asked):
            ids = dict.fromkeys([topic.topic_id for topic in asked if topic.topic_id != ZERO_UUID])
            return map(self._of_id, ids)
        names = dict.fromkeys([topic.name for topic in asked if topic.name is not None])
        return (self._of_name(name, refused) for name in names)

    def topic(self, topic: Topic) -> MetadataResponseTopic:
        """A topic that is there."""
        return MetadataResponseTopic(
            name=topic.name,
            topic_id=topic.id.bytes,
            is_internal=topic.name in INTERNAL_TOPICS,
            partitions=self._answers.partitions(topic, self._state, self._view),
            topic_authorized_operations=self._topic_operations,
        )

    def _of_id(self, wire_id: bytes) -> MetadataResponseTopic:
        topic = self._state.topics_by_id.get(UUID(bytes=wire_id))
        if topic is None:
            return MetadataResponseTopic(error_code=ErrorCode.UNKNOWN_TOPIC_ID, name=None, topic_id=wire_id)
        return self.topic(topic)

    def _of_name(self, name: str, refused: dict[str, KafkaError]) -> MetadataResponseTopic:
        topic = self._state.topics.get(name)
        if topic is not None:
            return self.topic(topic)
        return MetadataResponseTopic(
            error_code=refused[name].code if name in refused else _why_missing(name),
            name=name,
            is_internal=name in INTERNAL_TOPICS,
            topic_authorized_operations=self._topic_operations,
        )


BROKERS, CONTROLLERS = 1, 2  # endpoint types


def handle_describe_cluster(
    rooms: Rooms, call: Call, request: DescribeClusterRequest
) -> DescribeClusterResponse:
    """DescribeCluster: v0-2.

    The brokers as clients of this listener reach them; the one that answers names itself as the controller.
    Not done: endpoints of controllers, which do not exist here: MISMATCHED_ENDPOINT_TYPE, as from a broker of Kafka.
    v1 endpoint types (KIP-919) · v2 fenced brokers (KIP-1073)
    """
    if request.endpoint_type != BROKERS:
        return _no_such_endpoints(request.endpoint_type)
    state = rooms.cluster.state
    return DescribeClusterResponse(
        endpoint_type=BROKERS,
        cluster_id=state.cluster_id,
        controller_id=rooms.node_id,
        brokers=[
            DescribeClusterBroker(
                broker_id=broker_id,
                host=endpoint.host,
                port=endpoint.port,
                rack=state.brokers[broker_id].rack,
            )
            for broker_id, endpoint in reachable(state, call.listener).items()
        ],
        cluster_authorized_operations=(
            CLUSTER_OPERATIONS if request.include_cluster_authorized_operations else OPERATIONS_NOT_ASKED
        ),
    )


def _no_such_endpoints(endpoint_type: int) -> DescribeClusterResponse:
    if endpoint_type == CONTROLLERS:
        return DescribeClusterResponse(
            error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE,
            error_message="This is an endpoint of a broker, and one of a controller was asked for.",
        )
    return DescribeClusterResponse(
        error_code=ErrorCode.UNSUPPORTED_ENDPOINT_TYPE,
        error_message=f"There are no endpoints of type {endpoint_type}.",
    )
