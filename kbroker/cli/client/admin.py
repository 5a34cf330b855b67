"""Admin calls: topics, partitions, configs, offsets. Each asks the broker that must be asked."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kbroker.cli.client.cluster import Cluster
from kbroker.cli.client.errors import code_of, error_of, raise_error
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    IncrementalAlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
)
from kbroker.protocol.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from kbroker.protocol.messages.topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreatableTopicResult,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
    CreateTopicsRequest,
    DeletableTopicResult,
    DeleteTopicsRequest,
)

Place = tuple[str, int]  # topic and partition

EARLIEST, LATEST = -2, -1  # ListOffsets' special timestamps
TIMEOUT_MS = 30_000
TOPIC, BROKER = 2, 4  # kinds of config resources
SET, DELETE = 0, 1  # IncrementalAlterConfigs' operations
DEFAULTS = -1  # partitions or replicas: as the broker is configured (KIP-464)


class Found(NamedTuple):
    """An offset looked up, and the time of its record; -1: there is none."""

    offset: int
    timestamp: int


async def create_topic(
    cluster: Cluster, name: str, *, partitions: int, replicas: int, configs: Mapping[str, str]
) -> CreatableTopicResult:
    """Create a topic, and wait until each of its partitions has a leader."""
    topic = CreatableTopic(
        name=name,
        num_partitions=partitions,
        replication_factor=replicas,
        configs=[CreatableTopicConfig(name=key, value=value) for key, value in configs.items()],
    )
    request = CreateTopicsRequest(topics=[topic], timeout_ms=TIMEOUT_MS)

    async def create() -> CreatableTopicResult:
        [result] = (await (await cluster.controller()).ask(request, oldest=4)).topics
        raise_error(result)
        assert isinstance(result, CreatableTopicResult)
        return result

    async def led() -> None:
        topic = await cluster.topic(name)
        for part in topic.partitions:
            if part.leader_id < 0:
                raise KafkaError(ErrorCode.LEADER_NOT_AVAILABLE)

    created = await cluster.persist(create)
    await cluster.persist(led, also=frozenset({ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}))
    return created


async def delete_topics(cluster: Cluster, names: list[str]) -> list[DeletableTopicResult]:
    """Delete topics: the result of each."""
    controller = await cluster.controller()
    answer = await controller.ask(DeleteTopicsRequest(topic_names=names, timeout_ms=TIMEOUT_MS), newest=5)
    return list(answer.responses)


async def add_partitions(cluster: Cluster, name: str, count: int) -> None:
    """Grow a topic to `count` partitions."""
    asked = CreatePartitionsTopic(name=name, count=count, assignments=None)
    controller = await cluster.controller()
    answer = await controller.ask(CreatePartitionsRequest(topics=[asked], timeout_ms=TIMEOUT_MS))
    raise_error(answer.results[0])


async def describe_configs(
    cluster: Cluster, kind: int, name: str, keys: list[str] | None = None
) -> list[DescribeConfigsResourceResult]:
    """The configs of a topic or a broker, with sources, synonyms and words."""
    request = DescribeConfigsRequest(
        resources=[DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=keys)],
        include_synonyms=True,
        include_documentation=True,
    )
    # a broker alone knows what stands in its own file
    connection = await cluster.broker(int(name)) if kind == BROKER and name else await cluster.any()
    [result] = (await connection.ask(request, newest=4)).results
    error = error_of(result)
    if error is not None:
        if error.code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            raise KafkaError(error.code, f"there is no topic {name!r}")
        raise error
    return list(result.configs)


async def alter_configs(
    cluster: Cluster, kind: int, name: str, *, setting: Mapping[str, str], deleting: Iterable[str]
) -> None:
    """Set some configs of a topic or a broker, and take others back to their defaults."""
    ops = [
        IncrementalAlterableConfig(name=key, config_operation=SET, value=value)
        for key, value in setting.items()
    ]
    ops += [IncrementalAlterableConfig(name=key, config_operation=DELETE, value=None) for key in deleting]
    resource = IncrementalAlterConfigsResource(resource_type=kind, resource_name=name, configs=ops)
    connection = await cluster.broker(int(name)) if kind == BROKER and name else await cluster.controller()
    answer = await connection.ask(IncrementalAlterConfigsRequest(resources=[resource]))
    raise_error(answer.responses[0])


async def offsets_at(cluster: Cluster, wanted: Mapping[Place, int]) -> dict[Place, Found]:
    """The first offset at or after a time, or at a special one, in each of the partitions."""

    async def ask_all() -> dict[Place, Found]:
        by_leader: dict[int, list[Place]] = defaultdict(list)
        for place in wanted:
            by_leader[await cluster.leader_id(*place)].append(place)
        answers = await asyncio.gather(
            *(
                _offsets_of(cluster, node, {place: wanted[place] for place in places})
                for node, places in by_leader.items()
            )
        )
        return {place: found for answer in answers for place, found in answer.items()}

    return await cluster.persist(ask_all)


async def _offsets_of(cluster: Cluster, node: int, wanted: Mapping[Place, int]) -> dict[Place, Found]:
    topics: dict[str, list[ListOffsetsPartition]] = defaultdict(list)
    for (topic, partition), when in wanted.items():
        topics[topic].append(ListOffsetsPartition(partition_index=partition, timestamp=when))
    request = ListOffsetsRequest(
        replica_id=-1,
        topics=[ListOffsetsTopic(name=name, partitions=parts) for name, parts in topics.items()],
    )
    answer = await (await cluster.broker(node)).ask(request, newest=7)
    found: dict[Place, Found] = {}
    for topic in answer.topics:
        for part in topic.partitions:
            if part.error_code:
                raise KafkaError(code_of(part.error_code), f"offsets of {topic.name}-{part.partition_index}")
            found[topic.name, part.partition_index] = Found(part.offset, part.timestamp)
    return found
