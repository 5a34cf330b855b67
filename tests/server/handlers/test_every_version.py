"""Each API in each version, through the codec: requests as they arrive, answers as they leave, good ones and refusals."""

import pytest

from kbroker.protocol.codec import decode, encode
from kbroker.protocol.frames import decode_response, encode_response
from kbroker.protocol.messages import REQUESTS, RESPONSES
from kbroker.protocol.messages import api_versions as av
from kbroker.protocol.messages import cluster as cl
from kbroker.protocol.messages import configs as cf
from kbroker.protocol.messages import consumer_groups as cg
from kbroker.protocol.messages import groups as gr
from kbroker.protocol.messages import list_offsets as lo
from kbroker.protocol.messages import metadata as md
from kbroker.protocol.messages import offsets as of
from kbroker.protocol.messages import producers as pr
from kbroker.protocol.messages import quotas as qu
from kbroker.protocol.messages import security as se
from kbroker.protocol.messages import topics as tp
from kbroker.server.apis import APIS
from tests.support.rooms import House

TOPIC, BROKER = 2, 4


def metadata(version):
    yield md.MetadataRequest(topics=[] if version == 0 else None)
    yield md.MetadataRequest(topics=[md.MetadataRequestTopic(name=name) for name in ("t", "new", "a b")])
    yield md.MetadataRequest(
        topics=[md.MetadataRequestTopic(name="no")],
        allow_auto_topic_creation=version < 4,
        include_topic_authorized_operations=version >= 8,
        include_cluster_authorized_operations=8 <= version <= 10,
    )
    if version >= 10:
        yield md.MetadataRequest(topics=[md.MetadataRequestTopic(name=None, topic_id=bytes(range(16)))])
        yield md.MetadataRequest(topics=[md.MetadataRequestTopic(name=None)])


def find_coordinator(version):
    if version >= 4:
        for key_type in (0, 1, 2):
            yield gr.FindCoordinatorRequest(coordinator_keys=["a", "b"], key_type=key_type)
        return
    for key_type in (0, 1) if version else (0,):
        yield gr.FindCoordinatorRequest(key="a", key_type=key_type)


def api_versions(version):
    yield av.ApiVersionsRequest(client_software_name="a", client_software_version="1")
    if version >= 3:
        yield av.ApiVersionsRequest()


def create_topics(version):
    yield tp.CreateTopicsRequest(
        topics=[
            tp.CreatableTopic(name=name, num_partitions=2, replication_factor=1)
            for name in ("new", "t", "a b")
        ],
        validate_only=True,
    )


def delete_topics(version):
    if version >= 6:
        yield tp.DeleteTopicsRequest(
            topics=[
                tp.DeleteTopicState(name="t"),
                tp.DeleteTopicState(name="no"),
                tp.DeleteTopicState(),
                tp.DeleteTopicState(topic_id=bytes(range(16))),
            ]
        )
    else:
        yield tp.DeleteTopicsRequest(topic_names=["t", "no"])


def create_partitions(version):
    yield tp.CreatePartitionsRequest(
        topics=[tp.CreatePartitionsTopic(name=name, count=3, assignments=None) for name in ("t", "no")]
    )


def delete_records(version):
    partitions = [tp.DeleteRecordsPartition(partition_index=index, offset=-1) for index in (0, 9)]
    yield tp.DeleteRecordsRequest(topics=[tp.DeleteRecordsTopic(name="t", partitions=partitions)])


def init_producer_id(version):
    yield pr.InitProducerIdRequest(transactional_id=None)
    yield pr.InitProducerIdRequest(transactional_id="a")


def offset_for_leader_epoch(version):
    partitions = [lo.OffsetForLeaderPartition(partition=index, leader_epoch=0) for index in (0, 9)]
    yield lo.OffsetForLeaderEpochRequest(topics=[lo.OffsetForLeaderTopic(topic="t", partitions=partitions)])


def offset_commit(version):
    topic = of.OffsetCommitRequestTopic(
        partitions=[
            of.OffsetCommitRequestPartition(
                partition_index=index, committed_offset=3, committed_metadata=metadata
            )
            for index, metadata in ((0, "hi"), (1, None), (9, ""))
        ]
    )
    if version >= 10:
        topic.topic_id = bytes(range(16))
    else:
        topic.name = "t"
    yield of.OffsetCommitRequest(group_id="g", topics=[topic])
    yield of.OffsetCommitRequest(
        group_id="g", member_id="me", generation_id_or_member_epoch=1, topics=[topic]
    )


def offset_fetch(version):
    if version >= 8:
        topic = of.OffsetFetchRequestTopics(partition_indexes=[0, 9])
        if version >= 10:
            topic.topic_id = bytes(range(16))
        else:
            topic.name = "t"
        yield of.OffsetFetchRequest(
            groups=[of.OffsetFetchRequestGroup(group_id="g", topics=topics) for topics in ([topic], None)]
        )
    else:
        yield of.OffsetFetchRequest(
            group_id="g", topics=[of.OffsetFetchRequestTopic(name="t", partition_indexes=[0, 9])]
        )


