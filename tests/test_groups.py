"""Groups of a whole broker: what is left of them after a restart, a kill, a reset, and what a stop says to who waits."""

from __future__ import annotations

import pytest

from kbroker.cluster.names import GROUPS_TOPIC
from kbroker.protocol.messages.groups import JoinGroupRequest, JoinGroupRequestProtocol
from kbroker.protocol.messages.offsets import OffsetFetchRequest, OffsetFetchRequestGroup
from kbroker.replication.shard_loading import Loading
from kbroker.testing import Broker, ErrorCode
from tests.support import raw_groups
from tests.support.raw_client import RawClient, address_of

T, U = ("t", 0), ("u", 0)
NOT_COORDINATOR = 16


@pytest.fixture
def broker():
    with Broker() as broker:
        broker.create_topic("t")
        broker.create_topic("u")
        yield broker


def raw_of(broker):
    return RawClient(address_of(broker.bootstrap_servers))


@pytest.mark.parametrize("end", [Broker.restart, Broker.kill])
def test_groups_go_on_where_they_were(broker, end):
    with raw_of(broker) as raw:
        joined = raw_groups.join(raw, "group")
        assert 0 == raw_groups.commit(raw, "group", {T: 5}, joined)
        assert 0 == raw_groups.commit(raw, "simple", {T: 6, U: 7})

    end(broker)
    broker.start()

    with raw_of(broker) as raw:
        assert {T: 5} == raw_groups.committed(raw, "group")
        assert {T: 6, U: 7} == raw_groups.committed(raw, "simple")
        assert 0 == raw_groups.beat(raw, "group", joined)
        assert 0 == raw_groups.commit(raw, "group", {T: 8}, joined)
        assert {T: 8} == raw_groups.committed(raw, "group")


def test_a_start_reads_the_groups_before_anybody_is_served(broker, monkeypatch):
    """Not every client asks again when it is told that they are being read."""
    monkeypatch.setattr("kbroker.replication.shard_loading.SLICE_SECONDS", 0)
    monkeypatch.setattr("kbroker.replication.shard_loading.SLICE_RECORDS", 1)
    monkeypatch.setattr("kbroker.node.GROUPS_READ_SECONDS", 60)  # however slow this machine is
    with raw_of(broker) as raw:
        for number in range(100):
            raw_groups.commit(raw, "simple", {T: number})
    monkeypatch.setattr(raw_groups, "NOT_YET", ())

    broker.restart()

    with raw_of(broker) as raw:
        assert {T: 99} == raw_groups.committed(raw, "simple")


def test_a_start_does_not_wait_for_ever_for_groups(broker, monkeypatch):
    with raw_of(broker) as raw:
        raw_groups.commit(raw, "simple", {T: 1})
    monkeypatch.setattr("kbroker.node.GROUPS_READ_SECONDS", 0.01)
    monkeypatch.setattr(Loading, "start", lambda loading: None)

    broker.restart()

    with raw_of(broker) as raw:
        request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id="simple", topics=None)])
        assert ErrorCode.COORDINATOR_LOAD_IN_PROGRESS == raw.ask(request, 8).groups[0].error_code


def test_a_reset_leaves_no_group(broker):
    with raw_of(broker) as raw:
        raw_groups.commit(raw, "simple", {T: 6})
        broker.reset()
        broker.create_topic("t")

        assert 0 == raw_groups.commit(raw, "other", {T: 1})
        assert {} == raw_groups.committed(raw, "simple")


def test_offsets_go_with_their_topic(broker):
    with raw_of(broker) as raw:
        raw_groups.commit(raw, "simple", {T: 6, U: 7})

        broker.delete_topic("t")
        broker.create_topic("t")

        assert {U: 7} == raw_groups.committed(raw, "simple")
    broker.restart()
    with raw_of(broker) as raw:
        assert {U: 7} == raw_groups.committed(raw, "simple")


@pytest.mark.parametrize("end", [Broker.restart, Broker.kill])
def test_a_topic_made_anew_has_no_offsets_though_its_predecessors_were_not_forgotten(broker, end):
    """A crash or a full disk may come between a topic's deletion and the tombstones of its offsets."""
    with raw_of(broker) as raw:
        assert 0 == raw_groups.commit(raw, "simple", {T: 6, U: 7})
        broker.call(lambda node: setattr(node.groups, "topics_deleted", lambda names: None))
        broker.delete_topic("t")
        broker.create_topic("t")
        assert {U: 7} == raw_groups.committed(raw, "simple")

    end(broker)
    broker.start()

    with raw_of(broker) as raw:
        assert {U: 7} == raw_groups.committed(raw, "simple")


def test_a_broker_without_groups_has_no_topic_for_them(broker):
    broker.restart()

    assert ["t", "u"] == broker.call(lambda node: sorted(node.cluster.state.topics))


def test_a_tests_topics_are_its_own(broker):
    """What the broker made for its groups is not the test's."""
    with raw_of(broker) as raw:
        raw_groups.commit(raw, "simple", {T: 6})

    assert ["t", "u"] == broker.topics()


def test_a_start_opens_only_partitions_that_hold_something(broker):
    with raw_of(broker) as raw:
        raw_groups.commit(raw, "simple", {T: 6})
    broker.restart()

    opened = broker.call(lambda node: [each.tp for each in node.partitions if each.tp.topic == GROUPS_TOPIC])
    assert 1 == len(opened)


def test_a_stop_answers_who_waits_for_others(broker):
    with raw_of(broker) as raw, raw_of(broker) as second:
        raw_groups.join(raw, "group")
        request = JoinGroupRequest(
            group_id="group",
            session_timeout_ms=60_000,
            rebalance_timeout_ms=60_000,
            protocol_type="consumer",
            protocols=[JoinGroupRequestProtocol(name="range", metadata=raw_groups.NO_TOPICS)],
        )
        second.send(request, 3)
        broker.call(lambda node: None)
        while "PreparingRebalance" != broker.call(lambda node: node.groups.describe("group").state):
            pass

        broker.stop()

        assert NOT_COORDINATOR == second.receive().error_code
