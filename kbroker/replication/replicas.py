"""The partitions hosted here. A cluster change becomes create, lead, reconfigure or drop; a lookup opens what it names.

A partition costs nothing but its line in the cluster state until somebody touches it: its log is opened, and its
folder made, on first use.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from kbroker.cluster.state import Change, ClusterState, Topic
from kbroker.config import Settings
from kbroker.config.options import ResourceType
from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import BrokerId, TopicPartition
from kbroker.observe import logs
from kbroker.replication.partition import Limits, Partition
from kbroker.seams import Clock, Timer
from kbroker.storage.directory import LogDirectory
from kbroker.storage.slices import Slices, whole
from kbroker.turn import Turn

log = logs.get_logger("replication")

# How often the deadlines of waiting producers are looked at. Their timeouts are 30 s by default.
DEADLINES_SECONDS = 0.5


class Replicas:
    """Finds partitions by name or by topic id; keeps them in step with the cluster state."""

    def __init__(
        self,
        node_id: BrokerId,
        state: ClusterState,
        *,
        settings: Settings,
        directory: LogDirectory,
        turn: Turn,
        clock: Clock,
    ) -> None:
        self._node_id = node_id
        self._state = state
        self._settings = settings
        self._directory = directory
        self._turn = turn
        self._clock = clock
        self._limits = Limits(
            settings.kbroker_batch_decompressed_bytes_max, settings.kbroker_produce_validation == "records"
        )
        self._by_name: dict[tuple[str, int], Partition] = {}
        self._by_id: dict[tuple[bytes, int], Partition] = {}
        self._broken: set[TopicPartition] = set()  # told that they cannot be opened
        self._waiting: set[Partition] = set()
        self._deadlines: Timer | None = None

    # -- look up

    def get(self, topic: str, partition: int) -> Partition | None:
        """The partition, opened if need be; None where the cluster has none of that name or it is not hosted here.

        KafkaError where its log cannot be opened.
        """
        found = self._by_name.get((topic, partition))
        return found if found is not None else self._open(self._state.topics.get(topic), partition)

    def by_id(self, topic_id: bytes, partition: int) -> Partition | None:
        """The same by the topic's 16-byte id."""
        found = self._by_id.get((topic_id, partition))
        if found is not None:
            return found
        return self._open(self._state.topics_by_id.get(UUID(bytes=topic_id)), partition)

    def knows(self, topic_id: bytes) -> bool:
        """There is a topic of this id, whether or not it has the partition that somebody asks for."""
        return UUID(bytes=topic_id) in self._state.topics_by_id

    def __iter__(self) -> Iterator[Partition]:
        """The partitions that are open: those with data, or touched since the start."""
        return iter(list(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    def opening(self, topic: str, partition: int) -> Slices[Partition | None]:
        """The same as `get` for one that is not open, in slices: its log may have to be checked."""
        return self._opening(self._state.topics.get(topic), partition)

    def _open(self, topic: Topic | None, index: int) -> Partition | None:
        return whole(self._opening(topic, index))

    def _opening(self, topic: Topic | None, index: int) -> Slices[Partition | None]:
        if topic is None or not 0 <= index < len(topic.partitions):
            return None
        view = topic.partitions[index]
        if self._node_id not in view.replicas:
            return None
        tp = TopicPartition(topic.name, index)
        config = self._settings.topic_config(self._state.topic_config(topic.name))
        try:
            opened = yield from self._directory.opening(tp, topic.id, config)
        except OSError as error:
            if tp not in self._broken:  # not at every try
                self._broken.add(tp)
                log.exception("partition cannot be opened", error, partition=str(tp))
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, f"{tp} cannot be opened: {error}") from error
        self._broken.discard(tp)
        partition = Partition(
            tp,
            topic.id,
            opened,
            config=config,
            limits=self._limits,
            turn=self._turn,
            clock=self._clock,
            on_waiting=self._someone_waits,
        )
        self._by_name[tp] = self._by_id[topic.id.bytes, index] = partition
        partition.lead(view.leader, view.leader_epoch, view.isr, len(view.replicas))
        return partition

    # -- changes

    def apply(self, change: Change) -> None:
        """Follow a change of the cluster state."""
        for topic in change.topics_deleted:
            self._drop(topic)
        for topic, index in change.partitions_changed:
            partition = self._by_name.get((topic.name, index))
            if partition is not None:
                view = topic.partitions[index]
                partition.lead(view.leader, view.leader_epoch, view.isr, len(view.replicas))
        for kind, name in change.configs_changed:
            if kind == ResourceType.TOPIC:
                self._reconfigure(name)
            elif kind == ResourceType.BROKER:
                self.reconfigure_all()

    def reconfigure_all(self) -> None:
        """A broker-wide default moved: every open partition takes its config anew."""
        for name in {topic for topic, _ in self._by_name}:
            self._reconfigure(name)

    def _reconfigure(self, name: str) -> None:
        topic = self._state.topics.get(name)
        if topic is None:
            return
        config = self._settings.topic_config(self._state.topic_config(name))
        for index in range(len(topic.partitions)):
            partition = self._by_name.get((name, index))
            if partition is not None:
                partition.config = partition.log.config = config

    def _drop(self, topic: Topic) -> None:
        for index in range(len(topic.partitions)):
            tp = TopicPartition(topic.name, index)
            partition = self._by_name.pop(tp, None)
            self._by_id.pop((topic.id.bytes, index), None)
            if partition is not None:
                self._waiting.discard(partition)
                partition.drop(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            try:
                self._directory.delete(tp)
            except OSError as error:  # its name leads nowhere any more; the next start, or a topic of the name, tries again
                log.error("folder of a deleted topic not removed", partition=str(tp), error=str(error))

    # -- deadlines

    def _someone_waits(self, partition: Partition) -> None:
        self._waiting.add(partition)
        if self._deadlines is None:
            self._deadlines = self._clock.call_at(self._clock.monotonic() + DEADLINES_SECONDS, self._expire)

    def _expire(self) -> None:
        now = self._clock.monotonic()
        self._deadlines = None
        waiting, self._waiting = self._waiting, set()  # whoever is answered may begin to wait elsewhere
        for partition in waiting:
            try:
                waits = partition.expire(now)
            except Exception as error:  # a door: the deadlines of the other partitions hold
                log.exception("deadlines not looked at", error, partition=str(partition.tp))
                waits = partition.has_deadlines
            if waits:
                self._someone_waits(partition)

    def stop(self) -> None:
        """No more deadlines; whoever still waits learns that this broker goes."""
        if self._deadlines is not None:
            self._deadlines.cancel()
            self._deadlines = None
        for partition in self:
            partition.drop(ErrorCode.NOT_LEADER_OR_FOLLOWER)
