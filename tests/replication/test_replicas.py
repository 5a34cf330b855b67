"""The hosted partitions: found by name and id, opened when touched, in step with the cluster state."""

from __future__ import annotations

import errno
from uuid import UUID

import pytest

from kbroker.cluster.commands import (
    CreatePartitions,
    DeleteTopics,
    EpochFloor,
    MorePartitions,
    RaiseEpochs,
    RegisterBroker,
)
from kbroker.config import ResourceType
from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import TopicPartition
from kbroker.replication.partition import COMMITTED, Partition
from tests.support.hosted import NODE, Hosted
from tests.support.partitions import Bell
from tests.support.storage import batch, region_bytes


@pytest.fixture
def hosted() -> Hosted:
    return Hosted()


def test_a_partition_is_found_by_name_and_by_its_topics_id(hosted):
    topic = hosted.create("orders", 2)
    by_name = hosted.get("orders", 1)

    assert by_name is hosted.replicas.by_id(topic.id.bytes, 1) is hosted.replicas.get("orders", 1)
    assert (TopicPartition("orders", 1), topic.id, True, NODE, 0) == (
        by_name.tp,
        by_name.topic_id,
        by_name.is_leader,
        by_name.leader,
        by_name.leader_epoch,
    )


def test_an_id_that_comes_first_opens_the_same_partition(hosted):
    topic = hosted.create("orders")

    assert hosted.replicas.by_id(topic.id.bytes, 0) is hosted.get("orders")


@pytest.mark.parametrize("name, index", [("orders", 2), ("orders", -1), ("other", 0), ("elsewhere", 0)])
def test_there_is_nothing_of_another_name_number_or_broker(hosted, name, index):
    topics = {"orders": hosted.create("orders", 2), "elsewhere": hosted.create("elsewhere", on=(2, 3))}
    topic_id = topics[name].id.bytes if name in topics else bytes(16)

    assert hosted.replicas.get(name, index) is None
    assert hosted.replicas.by_id(topic_id, index) is None


def test_an_id_is_known_whether_or_not_its_partition_exists(hosted):
    topic = hosted.create("orders")

    assert hosted.replicas.knows(topic.id.bytes)
    assert not hosted.replicas.knows(bytes(16))


def test_partitions_are_opened_when_touched_and_get_a_folder_when_written(hosted):
    hosted.create("orders", 3)
    assert (0, []) == (len(hosted.replicas), list(hosted.replicas))

    partition = hosted.get("orders", 1)
    assert (1, [partition]) == (len(hosted.replicas), list(hosted.replicas))
    assert not hosted.disk.exists("/data/orders-1")

    hosted.send(partition, "a")
    hosted.broker.settle()
    assert hosted.disk.exists("/data/orders-1")
    assert not hosted.disk.exists("/data/orders-0")


def test_partitions_added_to_a_topic_are_found(hosted):
    topic = hosted.create("orders")
    first = hosted.get("orders")
    hosted.do(CreatePartitions([MorePartitions(topic.id, 1, [(NODE,)])]))

    assert (1, True) == (hosted.get("orders", 1).tp.partition, first.is_leader)


# -- deletion


def test_a_deleted_topics_partitions_are_gone_and_tell_whoever_waits(hosted):
    topic = hosted.create("orders", 2)
    partition, bell = hosted.get("orders"), Bell()
    hosted.send(partition, "a")
    partition.watch(bell)
    hosted.do(DeleteTopics([topic.id]))

    assert [("a", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)] == hosted.answers
    assert (1, 0, None) == (bell.rings, len(hosted.replicas), hosted.replicas.get("orders", 0))
    assert hosted.replicas.by_id(topic.id.bytes, 0) is None
    hosted.broker.settle()
    hosted.broker.clock.advance(60_000)
    hosted.broker.settle()
    assert [] == [name for name in hosted.disk.list("/data") if name.startswith("orders")]


