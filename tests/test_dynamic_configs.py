"""Options that may change while a broker runs: each does, as the next request or the next round shows.

Of topics, of one broker, of all brokers: set over the wire, seen over the wire or in the files, and gone when it is
deleted. Options of TLS and of connections: tests/server/test_secure.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from kbroker.config.broker import BROKER_OPTIONS
from kbroker.config.options import CLUSTER_WIDE, DOUBLE, LIST, STRING, Option, ResourceType
from kbroker.config.topics import TOPIC_OPTIONS
from kbroker.errors import ErrorCode
from kbroker.protocol.messages.configs import (
    IncrementalAlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
)
from kbroker.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from kbroker.protocol.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from kbroker.protocol.records import build_batch, record, split_batches
from kbroker.testing import Broker
from tests.support.raw import RawClient

NODE = "1"
SET, DELETE = 0, 1
GZIP = 1
HOUR_MS = 3_600_000
_numbers = count()

SCOPES = ("topic", "broker", "all brokers")
# a topic's option and a value that it does not have by default: whether it is in force
EFFECTS: dict[tuple[str, str], Callable[[Place], bool]] = {}


class Place:
    """A topic of a running broker, and what a test does with it."""

    def __init__(self, broker: Broker, ask: RawClient) -> None:
        self.broker = broker
        self.ask = ask
        self.topic = broker.create_topic(f"t{next(_numbers)}")

    def produce(self, value: bytes = b"v", *, key: bytes | None = b"k", timestamp: int | None = None) -> Any:
        """The answer to one record."""
        when = now_ms() if timestamp is None else timestamp
        batch = build_batch([record(value, key=key, timestamp=when)])
        data = PartitionProduceData(index=0, records=batch)
        request = ProduceRequest(
            acks=-1, timeout_ms=60_000, topic_data=[TopicProduceData(name=self.topic, partition_data=[data])]
        )
        return self.ask(request, 9).responses[0].partition_responses[0]

    def refused(self, code: ErrorCode, **how: Any) -> bool:
        """Whether a record is refused so; otherwise it must have been taken."""
        told = self.produce(**how).error_code
        assert told in (ErrorCode.NONE, code)
        return bool(told == code)

    def newest_batch(self) -> Any:
        partition = FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)
        request = FetchRequest(
            max_wait_ms=0, max_bytes=1 << 20, topics=[FetchTopic(topic=self.topic, partitions=[partition])]
        )
        [told] = self.ask(request, 11).responses[0].partitions
        return split_batches(memoryview(told.records))[-1]

    def files(self, ending: str) -> list[Any]:
        return sorted(self.broker.data_dir.glob(f"{self.topic}-0/*{ending}"))


def now_ms() -> int:
    return int(time.time() * 1000)


def effect(of_topic: str, value: str) -> Callable[[Callable[[Place], bool]], Callable[[Place], bool]]:
    """A look at whether `value` of a topic's option is in force: True with it, False without."""

    def named(look: Callable[[Place], bool]) -> Callable[[Place], bool]:
        EFFECTS[of_topic, value] = look
        return look

    return named


@effect("max.message.bytes", "1000")
def _large_is_refused(at: Place) -> bool:
    return at.refused(ErrorCode.MESSAGE_TOO_LARGE, value=b"x" * 2000)


@effect("compression.type", "gzip")
def _recompressed(at: Place) -> bool:
    at.produce()
    return bool(GZIP == at.newest_batch().codec)


@effect("message.timestamp.type", "LogAppendTime")
def _stamped(at: Place) -> bool:
    return bool(at.produce(timestamp=now_ms() - 1000).log_append_time_ms != -1)


@effect("message.timestamp.before.max.ms", "1000")
def _old_is_refused(at: Place) -> bool:
    return at.refused(ErrorCode.INVALID_TIMESTAMP, timestamp=now_ms() - HOUR_MS)


