"""Metadata's answer about a topic's partitions, kept while it is true: a topic of 10,000 is asked for by every client.

What an answer says depends on the partitions, on which brokers the client's listener reaches, and a little on the
version. Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kbroker.cluster.state import ClusterState, PartitionState, Topic
from kbroker.errors import ErrorCode
from kbroker.model import NO_BROKER
from kbroker.protocol.messages.metadata import MetadataResponsePartition

# What the version changes in the answer about a broker that cannot be reached: v0 leaves it out of the replicas, and
# LISTENER_NOT_FOUND exists from v6 (KIP-302) on.
_LEAVES_OUT, _LISTENER_UNKNOWN, _LISTENER_KNOWN = range(3)


class View(NamedTuple):
    """How a client sees the brokers. Made by `TopicAnswers.view`: one object while nothing of it changes."""

    reachable: frozenset[int]  # brokers that have the client's listener
    known: frozenset[int]  # all that there are
    kind: int


class _Kept:
    """One topic's answer and what it was made of."""

    __slots__ = ("partitions", "plain", "topic", "versions", "view")

    def __init__(
        self, topic: Topic, versions: list[int], view: View, partitions: list[MetadataResponsePartition]
    ) -> None:
        self.topic = topic
        self.versions = versions  # of each partition: grows with every change of it
        self.view = view
        self.partitions = partitions
        self.plain = not any(each.error_code or each.offline_replicas for each in partitions)

    def answers(self, topic: Topic, versions: list[int], view: View) -> bool:
        """Whether it still is the answer. A plain one is the same in every version."""
        return (
            self.topic is topic
            and self.versions == versions
            and (self.view is view or (self.plain and self.view[:2] == view[:2]))
        )


class TopicAnswers:
    """The answers given last, by topic name. Bounded by the number of topics there are."""

    __slots__ = ("_kept", "_lists", "_views")

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._lists: dict[tuple[int, ...], list[int]] = {}  # one list for equal sets of replicas
        self._views: dict[View, View] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def view(self, state: ClusterState, reachable: Iterable[int], version: int) -> View:
        """How a client that reaches these brokers, and speaks this version of Metadata, sees them."""
        kind = _LEAVES_OUT if version == 0 else _LISTENER_UNKNOWN if version < 6 else _LISTENER_KNOWN
        view = View(frozenset(reachable), frozenset(state.brokers), kind)
        if len(self._views) > _VIEWS_MAX:
            self._views.clear()
        return self._views.setdefault(view, view)

    def partitions(self, topic: Topic, state: ClusterState, view: View) -> list[MetadataResponsePartition]:
        """The answer about all partitions of `topic`, not to be changed."""
        versions = [partition.version for partition in topic.partitions]
        kept = self._kept.get(topic.name)
        if kept is None or not kept.answers(topic, versions, view):
            partitions = self._made(topic, view)
            kept = _Kept(topic, versions, view, partitions)
            self._keep(kept, state)
        return kept.partitions

    def _made(self, topic: Topic, view: View) -> list[MetadataResponsePartition]:
        """Where leader and replicas are the same, so is all but the number and the epoch: looked at once for each such."""
        seen: dict[tuple[object, ...], MetadataResponsePartition] = {}
        made = []
        for index, partition in enumerate(topic.partitions):
            alike = partition.leader, partition.replicas, partition.isr
            first = seen.get(alike)
            if first is None:
                first = seen[alike] = self._partition(index, partition, view)
                made.append(first)
                continue
            made.append(
                MetadataResponsePartition(
                    error_code=first.error_code,
                    partition_index=index,
                    leader_id=first.leader_id,
                    leader_epoch=partition.leader_epoch,
                    replica_nodes=first.replica_nodes,
                    isr_nodes=first.isr_nodes,
                    offline_replicas=first.offline_replicas,
                )
            )
        return made

    def _keep(self, kept: _Kept, state: ClusterState) -> None:
        self._kept[kept.topic.name] = kept
        if len(self._kept) > len(state.topics):  # some are of topics that are gone
            self._kept = {name: each for name, each in self._kept.items() if name in state.topics}

    def _partition(self, index: int, partition: PartitionState, view: View) -> MetadataResponsePartition:
        reachable, known, kind = view
        replicas, isr = partition.replicas, partition.isr
        error = ErrorCode.NONE
        leader = partition.leader
        offline = [replica for replica in replicas if replica not in reachable]
        if offline and kind == _LEAVES_OUT:
            error = ErrorCode.REPLICA_NOT_AVAILABLE
            replicas = tuple(replica for replica in replicas if replica in reachable)
            isr = tuple(replica for replica in isr if replica in reachable)
        if leader not in reachable:
            listens_not = kind == _LISTENER_KNOWN and leader in known
            error = ErrorCode.LISTENER_NOT_FOUND if listens_not else ErrorCode.LEADER_NOT_AVAILABLE
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


# Views kept: one for each listener and kind of client, and those of brokers that came and went.
_VIEWS_MAX = 100
# Distinct replica lists kept to be shared. Placements repeat; with so many of them sharing saves little anyway.
_LISTS_MAX = 10_000
