"""Logs that cannot be opened or read: each partition says so, its neighbours are served, nobody waits for ever."""

from __future__ import annotations

import dataclasses
import errno
import random
from types import SimpleNamespace
from typing import Any

import pytest

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from kbroker.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from kbroker.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from kbroker.replication.partition import Partition
from kbroker.server.handlers.fetch import handle_fetch
from kbroker.server.handlers.leader_epochs import handle_offset_for_leader_epoch
from kbroker.server.handlers.list_offsets import handle_list_offsets
from kbroker.server.handlers.produce import handle_produce
from kbroker.server.sessions import FetchSessions
from tests.support.fake_net import Wire
from tests.support.rooms import House
from tests.support.storage import batch

BROKEN, WHOLE = 0, 1
CALL: Any = SimpleNamespace(version=11)


@pytest.fixture
def house(tmp_path, monkeypatch) -> House:
    """A topic of two partitions, the first of which cannot be opened."""
    house = House(tmp_path)
    house.open_disk()
    sessions = FetchSessions(10, clock=house.broker.clock, random=random.Random(1))
    house.rooms = dataclasses.replace(house.rooms, sessions=sessions)
    house.create("topic", 2)
    real = house.directory.opening

    def opening(tp: Any, *rest: Any) -> Any:
        if tp.partition == BROKEN:
            raise OSError(errno.EIO, "Input/output error")
        return real(tp, *rest)

    monkeypatch.setattr(house.directory, "opening", opening)
    return house


def fetch_request(*partitions: int, **fields: Any) -> FetchRequest:
    asked = [FetchPartition(partition=index, partition_max_bytes=1000) for index in partitions]
    return FetchRequest(
        **({"max_wait_ms": 1000, "min_bytes": 1, "max_bytes": 1000, "session_epoch": -1} | fields),
        topics=[FetchTopic(topic="topic", partitions=asked)],
    )


def produce_request(*partitions: int, producer_id: int = -1) -> ProduceRequest:
    def data(index: int) -> PartitionProduceData:
        sequence = {"producer_id": producer_id, "producer_epoch": 0, "base_sequence": 0}
        made = batch(b"a", **(sequence if producer_id >= 0 else {}))
        return PartitionProduceData(index=index, records=memoryview(bytearray(made.view)))

    return ProduceRequest(
        acks=1,
        timeout_ms=1000,
        topic_data=[TopicProduceData(name="topic", partition_data=[data(index) for index in partitions])],
    )


async def test_produce_answers_each_partition(house, caplog):
    for _ in range(3):
        answer = await house.ask(handle_produce, produce_request(BROKEN, WHOLE), version=9)

        codes = [each.error_code for each in answer.responses[0].partition_responses]
        assert [ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NONE] == codes
    assert 1 == len(caplog.records)  # not one for every try


async def test_fetch_answers_each_partition_at_once(house):
    house.produce("topic", b"a", partition=WHOLE)

    answer = await house.ask(handle_fetch, fetch_request(BROKEN, WHOLE), version=11)

    codes = [each.error_code for each in answer.responses[0].partitions]
    assert [ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NONE] == codes


async def test_list_offsets_and_epochs_answer_too(house):
    offsets = ListOffsetsRequest(
        topics=[
            ListOffsetsTopic(name="topic", partitions=[ListOffsetsPartition(partition_index=0, timestamp=-1)])
        ]
    )
    epochs = OffsetForLeaderEpochRequest(
        topics=[OffsetForLeaderTopic(topic="topic", partitions=[OffsetForLeaderPartition(partition=0)])]
    )

    listed = await house.ask(handle_list_offsets, offsets, version=5)
    ended = await house.ask(handle_offset_for_leader_epoch, epochs, version=3)

    assert ErrorCode.KAFKA_STORAGE_ERROR == listed.topics[0].partitions[0].error_code
    assert ErrorCode.KAFKA_STORAGE_ERROR == ended.topics[0].partitions[0].error_code


async def test_producers_that_cannot_be_looked_up_are_an_answer(house):
    partition = house.partitions.get("topic", WHOLE)

    house.produce("topic", b"a", partition=WHOLE)
    partition.log._producers = None  # to be read again
    [path] = [segment.file.path for segment in partition.log.segments]
    partition.log.release()
    house.broker.disk.remove(path)

    answer = await house.ask(handle_produce, produce_request(WHOLE, producer_id=7), version=9)

    [each] = answer.responses[0].partition_responses
    assert (ErrorCode.KAFKA_STORAGE_ERROR, 1) == (each.error_code, partition.log.end)


@pytest.mark.parametrize("when", ["before the wait", "during the wait", "at its end"])
async def test_a_fetch_that_breaks_leaves_nobody_who_watches(house, monkeypatch, when):
    partition: Partition = house.partitions.get("topic", WHOLE)
    wire = Wire()

    def breaks(*_: object) -> None:
        raise RuntimeError("ours")

    if when == "before the wait":
        monkeypatch.setattr(house.broker.clock, "call_at", breaks)
        with pytest.raises(RuntimeError):
            handle_fetch(house.rooms, CALL, fetch_request(WHOLE))
    else:
        later = handle_fetch(house.rooms, CALL, fetch_request(WHOLE))
        later.bind(wire.connection, 11, 1)
        assert partition._watchers
        monkeypatch.setattr(type(house.partitions), "get", breaks)
        if when == "during the wait":
            partition.drop(ErrorCode.NOT_LEADER_OR_FOLLOWER)
            house.broker.settle()
        else:
            partition.gone = ErrorCode.NOT_LEADER_OR_FOLLOWER  # so that it is looked up again
            house.broker.clock.advance(1001)
        [error] = wire.ends
        assert isinstance(error, RuntimeError)

    assert not partition._watchers
    assert [] == [call for _, call in house.broker.clock.timers if call.__name__ == "answer_now"]


def test_a_partition_is_opened_once_its_disk_is_well(house, monkeypatch):
    with pytest.raises(KafkaError) as raised:
        house.partitions.get("topic", BROKEN)
    assert ErrorCode.KAFKA_STORAGE_ERROR == raised.value.code

    monkeypatch.undo()

    assert house.partitions.get("topic", BROKEN) is not None
