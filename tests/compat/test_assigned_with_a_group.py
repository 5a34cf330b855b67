"""Consumers that assign their partitions but name a group, as confluent-kafka demands, before groups are there.

Each asks for the group's committed offset first; none is, so it begins where auto.offset.reset says. librdkafka 2.16
ends the process (SIGSEGV) on a broker without OffsetFetch, hence a process of its own.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from kbroker.protocol.records import build_batch, record
from kbroker.testing import Broker
from tests.support.clients import require

CONFLUENT = """
from confluent_kafka import Consumer, TopicPartition
consumer = Consumer({"bootstrap.servers": at, "group.id": "g", "auto.offset.reset": "earliest"})
consumer.assign([TopicPartition("t", 0)])
for _ in range(160):
    found = consumer.poll(0.5)
    if found is not None and found.error() is None:
        print(found.value().decode())
        break
consumer.close()
"""

KAFKA_PYTHON = """
from kafka import KafkaConsumer, TopicPartition
consumer = KafkaConsumer(
    bootstrap_servers=at, group_id="g", auto_offset_reset="earliest", enable_auto_commit=False
)
consumer.assign([TopicPartition("t", 0)])
print(next(iter(consumer)).value.decode())
consumer.close()
"""

AIOKAFKA = """
import asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
async def main():
    consumer = AIOKafkaConsumer(
        bootstrap_servers=at, group_id="g", auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    consumer.assign([TopicPartition("t", 0)])
    print((await consumer.getone()).value.decode())
    await consumer.stop()
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("module", "package", "program"),
    [
        ("confluent_kafka", "confluent-kafka", CONFLUENT),
        ("kafka", "kafka-python", KAFKA_PYTHON),
        ("aiokafka", "aiokafka", AIOKAFKA),
    ],
)
def test_a_group_that_committed_nothing_is_no_hindrance(module: str, package: str, program: str) -> None:
    require(module, f"pip install {package}")
    with Broker() as broker:
        broker.create_topic("t")
        broker.call(lambda node: node.partitions.get("t", 0).append(_batch(b"first"), 1))

        ended = subprocess.run(
            [sys.executable, "-c", f"at = {broker.bootstrap_servers!r}\n{program}"],
            capture_output=True,
            text=True,
            timeout=120,
        )

    assert (0, "first\n") == (ended.returncode, ended.stdout), ended.stderr


def _batch(value: bytes) -> memoryview:
    return memoryview(bytearray(build_batch([record(value, timestamp=1_700_000_000_000)])))
