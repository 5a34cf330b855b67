"""Rooms for handler tests: the real cluster log, state and settings on a folder of the test; no sockets, no loop.
With `open_disk` also its partitions.

house = House(tmp_path, {"num.partitions": "3"})
house.create("topic", partitions=2)
answer = await house.ask(handle_metadata, MetadataRequest(topics=None), version=9)
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from kbroker.cluster.commands import CreateTopics, DeleteTopics, NewTopic, RegisterBroker
from kbroker.cluster.local import LocalLog
from kbroker.cluster.state import Change, Topic
from kbroker.config import ResourceType, Settings
from kbroker.groups.coordinator import GroupCoordinator
from kbroker.model import BrokerId, Endpoint, new_uuid
from kbroker.net.slots import Slot
from kbroker.replication.partition import WRITTEN
from kbroker.replication.replicas import Replicas
from kbroker.server.aside import Aside
from kbroker.server.producer_ids import ProducerIds
from kbroker.server.quotas import Quotas, Windows
from kbroker.server.refusals import Refusals
from kbroker.server.rooms import Call, Rooms
from kbroker.server.slices import Large
from kbroker.server.topic_answers import TopicAnswers
from kbroker.storage.disk import RealDisk
from tests.support.storage import Broker, ManualClock, batch

NODE = BrokerId(1)
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"
PLAIN = Endpoint("PLAINTEXT", "broker-1.example", 9092, "PLAINTEXT")
TLS = Endpoint("SSL", "broker-1.example", 9093, "SSL")
CALLER = {"listener": "PLAINTEXT", "principal": "User:ANONYMOUS", "client_id": "raw", "ip": "127.0.0.1"}


OPEN: list[House] = []  # those of this test, to be closed at its end: each holds a file


class FakeConnection:
    """A connection, as far as handlers touch it; counts who asked for a pause."""

    def __init__(self) -> None:
        self.open = True
        self.stamp: Callable[[Any], None] | None = None
        self.paused = 0

    def pause(self) -> None:
        self.paused += 1

    def resume(self) -> None:
        self.paused -= 1

    def keep(self, times: int = 1) -> None:
        """Its frames lie in the buffer of all."""


class House:
    """One broker's rooms, and the other brokers that a test registers."""

    def __init__(self, folder: Path, values: Mapping[str, str] | None = None, **rooms: Any) -> None:
        self.folder = folder
        self.settings = Settings.load({"node.id": "1", "log.dirs": str(folder), **(values or {})})
        self.random = random.Random(1)
        self.clock = ManualClock()
        self.quotas = Quotas(self.clock, windows=Windows(11, 1), mutation_windows=Windows(11, 1))
        self.proposed: list[object] = []
        self.changes: list[Change] = []
        self.log = LocalLog(
            str(folder / "cluster"),
            node_id=NODE,
            disk=RealDisk(),
            threads=SimpleNamespace(run=None),  # type: ignore[arg-type]  # without fsync nothing runs in a thread
            new_cluster_id=lambda: CLUSTER_ID,
            fsync=False,
        )
        self.log.on_change(self._changed)
        OPEN.append(self)
        self.register(NODE, PLAIN, TLS)
        self.rooms = self.rooms_with(**rooms)

    def rooms_with(self, **given: Any) -> Rooms:
        """Rooms with other parts than usual."""
        fields: dict[str, Any] = dict.fromkeys(Rooms.__dataclass_fields__)
        fields |= {
            "node_id": NODE,
            "settings": self.settings,
            "cluster": self.log,
            "random": self.random,
            "propose": self.propose,
            "producer_ids": ProducerIds(NODE),
            "quotas": self.quotas,
            "topic_answers": TopicAnswers(),
            "refusals": Refusals(self.clock),
        }
        return Rooms(**(fields | given))

    @property
    def state(self) -> Any:
        return self.log.state

    def _changed(self, change: Change) -> None:
        """What Node does with broker configs."""
        self.changes.append(change)
        for kind, name in change.configs_changed:
            if kind == ResourceType.BROKER:
                self.settings.apply_dynamic(name, self.state.config(kind, name))
        if change.quotas_changed:
            self.quotas.load(self.state.quotas)

    async def propose(self, command: Any) -> Any:
        """As Node's: the result, or the error raised."""
        self.proposed.append(command)
        return self.do(command)

    def do(self, command: Any) -> Any:
        """Apply a command now."""
        outcome: list[tuple[Any, BaseException | None]] = []
        self.log.propose(command, lambda result, error: outcome.append((result, error)))
        [(result, error)] = outcome
        if error is not None:
            raise error
        return result

    def register(self, broker: int, *endpoints: Endpoint, rack: str | None = None) -> None:
        self.do(RegisterBroker(broker, UUID(int=broker), UUID(int=100 + broker), endpoints, rack))

    def create(
        self,
        name: str,
        partitions: int = 1,
        *,
        replicas: Sequence[int] = (NODE,),
        configs: Mapping[str, str] | None = None,
    ) -> Topic:
        new = NewTopic(name, new_uuid(self.random), [tuple(replicas)] * partitions, dict(configs or {}))
        [topic] = self.do(CreateTopics([new]))
        assert isinstance(topic, Topic), topic
        return topic

    def delete(self, name: str) -> None:
        self.do(DeleteTopics([self.state.topics[name].id]))

    # The broker's own log directory, for handlers that look at partitions

    def open_disk(self, *, fsync: bool = False) -> None:
        """Host partitions in a real log directory; with `fsync` the broker's threads sync it, when they are let."""
        folder = self.folder / "logs"
        broker = Broker(RealDisk(), str(folder), fsync=fsync)
        broker.directory.open(NODE, CLUSTER_ID)
        self.broker, self.directory = broker, broker.directory
        self.partitions = Replicas(
            NODE,
            self.state,
            settings=self.settings,
            directory=broker.directory,
            turn=broker.turn,
            clock=broker.clock,
        )
        self.log.on_change(self.partitions.apply)
        self.rooms = self.rooms_with(
            partitions=self.partitions,
            directory=broker.directory,
            clock=broker.clock,
            turn=broker.turn,
            aside=Aside(broker.threads),
            groups=GroupCoordinator(
                settings=self.settings,
                state=self.state,
                partitions=self.partitions,
                turn=broker.turn,
                clock=broker.clock,
                threads=broker.threads,
                random=self.random,
            ),
        )

    def produce(self, topic: str, *values: bytes, partition: int = 0) -> None:
        """Append one batch and let the watermark pass it."""
        found = self.partitions.get(topic, partition)
        assert found is not None
        found.append(memoryview(bytearray(batch(*values).view)), WRITTEN)
        self.broker.settle()

    def call(self, version: int, **caller: Any) -> Call:
        """The facts of a request; `caller` says what is not as usual about who asks."""
        return Call(version, SimpleNamespace(**CALLER | caller))

    async def ask(self, handler: Callable[..., Any], request: Any, *, version: int, **caller: Any) -> Any:
        """What `handler` answers, whether at once or later."""
        answer = handler(self.rooms, self.call(version, **caller), request)
        if isinstance(answer, Slot):
            self.broker.settle()
            assert answer.response is not None, "the answer has not come"
            return answer.response
        if inspect.isawaitable(answer):
            answer = await answer
        return answer.response if isinstance(answer, Large) else answer
