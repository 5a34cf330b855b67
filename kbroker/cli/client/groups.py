"""Groups from outside: listing, describing, deleting, their committed offsets. Being a member is in `membership`."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kbroker.cli.client.admin import Place
from kbroker.cli.client.cluster import Cluster
from kbroker.cli.client.errors import code_of, error_of, raise_error
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.groups import (
    DeleteGroupsRequest,
    DescribedGroup,
    DescribeGroupsRequest,
    ListedGroup,
    ListGroupsRequest,
)
from kbroker.protocol.messages.offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetFetchRequest,
    OffsetFetchRequestTopic,
)

DEAD = "Dead"
ONE_GROUP = 7  # the last version of OffsetFetch that is about one group
TOPIC_NAMES = 9  # the last version of OffsetCommit that names topics


class Committed(NamedTuple):
    """An offset that a group committed, and what it said with it."""

    offset: int
    metadata: str


async def list_groups(cluster: Cluster) -> list[ListedGroup]:
    """Every broker's groups."""
    await cluster.metadata([])

    async def groups_of(node: int) -> list[ListedGroup]:
        async def ask() -> list[ListedGroup]:
            answer = await (await cluster.broker(node)).ask(ListGroupsRequest())
            raise_error(answer)
            return list(answer.groups)

        return await cluster.persist(ask)

    found = await asyncio.gather(*map(groups_of, cluster.brokers))
    return sorted((group for groups in found for group in groups), key=lambda group: group.group_id)


async def describe_group(cluster: Cluster, group: str) -> DescribedGroup:
    """State and members; KafkaError where there is no such group.

    DescribeGroups is about classic groups. Of another kind we know what the list of groups says, and no members.
    """

    async def describe() -> DescribedGroup:
        answer = await (await cluster.coordinator(group)).ask(DescribeGroupsRequest(groups=[group]))
        [described] = answer.groups
        if described.error_code == ErrorCode.GROUP_ID_NOT_FOUND:
            described.error_code, described.group_state = (
                ErrorCode.NONE,
                DEAD,
            )  # before v6 a broker says it so
        raise_error(described)
        assert isinstance(described, DescribedGroup)
        return described

    described = await cluster.persist(describe)
    if described.group_state != DEAD:
        return described
    for listed in await list_groups(cluster):
        if listed.group_id == group:
            return DescribedGroup(
                group_id=group, group_state=listed.group_state, protocol_type=listed.protocol_type
            )
    raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"there is no group {group!r}")


async def delete_group(cluster: Cluster, group: str) -> None:
    """Delete an empty group and its offsets."""

    async def delete() -> None:
        answer = await (await cluster.coordinator(group)).ask(DeleteGroupsRequest(groups_names=[group]))
        error = error_of(answer.results[0])
        if error is not None:
            raise KafkaError(error.code, f"there is no group {group!r}" if error.code == _NOT_FOUND else None)

    await cluster.persist(delete)


_NOT_FOUND = ErrorCode.GROUP_ID_NOT_FOUND


async def committed(
    cluster: Cluster, group: str, places: Iterable[Place] | None = None
) -> dict[Place, Committed]:
    """What a group committed: of some partitions, or all. Without those of which it committed nothing."""
    topics: dict[str, list[int]] = defaultdict(list)
    for topic, partition in places or ():
        topics[topic].append(partition)
    request = OffsetFetchRequest(
        group_id=group,
        topics=None
        if places is None
        else [OffsetFetchRequestTopic(name=name, partition_indexes=parts) for name, parts in topics.items()],
    )

    async def fetch() -> dict[Place, Committed]:
        answer = await (await cluster.coordinator(group)).ask(request, oldest=2, newest=ONE_GROUP)
        raise_error(answer)
        found = {}
        for topic in answer.topics:
            for part in topic.partitions:
                if part.error_code:
                    raise KafkaError(code_of(part.error_code), f"{topic.name}-{part.partition_index}")
                if part.committed_offset >= 0:
                    found[topic.name, part.partition_index] = Committed(
                        part.committed_offset, part.metadata or ""
                    )
        return found

    return await cluster.persist(fetch)


async def commit(
    cluster: Cluster, group: str, offsets: Mapping[Place, int], *, generation: int = -1, member_id: str = ""
) -> None:
    """Commit offsets, as a member or, to a group that has none, from outside."""
    topics: dict[str, list[OffsetCommitRequestPartition]] = defaultdict(list)
    for (topic, partition), offset in offsets.items():
        topics[topic].append(
            OffsetCommitRequestPartition(
                partition_index=partition, committed_offset=offset, committed_metadata=""
            )
        )
    request = OffsetCommitRequest(
        group_id=group,
        generation_id_or_member_epoch=generation,
        member_id=member_id,
        topics=[OffsetCommitRequestTopic(name=name, partitions=parts) for name, parts in topics.items()],
    )

    async def send() -> None:
        answer = await (await cluster.coordinator(group)).ask(request, newest=TOPIC_NAMES)
        for topic in answer.topics:
            for part in topic.partitions:
                if part.error_code:
                    raise KafkaError(code_of(part.error_code), f"offsets of group {group} are not taken")

    await cluster.persist(send)
