"""Groups with confluent-kafka (librdkafka): members, and what its admin client does with groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient
from kafka import TopicPartition as NamedPartition
from members import POLL_S, Member, member_ops

from lines import Ask, Failed

LIMIT_S = 60
# Kafka's own error is only in the words of a fatal one
FATAL = {"Static consumer fenced": 82, "API version not supported": 35}


def _metadata(ask: Ask, found: TopicPartition) -> str:
    """librdkafka copies an offset's metadata without the zero that ends it, and confluent-kafka reads on up to one: what
    lies there in memory may be no text. Then another client reads it."""
    try:
        return found.metadata  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        pass
    tls = {"security_protocol": "SSL", "ssl_cafile": ask["ca"]} if ask["ca"] else {}
    client = KafkaAdminClient(bootstrap_servers=ask["servers"], **tls)
    try:
        named = NamedPartition(ask["topic"], ask["partition"])
        return client.list_group_offsets({ask["group"]: [named]})[ask["group"]][named].metadata  # type: ignore[no-any-return]
    finally:
        client.close()


class ConfluentMember(Member):
    """`subscribe`, with its callbacks."""

    settings: dict[str, Any]

    def open(self) -> None:
        ask = self.ask
        more = {"group.instance.id": ask["instance_id"]} if ask["instance_id"] else {}
        if ask["protocol"] == "classic":
            more["partition.assignment.strategy"] = "cooperative-sticky" if ask["cooperative"] else "range"
            more["session.timeout.ms"] = ask["session_ms"]
            more["heartbeat.interval.ms"] = ask["heartbeat_ms"]
        else:
            more["group.protocol"] = ask["protocol"]

        self.consumer = Consumer(
            {
                **self.settings,
                "group.id": ask["group"],
                "auto.offset.reset": "earliest",
                "enable.auto.commit": ask["auto_commit"],
                "auto.commit.interval.ms": 200,
                "topic.metadata.refresh.interval.ms": 2_000,
                **more,
            }
        )

        def revoked(_: Any, partitions: list[TopicPartition]) -> None:
            self.revoked += [one.partition for one in partitions]

        self.consumer.subscribe([ask["topic"]], on_revoke=revoked, on_lost=revoked)

    def poll(self) -> list[list[int]]:
        found = []
        for message in self.consumer.consume(500, POLL_S):
            if message.error() is None:
                found.append([message.partition(), message.offset()])
            elif message.error().code() == KafkaError._FATAL:
                words = message.error().str()
                raise Failed(next((code for known, code in FATAL.items() if known in words), None), words)
        return found

    def commit(self, metadata: str | None) -> None:
        positions = [one for one in self.consumer.position(self.consumer.assignment()) if one.offset >= 0]
        if metadata is not None:
            positions = [TopicPartition(p.topic, p.partition, p.offset, metadata) for p in positions]
        for done in self.consumer.commit(offsets=positions, asynchronous=False):
            if done.error is not None:
                raise KafkaException(done.error)

    def close(self) -> None:
        self.consumer.close()

    def code_of(self, error: BaseException) -> int | None:
        if isinstance(error, Failed):
            return error.code
        return error.args[0].code() if isinstance(error, KafkaException) else None


def _partition(ask: Ask, *more: Any) -> ConsumerGroupTopicPartitions:
    return ConsumerGroupTopicPartitions(ask["group"], [TopicPartition(ask["topic"], ask["partition"], *more)])


def group_ops(
    common: Callable[[Ask], dict[str, Any]], admin: Callable[[Ask], AdminClient]
) -> dict[str, Callable[[Ask], Any]]:
    """Everything about groups."""

    def member(ask: Ask) -> Member:
        made = ConfluentMember(ask)
        made.settings = common(ask)
        return made

    def groups(ask: Ask) -> Any:
        client = admin(ask)
        return {"groups": [one.group_id for one in client.list_consumer_groups().result(LIMIT_S).valid]}

    def describe_group(ask: Ask) -> Any:
        client = admin(ask)
        told = client.describe_consumer_groups([ask["group"]])[ask["group"]].result(LIMIT_S)
        members = [
            [one.client_id, one.group_instance_id, [p.partition for p in one.assignment.topic_partitions]]
            for one in told.members
        ]
        return {"state": told.state.name, "members": members}

    def delete_group(ask: Ask) -> Any:
        client = admin(ask)
        client.delete_consumer_groups([ask["group"]])[ask["group"]].result(LIMIT_S)
        return {}

    def group_offset(ask: Ask) -> Any:
        client = admin(ask)
        [told] = client.list_consumer_group_offsets([_partition(ask)]).values()
        [found] = told.result(LIMIT_S).topic_partitions
        if found.error is not None:
            raise KafkaException(found.error)
        offset = None if found.offset < 0 else found.offset
        return {"offset": offset, "metadata": _metadata(ask, found), "epoch": found.leader_epoch}

    def alter_offset(ask: Ask) -> Any:
        client = admin(ask)
        [told] = client.alter_consumer_group_offsets([_partition(ask, ask["offset"])]).values()
        [done] = told.result(LIMIT_S).topic_partitions
        if done.error is not None:
            raise KafkaException(done.error)
        return {}

    return {
        **member_ops(member),
        "groups": groups,
        "describe_group": describe_group,
        "delete_group": delete_group,
        "group_offset": group_offset,
        "alter_offset": alter_offset,
    }
