"""CreateTopics, DeleteTopics, CreatePartitions: what becomes of topics.

Requests are checked against the cluster's state as it is, then proposed as one command; what changed meanwhile is
refused where the command is applied. Topics are answered in the request's order, one answer for each name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from kbroker.cluster.commands import CreatePartitions, CreateTopics, DeleteTopics, MorePartitions, NewTopic
from kbroker.cluster.names import check_topic_name
from kbroker.cluster.placement import check_assignment, place
from kbroker.cluster.state import ClusterState, Topic
from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import new_uuid
from kbroker.protocol.messages.topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeletableTopicResult,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteTopicState,
)
from kbroker.protocol.wire import ZERO_UUID
from kbroker.server.handlers.shared import proposed, reason
from kbroker.server.quotas import Mutations
from kbroker.server.rooms import Call, Rooms
from kbroker.server.slices import SLICE, Large, Pace, Steps, at_once, in_slices, result_of

# The log of the cluster's state, in Kafka: no topic here, and nobody may make one of this name.
CLUSTER_METADATA_TOPIC = "__cluster_metadata"
# Partitions that one request may create, as Kafka's: the command that creates them is applied in one go, everywhere.
PARTITIONS_PER_REQUEST_MAX = 10_000
DEFAULT = -1  # a number that the broker's configuration decides

Replicas = tuple[int, ...]


# CreateTopics --------------------------------------------------------------------------------------------------


def handle_create_topics(
    rooms: Rooms, call: Call, request: CreateTopicsRequest
) -> CreateTopicsResponse | Coroutine[Any, Any, CreateTopicsResponse | Large[CreateTopicsResponse]]:
    """CreateTopics: v2-7.

    Answers when the topics are durable in the cluster's state; clients can produce to them at once. A name that comes
    twice is refused and the others are created. `timeout_ms` is not looked at: the answer comes when it is decided.
    v4 -1 for the broker's defaults (KIP-464) · v5 flexible, configs in the answer (KIP-525) · v6 THROTTLING_QUOTA_EXCEEDED
    (KIP-599) · v7 topic ids (KIP-516)
    """
    if len(request.topics) > SLICE:
        return in_slices(call, _creating_topics(rooms, call, request))
    return create_topics(rooms, call, request)


async def create_topics(rooms: Rooms, call: Call, request: CreateTopicsRequest) -> CreateTopicsResponse:
    """The same without pauses, for who has nobody else to serve."""
    return await at_once(_creating_topics(rooms, call, request))


def _creating_topics(rooms: Rooms, call: Call, request: CreateTopicsRequest) -> Steps[CreateTopicsResponse]:
    pace = Pace()
    counted = Counter([topic.name for topic in request.topics])
    wanted = {topic.name: topic for topic in request.topics}
    outcome: dict[str, NewTopic | KafkaError] = {}
    too_many = _partitions_asked_for(rooms, request.topics) > PARTITIONS_PER_REQUEST_MAX
    quota = rooms.quotas.mutations(call, strict=call.version >= 6)
    for name, topic in wanted.items():
        if too_many:
            outcome[name] = KafkaError(
                ErrorCode.POLICY_VIOLATION,
                f"A request may create {PARTITIONS_PER_REQUEST_MAX} partitions at most.",
            )
        elif counted[name] > 1:
            outcome[name] = KafkaError(ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
        else:
            outcome[name] = _checked(rooms, topic, quota)
        if pace.over():
            yield None
    refused: dict[str, KafkaError] = {}
    if not request.validate_only:
        refused = yield from result_of(_create(rooms, outcome.values()))
    describe = _Described(rooms)
    response = CreateTopicsResponse()
    for name, planned in outcome.items():
        response.topics.append(describe.result(name, refused.get(name, planned)))
        if pace.over():
            yield None
    return response


async def auto_create(rooms: Rooms, call: Call, names: Sequence[str]) -> dict[str, KafkaError]:
    """Create topics of the broker's defaults, for a Metadata request that misses them. Those refused, and why."""
    limit = PARTITIONS_PER_REQUEST_MAX // rooms.settings.num_partitions
    quota = rooms.quotas.mutations(call, strict=False)
    planned = {
        name: _checked(
            rooms, CreatableTopic(name=name, num_partitions=DEFAULT, replication_factor=DEFAULT), quota
        )
        for name in names[: max(limit, 1)]
    }
    refused = {name: plan for name, plan in planned.items() if isinstance(plan, KafkaError)}
    return refused | await _create(rooms, planned.values())


async def _create(rooms: Rooms, outcome: Iterable[NewTopic | KafkaError]) -> dict[str, KafkaError]:
    """Propose what is no error; those refused then, and why."""
    new = [planned for planned in outcome if isinstance(planned, NewTopic)]
    if not new:
        return {}
    results = await proposed(rooms, CreateTopics(new), len(new))
    return {
        topic.name: result
        for topic, result in zip(new, results, strict=True)
        if isinstance(result, KafkaError)
    }


