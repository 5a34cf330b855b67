"""InitProducerId."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kbroker.cluster.commands import AllocateProducerIds
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.producers import InitProducerIdRequest
from kbroker.server.handlers.producers import handle_init_producer_id
from tests.support.rooms import NODE, House


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.rooms = house.rooms_with(clock=house.clock)
    return house


async def init(house: House, version: int = 5, **fields: Any) -> tuple[int, int, int]:
    request = InitProducerIdRequest(**{"transactional_id": None, **fields})
    answer = await house.ask(handle_init_producer_id, request, version=version)
    return answer.error_code, answer.producer_id, answer.producer_epoch


@pytest.mark.parametrize("version", range(6))
async def test_each_producer_gets_an_id_of_its_own_with_epoch_zero(house: House, version: int) -> None:
    first = await init(house, version)
    second = await init(house, version)

    assert [(0, 0, 0), (0, 1, 0)] == [first, second]


async def test_a_producer_that_brings_an_id_gets_a_new_one_all_the_same(house: House) -> None:
    """Kafka does so: an id and epoch are looked at for transactional producers alone."""
    await init(house)

    assert (0, 1, 0) == await init(house, producer_id=5000, producer_epoch=3)


@pytest.mark.parametrize(
    "half", [{"producer_id": 5000}, {"producer_epoch": 3}], ids=["no epoch", "no producer id"]
)
async def test_an_id_without_its_epoch_is_refused(house: House, half: dict[str, int]) -> None:
    assert (ErrorCode.INVALID_REQUEST, -1, -1) == await init(house, **half)


async def test_a_transactional_id_is_refused_with_the_code_that_ends_every_client(house: House) -> None:
    expected = (ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, -1, -1)

    assert expected == await init(house, transactional_id="payments", transaction_timeout_ms=60_000)


async def test_an_empty_transactional_id_is_the_clients_mistake(house: House) -> None:
    assert (ErrorCode.INVALID_REQUEST, -1, -1) == await init(house, transactional_id="")


async def test_a_thousand_ids_cost_one_command(house: House) -> None:
    ids = [(await init(house))[1] for _ in range(2001)]

    assert list(range(2001)) == ids
    assert [AllocateProducerIds(NODE, 1000)] * 3 == house.proposed


async def test_many_producers_at_once_wait_for_one_block(house: House) -> None:
    gate = asyncio.Event()
    propose = house.propose

    async def slow(command: Any) -> Any:
        await gate.wait()
        return await propose(command)

    house.rooms = house.rooms_with(propose=slow)
    waiting = [asyncio.ensure_future(init(house)) for _ in range(20)]
    gate.set()
    ids = [producer_id for _, producer_id, _ in await asyncio.gather(*waiting)]

    assert list(range(20)) == sorted(ids)
    assert 1 == len(house.proposed)


async def test_a_producer_that_goes_leaves_the_others_waiting(house: House) -> None:
    gate = asyncio.Event()
    propose = house.propose

    async def slow(command: Any) -> Any:
        await gate.wait()
        return await propose(command)

    house.rooms = house.rooms_with(propose=slow)
    asks, goes, stays = [asyncio.ensure_future(init(house)) for _ in range(3)]
    await asyncio.wait([asks, goes, stays], timeout=0)
    goes.cancel()
    await asyncio.wait([goes], timeout=60)
    gate.set()

    assert {0, 1} == {producer_id for _, producer_id, _ in await asyncio.gather(asks, stays)}
    assert goes.cancelled()


@pytest.mark.parametrize(
    "error, answered",
    [
        (ErrorCode.REQUEST_TIMED_OUT, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS),
        (ErrorCode.UNKNOWN_SERVER_ERROR, ErrorCode.UNKNOWN_SERVER_ERROR),
    ],
)
async def test_without_a_block_a_producer_learns_whether_to_try_again(
    house: House, error: ErrorCode, answered: ErrorCode
) -> None:
    async def refuse(command: Any) -> Any:
        raise KafkaError(error)

    house.rooms = house.rooms_with(propose=refuse)

    assert [(answered, -1, -1)] * 2 == [await init(house), await init(house)]


async def test_two_brokers_never_give_out_the_same_id(tmp_path: Path) -> None:
    """A block that was begun is not gone on with after a start."""
    (tmp_path / "log").mkdir()
    first = House(tmp_path / "log")
    given = [(await init(first))[1] for _ in range(3)]
    first.log.close()
    again = House(tmp_path / "log")

    assert not set(given) & {(await init(again))[1] for _ in range(3)}
