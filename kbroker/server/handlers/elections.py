"""ElectLeaders, ListPartitionReassignments, DescribeQuorum: who leads, what moves, who keeps the cluster's log.

Answered from the cluster's state. The partitions of one broker are led by their only replica: there is nothing to elect,
nothing to move, and the quorum is this broker.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Iterable, Iterator
from typing import Any

from kbroker.cluster.state import PartitionState
from kbroker.errors import ErrorCode
from kbroker.model import NO_BROKER
from kbroker.protocol.messages.cluster import (
    DescribeQuorumPartitionData,
    DescribeQuorumRequest,
    DescribeQuorumResponse,
    DescribeQuorumTopicData,
    ElectLeadersRequest,
    ElectLeadersResponse,
    Listener,
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    Node,
    PartitionResult,
    ReplicaElectionResult,
    ReplicaState,
)
from kbroker.protocol.wire import ZERO_UUID
from kbroker.server.handlers.topics import CLUSTER_METADATA_TOPIC
from kbroker.server.rooms import Call, Rooms, breathe
from kbroker.server.slices import SLICE, Large, Pace, Steps, in_slices

PREFERRED, UNCLEAN = range(2)  # types of election
# Answers that carry a sentence: a request must not be answered by a multiple of its size.
MESSAGES_MAX = 1000


# ElectLeaders --------------------------------------------------------------------------------------------------


async def handle_elect_leaders(
    rooms: Rooms, call: Call, request: ElectLeadersRequest
) -> ElectLeadersResponse:
    """ElectLeaders: v0-2.

    A partition that is led as it should be answers ELECTION_NOT_NEEDED; where all are asked for (null) only others are
    listed. One that nobody leads has no replica that could.
    v1 types of election (KIP-460) · v2 flexible
    """
    asked = request.topic_partitions
    response = ElectLeadersResponse(error_code=ErrorCode.NONE)
    if request.election_type not in (PREFERRED, UNCLEAN) and asked != []:
        response.error_code = ErrorCode.INVALID_REQUEST
        if asked is None:
            return response
    looked_at = 0
    for topic, indexes in _every_partition(rooms) if asked is None else _named(request):
        results = []
        for index in indexes:
            result = _elected(rooms, topic, index, request.election_type)
            looked_at += 1
            if looked_at > MESSAGES_MAX:
                result.error_message = None
            if looked_at % SLICE == 0:
                await breathe()
            if asked is not None or result.error_code != ErrorCode.ELECTION_NOT_NEEDED:
                results.append(result)
        response.replica_election_results.append(ReplicaElectionResult(topic=topic, partition_result=results))
    return response


def _named(request: ElectLeadersRequest) -> Iterator[tuple[str, Iterable[int]]]:
    return ((each.topic, each.partitions) for each in request.topic_partitions or ())


def _every_partition(rooms: Rooms) -> Iterator[tuple[str, Iterable[int]]]:
    # a list: topics come and go while the answer is made
    return ((topic.name, range(len(topic.partitions))) for topic in list(rooms.cluster.state.topics.values()))


def _elected(rooms: Rooms, name: str, index: int, election_type: int) -> PartitionResult:
    """What becomes of one partition's election."""
    topic = rooms.cluster.state.topics.get(name)
    if election_type not in (PREFERRED, UNCLEAN):
        code, why = ErrorCode.INVALID_REQUEST, f"Unknown election type {election_type}"
    elif topic is None:
        code, why = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"No such topic as {name}"
    elif not 0 <= index < len(topic.partitions):
        code, why = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"No such partition as {name}-{index}"
    else:
        code, why = _needed(topic.partitions[index], election_type)
    return PartitionResult(partition_id=index, error_code=code, error_message=why)


def _needed(partition: PartitionState, election_type: int) -> tuple[ErrorCode, str]:
    if election_type == UNCLEAN:
        if partition.leader != NO_BROKER:
            return ErrorCode.ELECTION_NOT_NEEDED, _NOT_NEEDED
        return ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, "No replica is there that could lead the partition."
    if partition.leader == partition.replicas[0]:
        return ErrorCode.ELECTION_NOT_NEEDED, _NOT_NEEDED
    return ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE, "The preferred leader is not there."


