"""ElectLeaders, ListPartitionReassignments, DescribeQuorum."""

from types import SimpleNamespace

import pytest

from kbroker.cluster.state import Broker
from kbroker.errors import ErrorCode
from kbroker.protocol.messages.cluster import (
    DescribeQuorumRequest,
    ElectLeadersRequest,
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsTopics,
    PartitionData,
    TopicData,
    TopicPartitions,
)
from kbroker.server.handlers import elections
from kbroker.server.handlers.elections import (
    handle_describe_quorum,
    handle_elect_leaders,
    handle_list_partition_reassignments,
)
from tests.support.rooms import NODE, PLAIN, TLS, House

PREFERRED, UNCLEAN = 0, 1


@pytest.fixture
def house(tmp_path):
    return House(tmp_path, clock=SimpleNamespace(wall_ms=lambda: 1_700_000_000_000))


async def elected(house, asked, election_type=PREFERRED, *, version=2):
    """Code of each partition, by topic, as answered."""
    topics = asked and [TopicPartitions(topic=name, partitions=list(indexes)) for name, indexes in asked]
    request = ElectLeadersRequest(election_type=election_type, topic_partitions=topics)
    response = await house.ask(handle_elect_leaders, request, version=version)
    assert ErrorCode.NONE == response.error_code
    return [
        (each.topic, [(one.partition_id, one.error_code) for one in each.partition_result])
        for each in response.replica_election_results
    ]


@pytest.mark.parametrize("election_type", [PREFERRED, UNCLEAN])
async def test_a_partition_that_is_led_needs_no_election(house, election_type):
    house.create("t", 2)

    assert [("t", [(1, ErrorCode.ELECTION_NOT_NEEDED)])] == await elected(house, [("t", [1])], election_type)


async def test_of_all_partitions_only_those_with_something_to_tell_are_listed(house):
    house.create("a", 2)
    house.create("b")

    assert [("a", []), ("b", [])] == await elected(house, None)


async def test_what_does_not_exist_is_said(house):
    house.create("t")
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    expected = [("t", [(1, unknown), (-1, unknown)]), ("no", [(0, unknown)])]
    assert expected == await elected(house, [("t", [1, -1]), ("no", [0])])


async def test_a_partition_that_another_leads_or_nobody_finds_no_better_leader(house):
    """Its preferred replica is not there, or it would lead."""
    topic = house.create("t", 2, replicas=(7, NODE))
    topic.partitions[0].leader = NODE
    topic.partitions[1].leader = -1

    missing = ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE
    assert [("t", [(0, missing), (1, missing)])] == await elected(house, [("t", [0, 1])])
    assert [("t", [(0, missing), (1, missing)])] == await elected(house, None)
    expected = [(0, ErrorCode.ELECTION_NOT_NEEDED), (1, ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE)]
    assert [("t", expected)] == await elected(house, [("t", [0, 1])], UNCLEAN)


async def test_an_unknown_type_of_election_is_refused_for_each(house):
    house.create("t")
    asked = [TopicPartitions(topic="t", partitions=[0])]

    response = await house.ask(
        handle_elect_leaders, ElectLeadersRequest(election_type=5, topic_partitions=asked), version=2
    )

    assert ErrorCode.INVALID_REQUEST == response.error_code
    [[result]] = [each.partition_result for each in response.replica_election_results]
    assert (ErrorCode.INVALID_REQUEST, "Unknown election type 5") == (result.error_code, result.error_message)


@pytest.mark.parametrize("asked, error", [(None, ErrorCode.INVALID_REQUEST), ([], ErrorCode.NONE)])
async def test_of_an_unknown_type_for_all_or_none_there_is_nothing_to_list(house, asked, error):
    house.create("t")

    response = await house.ask(
        handle_elect_leaders, ElectLeadersRequest(election_type=5, topic_partitions=asked), version=2
    )

    assert (error, []) == (response.error_code, response.replica_election_results)


async def test_many_answers_carry_no_sentence_and_let_others_be_served(house, monkeypatch):
    monkeypatch.setattr(elections, "MESSAGES_MAX", 2)
    monkeypatch.setattr(elections, "SLICE", 2)
    asked = [TopicPartitions(topic="no", partitions=list(range(5)))]

    response = await house.ask(handle_elect_leaders, ElectLeadersRequest(topic_partitions=asked), version=2)

    [results] = [each.partition_result for each in response.replica_election_results]
    assert [True, True, False, False, False] == [each.error_message is not None for each in results]


async def test_nothing_is_being_reassigned(house):
    house.create("t")
    named = [ListPartitionReassignmentsTopics(name=name, partition_indexes=[0]) for name in ("t", "no")]

    for topics in (None, named):
        request = ListPartitionReassignmentsRequest(topics=topics)
        response = await house.ask(handle_list_partition_reassignments, request, version=0)

        assert (ErrorCode.NONE, []) == (response.error_code, response.topics)


def quorum_of(*names):
    return DescribeQuorumRequest(
        topics=[
            TopicData(topic_name=name, partitions=[PartitionData(partition_index=index)])
            for name, index in names
        ]
    )


async def test_this_broker_is_the_quorum_with_its_logs_own_numbers(house):
    house.create("t")  # one more entry in the log
    status = house.log.status

    response = await house.ask(handle_describe_quorum, quorum_of(("__cluster_metadata", 0)), version=2)

    [partition] = response.topics[0].partitions
    assert (NODE, status.term) == (partition.leader_id, partition.leader_epoch)
    assert status.index + 1 == partition.high_watermark
    [voter] = partition.current_voters
    broker: Broker = house.state.brokers[NODE]
    expected = (NODE, broker.directory.bytes, status.index + 1, 1_700_000_000_000)
    assert expected == (
        voter.replica_id,
        voter.replica_directory_id,
        voter.log_end_offset,
        voter.last_caught_up_timestamp,
    )
    assert [] == partition.observers
    [node] = response.nodes
    assert [(at.listener, at.host, at.port) for at in (PLAIN, TLS)] == [
        (each.name, each.host, each.port) for each in node.listeners
    ]


@pytest.mark.parametrize(
    "names", [[("t", 0)], [("__cluster_metadata", 1)], [("__cluster_metadata", 0), ("t", 0)]]
)
async def test_only_the_clusters_log_has_a_quorum(house, names):
    house.create("t")

    response = await house.ask(handle_describe_quorum, quorum_of(*names), version=2)

    codes = {each.error_code for topic in response.topics for each in topic.partitions}
    assert {ErrorCode.UNKNOWN_TOPIC_OR_PARTITION} == codes
    assert [name for name, _ in names] == [topic.topic_name for topic in response.topics]
    assert [] == response.nodes
