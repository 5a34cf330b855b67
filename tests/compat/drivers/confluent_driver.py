"""confluent-kafka (librdkafka) behind the JSON lines of `driver.py`."""

from __future__ import annotations

import time
from typing import Any

from confluent_groups import group_ops
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from lines import Ask, Failed, headers_in, raw, record_out, serve

LIMIT_S = 60


def common(ask: Ask) -> dict[str, Any]:
    settings = {"bootstrap.servers": ask["servers"], "client.id": ask["client_id"], "log_level": 3}
    if ask["ca"]:
        settings |= {"security.protocol": "SSL", "ssl.ca.location": ask["ca"]}
    return settings


def admin(ask: Ask) -> AdminClient:
    return AdminClient(common(ask))


def done(client: AdminClient, futures: dict[Any, Any]) -> Any:
    """The only future's result; `client` must live until then."""
    return next(iter(futures.values())).result(LIMIT_S)


def metadata(ask: Ask) -> Any:
    client = admin(ask)
    if ask["topics"] is not None and len(ask["topics"]) == 1:
        told = client.list_topics(ask["topics"][0], timeout=LIMIT_S)
    else:
        told = client.list_topics(timeout=LIMIT_S)
    topics = {name: sorted(topic.partitions) for name, topic in told.topics.items() if topic.error is None}
    return {"brokers": [[b.id, b.host, b.port] for b in told.brokers.values()], "topics": topics}


def create(ask: Ask) -> Any:
    new = NewTopic(ask["topic"], ask["partitions"], 1, config=ask["configs"])
    client = admin(ask)
    done(client, client.create_topics([new], operation_timeout=LIMIT_S))
    return {}


def delete(ask: Ask) -> Any:
    client = admin(ask)
    done(client, client.delete_topics([ask["topic"]], operation_timeout=LIMIT_S))
    return {}


def delete_records(ask: Ask) -> Any:
    before = TopicPartition(ask["topic"], ask["partition"], ask["offset"])
    client = admin(ask)
    return {"low": done(client, client.delete_records([before])).low_watermark}


def describe(ask: Ask) -> Any:
    client = admin(ask)
    told = done(client, client.describe_configs([ConfigResource(ResourceType.TOPIC, ask["topic"])]))
    return {"configs": {name: row.value for name, row in told.items()}}


def alter(ask: Ask) -> Any:
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in ask["configs"].items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, ask["topic"], incremental_configs=entries)
    client = admin(ask)
    done(client, client.incremental_alter_configs([resource]))
    return {}


def produce(ask: Ask) -> Any:
    producer = Producer(
        {
            **common(ask),
            "acks": ask["acks"],
            "compression.type": ask["codec"],
            "enable.idempotence": ask["idempotent"],
            "linger.ms": 0 if ask["tiny"] else 50,
            "batch.num.messages": 1 if ask["tiny"] else 10_000,
            "message.max.bytes": 4_000_000,
            "message.timeout.ms": ask["give_up_ms"],
            "request.timeout.ms": 30_000,
            "topic.metadata.propagation.max.ms": 2_000,
        }
    )
    offsets: list[int | None] = [None] * len(ask["records"])
    errors: list[Any] = []

    def delivered(place: int) -> Any:
        def call(error: Any, message: Any) -> None:
            if error is not None:
                errors.append(error)
            elif ask["acks"] != 0:
                offsets[place] = message.offset()

        return call

    for place, record in enumerate(ask["records"]):
        timestamp = {} if record["timestamp"] is None else {"timestamp": record["timestamp"]}
        producer.produce(
            ask["topic"],
            partition=ask["partition"],
            key=raw(record["key"]),
            value=raw(record["value"]),
            headers=headers_in(record),
            on_delivery=delivered(place),
            **timestamp,
        )
        producer.poll(ask["pause_ms"] / 1000)
    if producer.flush(ask["give_up_ms"] / 1000 + 5):
        raise Failed(None, "not everything was delivered in time")
    if errors:
        raise KafkaException(errors[0])
    return {"offsets": offsets}


def begin_transaction(ask: Ask) -> Any:
    producer = Producer({**common(ask), "transactional.id": ask["transactional_id"]})
    producer.init_transactions(ask["give_up_ms"] / 1000)
    producer.begin_transaction()
    return {}


def consume(ask: Ask) -> Any:
    consumer = Consumer(
        {
            **common(ask),
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed" if ask["committed"] else "read_uncommitted",
            "fetch.wait.max.ms": ask["max_wait_ms"],
            "fetch.min.bytes": ask["min_bytes"],
            "fetch.message.max.bytes": 4_000_000,
        }
    )
    start = {"earliest": OFFSET_BEGINNING, "latest": OFFSET_END}.get(ask["offset"], ask["offset"])
    consumer.assign([TopicPartition(ask["topic"], ask["partition"], start)])
    records: list[Any] = []
    deadline = time.monotonic() + ask["timeout_ms"] / 1000
    try:
        while len(records) < ask["count"] and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is None:
                continue
            if message.error() is not None:
                raise KafkaException(message.error())
            content = (message.key(), message.value(), message.headers())
            records.append(record_out(message.offset(), message.timestamp()[1], *content))
        return {"records": records}
    finally:
        consumer.close()


def offset(ask: Ask) -> Any:
    consumer = Consumer({**common(ask), "group.id": "unused"})
    try:
        tp = TopicPartition(ask["topic"], ask["partition"])
        if ask["when"] in ("earliest", "latest"):
            low, high = consumer.get_watermark_offsets(tp, timeout=LIMIT_S, cached=False)
            return {"offset": low if ask["when"] == "earliest" else high}
        tp.offset = ask["when"]
        found = consumer.offsets_for_times([tp], timeout=LIMIT_S)[0]
        if found.error is not None:
            raise KafkaException(found.error)
        # librdkafka says "the end" (-1) when no record is that late
        return {"offset": None if found.offset < 0 else found.offset}
    finally:
        consumer.close()


def code_of(error: BaseException) -> int | None:
    if isinstance(error, KafkaException):
        code: int = error.args[0].code()
        return code if code >= 0 else None
    return None


OPS = {
    "metadata": metadata,
    "create": create,
    "delete": delete,
    "delete_records": delete_records,
    "describe": describe,
    "alter": alter,
    "produce": produce,
    "begin_transaction": begin_transaction,
    "consume": consume,
    "offset": offset,
    **group_ops(common, admin),
}

if __name__ == "__main__":
    serve(OPS, code_of)