_NOT_NEEDED = "Leader election not needed for topic partition."


# ListPartitionReassignments ------------------------------------------------------------------------------------


def handle_list_partition_reassignments(
    rooms: Rooms, call: Call, request: ListPartitionReassignmentsRequest
) -> ListPartitionReassignmentsResponse:
    """ListPartitionReassignments: v0.

    Nothing is being moved: there is one broker. What is asked for and does not exist is left out, as Kafka does.
    """
    return ListPartitionReassignmentsResponse(error_message=None)


# DescribeQuorum ------------------------------------------------------------------------------------------------


def handle_describe_quorum(
    rooms: Rooms, call: Call, request: DescribeQuorumRequest
) -> DescribeQuorumResponse | Coroutine[Any, Any, Large[DescribeQuorumResponse]]:
    """DescribeQuorum: v0-2.

    The cluster's log under Kafka's name for it, with its real term and offsets; this broker is its voter and leader. Any
    other partition, or one more beside it, answers UNKNOWN_TOPIC_OR_PARTITION for all.
    v1 times of fetching and catching up (KIP-836) · v2 directories, nodes with their listeners (KIP-853)
    """
    return in_slices(call, _describing_quorum(rooms, call, request))


def _describing_quorum(
    rooms: Rooms, call: Call, request: DescribeQuorumRequest
) -> Steps[DescribeQuorumResponse]:
    pace = Pace()
    response = DescribeQuorumResponse(error_message="")
    asked: list[tuple[str, int]] = []
    for topic in request.topics:
        asked += [(topic.topic_name, each.partition_index) for each in topic.partitions[:2]]
        if len(asked) > 1:
            break
        if pace.over():
            yield None
    if asked != [(CLUSTER_METADATA_TOPIC, 0)]:
        yield from _fill_not_hosted(response, request, pace)
        return response
    response.topics = [
        DescribeQuorumTopicData(topic_name=CLUSTER_METADATA_TOPIC, partitions=[_quorum(rooms, call.version)])
    ]
    if call.version >= 2:
        response.nodes = _nodes(rooms)
    return response


def _nodes(rooms: Rooms) -> list[Node]:
    return [
        Node(
            node_id=broker.id,
            listeners=[Listener(name=at.listener, host=at.host, port=at.port) for at in broker.endpoints],
        )
        for broker in rooms.cluster.state.brokers.values()
    ]


def _fill_not_hosted(
    response: DescribeQuorumResponse, request: DescribeQuorumRequest, pace: Pace
) -> Generator[None, None, None]:
    messages_left = MESSAGES_MAX
    for topic in request.topics:
        partitions: list[DescribeQuorumPartitionData] = []
        response.topics.append(DescribeQuorumTopicData(topic_name=topic.topic_name, partitions=partitions))
        for each in topic.partitions:
            partitions.append(
                DescribeQuorumPartitionData(
                    partition_index=each.partition_index,
                    error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                    error_message="This server does not host this topic-partition." if messages_left else "",
                )
            )
            messages_left = max(messages_left - 1, 0)
            if pace.over():
                yield
        if pace.over():
            yield


def _quorum(rooms: Rooms, version: int) -> DescribeQuorumPartitionData:
    status, now = rooms.cluster.status, rooms.clock.wall_ms()
    end = status.index + 1  # the offset of the next entry
    return DescribeQuorumPartitionData(
        partition_index=0,
        error_message="",
        leader_id=rooms.cluster.leader,
        leader_epoch=status.term,
        high_watermark=end,
        current_voters=[
            ReplicaState(
                replica_id=broker.id,
                replica_directory_id=broker.directory.bytes if version >= 2 else ZERO_UUID,
                log_end_offset=end,
                last_fetch_timestamp=now,
                last_caught_up_timestamp=now,
            )
            for broker in rooms.cluster.state.brokers.values()
        ],
        observers=[],
    )
