"""kafka-python behind the JSON lines of `driver.py`."""

from __future__ import annotations

import time
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, NewTopic
from kafka_python_groups import group_ops

from lines import Ask, headers_in, raw, record_out, serve


def common(ask: Ask) -> dict[str, Any]:
    settings = {"bootstrap_servers": ask["servers"], "client_id": ask["client_id"]}
    if ask["ca"]:
        settings |= {"security_protocol": "SSL", "ssl_cafile": ask["ca"]}
    return settings


def metadata(ask: Ask) -> Any:
    with_admin = KafkaAdminClient(**common(ask))
    try:
        brokers = [[b["broker_id"], b["host"], b["port"]] for b in with_admin.describe_cluster()["brokers"]]
        topics = with_admin.describe_topics(ask["topics"])
        found = {
            t["name"]: [p["partition_index"] for p in t["partitions"]] for t in topics if not t["error_code"]
        }
        return {"brokers": brokers, "topics": found}
    finally:
        with_admin.close()


def create(ask: Ask) -> Any:
    with_admin = KafkaAdminClient(**common(ask))
    try:
        with_admin.create_topics([NewTopic(ask["topic"], ask["partitions"], 1, topic_configs=ask["configs"])])
        return {}
    finally:
        with_admin.close()


def delete(ask: Ask) -> Any:
    with_admin = KafkaAdminClient(**common(ask))
    try:
        with_admin.delete_topics([ask["topic"]])
        return {}
    finally:
        with_admin.close()


def delete_records(ask: Ask) -> Any:
    with_admin = KafkaAdminClient(**common(ask))
    try:
        tp = TopicPartition(ask["topic"], ask["partition"])
        return {"low": with_admin.delete_records({tp: ask["offset"]})[tp]["low_watermark"]}
    finally:
        with_admin.close()


def describe(ask: Ask) -> Any:
    with_admin = KafkaAdminClient(**common(ask))
    try:
        told = with_admin.describe_configs([ConfigResource("topic", ask["topic"])], config_filter="all")
        return {"configs": {name: row["value"] for name, row in told["topic"][ask["topic"]].items()}}
    finally:
        with_admin.close()


def alter(ask: Ask) -> Any:
    with_admin = KafkaAdminClient(**common(ask))
    try:
        with_admin.alter_configs([ConfigResource("topic", ask["topic"], ask["configs"])])
        return {}
    finally:
        with_admin.close()


def produce(ask: Ask) -> Any:
    producer = KafkaProducer(
        **common(ask),
        acks=ask["acks"],
        compression_type=None if ask["codec"] == "none" else ask["codec"],
        enable_idempotence=ask["idempotent"],
        batch_size=1 if ask["tiny"] else 900_000,
        linger_ms=0 if ask["tiny"] else 50,
        max_request_size=4_000_000,
        max_block_ms=ask["give_up_ms"],
        delivery_timeout_ms=max(ask["give_up_ms"], 10_100),
        request_timeout_ms=min(max(ask["give_up_ms"], 10_100) - 100, 30_000),
    )
    try:
        sent = []
        for record in ask["records"]:
            sent.append(
                producer.send(
                    ask["topic"],
                    partition=ask["partition"],
                    key=raw(record["key"]),
                    value=raw(record["value"]),
                    headers=headers_in(record),
                    timestamp_ms=record["timestamp"],
                )
            )
            time.sleep(ask["pause_ms"] / 1000)
        offsets = [future.get(timeout=ask["give_up_ms"] / 1000 + 10).offset for future in sent]
        return {"offsets": [offset if ask["acks"] != 0 else None for offset in offsets]}
    finally:
        producer.close(timeout=5)


def begin_transaction(ask: Ask) -> Any:
    producer = KafkaProducer(
        **common(ask), transactional_id=ask["transactional_id"], max_block_ms=ask["give_up_ms"]
    )
    try:
        producer.init_transactions()
        producer.begin_transaction()
        return {}
    finally:
        producer.close(timeout=5)


def consumer_for(ask: Ask, **settings: Any) -> tuple[KafkaConsumer, TopicPartition]:
    consumer = KafkaConsumer(
        **common(ask), enable_auto_commit=False, allow_auto_create_topics=False, **settings
    )
    tp = TopicPartition(ask["topic"], ask["partition"])
    consumer.assign([tp])
    return consumer, tp


def consume(ask: Ask) -> Any:
    consumer, tp = consumer_for(
        ask,
        auto_offset_reset="none",
        isolation_level="read_committed" if ask["committed"] else "read_uncommitted",
        fetch_max_wait_ms=ask["max_wait_ms"],
        fetch_min_bytes=ask["min_bytes"],
        max_poll_records=ask["count"],
        max_partition_fetch_bytes=4_000_000,
    )
    try:
        if ask["offset"] == "earliest":
            consumer.seek_to_beginning(tp)
        elif ask["offset"] == "latest":
            consumer.seek_to_end(tp)
            consumer.position(tp)
        else:
            consumer.seek(tp, ask["offset"])
        records: list[Any] = []
        deadline = time.monotonic() + ask["timeout_ms"] / 1000
        while len(records) < ask["count"] and time.monotonic() < deadline:
            polled = consumer.poll(timeout_ms=200).get(tp, ())
            records += [record_out(m.offset, m.timestamp, m.key, m.value, m.headers) for m in polled]
        return {"records": records[: ask["count"]]}
    finally:
        consumer.close()


def offset(ask: Ask) -> Any:
    consumer, tp = consumer_for(ask)
    try:
        if ask["when"] == "earliest":
            return {"offset": consumer.beginning_offsets([tp])[tp]}
        if ask["when"] == "latest":
            return {"offset": consumer.end_offsets([tp])[tp]}
        found = consumer.offsets_for_times({tp: ask["when"]})[tp]
        return {"offset": None if found is None else found.offset}
    finally:
        consumer.close()


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
    **group_ops(common),
}

if __name__ == "__main__":
    serve(OPS, lambda error: getattr(error, "errno", None))
