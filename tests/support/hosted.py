"""Replicas on a log directory in memory, in step with a cluster state that tests command."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from kbroker.cluster.commands import (
    AlterConfigs,
    ConfigChange,
    CreateTopics,
    NewTopic,
    RegisterBroker,
)
from kbroker.cluster.state import ClusterState, Topic
from kbroker.config import ResourceType, Settings
from kbroker.config.alter import DELETE, SET, ConfigOp
from kbroker.errors import ErrorCode
from kbroker.model import BrokerId
from kbroker.replication.partition import COMMITTED, Partition
from kbroker.replication.replicas import Replicas
from tests.support.memory_disk import MemoryDisk
from tests.support.storage import Broker, batch

NODE = BrokerId(1)


class Hosted:
    """Replicas of a broker on a disk in memory; changes are applied at once."""

    def __init__(self, disk: MemoryDisk | None = None, values: Mapping[str, str] | None = None) -> None:
        self.disk = disk or MemoryDisk()
        self.broker = Broker(self.disk)
        self.broker.directory.open(NODE, "cluster")
        self.settings = Settings.load({"node.id": "1", "log.dirs": "/data", **(values or {})})
        self.state = ClusterState()
        self.replicas = Replicas(
            NODE,
            self.state,
            settings=self.settings,
            directory=self.broker.directory,
            turn=self.broker.turn,
            clock=self.broker.clock,
        )
        self.ids = 0
        self.answers: list[tuple[str, ErrorCode]] = []
        self.do(RegisterBroker(NODE, UUID(int=1), UUID(int=2), []))

    def do(self, command):
        result, change = self.state.apply(command)
        for kind, name in change.configs_changed:
            if kind == ResourceType.BROKER:
                self.settings.apply_dynamic(name, self.state.config(kind, name))
        self.replicas.apply(change)
        return result

    def create(self, name: str, partitions: int = 1, *, on: tuple[int, ...] = (NODE,), configs=None) -> Topic:
        self.ids += 1
        new = NewTopic(name, UUID(int=1000 + self.ids), [on] * partitions, configs or {})
        [topic] = self.do(CreateTopics([new]))
        return topic

    def get(self, name: str, index: int = 0) -> Partition:
        found = self.replicas.get(name, index)
        assert found is not None
        return found

    def send(self, partition: Partition, name: str, timeout_ms: int = 30_000) -> None:
        raw = batch(name.encode(), timestamp=self.broker.clock.now_ms)
        appended = partition.append(memoryview(bytearray(raw.view)), COMMITTED)
        partition.when(appended, COMMITTED, timeout_ms, lambda code: self.answers.append((name, code)))

    def set(self, kind: ResourceType, resource: str, name: str, value: str | None) -> None:
        op = ConfigOp(name, DELETE if value is None else SET, value)
        self.do(AlterConfigs([ConfigChange(kind, resource, [op])]))
