"""The offsets that one group has committed, and which of them are old. Pure: no clock, no log.

There may be millions, so one takes some 100 bytes: what most offsets have in common (no metadata, no time of their own
to expire, the topic's id) is not kept with each.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from struct import Struct
from typing import Protocol

from kbroker.groups.events import Offset
from kbroker.protocol.wire import ZERO_UUID

Where = tuple[str, int]  # topic, partition

_SHORT = Struct(">qiq")  # offset, leader epoch, time of the commit
_COMMIT_MS, _COMMIT_MS_AT = Struct(">q"), 12  # the last of these


class _Topic:
    """A topic's offsets by partition: packed, or whole where there is more to keep."""

    __slots__ = ("id", "partitions")

    def __init__(self, topic_id: bytes) -> None:
        self.id = topic_id
        self.partitions: dict[int, bytes | Offset] = {}

    def offset(self, kept: bytes | Offset) -> Offset:
        if type(kept) is bytes:
            offset, leader_epoch, commit_ms = _SHORT.unpack(kept)
            return Offset(offset, leader_epoch, "", commit_ms, -1, self.id)
        assert isinstance(kept, Offset)
        return kept


class Offsets:
    """Committed offsets of a group."""

    __slots__ = ("_topics",)

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}

    def __len__(self) -> int:
        return sum(len(topic.partitions) for topic in self._topics.values())

    def __bool__(self) -> bool:
        return bool(self._topics)

    def put(self, topic: str, partition: int, offset: Offset) -> None:
        """Keep `offset`, whatever there was before."""
        found = self._topics.get(topic)
        if found is None:
            found = self._topics[sys.intern(topic)] = _Topic(offset.topic_id)
        elif found.id != offset.topic_id and offset.topic_id != ZERO_UUID:
            self._retitle(found, offset.topic_id)
        if not offset.metadata and offset.expire_ms < 0 and offset.topic_id == found.id:
            found.partitions[partition] = _SHORT.pack(offset.offset, offset.leader_epoch, offset.commit_ms)
        else:
            found.partitions[partition] = offset

    def _retitle(self, topic: _Topic, topic_id: bytes) -> None:
        """From now on this is the id that most have; the others keep theirs."""
        for partition, kept in topic.partitions.items():
            topic.partitions[partition] = topic.offset(kept)
        topic.id = topic_id

    def forget(self, topic: str, partition: int) -> None:
        """Keep nothing for this partition."""
        found = self._topics.get(topic)
        if found is not None:
            found.partitions.pop(partition, None)
            if not found.partitions:
                del self._topics[topic]

    def get(self, topic: str, partition: int) -> Offset | None:
        """What was committed last."""
        found = self._topics.get(topic)
        kept = None if found is None else found.partitions.get(partition)
        return None if found is None or kept is None else found.offset(kept)

    def copy(self) -> Offsets:
        """These, as they are now."""
        copied = Offsets()
        for name, topic in self._topics.items():
            copied._topics[name] = same = _Topic(topic.id)
            same.partitions = topic.partitions.copy()
        return copied

    def all(self) -> Iterator[tuple[str, int, Offset]]:
        """Every offset with its topic and partition."""
        for name, topic in self._topics.items():
            for partition, kept in topic.partitions.items():
                yield name, partition, topic.offset(kept)

    def topics(self) -> Iterator[tuple[str, bytes]]:
        """Each topic and the id that its offsets came with; zero: not known."""
        for name, topic in self._topics.items():
            yield name, topic.id

    def where(self) -> list[Where]:
        """All of them."""
        return [(name, partition) for name, topic in self._topics.items() for partition in topic.partitions]

    def old(self, kept_topics: frozenset[str], since_ms: int, now_ms: int, retention_ms: int) -> list[Where]:
        """Those that were kept for `retention_ms` since a time (-1: since each one's commit), or until their own end."""
        committed_before = now_ms - retention_ms
        all_old = 0 <= since_ms <= committed_before
        by_commit = since_ms < 0
        found: list[Where] = []
        for name, topic in self._topics.items():
            if name in kept_topics:
                continue
            for partition, kept in topic.partitions.items():  # millions: not even an Offset is made of each
                if type(kept) is bytes:
                    commit_ms, expire_ms = _COMMIT_MS.unpack_from(kept, _COMMIT_MS_AT)[0], -1
                else:
                    assert isinstance(kept, Offset)
                    commit_ms, expire_ms = kept.commit_ms, kept.expire_ms
                if expire_ms >= 0:
                    is_old = now_ms >= expire_ms
                else:
                    is_old = all_old or (by_commit and commit_ms <= committed_before)
                if is_old:
                    found.append((name, partition))
        return found


class Keeper(Protocol):
    """What decides how long a group's offsets are kept: the group, as far as it matters here."""

    @property
    def state(self) -> str: ...

    @property
    def protocol_type(self) -> str: ...

    @property
    def state_timestamp_ms(self) -> int: ...

    def subscribed(self) -> frozenset[str] | None: ...


CONSUMER = "consumer"


def expired(offsets: Offsets, group: Keeper, now_ms: int, retention_ms: int) -> list[Where]:
    """The offsets that nobody wants any more, by Kafka's rules.

    Without members they age from the time when the last one left; with members of consumers only where none subscribes
    to the topic, from their commit; in a rebalance not at all. A group that never had members ages by its commits.
    """
    subscribed: frozenset[str] = frozenset()
    since = -1  # when the ageing of all of them began; -1: with each one's commit
    if group.protocol_type:
        if group.state == "Empty":
            since = group.state_timestamp_ms
        elif group.state == "Stable" and group.protocol_type == CONSUMER:
            known = group.subscribed()
            if known is None:
                return []
            subscribed = known
        else:
            return []
    return offsets.old(subscribed, since, now_ms, retention_ms)


def is_subscribed(group: Keeper, topic: str) -> bool:
    """Whether members read this topic, as OffsetDelete sees it: where consumers' subscriptions are not known, yes."""
    if group.protocol_type != CONSUMER or group.state in ("Empty", "Dead"):
        return False
    known = group.subscribed()
    return known is None or topic in known