def offset_delete(version):
    partitions = [of.OffsetDeleteRequestPartition(partition_index=index) for index in (0, 9)]
    topics = [of.OffsetDeleteRequestTopic(name="t", partitions=partitions)]
    for group_id in ("g", ""):
        yield of.OffsetDeleteRequest(group_id=group_id, topics=topics)


def join_group(version):
    for group_id, member_id in (("g", ""), ("g", "nobody"), ("", "")):
        yield gr.JoinGroupRequest(
            group_id=group_id,
            session_timeout_ms=10_000,
            rebalance_timeout_ms=10_000 if version else -1,
            member_id=member_id,
            group_instance_id="i" if version >= 5 else None,
            protocol_type="consumer",
            protocols=[gr.JoinGroupRequestProtocol(name="range", metadata=b"topics")],
            reason="why not" if version >= 8 else None,
        )


def sync_group(version):
    yield gr.SyncGroupRequest(
        group_id="g",
        generation_id=1,
        member_id="me",
        assignments=[gr.SyncGroupRequestAssignment(member_id="me", assignment=b"all")],
    )


def heartbeat(version):
    yield gr.HeartbeatRequest(group_id="g", generation_id=1, member_id="me")


def leave_group(version):
    if version < 3:
        yield gr.LeaveGroupRequest(group_id="g", member_id="me")
    else:
        members = [gr.MemberIdentity(member_id="me"), gr.MemberIdentity(group_instance_id="i")]
        yield gr.LeaveGroupRequest(group_id="g", members=members)


def describe_groups(version):
    yield gr.DescribeGroupsRequest(groups=["g", "nobody"], include_authorized_operations=version >= 3)


def list_groups(version):
    yield gr.ListGroupsRequest(
        states_filter=["Stable"] if version >= 4 else [], types_filter=["classic"] if version >= 5 else []
    )


def delete_groups(version):
    yield gr.DeleteGroupsRequest(groups_names=["g", "nobody"])


def describe_configs(version):
    yield cf.DescribeConfigsRequest(
        resources=[
            cf.DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=None)
            for kind, name in ((TOPIC, "t"), (TOPIC, "no"), (BROKER, "1"), (BROKER, ""), (99, ""))
        ],
        include_synonyms=True,
        include_documentation=version >= 3,
    )


def alter_configs(version):
    yield cf.AlterConfigsRequest(
        resources=[
            cf.AlterConfigsResource(
                resource_type=TOPIC,
                resource_name=name,
                configs=[cf.AlterableConfig(name="retention.ms", value="1")],
            )
            for name in ("t", "no")
        ]
    )


def incremental_alter_configs(version):
    yield cf.IncrementalAlterConfigsRequest(
        resources=[
            cf.IncrementalAlterConfigsResource(
                resource_type=TOPIC,
                resource_name=name,
                configs=[
                    cf.IncrementalAlterableConfig(name="retention.ms", config_operation=0, value="1"),
                    cf.IncrementalAlterableConfig(name="segment.ms", config_operation=1, value=None),
                ],
            )
            for name in ("t", "no")
        ]
    )


def describe_log_dirs(version):
    yield cl.DescribeLogDirsRequest(topics=None)
    yield cl.DescribeLogDirsRequest(topics=[cl.DescribableLogDirTopic(topic="t", partitions=[0, 9])])


def describe_cluster(version):
    for endpoint_type in (1, 2) if version else (1,):
        yield cl.DescribeClusterRequest(endpoint_type=endpoint_type)


def elect_leaders(version):
    named = [cl.TopicPartitions(topic=name, partitions=[0, 9]) for name in ("t", "no")]
    for election_type in (0, 1, 9) if version else (0,):
        yield cl.ElectLeadersRequest(election_type=election_type, topic_partitions=named)
        yield cl.ElectLeadersRequest(election_type=election_type, topic_partitions=None)


def list_partition_reassignments(version):
    yield cl.ListPartitionReassignmentsRequest()
    wanted = cl.ListPartitionReassignmentsTopics(name="t", partition_indexes=[0])
    yield cl.ListPartitionReassignmentsRequest(topics=[wanted])


def describe_acls(version):
    yield se.DescribeAclsRequest(
        resource_type_filter=1, pattern_type_filter=1, operation=1, permission_type=1
    )


def create_acls(version):
    yield se.CreateAclsRequest(creations=[])
    yield se.CreateAclsRequest(
        creations=[se.AclCreation(resource_type=2, resource_name=name) for name in "ab"]
    )


def delete_acls(version):
    yield se.DeleteAclsRequest(filters=[se.DeleteAclsFilter(resource_type_filter=1)] * 2)


