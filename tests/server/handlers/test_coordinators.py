"""FindCoordinator: who coordinates a group, and the topic that it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbroker.cluster.names import GROUPS_TOPIC
from kbroker.config import ResourceType
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.codec import encode_body
from kbroker.protocol.messages.groups import FindCoordinatorRequest
from kbroker.server.handlers.coordinators import GROUP, SHARE, TRANSACTION, handle_find_coordinator
from tests.support.fake_groups import FakeGroups
from tests.support.rooms import NODE, PLAIN, TLS, House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, {"offsets.topic.num.partitions": "4"}, groups=FakeGroups())


def request(version: int, *keys: str, key_type: int = GROUP) -> FindCoordinatorRequest:
    if version >= 4:
        return FindCoordinatorRequest(coordinator_keys=list(keys), key_type=key_type)
    [key] = keys
    return FindCoordinatorRequest(key=key, key_type=key_type)


@pytest.mark.parametrize("version", range(7))
async def test_q47_the_first_who_asks_is_answered_like_all_others(house, version):
    answer = await house.ask(handle_find_coordinator, request(version, "group"), version=version)

    found = answer.coordinators[0] if version >= 4 else answer
    assert (0, NODE, PLAIN.host, PLAIN.port) == (found.error_code, found.node_id, found.host, found.port)
    encode_body(answer, version)


async def test_the_groups_topic_is_made_once_with_kafkas_configs(house):
    for _ in range(2):
        await house.ask(handle_find_coordinator, request(3, "group"), version=3)

    topic = house.state.topics[GROUPS_TOPIC]
    assert [(NODE,)] * 4 == [partition.replicas for partition in topic.partitions]
    assert {
        "cleanup.policy": "compact",
        "compression.type": "producer",
        "segment.bytes": str(100 << 20),
    } == house.state.config(ResourceType.TOPIC, GROUPS_TOPIC)
    assert 1 == len(house.proposed)


async def test_two_who_ask_at_once_are_both_answered(house):
    first = handle_find_coordinator(house.rooms, house.call(3), request(3, "a"))
    second = handle_find_coordinator(house.rooms, house.call(3), request(3, "b"))

    assert [0, 0] == [(await answer).error_code for answer in (first, second)]


async def test_the_topic_has_no_more_replicas_than_there_are_brokers(house):
    house.register(2, PLAIN)

    await house.ask(handle_find_coordinator, request(3, "group"), version=3)

    assert {2} == {len(each.replicas) for each in house.state.topics[GROUPS_TOPIC].partitions}


async def test_a_topic_that_cannot_be_made_is_a_coordinator_that_cannot_be_found(house):
    async def refuse(command):
        raise KafkaError(ErrorCode.NOT_CONTROLLER)

    house.rooms = house.rooms_with(groups=FakeGroups(), propose=refuse)

    answer = await house.ask(handle_find_coordinator, request(3, "group"), version=3)

    assert (ErrorCode.COORDINATOR_NOT_AVAILABLE, -1) == (answer.error_code, answer.node_id)


async def test_an_address_is_the_listeners(house):
    answer = await house.ask(handle_find_coordinator, request(3, "group"), version=3, listener="SSL")

    assert TLS.port == answer.port


async def test_many_keys_are_answered_in_their_order(house):
    answer = await house.ask(handle_find_coordinator, request(6, "b", "a", "b", ""), version=6)

    assert [("b", 0), ("a", 0), ("b", 0), ("", 0)] == [
        (each.key, each.error_code) for each in answer.coordinators
    ]


async def test_the_coordinator_is_who_leads_the_groups_partition(house):
    house.register(2)  # without the listener that is asked by
    house.create(GROUPS_TOPIC, replicas=(2,))

    answer = await house.ask(handle_find_coordinator, request(3, "group"), version=3)

    assert (ErrorCode.COORDINATOR_NOT_AVAILABLE, -1) == (answer.error_code, answer.node_id)


async def test_a_transactional_producer_is_sent_here_to_be_refused_by_name(house):
    asked = request(4, "a", key_type=TRANSACTION)
    [found] = (await house.ask(handle_find_coordinator, asked, version=4)).coordinators

    assert (0, NODE, PLAIN.host, PLAIN.port) == (found.error_code, found.node_id, found.host, found.port)
    assert GROUPS_TOPIC not in house.state.topics


@pytest.mark.parametrize("key_type", [SHARE, 9])
async def test_other_keys_have_no_coordinator_and_make_no_topic(house, key_type):
    code = ErrorCode.INVALID_REQUEST
    answer = await house.ask(handle_find_coordinator, request(4, "a", "b", key_type=key_type), version=4)

    assert [("a", code, -1), ("b", code, -1)] == [
        (each.key, each.error_code, each.node_id) for each in answer.coordinators
    ]
    assert GROUPS_TOPIC not in house.state.topics
