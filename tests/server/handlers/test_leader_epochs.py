"""OffsetForLeaderEpoch, against what Kafka 4.3 answers."""

import pytest

from kbroker.cluster.commands import EpochFloor, RaiseEpochs
from kbroker.errors import ErrorCode
from kbroker.protocol.messages.list_offsets import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from kbroker.server.handlers.leader_epochs import handle_offset_for_leader_epoch
from tests.support.rooms import House


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    house.open_disk()
    return house


def raise_epoch(house, epoch):
    house.do(RaiseEpochs([EpochFloor(house.state.topics["t"].id, 0, epoch)]))


async def ask(house, epoch, *, current=-1, topic="t", partition=0, version=4):
    asked = OffsetForLeaderPartition(partition=partition, current_leader_epoch=current, leader_epoch=epoch)
    request = OffsetForLeaderEpochRequest(topics=[OffsetForLeaderTopic(topic=topic, partitions=[asked])])
    response = await house.ask(handle_offset_for_leader_epoch, request, version=version)
    [[answer]] = [each.partitions for each in response.topics]
    assert partition == answer.partition
    return answer.error_code, answer.leader_epoch, answer.end_offset


@pytest.mark.parametrize("version", [2, 3, 4])
async def test_an_epoch_ends_where_the_next_begins(house, version):
    """Epoch 2 has three records, 5 two, 7 is led and has one."""
    house.create("t")
    for epoch, values in ((2, (b"a", b"b", b"c")), (5, (b"d", b"e")), (7, (b"f",))):
        raise_epoch(house, epoch)
        house.produce("t", *values)

    answers = {epoch: await ask(house, epoch, version=version) for epoch in range(-1, 9)}

    assert {
        -1: (0, -1, -1),
        0: (0, 0, 0),
        1: (0, 1, 0),
        2: (0, 2, 3),
        3: (0, 2, 3),
        4: (0, 2, 3),
        5: (0, 5, 5),
        6: (0, 5, 5),
        7: (0, 7, 6),
        8: (0, -1, -1),
    } == answers


async def test_the_current_epoch_counts_before_it_has_records(house):
    house.create("t")
    house.produce("t", b"a", b"b")
    raise_epoch(house, 3)

    assert [(0, 0, 2), (0, 0, 2), (0, 0, 2), (0, 3, 2), (0, -1, -1)] == [
        await ask(house, epoch) for epoch in range(5)
    ]


async def test_an_empty_log_knows_the_epoch_it_is_led_in(house):
    house.create("t")
    assert (0, 0, 0) == await ask(house, 0)

    raise_epoch(house, 2)

    assert [(0, 0, 0), (0, 2, 0), (0, -1, -1)] == [await ask(house, epoch) for epoch in (0, 2, 3)]


@pytest.mark.parametrize(
    "current, error",
    [
        (-1, ErrorCode.NONE),
        (4, ErrorCode.NONE),
        (3, ErrorCode.FENCED_LEADER_EPOCH),
        (5, ErrorCode.UNKNOWN_LEADER_EPOCH),
    ],
)
async def test_a_client_that_knows_the_leader_epoch_must_know_ours(house, current, error):
    house.create("t")
    raise_epoch(house, 4)

    expected = (error, -1, -1) if error else (0, 4, 0)
    assert expected == await ask(house, 4, current=current)


@pytest.mark.parametrize("topic, partition", [("no", 0), ("t", 1), ("t", -1), ("a b", 0)])
async def test_what_is_not_here_is_unknown(house, topic, partition):
    house.create("t")

    expected = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1)
    assert expected == await ask(house, 0, topic=topic, partition=partition)


async def test_only_the_leader_answers(house):
    house.create("t")
    partition = house.partitions.get("t", 0)
    partition.is_leader = False

    assert (ErrorCode.NOT_LEADER_OR_FOLLOWER, -1, -1) == await ask(house, 0)