@pytest.mark.parametrize("settled", [True, False])
def test_a_topic_made_again_under_the_same_name_never_shows_old_records(hosted, settled):
    """Neither while the old folder waits for its removal, nor after a crash, whatever of it was on the disk."""
    old = hosted.create("orders")
    before = hosted.get("orders")
    hosted.send(before, "old")
    if settled:
        hosted.broker.settle()
    hosted.do(DeleteTopics([old.id]))
    hosted.create("orders")
    partition = hosted.get("orders")
    assert (0, 0, True) == (partition.log.start, partition.log.end, partition is not before)

    hosted.send(partition, "new")
    hosted.broker.settle()
    hosted.broker.clock.advance(60_000)
    hosted.broker.settle()

    assert ("new", ErrorCode.NONE) == hosted.answers[-1]
    region = partition.read(0, 1000, at_least_one=True)
    assert b"new" in region_bytes(region)
    assert b"old" not in region_bytes(region)
    assert 1 == partition.high_watermark
    with pytest.raises(KafkaError):
        before.append(memoryview(bytearray(batch(b"late").view)), COMMITTED)


def test_a_folder_that_cannot_be_renamed_does_not_keep_the_topics_others_alive(hosted):
    topic = hosted.create("orders", 2)
    for index in (0, 1):
        hosted.send(hosted.get("orders", index), f"{index}")
    hosted.broker.settle()
    hosted.disk.fail = lambda what, path: (
        errno.EIO if what == "rename" and path.startswith("/data/orders-0") else None
    )
    hosted.do(DeleteTopics([topic.id]))

    assert (0, None, None) == (len(hosted.replicas), *(hosted.replicas.get("orders", n) for n in (0, 1)))
    assert ["orders-0"] == [name for name in hosted.disk.list("/data") if name in ("orders-0", "orders-1")]
    hosted.disk.fail = None
    hosted.create("orders", 2)
    assert (0, 0) == (hosted.get("orders", 0).log.end, hosted.get("orders", 1).log.end)


# -- configurations


def test_a_topics_configuration_reaches_its_open_partitions_and_those_opened_later(hosted):
    hosted.create("orders", 2, configs={"retention.ms": "5"})
    hosted.create("other")
    orders, other = hosted.get("orders"), hosted.get("other")
    assert 5 == orders.config.retention_ms

    hosted.set(ResourceType.TOPIC, "orders", "max.message.bytes", "77")
    assert [77, 77] == [orders.config.max_message_bytes, orders.log.config.max_message_bytes]
    assert 77 == hosted.get("orders", 1).config.max_message_bytes
    assert 77 != other.config.max_message_bytes

    hosted.set(ResourceType.TOPIC, "orders", "max.message.bytes", None)
    assert other.config.max_message_bytes == orders.config.max_message_bytes
    assert 5 == orders.config.retention_ms


@pytest.mark.parametrize("broker", ["", "1"])
def test_a_brokers_default_reaches_the_open_partitions_whose_topic_says_nothing_else(hosted, broker):
    hosted.create("orders")
    hosted.create("own", configs={"max.message.bytes": "99"})
    orders, own = hosted.get("orders"), hosted.get("own")
    hosted.set(ResourceType.BROKER, broker, "message.max.bytes", "77")

    assert (77, 77) == (orders.config.max_message_bytes, orders.log.config.max_message_bytes)
    assert 99 == own.config.max_message_bytes
    raw = memoryview(bytearray(batch(b"x" * 50).view))
    with pytest.raises(KafkaError) as caught:
        orders.append(raw, COMMITTED)
    assert ErrorCode.MESSAGE_TOO_LARGE == caught.value.code


def test_partitions_of_equal_configuration_share_it(hosted):
    hosted.create("orders", 2)
    hosted.create("other")

    assert hosted.get("orders").config is hosted.get("orders", 1).config is hosted.get("other").config


# -- epochs


def test_a_new_registration_and_a_floor_raise_the_epochs_of_open_partitions(hosted):
    topic = hosted.create("orders", 2)
    first, second = hosted.get("orders", 0), hosted.get("orders", 1)
    hosted.send(first, "a")
    hosted.do(
        RegisterBroker(NODE, UUID(int=1), UUID(int=3), [], floors=[EpochFloor(topic.id, 1, 9)]),
    )

    assert (1, 9) == (first.leader_epoch, second.leader_epoch)
    assert [("a", ErrorCode.NOT_LEADER_OR_FOLLOWER)] == hosted.answers
    hosted.do(RaiseEpochs([EpochFloor(topic.id, 0, 4)]))
    assert (4, 9) == (first.leader_epoch, second.leader_epoch)