def _partitions_asked_for(rooms: Rooms, topics: Iterable[CreatableTopic]) -> int:
    default = rooms.settings.num_partitions
    return sum(
        len(topic.assignments)
        or (default if topic.num_partitions == DEFAULT else max(topic.num_partitions, 0))
        for topic in topics
    )


def _checked(rooms: Rooms, topic: CreatableTopic, quota: Mutations) -> NewTopic | KafkaError:
    """The topic to propose, or why it is refused."""
    state = rooms.cluster.state
    try:
        if topic.name == CLUSTER_METADATA_TOPIC:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST, f"The name {topic.name} is taken by the cluster itself."
            )
        _check_name(state, topic.name)
        # of several values for one name the last counts, as in Kafka
        configs = rooms.settings.check_topic({config.name: config.value for config in topic.configs})
        replicas = (
            _assigned(state, topic)
            if topic.assignments
            else _placed(rooms, topic.num_partitions, topic.replication_factor)
        )
        quota.take(len(replicas))
    except KafkaError as error:
        return error
    return NewTopic(topic.name, new_uuid(rooms.random), replicas, configs)


def _check_name(state: ClusterState, name: str) -> None:
    check_topic_name(name)
    if name in state.topics:
        raise KafkaError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
    there = state.colliding(name)
    if there is not None:
        raise KafkaError(
            ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic '{name}' collides with existing topic: {there}"
        )


def _placed(rooms: Rooms, partitions: int, factor: int) -> list[Replicas]:
    """Replicas for each partition: spread over the brokers."""
    if partitions == DEFAULT:
        partitions = rooms.settings.num_partitions
    if factor == DEFAULT:
        factor = rooms.settings.default_replication_factor
    if partitions <= 0:
        raise KafkaError(
            ErrorCode.INVALID_PARTITIONS,
            "Number of partitions must be larger than 0, or -1 for the broker's default.",
        )
    return _spread(rooms, partitions, factor)


def _spread(rooms: Rooms, partitions: int, factor: int, *, first: int = 0) -> list[Replicas]:
    brokers = rooms.cluster.state.brokers
    start = rooms.random.randrange(0, max(len(brokers), 1))
    return place(brokers.values(), partitions=partitions, replication_factor=factor, start=start, first=first)


def _assigned(state: ClusterState, topic: CreatableTopic) -> list[Replicas]:
    """The client's own assignment, by partition."""
    if topic.replication_factor != DEFAULT:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, "With a manual partition assignment, replication factor must be -1."
        )
    if topic.num_partitions != DEFAULT:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, "With a manual partition assignment, number of partitions must be -1."
        )
    by_index = _by_index(topic.assignments)
    factor: int | None = None
    replicas = []
    for index in sorted(by_index):
        replicas.append(_checked_replicas(state, by_index[index], factor))
        factor = len(replicas[0])
    if sorted(by_index) != list(range(len(by_index))):
        raise KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT, "Partitions must be numbered from 0 on, with none left out."
        )
    return replicas


def _by_index(assignments: Iterable[CreatableReplicaAssignment]) -> dict[int, list[int]]:
    by_index: dict[int, list[int]] = {}
    for each in assignments:
        if each.partition_index in by_index:
            raise KafkaError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"Partition {each.partition_index} is assigned more than once.",
            )
        by_index[each.partition_index] = each.broker_ids
    return by_index


def _checked_replicas(state: ClusterState, brokers: Sequence[int], factor: int | None) -> Replicas:
    """A partition's replicas as a client wants them. `factor`: how many the topic's other partitions have."""
    if len(brokers) > len(state.brokers):  # first: a list may be a million long
        raise KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            f"The manual partition assignment includes {len(brokers)} replicas for {len(state.brokers)} broker(s).",
        )
    check_assignment(brokers, state.brokers)
    if factor is not None and len(brokers) != factor:
        raise KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            f"All partitions must have the same number of replicas: {len(brokers)} and {factor} were asked for.",
        )
    return tuple(brokers)


