"""Every API in every version that kbroker serves: a small request is answered without an error, in the right shape.

The same requests go to Apache Kafka with `--peer=kafka`: what kbroker's codec writes, Kafka reads, and the reverse.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kbroker.protocol.messages import APIS as NAMES
from kbroker.protocol.messages.api_versions import ApiVersionsRequest
from kbroker.protocol.messages.cluster import (
    DescribeClusterRequest,
    DescribeLogDirsRequest,
    DescribeQuorumRequest,
    ElectLeadersRequest,
    FeatureUpdateKey,
    ListPartitionReassignmentsRequest,
    PartitionData,
    TopicData,
    UpdateFeaturesRequest,
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
    ListConfigResourcesRequest,
)
from kbroker.protocol.messages.consumer_groups import (
    ConsumerGroupDescribeRequest,
    ConsumerGroupHeartbeatRequest,
)
from kbroker.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from kbroker.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from kbroker.protocol.messages.metadata import (
    DescribeTopicPartitionsRequest,
    MetadataRequest,
    MetadataRequestTopic,
    TopicRequest,
)
from kbroker.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from kbroker.protocol.messages.producers import InitProducerIdRequest
from kbroker.protocol.messages.quotas import (
    AlterClientQuotasEntryData,
    AlterClientQuotasRequest,
    ComponentData,
    DescribeClientQuotasRequest,
    EntityData,
    OpData,
)
from kbroker.protocol.messages.security import (
    AclCreation,
    CreateAclsRequest,
    DeleteAclsFilter,
    DeleteAclsRequest,
    DescribeAclsRequest,
    DescribeUserScramCredentialsRequest,
)
from kbroker.protocol.messages.topics import (
    CreatableTopic,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
    CreateTopicsRequest,
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
    DeleteTopicsRequest,
    DeleteTopicState,
)
from kbroker.protocol.records import Record, build_batch
from kbroker.protocol.wire import Message
from kbroker.server.apis import APIS
from tests.compat import group_requests
from tests.support.peers import Peer
from tests.support.raw import RawClient, error_codes

TOPIC = 2  # a type of resources, of configs and of ACLs
ANY, READ, ALLOW = 1, 3, 3  # in ACLs and filters of them
PRODUCE, FETCH, API_VERSIONS = 0, 1, 18
UNSUPPORTED_VERSION = 35
SECURITY_DISABLED = 54
REFUSED = {
    **dict.fromkeys((29, 30, 31), SECURITY_DISABLED),  # no authorizer is configured
    **dict.fromkeys((68, 69), UNSUPPORTED_VERSION),  # groups of the new kind, with group.version=0
}
# LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE,
# NOT_COORDINATOR: ask again
UNDER_WAY = {5, 6, 14, 15, 16}
LIMIT_S = 60.0


class Place:
    """Where a request points: a topic made for it, by name and by id."""

    def __init__(self, name: str, topic_id: bytes, ask: RawClient) -> None:
        self.name = name
        self.id = topic_id
        self.ask = ask
        self.member: tuple[str, int] | None = None  # the only one of the group of this name


def batch() -> bytes:
    return build_batch([Record(-1, 1_700_000_000_000, b"key", b"value")])


# The smallest request of each API that has something to answer.
REQUESTS: dict[int, Callable[[int, Place], Message]] = {
    PRODUCE: lambda version, at: ProduceRequest(
        acks=-1,
        timeout_ms=5000,
        topic_data=[
            TopicProduceData(
                name=at.name,
                topic_id=at.id,
                partition_data=[PartitionProduceData(index=0, records=batch())],
            )
        ],
    ),
    FETCH: lambda version, at: FetchRequest(
        max_wait_ms=0,
        min_bytes=0,
        max_bytes=1 << 20,
        topics=[
            FetchTopic(
                topic=at.name,
                topic_id=at.id,
                partitions=[FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)],
            )
        ],
    ),
    2: lambda version, at: ListOffsetsRequest(
        replica_id=-1,
        topics=[
            ListOffsetsTopic(name=at.name, partitions=[ListOffsetsPartition(partition_index=0, timestamp=-1)])
        ],
    ),
    3: lambda version, at: MetadataRequest(topics=[MetadataRequestTopic(name=at.name)]),
    API_VERSIONS: lambda version, at: ApiVersionsRequest(
        client_software_name="raw", client_software_version="1"
    ),
    19: lambda version, at: CreateTopicsRequest(
        topics=[CreatableTopic(name=f"{at.name}-{version}-new", num_partitions=1, replication_factor=1)]
    ),
    20: lambda version, at: (
        DeleteTopicsRequest(topic_names=[at.name], timeout_ms=5000)
        if version < 6
        else DeleteTopicsRequest(topics=[DeleteTopicState(name=at.name)], timeout_ms=5000)
    ),
    21: lambda version, at: DeleteRecordsRequest(
        timeout_ms=5000,
        topics=[
            DeleteRecordsTopic(
                name=at.name, partitions=[DeleteRecordsPartition(partition_index=0, offset=-1)]
            )
        ],
    ),
    22: lambda version, at: InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000),
    23: lambda version, at: OffsetForLeaderEpochRequest(
        replica_id=-1,
        topics=[
            OffsetForLeaderTopic(
                topic=at.name, partitions=[OffsetForLeaderPartition(partition=0, leader_epoch=0)]
            )
        ],
    ),
    29: lambda version, at: DescribeAclsRequest(
        resource_type_filter=ANY, pattern_type_filter=ANY, operation=ANY, permission_type=ANY
    ),
    30: lambda version, at: CreateAclsRequest(
        creations=[
            AclCreation(
                resource_type=TOPIC,
                resource_name=at.name,
                principal="User:somebody",
                host="*",
                operation=READ,
                permission_type=ALLOW,
            )
        ]
    ),
    31: lambda version, at: DeleteAclsRequest(
        filters=[
            DeleteAclsFilter(
                resource_type_filter=ANY, pattern_type_filter=ANY, operation=ANY, permission_type=ANY
            )
        ]
    ),
    32: lambda version, at: DescribeConfigsRequest(
        resources=[
            DescribeConfigsResource(resource_type=TOPIC, resource_name=at.name, configuration_keys=None)
        ],
        include_synonyms=True,
        include_documentation=version >= 3,
    ),
    33: lambda version, at: AlterConfigsRequest(
        resources=[
            AlterConfigsResource(
                resource_type=TOPIC,
                resource_name=at.name,
                configs=[AlterableConfig(name="retention.ms", value="1000000")],
            )
        ]
    ),
    35: lambda version, at: DescribeLogDirsRequest(topics=None),
    37: lambda version, at: CreatePartitionsRequest(
        topics=[CreatePartitionsTopic(name=at.name, count=3, assignments=None)], timeout_ms=5000
    ),
    43: lambda version, at: ElectLeadersRequest(topic_partitions=None),
    44: lambda version, at: _incremental(at),
    46: lambda version, at: ListPartitionReassignmentsRequest(),
    48: lambda version, at: DescribeClientQuotasRequest(
        components=[ComponentData(entity_type="user", match_type=2, match=None)]
    ),
    49: lambda version, at: AlterClientQuotasRequest(
        entries=[
            AlterClientQuotasEntryData(
                entity=[EntityData(entity_type="user", entity_name="nobody")],
                ops=[OpData(key="producer_byte_rate", value=1e9)],
            )
        ]
    ),
    50: lambda version, at: DescribeUserScramCredentialsRequest(users=None),
    55: lambda version, at: DescribeQuorumRequest(
        topics=[TopicData(topic_name="__cluster_metadata", partitions=[PartitionData(partition_index=0)])]
    ),
    57: lambda version, at: UpdateFeaturesRequest(
        feature_updates=[FeatureUpdateKey(feature="metadata.version", max_version_level=30)]
    ),
    60: lambda version, at: DescribeClusterRequest(),
    68: lambda version, at: ConsumerGroupHeartbeatRequest(
        group_id=at.name,
        member_id="member",
        rebalance_timeout_ms=30_000,
        subscribed_topic_names=[at.name],
        topic_partitions=[],
    ),
    69: lambda version, at: ConsumerGroupDescribeRequest(group_ids=[at.name]),
    74: lambda version, at: ListConfigResourcesRequest(resource_types=[TOPIC] if version else []),
    75: lambda version, at: DescribeTopicPartitionsRequest(topics=[TopicRequest(name=at.name)]),
    **group_requests.REQUESTS,
}


def _incremental(at: Place) -> Message:
    change = IncrementalAlterableConfig(name="retention.ms", config_operation=0, value="1000000")
    resource = IncrementalAlterConfigsResource(resource_type=TOPIC, resource_name=at.name, configs=[change])
    return IncrementalAlterConfigsRequest(resources=[resource])


SERVED = [
    pytest.param(key, version, id=f"{NAMES[key][1]}-v{version}")
    for key, api in sorted(APIS.items())
    for version in range(api.served[0], api.served[1] + 1)
]


@pytest.fixture
def ask(peer: Peer) -> Iterator[RawClient]:
    host, port = peer.plain.servers.split(":")
    with RawClient(host, int(port)) as client:
        yield client


@pytest.fixture
def place(ask: RawClient, topic: str) -> Place:
    """A topic with one record."""
    ask(CreateTopicsRequest(topics=[CreatableTopic(name=topic, num_partitions=1, replication_factor=1)]), 7)
    deadline = time.monotonic() + LIMIT_S
    while True:
        asked = MetadataRequest(topics=[MetadataRequestTopic(name=topic)], allow_auto_topic_creation=False)
        [told] = ask(asked, 12).topics
        if told.error_code == 0 and told.partitions[0].error_code == 0:
            break
        assert time.monotonic() < deadline, f"the topic does not come up: error {told.error_code}"
    at = Place(topic, told.topic_id, ask)
    assert [0] == error_codes(settled(ask, PRODUCE, 9, at))
    return at


def settled(ask: RawClient, key: int, version: int, at: Place) -> Any:
    """The answer once the broker has caught up with what it acknowledged: Kafka takes a moment after a new topic, and
    before its first producer id."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        response = ask(REQUESTS[key](version, at), version)
        if not UNDER_WAY & set(error_codes(response)) or time.monotonic() > deadline:
            return response
        time.sleep(0.02)


