"""Fixtures for whoever installed kbroker: `kafka_broker` (alias `kbroker`), `kafka_topic`, `kafka_broker_factory`.

Found by pytest's entry point and loaded in every one of its runs, so it imports nothing but pytest; the broker is
imported by the first test that asks for it. KBROKER_TEST_BOOTSTRAP=host:port points the same tests at a real Kafka.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

BOOTSTRAP_VARIABLE = "KBROKER_TEST_BOOTSTRAP"


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[Any]:
    """A broker for the whole run (one per xdist worker), usable from sync and async tests: `.bootstrap_servers`."""
    bootstrap = os.environ.get(BOOTSTRAP_VARIABLE)
    if bootstrap:
        from kbroker.testing import ExternalBroker

        with ExternalBroker(bootstrap) as broker:
            yield broker
        return
    from kbroker.testing import Broker

    with Broker() as broker:
        yield broker


@pytest.fixture(scope="session")
def kbroker(kafka_broker: Any) -> Any:
    """The same broker under its other name."""
    return kafka_broker


@pytest.fixture
def kafka_topic(kafka_broker: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a new topic with one partition, made from the test's name; deleted after the test."""
    name = kafka_broker.create_topic(_topic_name(request.node.nodeid))
    yield name
    if name in kafka_broker.topics():  # the test may have deleted it, or everything
        kafka_broker.delete_topic(name)


@pytest.fixture
def kafka_broker_factory() -> Iterator[Callable[..., Any]]:
    """Start brokers of one's own: kafka_broker_factory(num_partitions=3). They stop after the test."""
    if os.environ.get(BOOTSTRAP_VARIABLE):
        pytest.skip(
            f"{BOOTSTRAP_VARIABLE} is set: brokers with a configuration of their own are kbroker's only"
        )
    from kbroker.testing import Broker

    started: list[Any] = []

    def start(config: dict[str, Any] | None = None, **options: Any) -> Any:
        broker = Broker(config, **options).start()
        started.append(broker)
        return broker

    yield start
    for broker in reversed(started):
        broker.stop()


_numbers: dict[str, int] = {}


def _topic_name(test: str) -> str:
    """Unique in this run, and legal: letters, digits, - and _ ('.' would collide with '_' in metrics)."""
    stem = re.sub(r"[^a-zA-Z0-9_-]+", "-", test.rpartition("::")[2]).strip("-") or "test"
    stem = f"{stem[:180]}-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}-{os.getpid()}"
    number = _numbers[stem] = _numbers.get(stem, 0) + 1
    return f"{stem}-{number}"
