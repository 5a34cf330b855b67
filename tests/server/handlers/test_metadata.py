"""Metadata and DescribeCluster, against what Kafka 4.3 answers."""

import pytest

from kbroker.cluster.commands import EpochFloor, RaiseEpochs
from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import Endpoint
from kbroker.protocol.messages.cluster import DescribeClusterRequest
from kbroker.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from kbroker.server.handlers.metadata import (
    handle_describe_cluster,
    handle_metadata,
)
from tests.support.rooms import CLUSTER_ID, NODE, PLAIN, TLS, House

UNKNOWN_ID = bytes(range(16))
NOT_ASKED = -(2**31)


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


@pytest.fixture
def fixed(tmp_path):
    """A broker that creates nothing by itself."""
    return House(tmp_path, {"auto.create.topics.enable": "false"})


def named(*names):
    return [MetadataRequestTopic(name=name) for name in names]


def by_id(*ids):
    return [MetadataRequestTopic(name=None, topic_id=topic_id) for topic_id in ids]


async def metadata(house, topics, *, version=13, listener="PLAINTEXT", **fields):
    request = MetadataRequest(topics=topics, **fields)
    return await house.ask(handle_metadata, request, version=version, listener=listener)


def names_of(answer):
    return [topic.name for topic in answer.topics]


def codes_of(answer):
    return {topic.name: topic.error_code for topic in answer.topics}


# Which topics


@pytest.mark.parametrize("version", range(14))
async def test_all_topics_are_asked_for_by_null_and_in_v0_by_none(house, version):
    house.create("a")
    house.create("b", partitions=2)

    everything = await metadata(house, [] if version == 0 else None, version=version)

    assert ["a", "b"] == names_of(everything)
    assert [1, 2] == [len(topic.partitions) for topic in everything.topics]


async def test_no_topics_are_asked_for_by_an_empty_list(house):
    house.create("a")

    assert [] == names_of(await metadata(house, [], version=1))


async def test_topics_come_in_the_order_asked_for_each_once(fixed):
    fixed.create("a")
    fixed.create("b")

    assert ["b", "x", "a"] == names_of(await metadata(fixed, named("b", "x", "a", "b")))


async def test_a_topic_says_where_it_is(house):
    topic = house.create("t", partitions=2)

    [answer] = (await metadata(house, named("t"))).topics

    assert (ErrorCode.NONE, "t", topic.id.bytes, False) == (
        answer.error_code,
        answer.name,
        answer.topic_id,
        answer.is_internal,
    )
    assert [(0, 0, 1, 0, [1], [1], []), (0, 1, 1, 0, [1], [1], [])] == [
        (
            each.error_code,
            each.partition_index,
            each.leader_id,
            each.leader_epoch,
            each.replica_nodes,
            each.isr_nodes,
            each.offline_replicas,
        )
        for each in answer.partitions
    ]


async def test_ids_are_looked_up_and_names_beside_them_ignored(house):
    topic = house.create("a")
    house.create("b")

    answer = await metadata(house, by_id(topic.id.bytes) + named("b"), version=12)

    assert ["a"] == names_of(answer)


async def test_an_unknown_id_is_answered_without_a_name(house):
    [answer] = (await metadata(house, by_id(UNKNOWN_ID))).topics

    assert (ErrorCode.UNKNOWN_TOPIC_ID, None, UNKNOWN_ID) == (
        answer.error_code,
        answer.name,
        answer.topic_id,
    )


@pytest.mark.parametrize("version", [10, 11])
async def test_ids_before_v12_refuse_the_whole_request(house, version):
    topic = house.create("a")

    answer = await metadata(house, by_id(topic.id.bytes), version=version)

    assert ([], None, -1) == (answer.brokers, answer.cluster_id, answer.controller_id)
    assert {"": ErrorCode.INVALID_REQUEST} == codes_of(answer)


async def test_neither_a_name_nor_an_id_refuses_the_whole_request(house):
    answer = await metadata(house, [MetadataRequestTopic(name=None)])

    assert ErrorCode.INVALID_REQUEST == answer.error_code
    assert {None: ErrorCode.INVALID_REQUEST} == codes_of(answer)


async def test_internal_topics_are_marked(house):
    house.create("__consumer_offsets")

    assert [True] == [topic.is_internal for topic in (await metadata(house, None)).topics]


async def test_authorized_operations_are_answered_when_asked_for(house):
    """Without an authorizer: all that a topic and a cluster know, as Kafka's bits."""
    house.create("t")
    asked = await metadata(
        house,
        named("t"),
        version=8,
        include_topic_authorized_operations=True,
        include_cluster_authorized_operations=True,
    )
    plain = await metadata(house, named("t"), version=8)

    assert (8096, [3576]) == (
        asked.cluster_authorized_operations,
        [topic.topic_authorized_operations for topic in asked.topics],
    )
    assert (NOT_ASKED, [NOT_ASKED]) == (
        plain.cluster_authorized_operations,
        [topic.topic_authorized_operations for topic in plain.topics],
    )


