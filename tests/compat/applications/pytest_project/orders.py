"""Somebody's application: orders are placed, billed by a group, passed on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from kafka import KafkaConsumer, KafkaProducer

GROUP = {"session_timeout_ms": 30_000, "heartbeat_interval_ms": 500, "auto_offset_reset": "earliest"}


def place(servers: str, topic: str, *orders: dict[str, Any]) -> None:
    """Announce orders; returns when they are kept."""
    producer = KafkaProducer(bootstrap_servers=servers, acks="all")
    for order in orders:
        producer.send(topic, json.dumps(order).encode(), key=str(order["id"]).encode()).get(timeout=60)
    producer.close()


class Billing:
    """A member of the group that bills; `bill` is called for each order, then its place is committed."""

    def __init__(self, servers: str, topic: str, group: str, bill: Callable[[dict[str, Any]], None]) -> None:
        self._consumer = KafkaConsumer(
            topic, bootstrap_servers=servers, group_id=group, enable_auto_commit=False, **GROUP
        )
        self._bill = bill

    def work(self) -> None:
        """Bill what is there; joins the group when called first."""
        for records in self._consumer.poll(timeout_ms=200).values():
            for record in records:
                self._bill(json.loads(record.value))
            self._consumer.commit()

    @property
    def partitions(self) -> set[int]:
        """What it bills at the moment."""
        return {each.partition for each in self._consumer.assignment()}

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()


async def forward(servers: str, source: str, target: str, group: str, count: int) -> None:
    """Pass `count` orders on, and commit them."""
    async with (
        AIOKafkaProducer(bootstrap_servers=servers, acks="all") as producer,
        AIOKafkaConsumer(
            source, bootstrap_servers=servers, group_id=group, enable_auto_commit=False, **GROUP
        ) as consumer,
    ):
        for _ in range(count):
            record = await consumer.getone()
            await producer.send_and_wait(target, record.value, key=record.key)
            await consumer.commit()
