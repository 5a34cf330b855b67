"""What the broker's log says of clients that ask for what is not here yet."""

from __future__ import annotations

import pytest

from kbroker.protocol.messages.consumer_groups import ConsumerGroupHeartbeatRequest
from kbroker.protocol.messages.producers import InitProducerIdRequest
from kbroker.server.handlers.consumer_groups import handle_consumer_group_heartbeat
from kbroker.server.handlers.producers import handle_init_producer_id
from kbroker.server.refusals import CLIENTS_TOLD_MAX, TELL_SECONDS
from tests.support.rooms import House

TRANSACTIONAL = (
    handle_init_producer_id,
    InitProducerIdRequest(transactional_id="payments", transaction_timeout_ms=60_000),
)
NEW_GROUPS = (
    handle_consumer_group_heartbeat,
    ConsumerGroupHeartbeatRequest(group_id="readers", member_id="m"),
)


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (TRANSACTIONAL, ["client_id=app", "transactional_id=payments", "leave transactional.id out"]),
        (NEW_GROUPS, ["client_id=app", "group=readers", "group.protocol=classic"]),
    ],
)
async def test_the_line_names_the_client_and_the_cure(house, caplog, asked, words):
    await house.ask(*asked, version=1, client_id="app")

    [record] = caplog.records
    assert [] == [word for word in words if word not in record.getMessage()]


async def test_a_client_that_tries_again_is_told_of_once_in_a_while(house, caplog):
    for _ in range(3):
        await house.ask(*TRANSACTIONAL, version=1, client_id="app")
    await house.ask(*TRANSACTIONAL, version=1, client_id=None)
    assert 2 == len(caplog.records)

    house.clock.advance(int(TELL_SECONDS * 1000))
    await house.ask(*TRANSACTIONAL, version=1, client_id="app")
    assert 3 == len(caplog.records)


async def test_a_flood_of_clients_is_no_flood_of_lines(house, caplog):
    for number in range(CLIENTS_TOLD_MAX + 5):
        await house.ask(*TRANSACTIONAL, version=1, client_id=f"app-{number}")

    assert CLIENTS_TOLD_MAX == len(caplog.records)


async def test_each_broker_of_a_process_tells_for_itself(house, tmp_path, caplog):
    (tmp_path / "other").mkdir()
    other = House(tmp_path / "other")
    for each in (house, other):
        await each.ask(*TRANSACTIONAL, version=1, client_id="app")

    assert 2 == len(caplog.records)