# -- deadlines


def test_deadlines_are_looked_at_while_somebody_waits_and_not_otherwise(hosted):
    hosted.create("orders", 2)
    assert [] == hosted.broker.clock.timers
    hosted.send(hosted.get("orders"), "soon", timeout_ms=700)
    hosted.send(hosted.get("orders", 1), "later", timeout_ms=1700)
    hosted.broker.turn.run()
    assert 1 == len(hosted.broker.clock.timers)

    for expected in ([], ["soon"], ["soon"], ["soon", "later"]):
        hosted.broker.clock.advance(500)
        assert expected == [name for name, code in hosted.answers]
    assert {ErrorCode.REQUEST_TIMED_OUT} == {code for _, code in hosted.answers}
    assert [] == hosted.broker.clock.timers


def test_whoever_begins_to_wait_while_deadlines_are_looked_at_is_looked_after_too(hosted):
    """The answer that a deadline frees may let its connection's next request in at once."""
    hosted.create("orders", 2)
    first, second = hosted.get("orders", 0), hosted.get("orders", 1)

    def answered(code: ErrorCode) -> None:
        hosted.answers.append(("first", code))
        hosted.send(second, "second", timeout_ms=100)

    raw = batch(b"a", timestamp=hosted.broker.clock.now_ms)
    first.when(first.append(memoryview(bytearray(raw.view)), COMMITTED), COMMITTED, 100, answered)
    hosted.broker.turn.run()
    hosted.broker.clock.advance(500)
    hosted.broker.turn.run()
    hosted.broker.clock.advance(500)

    assert [("first", ErrorCode.REQUEST_TIMED_OUT), ("second", ErrorCode.REQUEST_TIMED_OUT)] == hosted.answers


def test_one_that_fails_to_hear_of_its_deadline_keeps_nobody_elses(hosted, caplog):
    hosted.create("orders", 3)
    for index in range(3):
        partition = hosted.get("orders", index)
        for number in range(2):
            raw = batch(b"a", timestamp=hosted.broker.clock.now_ms)
            appended = partition.append(memoryview(bytearray(raw.view)), COMMITTED)
            if not number:
                partition.when(appended, COMMITTED, 100, lambda code: 1 // 0)
            else:
                hosted.send(partition, f"{index}", timeout_ms=100)
    hosted.broker.turn.run()

    hosted.broker.clock.advance(500)

    assert {"0", "1", "2"} == {name for name, code in hosted.answers}
    assert 3 == len(caplog.records)
    assert not any(hosted.get("orders", index).has_deadlines for index in range(3))
    assert [] == hosted.broker.clock.timers


def test_a_partition_that_fails_to_look_at_its_deadlines_is_asked_again(hosted, monkeypatch):
    hosted.create("orders", 2)
    hosted.send(hosted.get("orders", 0), "a", timeout_ms=100)
    hosted.send(hosted.get("orders", 1), "b", timeout_ms=100)
    hosted.broker.turn.run()
    real = Partition.expire

    def expire(partition: Partition, now: float) -> bool:
        if partition is hosted.get("orders", 0):
            raise RuntimeError("ours")
        return real(partition, now)

    with monkeypatch.context() as broken:
        broken.setattr(Partition, "expire", expire)
        hosted.broker.clock.advance(500)
    assert ["b"] == [name for name, code in hosted.answers]

    hosted.broker.clock.advance(500)

    assert ["b", "a"] == [name for name, code in hosted.answers]


def test_a_stop_tells_whoever_waits_and_ends_the_deadlines(hosted):
    hosted.create("orders")
    hosted.send(hosted.get("orders"), "a")
    hosted.replicas.stop()

    assert [("a", ErrorCode.NOT_LEADER_OR_FOLLOWER)] == hosted.answers
    assert [] == hosted.broker.clock.timers


def test_how_batches_are_checked_comes_from_the_settings():
    hosted = Hosted(values={"kbroker.produce.validation": "batch"})
    hosted.create("orders")

    assert not hosted.get("orders")._limits.walk