@pytest.mark.parametrize(("key", "version"), SERVED)
def test_every_version_is_answered_in_its_own_shape(
    key: int, version: int, ask: RawClient, place: Place
) -> None:
    response = settled(ask, key, version, place)

    assert set(error_codes(response)) <= {REFUSED.get(key, 0)}
    LOOK.get(key, lambda told: None)(response)


def _look_at_fetched(told: Any) -> None:
    [partition] = told.responses[0].partitions
    assert 1 == partition.high_watermark
    assert batch()[17:] == bytes(partition.records)[17:]  # all but the stamped offset and leader epoch


def _look_at_committed(told: Any) -> None:
    [topic] = told.topics or told.groups[0].topics
    [partition] = topic.partitions
    assert (1, "hi") == (partition.committed_offset, partition.metadata)


def _look_at_metadata(told: Any) -> None:
    assert told.brokers
    assert told.topics[0].partitions[0].leader_id == told.brokers[0].node_id


def _look_at_quorum(told: Any) -> None:
    [partition] = told.topics[0].partitions
    [voter] = partition.current_voters
    assert partition.leader_id == voter.replica_id
    assert 0 < partition.high_watermark <= voter.log_end_offset


# What a version's answer must hold beside "no error".
LOOK: dict[int, Callable[[Any], None]] = {
    PRODUCE: lambda told: _equal(1, told.responses[0].partition_responses[0].base_offset),
    FETCH: _look_at_fetched,
    2: lambda told: _equal(1, told.topics[0].partitions[0].offset),
    3: _look_at_metadata,
    API_VERSIONS: lambda told: _equal(True, {0, 1, 2, 3, 18} <= {api.api_key for api in told.api_keys}),
    9: _look_at_committed,
    11: lambda told: _equal(told.leader, told.member_id),
    14: lambda told: _equal(b"\0\0", told.assignment),
    15: lambda told: _equal(["Stable"], [group.group_state for group in told.groups]),
    16: lambda told: _equal(True, bool(told.groups)),
    21: lambda told: _equal(1, told.topics[0].partitions[0].low_watermark),
    32: lambda told: _equal(True, any(row.name == "retention.ms" for row in told.results[0].configs)),
    55: lambda told: _look_at_quorum(told),
    60: lambda told: _equal(1, len(told.brokers)),
    75: lambda told: _equal([0], [each.partition_index for each in told.topics[0].partitions]),
}


