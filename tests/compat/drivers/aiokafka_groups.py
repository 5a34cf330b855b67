"""Groups with aiokafka: members, and what its admin client does with groups. A member's thread runs a loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaConnectionError
from members import POLL_S, Member, member_ops

from lines import Ask, Failed


class AiokafkaMember(Member):
    """`subscribe`, with a listener. Its heartbeats run whenever this thread polls."""

    settings: dict[str, Any]

    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        ask = self.ask
        self.consumer = AIOKafkaConsumer(
            **self.settings,
            group_id=ask["group"],
            group_instance_id=ask["instance_id"],
            auto_offset_reset="earliest",
            enable_auto_commit=ask["auto_commit"],
            auto_commit_interval_ms=200,
            session_timeout_ms=ask["session_ms"],
            heartbeat_interval_ms=ask["heartbeat_ms"],
            metadata_max_age_ms=2_000,
            partition_assignment_strategy=(RangePartitionAssignor,),
        )
        taken = self.revoked

        class Listener(ConsumerRebalanceListener):
            def on_partitions_revoked(self, revoked: Any) -> None:
                taken.extend(one.partition for one in revoked)

            def on_partitions_assigned(self, assigned: Any) -> None:
                pass

        self.consumer.subscribe([ask["topic"]], listener=Listener())
        try:
            await self.consumer.start()
        except BaseException:
            await self.consumer.stop()
            raise

    def poll(self) -> list[list[int]]:
        polled = self.loop.run_until_complete(self.consumer.getmany(timeout_ms=int(POLL_S * 1000)))
        return [[one.partition, one.offset] for records in polled.values() for one in records]

    def passing(self, error: BaseException) -> bool:
        return isinstance(error, KafkaConnectionError)  # it looks for a broker only once when it starts

    def commit(self, metadata: str | None) -> None:
        self.loop.run_until_complete(self._commit(metadata))

    async def _commit(self, metadata: str | None) -> None:
        if metadata is None:
            await self.consumer.commit()
            return
        assigned = self.consumer.assignment()
        await self.consumer.commit({tp: (await self.consumer.position(tp), metadata) for tp in assigned})

    def close(self) -> None:
        self.loop.run_until_complete(self.consumer.stop())


def group_ops(
    common: Callable[[Ask], dict[str, Any]], admin: Callable[[Ask], Any], run: Callable[[Any], Any]
) -> dict[str, Callable[[Ask], Any]]:
    """Everything about groups."""

    def member(ask: Ask) -> Member:
        made = AiokafkaMember(ask)
        made.settings = common(ask)
        return made

    async def groups(ask: Ask) -> Any:
        async with admin(ask) as client:
            return {"groups": [one[0] for one in await client.list_consumer_groups()]}

    async def describe_group(ask: Ask) -> Any:
        async with admin(ask) as client:
            [answer] = await client.describe_consumer_groups([ask["group"]])
            code, _, state, _, _, told = answer.groups[0][:6]
            if code:
                raise Failed(code, "DescribeGroups")
            members = []
            for one in told:
                client_id, assignment = one[-4], one[-1]
                partitions: list[int] = []
                if assignment:
                    decoded = ConsumerProtocolMemberAssignment.decode(assignment)
                    partitions = [p for _, of_topic in decoded.assignment for p in of_topic]
                members.append([client_id, None, partitions])
            return {"state": state, "members": members}

    async def group_offset(ask: Ask) -> Any:
        async with admin(ask) as client:
            tp = TopicPartition(ask["topic"], ask["partition"])
            found = (await client.list_consumer_group_offsets(ask["group"], partitions=[tp]))[tp]
            offset = None if found.offset < 0 else found.offset
            return {"offset": offset, "metadata": found.metadata, "epoch": None}

    return {
        **member_ops(member),
        "groups": run(groups),
        "describe_group": run(describe_group),
        "group_offset": run(group_offset),
    }