@effect("message.timestamp.after.max.ms", "7200000")
def _early_is_taken(at: Place) -> bool:
    return not at.refused(ErrorCode.INVALID_TIMESTAMP, timestamp=now_ms() + HOUR_MS + HOUR_MS // 2)


@effect("cleanup.policy", "compact")
def _keyless_is_refused(at: Place) -> bool:
    return at.refused(ErrorCode.INVALID_RECORD, key=None)


@effect("segment.bytes", "1048576")
def _full_segments_roll(at: Place) -> bool:
    before = len(at.files(".log"))
    for _ in range(3):
        at.produce(b"x" * 600_000)
    return len(at.files(".log")) >= before + 2


@effect("segment.ms", "1000")
def _aged_segments_roll(at: Place) -> bool:
    at.produce(timestamp=now_ms() - 60_000)
    before = len(at.files(".log"))
    at.produce()
    return len(at.files(".log")) > before


@effect("retention.ms", "60000")
def _old_segments_go(at: Place) -> bool:
    return _is_deleted(at)


@effect("retention.bytes", "1000")
def _large_logs_shrink(at: Place) -> bool:
    return _is_deleted(at)


def _is_deleted(at: Place) -> bool:
    """Whether a round lets a segment go that is an hour old and not the last."""

    def round_now(node: Any) -> int:
        partition = node.partitions.get(at.topic, 0)
        return int(partition.log.retain(now_ms(), partition.high_watermark))

    at.produce(b"x" * 2000, timestamp=now_ms() - HOUR_MS)
    at.broker.call(lambda node: node.partitions.get(at.topic, 0).log.roll())
    at.produce()
    return at.broker.call(round_now) > 0


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker({"node.id": NODE}) as running:
        yield running


@pytest.fixture
def at(broker: Broker) -> Iterator[Place]:
    host, port = broker.bootstrap_servers.split(":")
    with RawClient(host, int(port)) as ask:
        yield Place(broker, ask)


def broker_option(of_topic: str) -> str:
    """The broker's name of a topic's option."""
    return TOPIC_OPTIONS[of_topic].falls_back_to[0][0]


def alter(at: Place, scope: str, of_topic: str, value: str | None) -> None:
    """Set a topic's option where the scope says, None: delete it there."""
    kind, name, option = {
        "topic": (ResourceType.TOPIC, at.topic, of_topic),
        "broker": (ResourceType.BROKER, NODE, broker_option(of_topic)),
        "all brokers": (ResourceType.BROKER, "", broker_option(of_topic)),
    }[scope]
    op = IncrementalAlterableConfig(
        name=option, config_operation=DELETE if value is None else SET, value=value
    )
    resource = IncrementalAlterConfigsResource(resource_type=kind, resource_name=name, configs=[op])
    [told] = at.ask(IncrementalAlterConfigsRequest(resources=[resource]), 1).responses
    assert ErrorCode.NONE == told.error_code, told.error_message


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("of_topic", "value"), EFFECTS)
def test_an_option_has_its_effect_from_the_answer_on_and_until_it_is_deleted(
    at: Place, of_topic: str, value: str, scope: str
) -> None:
    look = EFFECTS[of_topic, value]
    assert not look(at)

    alter(at, scope, of_topic, value)
    try:
        assert look(at)
    finally:
        alter(at, scope, of_topic, None)

    assert not look(at)


def another(row: Option) -> str:
    """A value that the option does not have by default."""
    if row.choices is not None:
        return next(choice for choice in row.choices if choice != row.default_text)
    if row.type is DOUBLE:
        return "0.25"
    if row.type in (LIST, STRING):
        return "*"
    if isinstance(row.default, bool):
        return str(not row.default).lower()
    return "2097152" if row.at_least and row.at_least > 20 else "7"


DYNAMIC = [name for name, row in BROKER_OPTIONS.items() if row.dynamic == CLUSTER_WIDE]
OF_TOPICS = [
    name
    for name, row in TOPIC_OPTIONS.items()
    if row.falls_back_to and BROKER_OPTIONS[row.falls_back_to[0][0]].dynamic == CLUSTER_WIDE
]


@pytest.mark.parametrize("scope", SCOPES)
def test_every_option_of_a_topic_reaches_its_open_partitions(at: Place, scope: str) -> None:
    at.produce()

    def value_of(attribute: str) -> set[object]:
        def look(node: Any) -> set[object]:
            partition = node.partitions.get(at.topic, 0)
            return {getattr(each.config, attribute) for each in (partition, partition.log)}

        return at.broker.call(look)

    for of_topic in OF_TOPICS:
        row = TOPIC_OPTIONS[of_topic]
        text = another(row)
        before = value_of(row.attribute)
        alter(at, scope, of_topic, text)
        try:
            [now] = value_of(row.attribute)
        finally:
            alter(at, scope, of_topic, None)
        expected = frozenset(row.parse(text)) if row.type is LIST else row.parse(text)
        assert expected == now, of_topic
        assert before == value_of(row.attribute), of_topic


def test_every_dynamic_option_that_is_no_topics_has_a_test_of_its_effect() -> None:
    """Named here, so that a new one is not forgotten. Of compaction: its settings are read at each round."""
    of_topics = {name for row in TOPIC_OPTIONS.values() for name, _ in row.falls_back_to}

    assert {
        "max.connections",  # tests/server/test_secure.py
        *("max.connections.per.ip", "max.connections.per.ip.overrides"),
        "producer.id.expiration.ms",  # below
        *("log.cleaner.threads", "log.cleaner.backoff.ms", "log.cleaner.dedupe.buffer.size"),
        "log.cleaner.io.max.bytes.per.second",
    } == {name for name in DYNAMIC if name not in of_topics and not BROKER_OPTIONS[name].inert}


def test_silent_producers_are_forgotten_after_the_time_of_now(at: Place) -> None:
    assert 86_400_000 == at.broker.call(lambda node: node.directory.producer_expiration_ms)
    change = IncrementalAlterableConfig(name="producer.id.expiration.ms", config_operation=SET, value="1000")
    resource = IncrementalAlterConfigsResource(
        resource_type=ResourceType.BROKER, resource_name="", configs=[change]
    )

    at.ask(IncrementalAlterConfigsRequest(resources=[resource]), 1)

    assert 1000 == at.broker.call(lambda node: node.directory.producer_expiration_ms)
