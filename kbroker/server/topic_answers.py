"""Metadata's answer about a topic's partitions, kept while it is true: a topic of 10,000 is asked for by every client.

What an answer says depends on the partitions, on which brokers the client's listener reaches, and a little on the
version. Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Set

from kbroker.cluster.state import ClusterState, PartitionState, Topic
from kbroker.errors import ErrorCode
from kbroker.model import NO_BROKER
from kbroker.protocol.messages.metadata import MetadataResponsePartition

# What the version changes in the answer about a broker that cannot be reached: v0 leaves it out of the replicas, and
# LISTENER_NOT_FOUND exists from v6 (KIP-302) on.
_LEAVES_OUT, _LISTENER_UNKNOWN, _LISTENER_KNOWN = range(3)


class _Kept:
    """One topic's answer and what it was made of."""

    __slots__ = ("kind", "known", "partitions", "reachable", "topic", "versions")

    def __init__(
        self,
        topic: Topic,
        versions: list[int],
        reachable: frozenset[int],
        known: frozenset[int],
        kind: int | None,
        partitions: list[MetadataResponsePartition],
    ) -> None:
        self.topic = topic
        self.versions = versions  # of each partition: grows with every change of it
        self.reachable = reachable
        self.known = known  # the brokers that there are
        self.kind = kind  # None: the same for every version
        self.partitions = partitions


class TopicAnswers:
    """The answers given last, by topic name. Bounded by the number of topics there are."""

    __slots__ = ("_kept", "_lists")

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._lists: dict[tuple[int, ...], list[int]] = {}  # one list for equal sets of replicas

    def __len__(self) -> int:
        return len(self._kept)

    def partitions(
        self, topic: Topic, state: ClusterState, reachable: Set[int], version: int
    ) -> list[MetadataResponsePartition]:
        """The answer about all partitions of `topic`, not to be changed. `reachable`: brokers the client can reach."""
        kind = _LEAVES_OUT if version == 0 else _LISTENER_UNKNOWN if version < 6 else _LISTENER_KNOWN
        versions = [partition.version for partition in topic.partitions]
        kept = self._kept.get(topic.name)
        if (
            kept is not None
            and kept.topic is topic
            and kept.versions == versions
            and kept.reachable == reachable
            and kept.known == state.brokers.keys()
            and kept.kind in (None, kind)
        ):
            return kept.partitions
        partitions = [
            self._partition(index, partition, state, reachable, kind)
            for index, partition in enumerate(topic.partitions)
        ]
        plain = all(not (each.error_code or each.offline_replicas) for each in partitions)
        made_of = (topic, versions, frozenset(reachable), frozenset(state.brokers))
        self._keep(_Kept(*made_of, None if plain else kind, partitions), state)
        return partitions

    def _keep(self, kept: _Kept, state: ClusterState) -> None:
        self._kept[kept.topic.name] = kept
        if len(self._kept) > len(state.topics):  # some are of topics that are gone
            self._kept = {name: each for name, each in self._kept.items() if name in state.topics}

    def _partition(
        self, index: int, partition: PartitionState, state: ClusterState, reachable: Set[int], kind: int
    ) -> MetadataResponsePartition:
        replicas, isr = partition.replicas, partition.isr
        error = ErrorCode.NONE
        leader = partition.leader
        offline = [replica for replica in replicas if replica not in reachable]
        if offline and kind == _LEAVES_OUT:
            error = ErrorCode.REPLICA_NOT_AVAILABLE
            replicas = tuple(replica for replica in replicas if replica in reachable)
            isr = tuple(replica for replica in isr if replica in reachable)
        if leader not in reachable:
            known = kind == _LISTENER_KNOWN and leader in state.brokers
            error = ErrorCode.LISTENER_NOT_FOUND if known else ErrorCode.LEADER_NOT_AVAILABLE
            leader = NO_BROKER
        return MetadataResponsePartition(
            error_code=error,
            partition_index=index,
            leader_id=leader,
            leader_epoch=partition.leader_epoch,
            replica_nodes=self._list(replicas),
            isr_nodes=self._list(isr),
            offline_replicas=self._list(tuple(offline)),
        )

    def _list(self, members: tuple[int, ...]) -> list[int]:
        found = self._lists.get(members)
        if found is None:
            if len(self._lists) > _LISTS_MAX:
                self._lists.clear()
            found = self._lists[members] = list(members)
        return found


# Distinct replica lists kept to be shared. Placements repeat; with so many of them sharing saves little anyway.
_LISTS_MAX = 10_000
