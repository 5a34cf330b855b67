"""What exporters, web UIs and scripts ask by the admin clients of kafka-python and librdkafka; the same on Apache Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.compat.driver import Client, Record
from tests.support.clients import require
from tests.support.peers import Endpoint

# kafka-python reads its schemas in a way that Python 3.11 warns of
pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")

LIMIT_S = 60
# COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR: Kafka's first group takes a moment
UNDER_WAY = {14, 15, 16}
WHEN = 1_700_000_000_000


def settled(ask: Callable[[], Any], code_of: Callable[[Any], int | None]) -> Any:
    """The answer once the coordinator is there."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            return ask()
        except Exception as error:
            if code_of(error) not in UNDER_WAY or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture
def place(helper: Client, at: Endpoint, topic: str) -> str:
    """A topic of two partitions, three records in the first."""
    helper.create(at, topic, partitions=2)
    helper.produce(at, topic, [Record(timestamp=WHEN + number) for number in (0, 2, 1)])
    return topic


# kafka-python --------------------------------------------------------------------------------------------------


@pytest.fixture
def python(at: Endpoint) -> Iterator[Any]:
    require("kafka", "pip install kafka-python")
    from kafka import KafkaAdminClient

    client = KafkaAdminClient(bootstrap_servers=at.servers)
    yield client
    client.close()


def test_kafka_python_sees_the_cluster(python: Any, at: Endpoint) -> None:
    host, port = at.servers.split(":")

    told = python.describe_cluster()

    [broker] = told["brokers"]
    assert (host, int(port), False) == (broker["host"], broker["port"], broker["is_fenced"])
    assert broker["broker_id"] == told["controller_id"]
    assert {"CREATE", "ALTER", "DESCRIBE"} <= set(told["authorized_operations"])
    [quorum] = python.describe_metadata_quorum()["topics"]
    [partition] = quorum["partitions"]
    [voter] = partition["current_voters"]
    assert broker["broker_id"] == partition["leader_id"] == voter["replica_id"]
    assert 0 < partition["high_watermark"] <= voter["log_end_offset"]
    metadata = python.describe_features()["metadata.version"]
    assert ((7, 30), (30, 30)) == (metadata["supported"], metadata["finalized"])
    assert "metadata.version" in python.update_features({"metadata.version": 30})
    assert {} == python.list_partition_reassignments()
    assert str(broker["broker_id"]) in python.list_config_resources()["broker"]


def test_kafka_python_sees_topics_and_their_sizes(python: Any, place: str) -> None:
    assert place in python.list_topics()
    [told] = python.describe_topics([place])
    assert [0, 1] == sorted(each["partition_index"] for each in told["partitions"])
    [paged] = python.describe_topic_partitions([place])["topics"]
    assert [0, 1] == [each["partition_index"] for each in paged["partitions"]]
    [broker] = python.describe_log_dirs()
    [directory] = broker["log_dirs"]
    [sizes] = [each["partitions"] for each in directory["topics"] if each["name"] == place]
    assert {0: True, 1: False} == {each["partition_index"]: each["partition_size"] > 0 for each in sizes}
    assert directory["total_bytes"] >= directory["usable_bytes"] > 0


def test_kafka_python_changes_topics(python: Any, place: str) -> None:
    from kafka import TopicPartition
    from kafka.admin import ConfigResource, OffsetSpec

    python.create_partitions({place: 3})
    python.alter_configs([ConfigResource("TOPIC", place, configs={"retention.ms": "60000"})])
    configs = python.describe_configs([ConfigResource("TOPIC", place)])["topic"][place]
    assert ("60000", "DYNAMIC_TOPIC_CONFIG") == (
        configs["retention.ms"]["value"],
        configs["retention.ms"]["config_source"],
    )
    python.reset_configs([ConfigResource("TOPIC", place, configs=["retention.ms"])])
    assert "retention.ms" not in python.describe_configs([ConfigResource("TOPIC", place)])["topic"][place]

    first = TopicPartition(place, 0)
    specs = [OffsetSpec.LATEST, OffsetSpec.EARLIEST, OffsetSpec.MAX_TIMESTAMP, WHEN + 1]
    assert [3, 0, 1, 1] == [python.list_partition_offsets({first: spec})[first].offset for spec in specs]
    assert 2 == python.delete_records({first: 2})[first]["low_watermark"]
    assert 2 == python.list_partition_offsets({first: OffsetSpec.EARLIEST})[first].offset
    elected = python.elect_leaders(0, {place: [0]})
    [result] = elected.replica_election_results
    assert [84] == [each.error_code for each in result.partition_result]  # ELECTION_NOT_NEEDED
    python.delete_topics([place])
    assert place not in python.list_topics()


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("BROKER", "log.retention.hours"),
        ("GROUP", "consumer.session.timeout.ms"),
        ("CLIENT_METRICS", "interval.ms"),
        ("BROKER_LOGGER", "root"),
    ],
)
def test_kafka_python_sees_configs_of_every_kind(python: Any, kind: str, option: str) -> None:
    from kafka.admin import ConfigResource

    broker = str(python.describe_cluster()["controller_id"])
    name = broker if kind.startswith("BROKER") else "somebody"

    told = python.describe_configs([ConfigResource(kind, name)], config_filter="all")

    assert told[kind.lower()][name][option]["value"]