class _Described:
    """Results of CreateTopics. Equal configs are described once: a request may create a thousand topics."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._configs: dict[tuple[tuple[str, str], ...], list[CreatableTopicConfigs]] = {}

    def result(self, name: str, outcome: NewTopic | KafkaError) -> CreatableTopicResult:
        if isinstance(outcome, KafkaError):
            return CreatableTopicResult(
                name=name, error_code=outcome.code, error_message=reason(outcome), configs=[]
            )
        return CreatableTopicResult(
            name=name,
            topic_id=outcome.id.bytes,
            error_message=None,
            num_partitions=len(outcome.replicas),
            replication_factor=len(outcome.replicas[0]),
            configs=self._of(outcome.configs),
        )

    def _of(self, overrides: Mapping[str, str]) -> list[CreatableTopicConfigs]:
        key = tuple(sorted(overrides.items()))
        described = self._configs.get(key)
        if described is None:
            described = self._configs[key] = [
                CreatableTopicConfigs(
                    name=row.name,
                    value=row.value,
                    read_only=row.read_only,
                    config_source=row.source,
                    is_sensitive=row.sensitive,
                )
                for row in self._rooms.settings.describe_topic(overrides)
            ]
        return described


# DeleteTopics --------------------------------------------------------------------------------------------------


def handle_delete_topics(
    rooms: Rooms, call: Call, request: DeleteTopicsRequest
) -> DeleteTopicsResponse | Coroutine[Any, Any, DeleteTopicsResponse | Large[DeleteTopicsResponse]]:
    """DeleteTopics: v1-6.

    Answers when the deletion is durable in the cluster's state; files go later. What is named twice is refused.
    With `delete.topic.enable=false` all are refused.
    v3 TOPIC_DELETION_DISABLED (KIP-322) · v4 flexible · v5 error messages, THROTTLING_QUOTA_EXCEEDED (KIP-599) · v6 topic
    ids (KIP-516)
    """
    if len(request.topics) + len(request.topic_names) > SLICE:
        return in_slices(call, _deleting_topics(rooms, call, request))
    return delete_topics(rooms, call, request)


async def delete_topics(rooms: Rooms, call: Call, request: DeleteTopicsRequest) -> DeleteTopicsResponse:
    """The same without pauses, for who has nobody else to serve."""
    return await at_once(_deleting_topics(rooms, call, request))


def _deleting_topics(rooms: Rooms, call: Call, request: DeleteTopicsRequest) -> Steps[DeleteTopicsResponse]:
    pace = Pace()
    response = DeleteTopicsResponse()
    asked = (
        request.topics if call.version >= 6 else [DeleteTopicState(name=name) for name in request.topic_names]
    )
    yield None
    if not rooms.settings.delete_topic_enable:
        for each in asked:
            response.responses.append(_deletion_disabled(call, each))
            if pace.over():
                yield None
        return response
    counted = Counter([(each.name, each.topic_id) for each in asked])
    yield None
    found: dict[Named, Topic | KafkaError] = {}
    for each in asked:
        key = each.name, each.topic_id
        if key not in found:
            found[key] = _to_delete(rooms.cluster.state, each, times=counted[key])
        if pace.over():
            yield None
    _refuse_named_by_id(found)
    yield None
    quota = rooms.quotas.mutations(call, strict=call.version >= 5)
    found = {key: _allowed(topic, quota) for key, topic in found.items()}
    topics = [topic for topic in found.values() if isinstance(topic, Topic)]
    refused: dict[UUID, KafkaError] = {}
    if topics:
        command = DeleteTopics([topic.id for topic in topics])
        results = yield from result_of(proposed(rooms, command, len(topics)))
        refused = {
            topic.id: result
            for topic, result in zip(topics, results, strict=True)
            if isinstance(result, KafkaError)
        }
    for (name, wire_id), topic in found.items():
        response.responses.append(_deleted(name, wire_id, topic, refused))
        if pace.over():
            yield None
    return response


Named = tuple[str | None, bytes]  # how a client names a topic to delete


def _deletion_disabled(call: Call, asked: DeleteTopicState) -> DeletableTopicResult:
    return DeletableTopicResult(
        name=asked.name,
        topic_id=asked.topic_id,
        error_code=ErrorCode.TOPIC_DELETION_DISABLED if call.version >= 3 else ErrorCode.INVALID_REQUEST,
        error_message="Topic deletion is disabled.",
    )


def _to_delete(state: ClusterState, asked: DeleteTopicState, *, times: int) -> Topic | KafkaError:
    by_id = asked.topic_id != ZERO_UUID
    if asked.name is None and not by_id:
        return KafkaError(ErrorCode.INVALID_REQUEST, "Neither a topic's name nor its id was given.")
    if asked.name is not None and by_id:
        return KafkaError(
            ErrorCode.INVALID_REQUEST, "A topic's name and its id were given: one of them is asked for."
        )
    if times > 1:
        return KafkaError(ErrorCode.INVALID_REQUEST, f"Duplicate topic {'id' if by_id else 'name'}.")
    if asked.name is not None:
        return state.topics.get(asked.name) or KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    return state.topics_by_id.get(UUID(bytes=asked.topic_id)) or KafkaError(ErrorCode.UNKNOWN_TOPIC_ID)


def _allowed(topic: Topic | KafkaError, quota: Mutations) -> Topic | KafkaError:
    if isinstance(topic, Topic):
        try:
            quota.take(len(topic.partitions))
        except KafkaError as error:
            return error
    return topic


def _refuse_named_by_id(found: dict[Named, Topic | KafkaError]) -> None:
    """A topic named by its name and, elsewhere in the request, by its id is named twice."""
    times = Counter(topic.id for topic in found.values() if isinstance(topic, Topic))
    for (name, wire_id), topic in list(found.items()):
        if isinstance(topic, Topic) and times[topic.id] > 1:
            del found[name, wire_id]
            found[topic.name, topic.id.bytes] = KafkaError(
                ErrorCode.INVALID_REQUEST, "The topic was given by its name and by its id."
            )


def _deleted(
    name: str | None, wire_id: bytes, outcome: Topic | KafkaError, refused: Mapping[UUID, KafkaError]
) -> DeletableTopicResult:
    if isinstance(outcome, Topic):
        name, wire_id = outcome.name, outcome.id.bytes
        if outcome.id not in refused:
            return DeletableTopicResult(name=name, topic_id=wire_id, error_message=None)
        outcome = refused[outcome.id]
    return DeletableTopicResult(
        name=name, topic_id=wire_id, error_code=outcome.code, error_message=reason(outcome)
    )


# CreatePartitions ----------------------------------------------------------------------------------------------


def handle_create_partitions(
    rooms: Rooms, call: Call, request: CreatePartitionsRequest
) -> (
    CreatePartitionsResponse | Coroutine[Any, Any, CreatePartitionsResponse | Large[CreatePartitionsResponse]]
):
    """CreatePartitions: v0-3.

    `count` is the number of partitions afterwards; assignments are those of the new ones.
    v2 flexible · v3 THROTTLING_QUOTA_EXCEEDED (KIP-599)
    """
    steps = _creating_partitions(rooms, call, request)
    return in_slices(call, steps) if len(request.topics) > SLICE else at_once(steps)


def _creating_partitions(
    rooms: Rooms, call: Call, request: CreatePartitionsRequest
) -> Steps[CreatePartitionsResponse]:
    pace = Pace()
    counted = Counter([topic.name for topic in request.topics])
    outcome: dict[str, MorePartitions | KafkaError] = {}
    room = PARTITIONS_PER_REQUEST_MAX
    quota = rooms.quotas.mutations(call, strict=call.version >= 3)
    for topic in request.topics:
        if pace.over():
            yield None
        if counted[topic.name] > 1:
            outcome[topic.name] = KafkaError(ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
            continue
        try:
            more = _grown(rooms, topic, room)
            quota.take(len(more.replicas))
            room -= len(more.replicas)
            outcome[topic.name] = more
        except KafkaError as error:
            outcome[topic.name] = error
    if not request.validate_only:
        outcome |= yield from result_of(_grow(rooms, outcome))
    response = CreatePartitionsResponse()
    for name, each in outcome.items():
        response.results.append(_grown_result(name, each))
        if pace.over():
            yield None
    return response


def _grown(rooms: Rooms, asked: CreatePartitionsTopic, room: int) -> MorePartitions:
    state = rooms.cluster.state
    topic = state.topics.get(asked.name)
    if topic is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    there = len(topic.partitions)
    if asked.count == there:
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, f"Topic already has {there} partition(s).")
    if asked.count < there:
        raise KafkaError(
            ErrorCode.INVALID_PARTITIONS,
            f"Topic {asked.name} has {there} partition(s): {asked.count} would not be an increase.",
        )
    added = asked.count - there
    if added > room:
        raise KafkaError(
            ErrorCode.POLICY_VIOLATION,
            f"A request may create {PARTITIONS_PER_REQUEST_MAX} partitions at most.",
        )
    factor = len(topic.partitions[0].replicas)
    if asked.assignments is None:
        return MorePartitions(topic.id, there, _spread(rooms, added, factor, first=there))
    if len(asked.assignments) != added:
        raise KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            f"{added} partition(s) would be added, and {len(asked.assignments)} assignment(s) were given.",
        )
    replicas = [_checked_replicas(state, each.broker_ids, factor) for each in asked.assignments]
    return MorePartitions(topic.id, there, replicas)


async def _grow(rooms: Rooms, outcome: Mapping[str, MorePartitions | KafkaError]) -> dict[str, KafkaError]:
    more = {name: each for name, each in outcome.items() if isinstance(each, MorePartitions)}
    if not more:
        return {}
    results = await proposed(rooms, CreatePartitions(list(more.values())), len(more))
    return {
        name: result for name, result in zip(more, results, strict=True) if isinstance(result, KafkaError)
    }


def _grown_result(name: str, outcome: MorePartitions | KafkaError) -> CreatePartitionsTopicResult:
    if isinstance(outcome, KafkaError):
        return CreatePartitionsTopicResult(name=name, error_code=outcome.code, error_message=reason(outcome))
    return CreatePartitionsTopicResult(name=name)