# Brokers


async def test_brokers_are_told_with_the_address_of_the_listener(house):
    house.register(2, Endpoint("SSL", "broker-2.example", 9093, "SSL"), rack="b")

    plain = await metadata(house, [])
    tls = await metadata(house, [], listener="SSL")

    assert [(1, PLAIN.host, PLAIN.port, None)] == addresses(plain)
    assert [(1, TLS.host, TLS.port, None), (2, "broker-2.example", 9093, "b")] == addresses(tls)
    assert (CLUSTER_ID, NODE, ErrorCode.NONE) == (plain.cluster_id, plain.controller_id, plain.error_code)


def addresses(answer):
    return [(each.node_id, each.host, each.port, each.rack) for each in answer.brokers]


@pytest.mark.parametrize(
    "version, error",
    [
        (0, ErrorCode.LEADER_NOT_AVAILABLE),
        (5, ErrorCode.LEADER_NOT_AVAILABLE),
        (6, ErrorCode.LISTENER_NOT_FOUND),
        (13, ErrorCode.LISTENER_NOT_FOUND),
    ],
)
async def test_a_leader_that_this_listener_does_not_reach(house, version, error):
    """The partition stays in the list, with an error and no leader: franz-go loops on missing ones."""
    house.register(2, Endpoint("SSL", "broker-2.example", 9093, "SSL"))
    house.create("t", replicas=(2, 1))

    [partition] = (await metadata(house, named("t"), version=version)).topics[0].partitions

    assert (error, -1, 0) == (partition.error_code, partition.leader_id, partition.leader_epoch)
    assert ([2, 1] if version else [1]) == partition.replica_nodes
    assert [2] == partition.offline_replicas


async def test_a_replica_out_of_reach_is_an_error_in_v0_alone(house):
    house.register(2, Endpoint("SSL", "broker-2.example", 9093, "SSL"))
    house.create("t", replicas=(1, 2))

    old, new = [
        (await metadata(house, named("t"), version=version)).topics[0].partitions[0] for version in (0, 1)
    ]

    assert (ErrorCode.REPLICA_NOT_AVAILABLE, [1], [1]) == (old.error_code, old.replica_nodes, old.isr_nodes)
    assert (ErrorCode.NONE, [1, 2], [1, 2], 1) == (
        new.error_code,
        new.replica_nodes,
        new.isr_nodes,
        new.leader_id,
    )


# What is kept


async def test_an_answer_is_built_once_and_again_when_something_moved(house):
    topic = house.create("t", partitions=3)

    async def partitions():
        return (await metadata(house, named("t"))).topics[0].partitions

    first = await partitions()
    assert first is await partitions()

    house.do(RaiseEpochs([EpochFloor(topic.id, 1, 7)]))
    second = await partitions()
    assert [0, 7, 0] == [each.leader_epoch for each in second]

    house.register(2, PLAIN)
    third = await partitions()
    assert third is not second


async def test_a_topic_made_again_is_not_answered_from_memory(house):
    house.create("t", partitions=3)
    await metadata(house, named("t"))
    house.delete("t")
    again = house.create("t", partitions=2)

    [answer] = (await metadata(house, named("t"))).topics

    assert (again.id.bytes, 2) == (answer.topic_id, len(answer.partitions))


async def test_answers_of_deleted_topics_are_forgotten(house):
    for number in range(20):
        house.create(f"t{number}")
        await metadata(house, named(f"t{number}"))
        house.delete(f"t{number}")

    assert 1 >= len(house.rooms.topic_answers)


async def test_asking_for_one_topic_looks_at_that_topic_alone(house):
    for number in range(50):
        house.create(f"t{number}")

    await metadata(house, named("t7"))

    assert 1 == len(house.rooms.topic_answers)


# Missing topics


@pytest.mark.parametrize("version", [0, 1, 3, 4, 13])
async def test_a_missing_topic_is_created_and_answered_at_once(tmp_path, version):
    house = House(tmp_path, {"num.partitions": "3"})

    answer = await metadata(house, named("new"), version=version)

    assert {"new": ErrorCode.NONE} == codes_of(answer)
    assert 3 == len(answer.topics[0].partitions)
    assert ["new"] == list(house.state.topics)


async def test_many_missing_topics_are_created_by_one_command(house):
    house.create("there")

    answer = await metadata(house, named("a", "there", "b", "a"))

    assert {"a": 0, "there": 0, "b": 0} == codes_of(answer)
    assert 1 == len(house.proposed)


