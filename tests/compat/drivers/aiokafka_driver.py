"""aiokafka behind the JSON lines of `driver.py`. Each request runs its own loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code
from aiokafka.helpers import create_ssl_context
from aiokafka_groups import group_ops

from lines import Ask, Failed, headers_in, raw, record_out, serve


def common(ask: Ask) -> dict[str, Any]:
    settings = {"bootstrap_servers": ask["servers"], "client_id": ask["client_id"]}
    if ask["ca"]:
        settings |= {"security_protocol": "SSL", "ssl_context": create_ssl_context(cafile=ask["ca"])}
    return settings


@asynccontextmanager
async def admin(ask: Ask) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(**common(ask))
    await client.start()
    try:
        yield client
    finally:
        await client.close()


def check(code: int, message: Any = None) -> None:
    if code:
        raise Failed(code, f"{for_code(code).__name__}: {message}")


async def metadata(ask: Ask) -> Any:
    async with admin(ask) as client:
        brokers = (await client.describe_cluster())["brokers"]
        topics = await client.describe_topics(ask["topics"])
        return {
            "brokers": [[b["node_id"], b["host"], b["port"]] for b in brokers],
            "topics": {
                t["topic"]: sorted(p["partition"] for p in t["partitions"])
                for t in topics
                if not t["error_code"]
            },
        }


async def create(ask: Ask) -> Any:
    async with admin(ask) as client:
        answer = await client.create_topics(
            [NewTopic(ask["topic"], ask["partitions"], 1, topic_configs=ask["configs"])]
        )
        check(*answer.topic_errors[0][1:3])
        return {}


async def delete(ask: Ask) -> Any:
    async with admin(ask) as client:
        answer = await client.delete_topics([ask["topic"]])
        check(answer.topic_error_codes[0][1])
        return {}


async def delete_records(ask: Ask) -> Any:
    async with admin(ask) as client:
        tp = TopicPartition(ask["topic"], ask["partition"])
        return {"low": (await client.delete_records({tp: RecordsToDelete(ask["offset"])}))[tp]}


async def describe(ask: Ask) -> Any:
    async with admin(ask) as client:
        answers = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, ask["topic"])])
        code, message, _, _, rows = answers[0].resources[0]
        check(code, message)
        return {"configs": {row[0]: row[1] for row in rows}}


async def alter(ask: Ask) -> Any:
    async with admin(ask) as client:
        answers = await client.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, ask["topic"], ask["configs"])]
        )
        check(*answers[0].resources[0][:2])
        return {}


async def begin_transaction(ask: Ask) -> Any:
    producer = AIOKafkaProducer(
        **common(ask), transactional_id=ask["transactional_id"], request_timeout_ms=ask["give_up_ms"]
    )
    try:
        await producer.start()
        await producer.begin_transaction()
        return {}
    finally:
        await producer.stop()


async def produce(ask: Ask) -> Any:
    producer = AIOKafkaProducer(
        **common(ask),
        acks={0: 0, 1: 1, -1: "all"}[ask["acks"]],
        compression_type=None if ask["codec"] == "none" else ask["codec"],
        enable_idempotence=ask["idempotent"],
        max_batch_size=1 if ask["tiny"] else 900_000,
        linger_ms=0 if ask["tiny"] else 50,
        max_request_size=4_000_000,
        request_timeout_ms=ask["give_up_ms"],
    )
    await producer.start()
    try:
        sent = []
        for record in ask["records"]:
            sent.append(
                await producer.send(
                    ask["topic"],
                    partition=ask["partition"],
                    key=raw(record["key"]),
                    value=raw(record["value"]),
                    headers=headers_in(record),
                    timestamp_ms=record["timestamp"],
                )
            )
            await asyncio.sleep(ask["pause_ms"] / 1000)
        told = [await future for future in sent]
        return {"offsets": [None if t is None or t.offset < 0 else t.offset for t in told]}
    finally:
        await producer.stop()


@asynccontextmanager
async def consumer_for(ask: Ask, **settings: Any) -> AsyncIterator[tuple[AIOKafkaConsumer, TopicPartition]]:
    consumer = AIOKafkaConsumer(**common(ask), enable_auto_commit=False, **settings)
    tp = TopicPartition(ask["topic"], ask["partition"])
    await consumer.start()
    try:
        consumer.assign([tp])
        yield consumer, tp
    finally:
        await consumer.stop()


async def consume(ask: Ask) -> Any:
    async with consumer_for(
        ask,
        auto_offset_reset="none",
        isolation_level="read_committed" if ask["committed"] else "read_uncommitted",
        fetch_max_wait_ms=ask["max_wait_ms"],
        fetch_min_bytes=ask["min_bytes"],
        max_partition_fetch_bytes=4_000_000,
    ) as (consumer, tp):
        if ask["offset"] == "earliest":
            await consumer.seek_to_beginning(tp)
        elif ask["offset"] == "latest":
            await consumer.seek_to_end(tp)
        else:
            consumer.seek(tp, ask["offset"])
        records: list[Any] = []
        deadline = time.monotonic() + ask["timeout_ms"] / 1000
        while len(records) < ask["count"] and time.monotonic() < deadline:
            polled = await consumer.getmany(tp, timeout_ms=200, max_records=ask["count"] - len(records))
            records += [
                record_out(m.offset, m.timestamp, m.key, m.value, m.headers) for m in polled.get(tp, ())
            ]
        return {"records": records}


async def offset(ask: Ask) -> Any:
    async with consumer_for(ask) as (consumer, tp):
        if ask["when"] == "earliest":
            return {"offset": (await consumer.beginning_offsets([tp]))[tp]}
        if ask["when"] == "latest":
            return {"offset": (await consumer.end_offsets([tp]))[tp]}
        found = (await consumer.offsets_for_times({tp: ask["when"]}))[tp]
        return {"offset": None if found is None else found.offset}


def run(op: Callable[[Ask], Coroutine[Any, Any, Any]]) -> Callable[[Ask], Any]:
    return lambda ask: asyncio.run(op(ask))


OPS = {
    "metadata": run(metadata),
    "create": run(create),
    "delete": run(delete),
    "delete_records": run(delete_records),
    "describe": run(describe),
    "alter": run(alter),
    "produce": run(produce),
    "begin_transaction": run(begin_transaction),
    "consume": run(consume),
    "offset": run(offset),
    **group_ops(common, admin, run),
}

if __name__ == "__main__":
    serve(OPS, lambda error: getattr(error, "errno", None))
