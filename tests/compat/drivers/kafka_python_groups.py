"""Groups with kafka-python: members, and what its admin client does with groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kafka import (
    ConsumerRebalanceListener,
    KafkaAdminClient,
    KafkaConsumer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from members import Member, member_ops

from lines import Ask, Failed

# A join that is not over when a poll ends may never be: with any broker that takes longer to answer, the member neither
# beats nor reads from then on. It ends at once when there is something to read.
POLL_MS = 2_000


class KafkaPythonMember(Member):
    """`subscribe`, with a listener."""

    settings: dict[str, Any]

    def open(self) -> None:
        ask = self.ask
        self.consumer = KafkaConsumer(
            **self.settings,
            group_id=ask["group"],
            group_instance_id=ask["instance_id"],
            auto_offset_reset="earliest",
            enable_auto_commit=ask["auto_commit"],
            auto_commit_interval_ms=200,
            session_timeout_ms=ask["session_ms"],
            heartbeat_interval_ms=ask["heartbeat_ms"],
            metadata_max_age_ms=2_000,
            partition_assignment_strategy=[
                CooperativeStickyAssignor if ask["cooperative"] else RangePartitionAssignor
            ],
        )
        taken = self.revoked

        class Listener(ConsumerRebalanceListener):
            def on_partitions_revoked(self, revoked: Any) -> None:
                taken.extend(one.partition for one in revoked)

            def on_partitions_assigned(self, assigned: Any) -> None:
                pass

        self.consumer.subscribe([ask["topic"]], listener=Listener())

    def poll(self) -> list[list[int]]:
        polled = self.consumer.poll(timeout_ms=POLL_MS)
        return [[one.partition, one.offset] for records in polled.values() for one in records]

    def passing(self, error: BaseException) -> bool:
        return bool(getattr(error, "retriable", False))

    def commit(self, metadata: str | None) -> None:
        self.consumer.commit(
            None
            if metadata is None
            else {
                tp: OffsetAndMetadata(self.consumer.position(tp), metadata, -1)
                for tp in self.consumer.assignment()
            }
        )

    def close(self) -> None:
        self.consumer.close()


def _said(found: Any) -> None:
    """The admin client gives errors as names in results."""
    for one in found.values():
        if one in ("OK", None) or getattr(one, "errno", None) == 0:
            continue
        error = getattr(kafka_errors, one) if isinstance(one, str) else one
        raise Failed(error.errno, str(error))


def group_ops(common: Callable[[Ask], dict[str, Any]]) -> dict[str, Callable[[Ask], Any]]:
    """Everything about groups."""

    def member(ask: Ask) -> Member:
        made = KafkaPythonMember(ask)
        made.settings = common(ask)
        return made

    def with_admin(work: Callable[[KafkaAdminClient, Ask], Any]) -> Callable[[Ask], Any]:
        def op(ask: Ask) -> Any:
            client = KafkaAdminClient(**common(ask))
            try:
                return work(client, ask)
            finally:
                client.close()

        return op

    def groups(client: KafkaAdminClient, ask: Ask) -> Any:
        return {"groups": [one["group_id"] for one in client.list_groups()]}

    def describe_group(client: KafkaAdminClient, ask: Ask) -> Any:
        told = client.describe_groups([ask["group"]])[ask["group"]]
        members = []
        for one in told["members"]:
            assigned = (one["member_assignment"] or {}).get("assigned_partitions", [])
            partitions = [p for topic in assigned for p in topic["partitions"]]
            members.append([one["client_id"], one.get("group_instance_id"), partitions])
        return {"state": told["group_state"], "members": members}

    def delete_group(client: KafkaAdminClient, ask: Ask) -> Any:
        _said(client.delete_groups([ask["group"]]))
        return {}

    def group_offset(client: KafkaAdminClient, ask: Ask) -> Any:
        tp = TopicPartition(ask["topic"], ask["partition"])
        found = client.list_group_offsets({ask["group"]: [tp]})[ask["group"]][tp]
        offset = None if found.offset < 0 else found.offset
        return {"offset": offset, "metadata": found.metadata, "epoch": found.leader_epoch}

    def alter_offset(client: KafkaAdminClient, ask: Ask) -> Any:
        tp = TopicPartition(ask["topic"], ask["partition"])
        _said(client.alter_group_offsets(ask["group"], {tp: OffsetAndMetadata(ask["offset"], "", -1)}))
        return {}

    def delete_offset(client: KafkaAdminClient, ask: Ask) -> Any:
        _said(client.delete_group_offsets(ask["group"], [TopicPartition(ask["topic"], ask["partition"])]))
        return {}

    return {
        **member_ops(member),
        "groups": with_admin(groups),
        "describe_group": with_admin(describe_group),
        "delete_group": with_admin(delete_group),
        "group_offset": with_admin(group_offset),
        "alter_offset": with_admin(alter_offset),
        "delete_offset": with_admin(delete_offset),
    }
