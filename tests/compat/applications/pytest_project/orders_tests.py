"""Its tests, on kbroker's fixtures: see ../../test_pytest_project.py."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from orders import Billing, forward, place

LIMIT_S = 90


def until(look: Callable[[], bool], *members: Billing) -> None:
    """The members work until it is so."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if look():
            return
        for member in members:
            member.work()
    raise AssertionError("it never came to be")


def orders(first: int, last: int) -> list[dict[str, Any]]:
    return [{"id": number, "what": "tea"} for number in range(first, last)]


@pytest.fixture
def topic(kafka_broker: Any, kafka_topic: str) -> Any:
    """One with partitions enough for two."""
    yield kafka_broker.create_topic(f"{kafka_topic}-orders", partitions=4)
    kafka_broker.delete_topic(f"{kafka_topic}-orders")


def test_orders_are_billed_by_whoever_is_there(kafka_broker: Any, topic: str) -> None:
    servers, billed = kafka_broker.bootstrap_servers, []
    place(servers, topic, *orders(0, 20))
    first = Billing(servers, topic, f"{topic}-billing", billed.append)
    until(lambda: len(billed) == 20, first)

    second = Billing(servers, topic, f"{topic}-billing", billed.append)
    until(lambda: len(first.partitions) == len(second.partitions) == 2, first, second)
    place(servers, topic, *orders(20, 40))
    until(lambda: len(billed) == 40, first, second)
    first.close()
    until(lambda: len(second.partitions) == 4, second)
    place(servers, topic, *orders(40, 60))
    until(lambda: len(billed) == 60, second)
    second.close()

    assert list(range(60)) == sorted(order["id"] for order in billed)


async def test_orders_are_passed_on_from_where_the_group_was(kafka_broker: Any, kafka_topic: str) -> None:
    servers, target = kafka_broker.bootstrap_servers, kafka_broker.create_topic(f"{kafka_topic}-passed")
    place(servers, kafka_topic, *orders(0, 10))

    await forward(servers, kafka_topic, target, f"{kafka_topic}-group", 4)
    await forward(servers, kafka_topic, target, f"{kafka_topic}-group", 6)

    assert orders(0, 10) == [json.loads(record.value) for record in kafka_broker.records(target)]


def test_a_group_goes_on_after_a_crash_of_the_broker(kafka_broker_factory: Any) -> None:
    broker, billed = kafka_broker_factory(offsets_topic_num_partitions=4), []
    broker.create_topic("orders", partitions=2)
    place(broker.bootstrap_servers, "orders", *orders(0, 10))
    first = Billing(broker.bootstrap_servers, "orders", "billing", billed.append)
    until(lambda: len(billed) == 10, first)
    first.close()

    broker.kill()
    broker.start()

    place(broker.bootstrap_servers, "orders", *orders(10, 20))
    second = Billing(broker.bootstrap_servers, "orders", "billing", billed.append)
    until(lambda: len(billed) == 20, second)
    second.close()
    assert list(range(20)) == sorted(order["id"] for order in billed)