def describe_user_scram_credentials(version):
    yield se.DescribeUserScramCredentialsRequest(users=None)
    yield se.DescribeUserScramCredentialsRequest(users=[se.UserName(name=name) for name in "aab"])


def describe_quorum(version):
    for name in ("__cluster_metadata", "t"):
        partitions = [cl.PartitionData(partition_index=0)]
        yield cl.DescribeQuorumRequest(topics=[cl.TopicData(topic_name=name, partitions=partitions)])


def describe_client_quotas(version):
    for kind, match in ((0, "anne"), (1, None), (2, None), (7, None)):
        component = qu.ComponentData(entity_type="user", match_type=kind, match=match)
        yield qu.DescribeClientQuotasRequest(components=[component], strict=True)


def alter_client_quotas(version):
    for kind, name in (("user", "anne"), ("ip", "nowhere")):
        entry = qu.AlterClientQuotasEntryData(
            entity=[qu.EntityData(entity_type=kind, entity_name=name)],
            ops=[qu.OpData(key="producer_byte_rate", value=1e6), qu.OpData(key="other", remove=True)],
        )
        yield qu.AlterClientQuotasRequest(entries=[entry])


def update_features(version):
    for level in (30, 29):
        update = cl.FeatureUpdateKey(feature="metadata.version", max_version_level=level)
        yield cl.UpdateFeaturesRequest(feature_updates=[update])


def consumer_group_heartbeat(version):
    yield cg.ConsumerGroupHeartbeatRequest(
        group_id="g", member_id="m", subscribed_topic_names=["t"], topic_partitions=[]
    )
    by_pattern = {"subscribed_topic_regex": "t.*"} if version else {}
    yield cg.ConsumerGroupHeartbeatRequest(group_id="g", member_id="m", **by_pattern)


def consumer_group_describe(version):
    yield cg.ConsumerGroupDescribeRequest(group_ids=["g", "h"], include_authorized_operations=True)


def list_config_resources(version):
    yield cf.ListConfigResourcesRequest()
    if version:
        yield cf.ListConfigResourcesRequest(resource_types=[TOPIC, BROKER])
        yield cf.ListConfigResourcesRequest(resource_types=[3])


def describe_topic_partitions(version):
    yield md.DescribeTopicPartitionsRequest()
    named = [md.TopicRequest(name=name) for name in ("t", "no", "a b")]
    for cursor in (None, md.Cursor(topic_name="t", partition_index=1), md.Cursor(topic_name="u")):
        yield md.DescribeTopicPartitionsRequest(topics=named, cursor=cursor, response_partition_limit=1)


REQUESTS_OF = {
    3: metadata,
    8: offset_commit,
    9: offset_fetch,
    10: find_coordinator,
    11: join_group,
    12: heartbeat,
    13: leave_group,
    14: sync_group,
    15: describe_groups,
    16: list_groups,
    18: api_versions,
    19: create_topics,
    20: delete_topics,
    21: delete_records,
    22: init_producer_id,
    23: offset_for_leader_epoch,
    29: describe_acls,
    30: create_acls,
    31: delete_acls,
    32: describe_configs,
    33: alter_configs,
    35: describe_log_dirs,
    37: create_partitions,
    42: delete_groups,
    43: elect_leaders,
    44: incremental_alter_configs,
    46: list_partition_reassignments,
    47: offset_delete,
    48: describe_client_quotas,
    49: alter_client_quotas,
    50: describe_user_scram_credentials,
    55: describe_quorum,
    57: update_features,
    60: describe_cluster,
    68: consumer_group_heartbeat,
    69: consumer_group_describe,
    74: list_config_resources,
    75: describe_topic_partitions,
}
EVERY = [
    (key, version) for key in REQUESTS_OF for version in range(APIS[key].served[0], APIS[key].served[1] + 1)
]


@pytest.mark.parametrize("key, version", EVERY)
async def test_requests_and_answers_fit_their_version(tmp_path, key, version):
    house = House(tmp_path, {"group.initial.rebalance.delay.ms": "0"})
    house.open_disk()
    house.create("t", 2)
    house.create("__consumer_offsets", 2)

    for request in REQUESTS_OF[key](version):
        sent = b"".join(map(bytes, encode(request, version)))
        arrived = decode(REQUESTS[key], version, memoryview(sent), 0, len(sent))
        answer = await house.ask(APIS[key].load()[0], arrived, version=version)

        left = encode_response(answer, version, 7)
        frame = left if isinstance(left, bytes) else b"".join(map(bytes, left))
        correlation_id, seen = decode_response(RESPONSES[key], version, memoryview(frame)[4:])

        assert (7, len(frame) - 4) == (correlation_id, int.from_bytes(frame[:4], "big"))
        assert encode(seen, version) == encode(answer, version)
