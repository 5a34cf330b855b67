"""`ClusterState`: brokers, topics, partitions' leaders and in-sync sets, configs, quotas, producer-id blocks.

Only `apply(command)` changes it, in log order, and what it does depends on the state and the command alone, so that
every broker's copy is equal at an equal index. It knows no clock, no disk, and not who leads the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from kbroker.cluster import commands as c
from kbroker.cluster.names import collision_key
from kbroker.config.alter import altered
from kbroker.config.options import ResourceType
from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import NO_BROKER, BrokerId, Endpoint, LeaderEpoch

SNAPSHOT_VERSION = 1
# Deleted topics that are remembered, so that a folder which a crash left of one is removed at the next start. Folders of
# older ones are put aside, as those that nobody knows.
DELETED_MAX = 10_000


class PartitionState:
    """One partition, as the cluster sees it. `version` grows with every change (the partition epoch of the wire)."""

    __slots__ = ("isr", "leader", "leader_epoch", "replicas", "version")

    def __init__(
        self,
        leader: BrokerId,
        leader_epoch: LeaderEpoch,
        replicas: tuple[int, ...],
        isr: tuple[int, ...],
        version: int = 0,
    ) -> None:
        self.leader = leader
        self.leader_epoch = leader_epoch
        self.replicas = replicas  # the preferred leader first
        self.isr = isr
        self.version = version

    def __repr__(self) -> str:
        return (
            f"PartitionState(leader={self.leader}, leader_epoch={self.leader_epoch}, replicas={self.replicas}, "
            f"isr={self.isr}, version={self.version})"
        )


class Topic:
    """A topic: its name, its id, its partitions by number."""

    __slots__ = ("id", "name", "partitions")

    def __init__(self, name: str, id: UUID, partitions: list[PartitionState]) -> None:
        self.name = name
        self.id = id
        self.partitions = partitions

    def __repr__(self) -> str:
        return f"Topic({self.name!r}, {self.id}, partitions={len(self.partitions)})"


class Broker(msgspec.Struct, frozen=True, array_like=True):
    """A registered broker. `epoch` grows with every registration in the cluster."""

    id: int
    epoch: int
    directory: UUID
    incarnation: UUID
    endpoints: Sequence[Endpoint]
    rack: str | None = None

    def endpoint(self, listener: str) -> Endpoint | None:
        """Where clients of this listener reach the broker."""
        for endpoint in self.endpoints:
            if endpoint.listener == listener:
                return endpoint
        return None


class Change:
    """What one command moved, so that nobody has to look through everything."""

    __slots__ = (
        "brokers_changed",
        "configs_changed",
        "partitions_changed",
        "quotas_changed",
        "topics_created",
        "topics_deleted",
    )

    def __init__(self) -> None:
        self.topics_created: list[Topic] = []
        self.topics_deleted: list[Topic] = []
        # of topics that were there before: partitions added, leaders, epochs, in-sync sets
        self.partitions_changed: list[tuple[Topic, int]] = []
        self.brokers_changed: list[BrokerId] = []
        self.configs_changed: list[tuple[int, str]] = []  # (resource type, name)
        self.quotas_changed = False

    @property
    def empty(self) -> bool:
        """Whether nothing moved that anybody follows."""
        return not (
            self.topics_created
            or self.topics_deleted
            or self.partitions_changed
            or self.brokers_changed
            or self.configs_changed
            or self.quotas_changed
        )


TopicResult = Topic | KafkaError


class ClusterState:
    """The one truth all brokers share. Read freely; changed by `apply` alone."""

    def __init__(self) -> None:
        self.cluster_id = ""
        self.brokers: dict[int, Broker] = {}
        self.topics: dict[str, Topic] = {}
        self.topics_by_id: dict[UUID, Topic] = {}
        self.deleted: dict[UUID, None] = {}  # topics that were, the newest DELETED_MAX: their folders may go
        self.configs: dict[
            tuple[int, str], dict[str, str]
        ] = {}  # (resource type, name) -> overrides, none empty
        self.quotas: dict[c.QuotaEntity, dict[str, float]] = {}  # none empty
        self.next_producer_id = 0
        self.next_broker_epoch = 1
        self._members: dict[
            tuple[int, ...], tuple[int, ...]
        ] = {}  # partitions are many, ways to place them few
        self._collisions: dict[
            str, list[str]
        ] = {}  # collision key -> the topics that have it: one, or adopted ones

    def config(self, type: int, name: str) -> dict[str, str]:
        """The overrides of a resource; not to be changed."""
        return self.configs.get((type, name), _NO_CONFIG)

    def topic_config(self, name: str) -> dict[str, str]:
        """The overrides of a topic; not to be changed."""
        return self.configs.get((ResourceType.TOPIC, name), _NO_CONFIG)

    def colliding(self, name: str) -> str | None:
        """The topic, another than `name` itself, with which a topic of this name would collide."""
        key = collision_key(name)
        there = () if key is None else self._collisions.get(key, ())
        return next((other for other in there if other != name), None)

    def apply(self, command: c.Command) -> tuple[Any, Change]:
        """Do `command`. Its result is described with the command."""
        change = Change()
        result = _APPLY[type(command)](self, command, change)
        return result, change

    # One function a command ------------------------------------------------------------------------------------

    def _form_cluster(self, command: c.FormCluster, change: Change) -> str:
        if not self.cluster_id:
            self.cluster_id = command.cluster_id
        return self.cluster_id

    def _register_broker(self, command: c.RegisterBroker, change: Change) -> int:
        epoch = self.next_broker_epoch
        self.next_broker_epoch += 1
        self.brokers[command.broker] = Broker(
            command.broker,
            epoch,
            command.directory,
            command.incarnation,
            list(command.endpoints),
            command.rack,
        )
        change.brokers_changed.append(BrokerId(command.broker))
        led = [
            (topic, index)
            for topic in self.topics.values()
            for index, partition in enumerate(topic.partitions)
            if partition.leader == command.broker
        ]
        for topic, index in led:
            partition = topic.partitions[index]
            partition.leader_epoch = LeaderEpoch(partition.leader_epoch + 1)
            partition.version += 1
        change.partitions_changed += led
        self._raise_epochs(command.floors, change, {(topic.id, index) for topic, index in led})
        return epoch

    def _raise(self, command: c.RaiseEpochs, change: Change) -> None:
        self._raise_epochs(command.floors, change, set())

    def _raise_epochs(
        self, floors: Iterable[c.EpochFloor], change: Change, named: set[tuple[UUID, int]]
    ) -> None:
        """Raise leader epochs to `floors`; `named`: partitions that the change names already."""
        for floor in floors:
            topic = self.topics_by_id.get(floor.topic_id)
            if topic is None or not 0 <= floor.partition < len(topic.partitions):
                continue
            partition = topic.partitions[floor.partition]
            if partition.leader_epoch >= floor.epoch:
                continue
            partition.leader_epoch = LeaderEpoch(floor.epoch)
            if (topic.id, floor.partition) not in named:
                named.add((topic.id, floor.partition))
                partition.version += 1
                change.partitions_changed.append((topic, floor.partition))

    def _create_topics(self, command: c.CreateTopics, change: Change) -> list[TopicResult]:
        return [self._create(new, change) for new in command.topics]

    def _create(self, new: c.NewTopic, change: Change) -> TopicResult:
        refusal = self._taken(new.name, new.id)
        if refusal is not None:
            return refusal
        topic = Topic(new.name, new.id, [self._placed(replicas) for replicas in new.replicas])
        self._add(topic, new.configs, change)
        return topic

    def _adopt_topics(self, command: c.AdoptTopics, change: Change) -> list[TopicResult]:
        return [self._adopt(found, command.broker, change) for found in command.topics]

    def _adopt(self, found: c.AdoptedTopic, broker: int, change: Change) -> TopicResult:
        if found.name in self.topics or found.id in self.topics_by_id:
            return KafkaError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{found.name}' already exists.")
        alone = self._shared((broker,))
        topic = Topic(
            found.name,
            found.id,
            [PartitionState(BrokerId(broker), LeaderEpoch(epoch), alone, alone) for epoch in found.epochs],
        )
        self._add(topic, found.configs, change)
        return topic

    def _taken(self, name: str, topic_id: UUID) -> KafkaError | None:
        if name in self.topics or topic_id in self.topics_by_id:
            return KafkaError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
        there = self.colliding(name)
        if there is not None:
            return KafkaError(
                ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic '{name}' collides with existing topic: {there}"
            )
        return None

    def _add(self, topic: Topic, configs: dict[str, str], change: Change) -> None:
        self.topics[topic.name] = topic
        self.topics_by_id[topic.id] = topic
        self._remember_collision(topic.name)
        if configs:
            self.configs[ResourceType.TOPIC, topic.name] = dict(configs)
        change.topics_created.append(topic)

    def _remember_collision(self, name: str) -> None:
        key = collision_key(name)
        if key is not None:
            self._collisions.setdefault(key, []).append(name)

    def _forget_collision(self, name: str) -> None:
        key = collision_key(name)
        if key is not None:
            self._collisions[key].remove(name)
            if not self._collisions[key]:
                del self._collisions[key]

    def _placed(self, replicas: Sequence[int]) -> PartitionState:
        """A new partition: led by its first replica, all in sync (there is nothing yet to be behind of)."""
        members = self._shared(tuple(replicas))
        return PartitionState(
            BrokerId(members[0]) if members else NO_BROKER, LeaderEpoch(0), members, members
        )

    def _shared(self, members: tuple[int, ...]) -> tuple[int, ...]:
        """One object for equal tuples."""
        return self._members.setdefault(members, members)

    def _delete_topics(self, command: c.DeleteTopics, change: Change) -> list[TopicResult]:
        return [self._delete(topic_id, change) for topic_id in command.topics]

    def _delete(self, topic_id: UUID, change: Change) -> TopicResult:
        topic = self.topics_by_id.pop(topic_id, None)
        if topic is None:
            return KafkaError(ErrorCode.UNKNOWN_TOPIC_ID)
        del self.topics[topic.name]
        self._forget_collision(topic.name)
        self.configs.pop((ResourceType.TOPIC, topic.name), None)
        self.deleted[topic.id] = None
        if len(self.deleted) > DELETED_MAX:
            del self.deleted[next(iter(self.deleted))]
        change.topics_deleted.append(topic)
        return topic

    def _create_partitions(self, command: c.CreatePartitions, change: Change) -> list[TopicResult]:
        return [self._grow(more, change) for more in command.topics]

    def _grow(self, more: c.MorePartitions, change: Change) -> TopicResult:
        topic = self.topics_by_id.get(more.topic)
        if topic is None:
            return KafkaError(ErrorCode.UNKNOWN_TOPIC_ID)
        if len(topic.partitions) != more.first:
            return KafkaError(
                ErrorCode.INVALID_PARTITIONS,
                f"The topic {topic.name} has {len(topic.partitions)} partitions by now.",
            )
        for replicas in more.replicas:
            change.partitions_changed.append((topic, len(topic.partitions)))
            topic.partitions.append(self._placed(replicas))
        return topic

    def _alter_configs(self, command: c.AlterConfigs, change: Change) -> list[KafkaError | None]:
        return [self._alter(wanted, change) for wanted in command.changes]

    def _alter(self, wanted: c.ConfigChange, change: Change) -> KafkaError | None:
        if wanted.type == ResourceType.TOPIC and wanted.name not in self.topics:
            return KafkaError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{wanted.name}' does not exist."
            )
        key = (wanted.type, wanted.name)
        before = self.configs.get(key, _NO_CONFIG)
        after = altered({} if wanted.replace else before, wanted.ops)
        # a broker's option that is set to what it was is told: the file it names may be a new one
        if after == before and not (after and wanted.type == ResourceType.BROKER):
            return None
        if after:
            self.configs[key] = after
        else:
            del self.configs[key]
        change.configs_changed.append(key)
        return None

    def _alter_quotas(self, command: c.AlterQuotas, change: Change) -> None:
        for wanted in command.changes:
            before = self.quotas.get(wanted.entity, _NO_QUOTA)
            after = {key: value for key, value in (before | wanted.values).items() if value is not None}
            if after == before:
                continue
            if after:
                self.quotas[wanted.entity] = after
            else:
                del self.quotas[wanted.entity]
            change.quotas_changed = True

    def _allocate_producer_ids(self, command: c.AllocateProducerIds, change: Change) -> int:
        first = self.next_producer_id
        self.next_producer_id += command.count
        return first

    # Snapshot --------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """All of it, as `restore` takes it; equal states give equal bytes."""
        return _encoder.encode(
            _Snapshot(
                SNAPSHOT_VERSION,
                self.cluster_id,
                sorted(self.brokers.values(), key=lambda broker: broker.id),
                [
                    (topic.name, topic.id, [_row(partition) for partition in topic.partitions])
                    for topic in self.topics.values()
                ],
                sorted((type, name, dict(sorted(of.items()))) for (type, name), of in self.configs.items()),
                self.next_producer_id,
                self.next_broker_epoch,
                sorted(
                    ((entity, dict(sorted(of.items()))) for entity, of in self.quotas.items()),
                    key=lambda item: [(type, name or "") for type, name in item[0]],  # no name is empty
                ),
                list(self.deleted),
            )
        )

    @classmethod
    def restore(cls, data: bytes | memoryview) -> ClusterState:
        """The state of `snapshot`; msgspec.ValidationError or DecodeError on other bytes."""
        saved = _decoder.decode(data)
        if saved.version != SNAPSHOT_VERSION:
            raise msgspec.ValidationError(f"a snapshot of version {saved.version}")
        state = cls()
        state.cluster_id = saved.cluster_id
        state.brokers = {broker.id: broker for broker in saved.brokers}
        for name, topic_id, rows in saved.topics:
            topic = Topic(name, topic_id, [state._partition(row) for row in rows])
            state.topics[name] = state.topics_by_id[topic_id] = topic
            state._remember_collision(name)
        state.configs = {(type, name): of for type, name, of in saved.configs}
        state.next_producer_id = saved.next_producer_id
        state.next_broker_epoch = saved.next_broker_epoch
        state.quotas = dict(saved.quotas)
        state.deleted = dict.fromkeys(saved.deleted)
        return state

    def _partition(self, row: _Row) -> PartitionState:
        leader, epoch, version, replicas, isr = row
        replicas = self._shared(replicas)
        members = replicas if isr is None else self._shared(isr)
        return PartitionState(BrokerId(leader), LeaderEpoch(epoch), replicas, members, version)


_NO_CONFIG: dict[str, str] = {}
_NO_QUOTA: dict[str, float] = {}

_APPLY: dict[type, Callable[[ClusterState, Any, Change], Any]] = {
    c.FormCluster: ClusterState._form_cluster,
    c.RegisterBroker: ClusterState._register_broker,
    c.CreateTopics: ClusterState._create_topics,
    c.DeleteTopics: ClusterState._delete_topics,
    c.CreatePartitions: ClusterState._create_partitions,
    c.AlterConfigs: ClusterState._alter_configs,
    c.AlterQuotas: ClusterState._alter_quotas,
    c.AllocateProducerIds: ClusterState._allocate_producer_ids,
    c.RaiseEpochs: ClusterState._raise,
    c.AdoptTopics: ClusterState._adopt_topics,
}

# leader, leader epoch, version, replicas; the in-sync set only where it is not all replicas
_Row = tuple[int, int, int, tuple[int, ...], tuple[int, ...] | None]


class _Snapshot(msgspec.Struct, array_like=True):
    version: int
    cluster_id: str
    brokers: list[Broker]
    topics: list[tuple[str, UUID, list[_Row]]]
    configs: list[tuple[int, str, dict[str, str]]]
    next_producer_id: int
    next_broker_epoch: int
    quotas: list[tuple[c.QuotaEntity, dict[str, float]]] = []
    deleted: list[UUID] = []


_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoder = msgspec.msgpack.Decoder(_Snapshot)


def _row(partition: PartitionState) -> _Row:
    isr = None if partition.isr == partition.replicas else partition.isr
    return partition.leader, partition.leader_epoch, partition.version, partition.replicas, isr
