"""A cluster as a client sees it: which broker leads what, connections to them, and trying again. Knows no messages but
Metadata and FindCoordinator.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from kbroker.cli.client.connection import CLIENT_ID, Address, Connection, connect
from kbroker.cli.client.errors import ClientError, Disconnected, Unreachable, error_of, raise_error
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.groups import FindCoordinatorRequest
from kbroker.protocol.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseTopic,
)

T = TypeVar("T")

# How long something is tried again that may come right: a leader that moves, a broker that restarts.
RETRY_SECONDS_MAX = 30.0
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.05, 1.0

TOPIC_IDS_FROM = 12  # Metadata's topics may be named by ids from v10; names do for us
GROUP = 0  # FindCoordinator's kind of key


# Why there is no such topic, by what the broker answers.
_WITHOUT = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: "there is no topic {name!r}",
    ErrorCode.INVALID_REPLICATION_FACTOR: "there is no topic {name!r}, and the broker cannot create it: its "
    "default.replication.factor is more than there are brokers; lower it, or say how many replicas: "
    "kbroker topic create {name} --replication-factor 1",
    ErrorCode.INVALID_TOPIC_EXCEPTION: "{name!r} cannot be the name of a topic: that has letters of ASCII, digits, "
    "'.', '_' and '-' alone, 249 at most",
}


class Cluster:
    """What the bootstrap servers lead to. `async with Cluster(servers, tls) as cluster`."""

    def __init__(
        self,
        bootstrap: Sequence[Address],
        tls: ssl.SSLContext | None = None,
        *,
        client_id: str = CLIENT_ID,
        retry_seconds: float = RETRY_SECONDS_MAX,
    ) -> None:
        self.bootstrap = list(bootstrap)
        self.tls = tls
        self.brokers: dict[int, Address] = {}
        self.controller_id = -1
        self.cluster_id: str | None = None
        self._client_id = client_id
        self._retry_seconds = retry_seconds
        self._connections: dict[tuple[Address, bool], Connection] = {}
        self._opening: dict[tuple[Address, bool], asyncio.Lock] = {}
        self._leaders: dict[tuple[str, int], int] = {}
        self._partitions: dict[str, int] = {}
        self._coordinators: dict[str, Address] = {}

    async def __aenter__(self) -> Cluster:
        await self.any()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(connection.close() for connection in self._connections.values()))
        self._connections.clear()

    # -- connections

    async def at(self, address: Address, *, patient: bool = False) -> Connection:
        """The connection to an address, opened when there is none.

        Answers come in order: a request that waits for records, or for members, goes by a `patient` connection.
        """
        which = (address, patient)
        async with self._opening.setdefault(which, asyncio.Lock()):
            found = self._connections.get(which)
            if found is None or not found.open:
                found = self._connections[which] = await connect(address, self.tls, self._client_id)
            return found

    async def any(self) -> Connection:
        """A connection to some broker, the bootstrap servers first."""
        failed: list[Unreachable] = []
        for address in dict.fromkeys([*self.bootstrap, *self.brokers.values()]):
            try:
                return await self.at(address)
            except Unreachable as error:
                failed.append(error)
        raise failed[0]

    async def broker(self, node_id: int, *, patient: bool = False) -> Connection:
        """The connection to a broker."""
        address = self.brokers.get(node_id)
        if address is None:
            await self.metadata([])
            address = self.brokers.get(node_id)
        if address is None:
            raise ClientError(
                f"there is no broker {node_id}: choose among {', '.join(map(str, sorted(self.brokers)))}"
            )
        return await self.at(address, patient=patient)

    async def controller(self) -> Connection:
        """The connection for changes: the controller, else any broker."""
        await self.metadata([])
        if self.controller_id in self.brokers:
            return await self.broker(self.controller_id)
        return await self.any()

    async def coordinator(self, group: str, *, patient: bool = False) -> Connection:
        """The connection to the broker that coordinates a group."""
        address = self._coordinators.get(group)
        if address is None:
            request = FindCoordinatorRequest(key=group, key_type=GROUP)
            answer = await (await self.any()).ask(request, oldest=1, newest=3)
            raise_error(answer)
            address = self._coordinators[group] = Address(answer.host, answer.port)
        return await self.at(address, patient=patient)

    async def leader(self, topic: str, partition: int) -> Connection:
        """The connection to a partition's leader."""
        return await self.broker(await self.leader_id(topic, partition))

    async def leader_id(self, topic: str, partition: int) -> int:
        """Who leads a partition."""
        node = self._leaders.get((topic, partition), -1)
        if node < 0:
            await self.topic(topic)
            node = self._leaders.get((topic, partition), -1)
        if node < 0:
            count = self._partitions.get(topic, 0)
            if partition >= count:
                raise ClientError(f"topic {topic} has no partition {partition}: it has {count}")
            raise KafkaError(
                ErrorCode.LEADER_NOT_AVAILABLE, f"partition {partition} of {topic} has no leader now"
            )
        return node

    def forget(self) -> None:
        """Leaders and coordinators are asked for anew: what we knew did not hold."""
        self._leaders.clear()
        self._coordinators.clear()

    # -- metadata

    async def metadata(self, topics: list[str] | None, *, create: bool = False) -> MetadataResponse:
        """The brokers, and topics by name (None: all of them)."""
        asked = None if topics is None else [MetadataRequestTopic(name=name) for name in topics]
        request = MetadataRequest(topics=asked, allow_auto_topic_creation=create)
        answer: MetadataResponse = await (await self.any()).ask(request, oldest=4, newest=TOPIC_IDS_FROM)
        self.brokers = {broker.node_id: Address(broker.host, broker.port) for broker in answer.brokers}
        self.controller_id = answer.controller_id
        self.cluster_id = answer.cluster_id
        for topic in answer.topics:
            name = topic.name or ""
            self._partitions[name] = len(topic.partitions)
            for part in topic.partitions:
                self._leaders[name, part.partition_index] = part.leader_id
        return answer

    async def topic(self, name: str, *, create: bool = False) -> MetadataResponseTopic:
        """One topic; KafkaError where there is none."""
        [topic] = (await self.metadata([name], create=create)).topics
        error = error_of(topic)
        if error is not None:
            raise KafkaError(error.code, _WITHOUT.get(error.code, "topic {name!r}").format(name=name))
        return topic

    # -- trying again

    async def persist(
        self, act: Callable[[], Awaitable[T]], *, also: frozenset[ErrorCode] = frozenset()
    ) -> T:
        """What `act` returns, called again while it fails in ways that pass; the last failure when they do not.

        An unknown topic passes only if named in `also`: a person has mistyped it far more often than it is about to come.
        """
        deadline = time.monotonic() + self._retry_seconds
        pause = PAUSE_SECONDS
        while True:
            try:
                return await act()
            except KafkaError as error:
                passes = error.code.retriable and error.code != ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                if not (passes or error.code in also) or time.monotonic() + pause > deadline:
                    raise
            except Disconnected:
                if time.monotonic() + pause > deadline:
                    raise
            except Unreachable:
                # the first contact must not take half a minute to fail; later a broker may be restarting
                if not self.brokers or time.monotonic() + pause > deadline:
                    raise
            self.forget()
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)