def test_kafka_python_looks_for_users_and_groups(python: Any, topic: str) -> None:
    assert topic not in [group["group_id"] for group in python.list_groups()]

    def state() -> str:
        [told] = python.describe_groups([topic]).values()
        assert told["group_state"], told["error"]  # of the coordinator that is not ready, it says nothing
        return str(told["group_state"])

    assert "Dead" == settled(state, lambda error: getattr(error, "errno", min(UNDER_WAY)))
    assert {topic: {}} == python.list_group_offsets([topic])
    assert topic not in python.describe_user_scram_credentials()


def test_kafka_python_is_told_that_there_are_no_acls(python: Any) -> None:
    from kafka import admin
    from kafka.errors import SecurityDisabledError

    every = admin.ResourcePatternFilter(admin.ResourceType.ANY, None, admin.ACLResourcePatternType.ANY)
    of_all = admin.ACLFilter(None, None, admin.ACLOperation.ANY, admin.ACLPermissionType.ANY, every)

    with pytest.raises(SecurityDisabledError, match="No Authorizer is configured"):
        python.describe_acls(of_all)


# librdkafka ----------------------------------------------------------------------------------------------------


@pytest.fixture
def rdkafka(at: Endpoint) -> Any:
    require("confluent_kafka", "pip install confluent-kafka")
    from confluent_kafka.admin import AdminClient

    return AdminClient({"bootstrap.servers": at.servers})


def result(futures: dict[Any, Any]) -> Any:
    """Of the one thing asked for."""
    [future] = futures.values()
    return future.result(LIMIT_S)


def test_librdkafka_sees_the_cluster_and_topics(rdkafka: Any, at: Endpoint, place: str) -> None:
    from confluent_kafka import TopicCollection

    told = rdkafka.describe_cluster(include_authorized_operations=True).result(LIMIT_S)
    [node] = told.nodes
    assert at.servers == f"{node.host}:{node.port}"
    assert node.id == told.controller.id
    assert told.authorized_operations
    assert {0, 1} == set(rdkafka.list_topics(timeout=LIMIT_S).topics[place].partitions)
    described = result(rdkafka.describe_topics(TopicCollection([place])))
    assert [(0, node.id, [node.id]), (1, node.id, [node.id])] == [
        (each.id, each.leader.id, [one.id for one in each.isr]) for each in described.partitions
    ]


def test_librdkafka_changes_topics(rdkafka: Any, place: str) -> None:
    from confluent_kafka import ElectionType, TopicPartition
    from confluent_kafka.admin import (
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        NewPartitions,
        OffsetSpec,
    )

    entries = [ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND)]
    altered = ConfigResource(ConfigResource.Type.TOPIC, place, incremental_configs=entries)
    assert result(rdkafka.incremental_alter_configs([altered])) is None
    configs = result(rdkafka.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, place)]))
    assert ("delete,compact", False) == (
        configs["cleanup.policy"].value,
        configs["cleanup.policy"].is_default,
    )
    assert result(rdkafka.create_partitions([NewPartitions(place, 3)])) is None

    first = TopicPartition(place, 0)
    specs = [
        OffsetSpec.latest(),
        OffsetSpec.earliest(),
        OffsetSpec.max_timestamp(),
        OffsetSpec.for_timestamp(WHEN + 1),
    ]
    assert [3, 0, 1, 1] == [result(rdkafka.list_offsets({first: spec})).offset for spec in specs]
    assert 2 == result(rdkafka.delete_records([TopicPartition(place, 0, 2)])).low_watermark
    elected = rdkafka.elect_leaders(ElectionType.PREFERRED, [first]).result(LIMIT_S)
    assert [84] == [error.code() for error in elected.values()]  # ELECTION_NOT_NEEDED
    assert {} == rdkafka.elect_leaders(ElectionType.PREFERRED, None).result(LIMIT_S)
    assert result(rdkafka.delete_topics([place])) is None


def test_librdkafka_looks_for_users_groups_and_brokers(rdkafka: Any, topic: str) -> None:
    from confluent_kafka.admin import ConfigResource

    told = rdkafka.list_consumer_groups().result(LIMIT_S)
    assert [] == told.errors
    assert topic not in [group.group_id for group in told.valid]
    assert (
        "DEAD"
        == settled(
            lambda: result(rdkafka.describe_consumer_groups([topic])), lambda error: error.args[0].code()
        ).state.name
    )
    assert topic not in rdkafka.describe_user_scram_credentials().result(LIMIT_S)
    controller = str(rdkafka.describe_cluster().result(LIMIT_S).controller.id)
    broker = ConfigResource(ConfigResource.Type.BROKER, controller)
    configs = result(rdkafka.describe_configs([broker]))
    assert ("168", True) == (
        configs["log.retention.hours"].value,
        configs["log.retention.hours"].is_default,
    )