def _equal(expected: object, found: object) -> None:
    assert expected == found


def test_each_advertised_range_is_kafkas(ask: RawClient, peer_kind: str) -> None:
    told = {
        api.api_key: (api.min_version, api.max_version)
        for api in ask(REQUESTS[API_VERSIONS](3, Place("", b"", ask)), 3).api_keys
    }

    assert {key: api.advertised for key, api in APIS.items()} == {key: told[key] for key in APIS}
    if peer_kind == "kbroker":
        assert set(APIS) == set(told)


def test_an_unknown_version_of_api_versions_is_answered_in_version_0(ask: RawClient) -> None:
    """KIP-511: error 35 and our own range, so that the client can ask again."""
    ask.send(bytes.fromhex("0000000e 0012 0063 00000007 0003 726177 00".replace(" ", "")))

    frame = bytes(ask.frame())

    assert (7).to_bytes(4, "big") + UNSUPPORTED_VERSION.to_bytes(2, "big") == frame[:6]
    assert (1).to_bytes(4, "big") + (18).to_bytes(2, "big") == frame[6:12]


@pytest.mark.parametrize("version", [0, 1, 2], ids="v{}".format)
def test_produce_before_version_3_closes_the_connection(version: int, ask: RawClient) -> None:
    ask.send(bytes([0, 0, 0, 10, 0, 0, 0, version, 0, 0, 0, 1, 255, 255]))

    with pytest.raises(ConnectionError):
        ask.frame()


def test_bytes_after_a_request_are_ignored(ask: RawClient) -> None:
    """Kafka ignores them, and librdkafka sends some: its Metadata v9+ for all topics has three too many."""
    frame = "00000018 0003 000d 00000003 0006 636f6d706174 00 00 000000 010000"
    ask.send(bytes.fromhex(frame.replace(" ", "")))

    assert (3).to_bytes(4, "big") == bytes(ask.frame()[:4])
