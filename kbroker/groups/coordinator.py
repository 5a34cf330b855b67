"""`GroupCoordinator`: finds the partition of `__consumer_offsets` that holds a group, and asks its ledger.

The number of groups, members and offsets is bounded by memory alone, as in Kafka: an offset takes some 100 bytes, a
group without members some kilobytes. What no client uses for `offsets.retention.minutes` goes. Knows no wire versions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from functools import lru_cache
from typing import cast
from uuid import UUID

from kbroker.cluster.names import GROUPS_TOPIC
from kbroker.cluster.state import Change, ClusterState, Topic
from kbroker.config import Settings
from kbroker.errors import ErrorCode, KafkaError
from kbroker.groups.alarms import Alarms, Sleeper
from kbroker.groups.answers import refusal, reply
from kbroker.groups.events import (
    Beat,
    Commit,
    Committed,
    Described,
    Fetched,
    ForgetOffsets,
    Forgotten,
    Join,
    Leave,
    Listed,
    Offset,
    Sync,
)
from kbroker.groups.ledger import Hosted, Ledger, Parts, is_other
from kbroker.groups.limits import GroupLimits
from kbroker.groups.work import Work
from kbroker.observe import logs
from kbroker.replication.partition import Partition
from kbroker.replication.replicas import Replicas
from kbroker.replication.shard_loading import Floor
from kbroker.seams import Clock, Random, Threads, Timer
from kbroker.storage.slices import whole
from kbroker.turn import Turn

log = logs.get_logger("groups")


# Groups, and their offsets, that are looked at in one go for old ones, and the pause until the next: some milliseconds of
# each tenth of a second.
GROUPS_PER_SLICE = 100
OFFSETS_PER_SLICE = 10_000
SLICE_PAUSE_SECONDS = 0.1

# Offsets that are fetched in one go: about a millisecond.
FETCHED_PER_SLICE = 1000

MINUTE_MS = 60_000

# Hashes that are remembered, some 10 MB. Not of ids that are long: those of clients are not, and others could fill the
# memory with them, 32 KB each.
REMEMBERED_MAX = 65_536
REMEMBERED_CHARACTERS_MAX = 64


def spread(group_id: str) -> int:
    """What picks a group's partition: the absolute value of Java's String.hashCode (over UTF-16 units), and 0 for the one
    that has none."""
    return _remembered(group_id) if len(group_id) <= REMEMBERED_CHARACTERS_MAX else _spread(group_id)


def _spread(group_id: str) -> int:
    value = 0
    if group_id.isascii():
        for unit in group_id.encode():
            value = (31 * value + unit) & 0xFFFFFFFF
    else:
        data = group_id.encode("utf-16-be", "surrogatepass")
        for at in range(0, len(data), 2):
            value = (31 * value + (data[at] << 8 | data[at + 1])) & 0xFFFFFFFF
    if value < 1 << 31:
        return value
    return (1 << 32) - value if value > 1 << 31 else 0


_remembered = lru_cache(maxsize=REMEMBERED_MAX)(_spread)


class GroupCoordinator:
    """All groups whose partition is led here. A partition that holds nothing yet costs nothing until it is used."""

    def __init__(
        self,
        *,
        settings: Settings,
        state: ClusterState,
        partitions: Replicas,
        turn: Turn,
        clock: Clock,
        threads: Threads,
        random: Random,
    ) -> None:
        self._settings = settings
        self._state = state
        self._partitions = partitions
        self._clock = clock
        self._random = random
        self._stopped = False
        self._ledgers: dict[int, Ledger] = {}
        self._topic: tuple[UUID, int] | None = None  # the topic and the partitions it had when first seen
        self._round: Iterator[Hosted] = iter(())
        self._timer: Timer | None = None
        self._parts = Parts(
            turn=turn,
            threads=threads,
            clock=clock,
            alarms=Alarms(clock, _ring),
            limits=GroupLimits(
                settings.group_min_session_timeout_ms,
                settings.group_max_session_timeout_ms,
                settings.group_initial_rebalance_delay_ms,
                settings.group_max_size,
            ),
            new_member_id=self._new_member_id,
            commit_timeout_ms=lambda: settings.offsets_commit_timeout_ms,
            floor=Floor(clock),
            work=Work(clock),
            codec=settings.offsets_topic_compression_codec,
            id_of=self._id_of,
        )

    def _id_of(self, name: str) -> bytes | None:
        topic = self._state.topics.get(name)
        return None if topic is None else topic.id.bytes

    def _new_member_id(self, prefix: str) -> str:
        return f"{prefix}-{UUID(int=self._random.getrandbits(128), version=4)}"

    # -- where groups are

    def start(self) -> None:
        """Lead what is stored here, and begin the rounds that forget. Loading goes on while others are served."""
        for partition in self._partitions:
            if partition.tp.topic == GROUPS_TOPIC and partition.log.end > partition.log.start:
                self.lead(partition)
        self._later(self._settings.offsets_retention_check_interval_ms * 0.001, self._begin_round)

    @property
    def loading(self) -> bool:
        """Whether some groups are still being read."""
        return any(
            ledger.error is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS for ledger in self._ledgers.values()
        )

    def stop(self) -> None:
        """Serve no more: whoever waits is told."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for index in list(self._ledgers):
            self.resign(index)
        self._parts.alarms.stop()

    def lead(self, partition: Partition) -> None:
        """Read the groups of a partition that is led here from now on, or anew in another epoch."""
        self.resign(partition.tp.partition)
        ledger = self._ledgers[partition.tp.partition] = Ledger(partition, self._parts)
        ledger.shard.load()

    def resign(self, index: int) -> None:
        """Serve the groups of this partition no more."""
        ledger = self._ledgers.pop(index, None)
        if ledger is not None:
            ledger.end()

    def apply(self, change: Change) -> None:
        """Follow a change of the cluster state, after the partitions have."""
        names = frozenset(topic.name for topic in change.topics_deleted)
        if GROUPS_TOPIC in names:
            for index in list(self._ledgers):
                self.resign(index)
        if names:
            self.topics_deleted(names)
        for topic, index in change.partitions_changed:
            if topic.name == GROUPS_TOPIC and index in self._ledgers:
                self._follow(index)

    def _follow(self, index: int) -> None:
        partition = self._ledgers[index].shard.partition
        if not partition.is_leader:
            self.resign(index)
        elif partition.leader_epoch != self._ledgers[index].epoch:
            self.lead(partition)

    def topics_deleted(self, names: frozenset[str]) -> None:
        """Forget the offsets of topics that are gone."""
        for ledger in self._ledgers.values():
            ledger.topics_deleted(names)

    def partition_of(self, group_id: str) -> int:
        """The partition that holds a group, of the topic as it was first seen: groups would be lost if it grew."""
        topic = self._state.topics.get(GROUPS_TOPIC)
        if topic is None:
            return spread(group_id) % self._settings.offsets_topic_num_partitions
        return spread(group_id) % self._count(topic)

    def _count(self, topic: Topic) -> int:
        if self._topic is None or self._topic[0] != topic.id:
            self._topic = topic.id, len(topic.partitions)
        return self._topic[1]

    def _serving(self, group_id: str) -> Ledger:
        """The ledger of a group. KafkaError says what a client is told where there is none, or not yet."""
        if self._stopped:
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        topic = self._state.topics.get(GROUPS_TOPIC)
        if topic is None:
            raise KafkaError(ErrorCode.NOT_COORDINATOR)
        index = spread(group_id) % self._count(topic)
        ledger = self._ledgers.get(index)
        if ledger is None:
            ledger = self._open(index)
        error = ledger.error
        if error:
            raise KafkaError(error)
        return ledger

    def _open(self, index: int) -> Ledger:
        try:
            partition = self._partitions.get(GROUPS_TOPIC, index)
        except KafkaError as error:  # said in the log by the partitions
            raise KafkaError(ErrorCode.NOT_COORDINATOR) from error
        if partition is None or not partition.is_leader:
            raise KafkaError(ErrorCode.NOT_COORDINATOR)
        self.lead(partition)
        return self._ledgers[index]

    # -- members

    def handle(self, group_id: str, event: Join | Sync | Beat | Leave) -> None:
        """`event.to(answer)` is called once, now or when the group has come so far."""
        try:
            if not group_id:
                raise KafkaError(ErrorCode.INVALID_GROUP_ID)
            ledger = self._serving(group_id)
        except KafkaError as error:
            return reply(event.to, refusal(event, error.code))
        ledger.event(group_id, event)

    # -- offsets

    def commit(self, group_id: str, commit: Commit) -> None:
        """`commit.to(Committed)` once the offsets are on every in-sync replica, or the error."""
        try:
            ledger = self._serving(group_id)
        except KafkaError as error:
            return reply(commit.to, Committed(error.code))
        ledger.commit(group_id, commit)

    def fetch(self, group_id: str, partitions: list[tuple[str, int]] | None) -> Fetched:
        """As `fetching`, at once."""
        return whole(self.fetching(group_id, partitions))

    def fetching(
        self, group_id: str, partitions: list[tuple[str, int]] | None
    ) -> Generator[int, None, Fetched]:
        """The committed offsets of these partitions, where there are any; None: of all. None of a topic that had the
        name before. It yields the number of those it has looked at since, now and then; they are those of its begin."""
        try:
            hosted = self._serving(group_id).groups.get(group_id)
        except KafkaError as error:
            return Fetched(error.code, {})
        if hosted is None:
            return Fetched(ErrorCode.NONE, {})
        offsets = hosted.offsets
        wanted = offsets.where() if partitions is None else partitions
        if len(wanted) > FETCHED_PER_SLICE:
            offsets = offsets.copy()
        found: dict[tuple[str, int], Offset] = {}
        ids: dict[str, bytes | None] = {}
        for number, where in enumerate(wanted, 1):
            if number % FETCHED_PER_SLICE == 0:
                yield FETCHED_PER_SLICE
            offset = offsets.get(*where)
            if offset is None:
                continue
            topic = where[0]
            if topic not in ids:
                ids[topic] = self._id_of(topic)
            if not is_other(offset.topic_id, ids[topic]):
                found[where] = offset
        return Fetched(ErrorCode.NONE, found)

    def forget(self, group_id: str, what: ForgetOffsets) -> None:
        """`what.to(Forgotten)` once the offsets are forgotten for good."""
        try:
            if not group_id:
                raise KafkaError(ErrorCode.INVALID_GROUP_ID)
            ledger = self._serving(group_id)
        except KafkaError as error:
            return reply(what.to, Forgotten(error.code))
        ledger.forget(group_id, what)

    # -- whole groups

    def delete(self, group_ids: list[str], to: Callable[[dict[str, ErrorCode]], None]) -> None:
        """Delete groups without members; `to` is called once with what became of each."""
        results: dict[str, ErrorCode] = {}
        left = set(group_ids)

        def deleted(group_id: str, error: ErrorCode) -> None:
            results[group_id] = error
            left.discard(group_id)
            if not left:
                to({each: results[each] for each in dict.fromkeys(group_ids)})

        if not left:
            return to({})
        for group_id in dict.fromkeys(group_ids):
            self._delete(group_id, deleted)

    def _delete(self, group_id: str, deleted: Callable[[str, ErrorCode], None]) -> None:
        try:
            ledger = self._serving(group_id)
        except KafkaError as error:
            return deleted(group_id, error.code)
        ledger.delete(group_id, lambda error: deleted(group_id, error))

    def list(self) -> tuple[ErrorCode, Iterable[Listed]]:
        """All groups of now, each as it is when it is its turn; the error where some are still being read."""
        if self.loading:
            return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, []
        everybody = list(self._everybody())
        return ErrorCode.NONE, (hosted.group.listed() for hosted in everybody if not hosted.gone)

    def describe(self, group_id: str) -> Described:
        """One group."""
        try:
            hosted = self._serving(group_id).groups.get(group_id)
        except KafkaError as error:
            return Described(error.code, "")
        if hosted is None:
            return Described(ErrorCode.GROUP_ID_NOT_FOUND, "Dead")
        return hosted.group.described()

    def _everybody(self) -> Iterator[Hosted]:
        for ledger in self._ledgers.values():
            yield from ledger.groups.values()

    # -- rounds

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._timer = self._clock.call_at(self._clock.monotonic() + seconds, call)

    def _begin_round(self) -> None:
        self._round = iter(list(self._everybody()))
        self._slice()

    def _slice(self) -> None:
        retention_ms = self._settings.offsets_retention_minutes * MINUTE_MS
        left = OFFSETS_PER_SLICE
        for _ in range(GROUPS_PER_SLICE):
            if left <= 0:
                break
            hosted = next(self._round, None)
            if hosted is None:
                return self._later(
                    self._settings.offsets_retention_check_interval_ms * 0.001, self._begin_round
                )
            left -= len(hosted.offsets)
            try:
                hosted.ledger.expire(hosted, retention_ms)
            except Exception as error:  # a door: a promise broken in one group must not end the rounds of all
                log.exception("offsets not looked at", error, group=hosted.group.group_id)
        self._later(SLICE_PAUSE_SECONDS, self._slice)


def _ring(sleeper: Sleeper) -> None:
    hosted = cast(Hosted, sleeper)
    try:
        hosted.ledger.tick(hosted)
    except Exception as error:  # a door: others have alarms too
        log.exception("a group was not woken", error, group=hosted.group.group_id)
