"""Requests of tools that name very many resources: answered and done as smaller ones are, in slices, while others are
served."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from kbroker.cluster.commands import AlterConfigs, AlterQuotas, CreateTopics, NewTopic
from kbroker.config.alter import DELETE, SET
from kbroker.config.options import ResourceType
from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import new_uuid
from kbroker.protocol.messages.cluster import (
    DescribableLogDirTopic,
    DescribeLogDirsRequest,
    DescribeQuorumRequest,
    PartitionData,
    TopicData,
)
from kbroker.protocol.messages.configs import (
    AlterableConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    IncrementalAlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
)
from kbroker.protocol.messages.quotas import (
    AlterClientQuotasEntryData,
    AlterClientQuotasRequest,
    EntityData,
    OpData,
)
from kbroker.server.handlers.configs import (
    UNSEEN_MAX,
    handle_alter_configs,
    handle_describe_configs,
    handle_incremental_alter_configs,
)
from kbroker.server.handlers.elections import MESSAGES_MAX
from kbroker.server.handlers.quotas import ENTITIES_MAX
from kbroker.server.slices import SLICE
from tests.support.rooms import House
from tests.support.served import Served

SLICES = 3
MANY = SLICES * SLICE + 5
NAMES = [f"x{number}" for number in range(MANY)]
UNKNOWN = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
INVALID = ErrorCode.INVALID_REQUEST
TIMED_OUT = ErrorCode.REQUEST_TIMED_OUT
TOPIC, GROUP = ResourceType.TOPIC, ResourceType.GROUP


@pytest.fixture
def house(tmp_path) -> House:
    one = House(tmp_path)
    one.open_disk()
    one.create("t", partitions=3)
    return one


@pytest.fixture
def served(house) -> Served:
    return Served(house)


@pytest.fixture
def full(house) -> Served:
    """The topics of all NAMES are there."""
    house.do(CreateTopics([NewTopic(name, new_uuid(house.random), [(1,)]) for name in NAMES]))
    return Served(house)


def refusing(house: House, *numbers: int) -> Served:
    """Commands of these numbers, from 0 on, are not decided in time."""

    async def propose(command: Any) -> Any:
        if len(house.proposed) in numbers:
            house.proposed.append(command)
            raise KafkaError(TIMED_OUT)
        return await House.propose(house, command)

    house.rooms = dataclasses.replace(house.rooms, propose=propose)
    return Served(house)


# -- configs


def incremental(names: Any, value: str | None = "7", *, kind: int = TOPIC, **fields: Any) -> Any:
    config = IncrementalAlterableConfig(
        name="retention.ms", config_operation=DELETE if value is None else SET, value=value
    )
    resources = [
        IncrementalAlterConfigsResource(resource_type=kind, resource_name=name, configs=[config])
        for name in names
    ]
    return IncrementalAlterConfigsRequest(resources=resources, **fields)


def whole(names: Any, value: str = "7", **fields: Any) -> AlterConfigsRequest:
    configs = [AlterableConfig(name="retention.ms", value=value)]
    resources = [
        AlterConfigsResource(resource_type=TOPIC, resource_name=name, configs=configs) for name in names
    ]
    return AlterConfigsRequest(resources=resources, **fields)


def errors(response: Any) -> list[tuple[str, int]]:
    return [(each.resource_name, each.error_code) for each in response.responses]


@pytest.mark.parametrize(("ask", "version"), [(incremental, 1), (whole, 2)])
async def test_configs_of_many_topics_are_changed_by_several_commands_in_order(full, ask, version):
    house = full.house

    response = await full.ask(ask([*NAMES, "y", "t", "t"]), version)

    assert [(name, 0) for name in NAMES] + [("y", UNKNOWN), ("t", INVALID), ("t", INVALID)] == errors(
        response
    )
    assert [{"retention.ms": "7"}] * MANY == [house.state.topic_config(name) for name in NAMES]
    assert {} == house.state.topic_config("t")
    assert [SLICE] * SLICES + [5] == [len(command.changes) for command in house.proposed]
    assert NAMES == [change.name for command in house.proposed for change in command.changes]
    assert 3 * SLICES <= full.pauses


@pytest.mark.parametrize(("ask", "version"), [(incremental, 1), (whole, 2)])
async def test_changes_of_many_topics_are_only_checked_where_that_is_asked_for(full, ask, version):
    response = await full.ask(ask([*NAMES, "y"], validate_only=True), version)

    assert [(name, 0) for name in NAMES] + [("y", UNKNOWN)] == errors(response)
    assert [] == full.house.proposed
    assert {} == full.house.state.topic_config(NAMES[0])


@pytest.mark.parametrize(
    ("ask", "handler", "version"),
    [(incremental, handle_incremental_alter_configs, 1), (whole, handle_alter_configs, 2)],
)
async def test_few_are_changed_by_one_command(full, ask, handler, version):
    names = NAMES[: SLICE // 2]

    response = await full.house.ask(handler, ask(names), version=version)

    assert [(name, 0) for name in names] == errors(response)
    [command] = full.house.proposed
    assert isinstance(command, AlterConfigs)
    assert names == [change.name for change in command.changes]


async def test_a_command_that_is_not_decided_is_told_to_its_topics(full):
    served = refusing(full.house, 1)

    response = await served.ask(incremental(NAMES), 1)

    assert [0] * SLICE + [TIMED_OUT] * SLICE + [0] * (MANY - 2 * SLICE) == [
        each.error_code for each in response.responses
    ]
    there = [bool(served.house.state.topic_config(name)) for name in NAMES]
    assert [True] * SLICE + [False] * SLICE + [True] * (MANY - 2 * SLICE) == there


async def test_a_topic_that_goes_while_many_are_changed_is_not_known(full):
    request = incremental(NAMES)
    full.begin(request, 1)
    for _ in range(2 * SLICES):
        await full.step()
    full.house.delete(NAMES[-1])
    await full.finish()

    assert [*((name, 0) for name in NAMES[:-1]), (NAMES[-1], UNKNOWN)] == errors(full.response(request, 1))


async def test_many_groups_are_refused_by_their_number_and_topics_beside_them_are_not(served):
    request = incremental([f"g{number}" for number in range(UNSEEN_MAX + 1)], kind=GROUP)
    request.resources += incremental(["t"]).resources

    response = await served.ask(request, 1)

    assert [INVALID] * (UNSEEN_MAX + 1) + [0] == [each.error_code for each in response.responses]
    assert {"retention.ms": "7"} == served.house.state.topic_config("t")


async def test_few_resources_of_many_changes_are_checked_in_slices(served):
    request = incremental(NAMES[:20])
    for each in request.resources:
        each.configs = each.configs * (SLICE // 5)

    response = await served.ask(request, 1)

    assert [UNKNOWN] * 20 == [each.error_code for each in response.responses]
    assert SLICES <= served.pauses


def describe(names: Any, keys: list[str] | None = None) -> DescribeConfigsRequest:
    resources = [
        DescribeConfigsResource(resource_type=TOPIC, resource_name=name, configuration_keys=keys)
        for name in names
    ]
    return DescribeConfigsRequest(resources=resources)


async def test_configs_of_many_topics_are_described(served):
    response = await served.ask(describe([*NAMES, "t"], ["retention.ms", "nothing"]), 4)

    expected = [(name, UNKNOWN, []) for name in NAMES] + [("t", 0, ["retention.ms"])]
    assert expected == [
        (each.resource_name, each.error_code, [row.name for row in each.configs]) for each in response.results
    ]
    assert 3 * SLICES <= served.pauses


async def test_many_rows_of_few_topics_are_made_in_slices(full):
    [alone] = (await full.house.ask(handle_describe_configs, describe(["x7"]), version=4)).results

    response = await full.ask(describe(NAMES[:200]), 4)

    assert [(name, 0) for name in NAMES[:200]] == [
        (each.resource_name, each.error_code) for each in response.results
    ]
    assert [alone.configs] * 200 == [each.configs for each in response.results]
    assert SLICES <= full.pauses


# -- quotas


def quotas(number: int = MANY, rate: float = 5.0, **fields: Any) -> AlterClientQuotasRequest:
    entries = [
        AlterClientQuotasEntryData(
            entity=[EntityData(entity_type="user", entity_name=f"u{each}")],
            ops=[OpData(key="producer_byte_rate", value=rate, remove=False)],
        )
        for each in range(number)
    ]
    return AlterClientQuotasRequest(entries=entries, **fields)


def entities(response: Any) -> list[tuple[str, int]]:
    return [(each.entity[0].entity_name, each.error_code) for each in response.entries]


async def test_quotas_of_many_are_set_by_one_command(served):
    request = quotas()
    request.entries += quotas(8).entries[7:]  # named twice
    request.entries[9].ops[0].value = 0.0

    response = await served.ask(request, 1)

    assert [(f"u{each}", INVALID if each in (7, 9) else 0) for each in range(MANY)] == entities(response)
    [command] = served.house.proposed
    assert isinstance(command, AlterQuotas)
    assert MANY - 2 == len(command.changes) == len(served.house.state.quotas)
    assert 3 * SLICES <= served.pauses


async def test_quotas_of_many_are_only_checked_where_that_is_asked_for(served):
    response = await served.ask(quotas(validate_only=True), 1)

    assert [(f"u{each}", 0) for each in range(MANY)] == entities(response)
    assert [] == served.house.proposed


async def test_a_command_that_is_not_decided_is_told_to_all_whose_quotas_it_would_set(house):
    request = quotas()
    request.entries[9].ops[0].value = 0.0

    response = await refusing(house, 0).ask(request, 1)

    expected = [(f"u{each}", INVALID if each == 9 else TIMED_OUT) for each in range(MANY)]
    assert expected == entities(response)


async def test_more_than_are_changed_in_one_go_are_refused(served):
    response = await served.ask(quotas(ENTITIES_MAX + 1), 1)

    assert [(f"u{each}", INVALID) for each in range(ENTITIES_MAX + 1)] == entities(response)
    assert [] == served.house.proposed


# -- the log directory, the quorum


def log_dirs(response: Any) -> list[tuple[str, list[int]]]:
    [result] = response.results
    return [(topic.name, [each.partition_index for each in topic.partitions]) for topic in result.topics]


async def test_many_partitions_of_the_log_directory_are_told(served):
    served.house.create("w", partitions=MANY)
    served.house.produce("w", b"a", partition=MANY - 1)

    response = await served.ask(DescribeLogDirsRequest(topics=None), 4)

    assert [("t", [0, 1, 2]), ("w", [*range(MANY)])] == log_dirs(response)
    size = served.house.partitions.get("w", MANY - 1).log.size
    assert [0] * (MANY - 1) + [size] == [
        each.partition_size for each in response.results[0].topics[1].partitions
    ]
    assert SLICES <= served.pauses


async def test_many_partitions_that_are_named_are_told_each_once(served):
    asked = [DescribableLogDirTopic(topic=name, partitions=[1, 0]) for name in [*NAMES, "t"]]
    asked.append(DescribableLogDirTopic(topic="t", partitions=[*range(MANY), 0]))

    response = await served.ask(DescribeLogDirsRequest(topics=asked), 4)

    assert [("t", [1, 0, 2])] == log_dirs(response)
    assert 6 * SLICES <= served.pauses


def quorum(*topics: tuple[str, int]) -> DescribeQuorumRequest:
    """Topics with so many partitions each."""
    return DescribeQuorumRequest(
        topics=[
            TopicData(
                topic_name=name, partitions=[PartitionData(partition_index=index) for index in range(count)]
            )
            for name, count in topics
        ]
    )


async def test_many_partitions_that_have_no_quorum_are_told_the_first_with_a_message(served):
    response = await served.ask(quorum(("__cluster_metadata", 1), ("t", MANY)), 2)

    answers = [each for topic in response.topics for each in topic.partitions]
    assert [0, *range(MANY)] == [each.partition_index for each in answers]
    assert {UNKNOWN} == {each.error_code for each in answers}
    assert [True] * MESSAGES_MAX + [False] * (MANY + 1 - MESSAGES_MAX) == [
        bool(each.error_message) for each in answers
    ]
    assert ([], ["__cluster_metadata", "t"]) == (
        response.nodes,
        [each.topic_name for each in response.topics],
    )
    assert SLICES <= served.pauses


@pytest.mark.parametrize("partitions", [0, 1])
async def test_many_topics_are_looked_through_for_the_one_that_has_a_quorum(served, partitions):
    """Topics without partitions ask for nothing."""
    asked = [(name, 0) for name in NAMES[:-1]] + [(NAMES[-1], partitions)]

    response = await served.ask(quorum(*asked, ("__cluster_metadata", 1)), 2)

    codes = [each.error_code for topic in response.topics for each in topic.partitions]
    assert ([UNKNOWN] * 2 if partitions else [0]) == codes
    assert (MANY + 1 if partitions else 1) == len(response.topics)
    assert SLICES <= served.pauses
