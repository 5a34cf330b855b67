"""A broker for tests over real sockets. KBROKER_TEST_BOOTSTRAP=host:port runs the same tests against Apache Kafka."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from kbroker.testing import Broker
from tests.support.raw_client import RawClient, address_of
from tests.support.rooms import OPEN

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def address() -> Iterator[tuple[str, int]]:
    """Where a broker serves."""
    external = os.environ.get("KBROKER_TEST_BOOTSTRAP")
    if external:
        yield address_of(external)
        return
    with Broker() as broker:
        yield address_of(broker.bootstrap_servers)


@pytest.fixture
def connect(address: tuple[str, int]) -> Iterator[Callable[[], RawClient]]:
    """Open connections; they end with the test."""
    opened: list[RawClient] = []

    def open_one() -> RawClient:
        opened.append(RawClient(address))
        return opened[-1]

    yield open_one
    for client in opened:
        client.close()


@pytest.fixture
def client(connect: Callable[[], RawClient]) -> RawClient:
    """One connection."""
    return connect()


@pytest.fixture
def topic() -> str:
    """A name that no other test has."""
    return f"topic-{os.getpid()}-{next(_numbers)}"


@pytest.fixture(autouse=True)
def _houses_are_closed() -> Iterator[None]:
    """A thousand tests that leave a file open each are more than some clients can count."""
    yield
    for house in OPEN:
        house.log.close()
    OPEN.clear()