async def test_a_client_can_refuse_that_a_topic_is_created(house):
    answer = await metadata(house, named("new"), allow_auto_topic_creation=False)

    assert {"new": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION} == codes_of(answer)
    assert [] == house.proposed


async def test_a_broker_can_refuse_that_topics_are_created(fixed):
    answer = await metadata(fixed, named("new"), version=1)

    assert {"new": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION} == codes_of(answer)
    assert [] == fixed.proposed


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "x" * 250, "é"])
async def test_a_bad_name_is_no_topic_and_creates_none(house, name):
    answer = await metadata(house, named(name, "good"))

    assert {name: ErrorCode.INVALID_TOPIC_EXCEPTION, "good": ErrorCode.NONE} == codes_of(answer)


@pytest.mark.parametrize(
    "name, internal",
    [("__share_group_state", True), ("__transaction_state", True), ("__cluster_metadata", False)],
)
async def test_topics_of_the_broker_itself_are_not_created_by_asking(house, name, internal):
    [topic] = (await metadata(house, named(name))).topics

    assert (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, internal) == (topic.error_code, topic.is_internal)


async def test_the_topic_of_the_groups_is_created_with_configs_of_its_own(house):
    [topic] = (await metadata(house, named("__consumer_offsets"))).topics

    assert (ErrorCode.NONE, True, 50) == (topic.error_code, topic.is_internal, len(topic.partitions))
    assert "compact" == house.state.topic_config("__consumer_offsets")["cleanup.policy"]


async def test_a_name_that_collides_is_refused_for_good(house):
    house.create("a.b")

    answer = await metadata(house, named("a_b"))

    assert {"a_b": ErrorCode.INVALID_TOPIC_EXCEPTION} == codes_of(answer)


async def test_a_replication_factor_that_cannot_be_had_is_named(tmp_path):
    house = House(tmp_path, {"default.replication.factor": "3"})

    assert {"t": ErrorCode.INVALID_REPLICATION_FACTOR} == codes_of(await metadata(house, named("t")))


async def test_a_topic_that_somebody_else_creates_meanwhile_is_answered(house):
    async def overtaken(command):
        house.create("t", partitions=5)
        return house.do(command)

    house.rooms = house.rooms_with(propose=overtaken)

    answer = await metadata(house, named("t"))

    assert [(ErrorCode.NONE, 5)] == [(topic.error_code, len(topic.partitions)) for topic in answer.topics]


async def test_a_creation_that_is_not_decided_tells_the_client_to_retry(house):
    async def late(command):
        raise KafkaError(ErrorCode.REQUEST_TIMED_OUT)

    house.rooms = house.rooms_with(propose=late)

    assert {"t": ErrorCode.REQUEST_TIMED_OUT} == codes_of(await metadata(house, named("t")))


async def test_an_unknown_name_is_answered_with_its_operations(fixed):
    answer = await metadata(fixed, named("no"), include_topic_authorized_operations=True)

    assert [3576] == [topic.topic_authorized_operations for topic in answer.topics]


# DescribeCluster


async def describe_cluster(house, *, version=2, listener="PLAINTEXT", **fields):
    request = DescribeClusterRequest(**fields)
    return await house.ask(handle_describe_cluster, request, version=version, listener=listener)


@pytest.mark.parametrize("version", range(3))
async def test_the_cluster_is_described(house, version):
    answer = await describe_cluster(house, version=version, include_cluster_authorized_operations=True)

    assert (ErrorCode.NONE, None, CLUSTER_ID, NODE, 8096) == (
        answer.error_code,
        answer.error_message,
        answer.cluster_id,
        answer.controller_id,
        answer.cluster_authorized_operations,
    )
    assert [(1, PLAIN.host, PLAIN.port, None)] == [
        (each.broker_id, each.host, each.port, each.rack) for each in answer.brokers
    ]


async def test_the_cluster_is_described_by_the_listener_asked(house):
    [broker] = (await describe_cluster(house, listener="SSL")).brokers

    assert (TLS.host, TLS.port) == (broker.host, broker.port)


@pytest.mark.parametrize(
    "endpoint_type, error",
    [
        (2, ErrorCode.MISMATCHED_ENDPOINT_TYPE),
        (0, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE),
        (3, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE),
    ],
)
async def test_there_are_endpoints_of_brokers_only(house, endpoint_type, error):
    answer = await describe_cluster(house, endpoint_type=endpoint_type)

    assert (error, 1, "", -1, []) == (
        answer.error_code,
        answer.endpoint_type,
        answer.cluster_id,
        answer.controller_id,
        answer.brokers,
    )
    assert answer.error_message
