"""Placement of replicas."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.cluster.placement import check_assignment, place
from kbroker.cluster.state import Broker
from kbroker.errors import ErrorCode, KafkaError


def brokers(*ids, racks=()):
    places = dict(zip(ids, racks, strict=False))
    return [Broker(id, 1, UUID(int=id), UUID(int=id), [], places.get(id)) for id in ids]


def test_one_broker_has_everything():
    assert [(7,)] * 3 == place(brokers(7), partitions=3, replication_factor=1, start=0)


def test_brokers_take_turns_from_the_start():
    placed = place(brokers(1, 2, 3), partitions=4, replication_factor=2, start=1)

    assert [2, 3, 1, 2] == [replicas[0] for replicas in placed]


def test_partitions_added_later_go_on_where_the_first_ended():
    whole = place(brokers(1, 2, 3), partitions=7, replication_factor=2, start=2)

    assert whole[4:] == place(brokers(1, 2, 3), partitions=3, replication_factor=2, start=2, first=4)


def test_neighbours_stand_in_different_racks():
    placed = place(brokers(1, 2, 3, 4, racks="aabb"), partitions=4, replication_factor=2, start=0)

    assert [set("ab")] * 4 == [{"aabb"[broker - 1] for broker in replicas} for replicas in placed]


@given(st.integers(1, 7), st.integers(1, 40), st.integers(0, 99), st.data())
def test_replicas_are_distinct_and_leaders_spread_evenly(count, partitions, start, data):
    factor = data.draw(st.integers(1, count))

    placed = place(brokers(*range(count)), partitions=partitions, replication_factor=factor, start=start)

    assert partitions == len(placed)
    assert all(factor == len(set(replicas)) for replicas in placed)
    leaders = Counter(dict.fromkeys(range(count), 0))
    leaders.update(replicas[0] for replicas in placed)
    assert 1 >= max(leaders.values()) - min(leaders.values())


@pytest.mark.parametrize("factor", [0, -1, 4])
def test_more_replicas_than_brokers_are_refused(factor):
    with pytest.raises(KafkaError) as refused:
        place(brokers(1, 2, 3), partitions=1, replication_factor=factor, start=0)

    assert ErrorCode.INVALID_REPLICATION_FACTOR == refused.value.code


def test_a_clients_own_placement_is_taken():
    check_assignment([2, 1], [1, 2, 3])


@pytest.mark.parametrize(
    "replicas, word", [([], "empty"), ([1, 1], "more than once"), ([4], "no such broker")]
)
def test_a_clients_placement_that_cannot_be_is_refused(replicas, word):
    with pytest.raises(KafkaError, match=word) as refused:
        check_assignment(replicas, [1, 2, 3])

    assert ErrorCode.INVALID_REPLICA_ASSIGNMENT == refused.value.code
