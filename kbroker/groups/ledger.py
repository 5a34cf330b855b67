"""The groups of one partition of `__consumer_offsets`: read from it, changed by events, written back to it.

The state machine behind a `Shard`. Offsets count, and are seen, once they are committed, in the order of the log; a
group object moves at once and learns by `Written` what became of what it wrote. Knows no other partition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from math import inf
from typing import Any, NamedTuple

from kbroker.errors import ErrorCode, KafkaError
from kbroker.groups import news
from kbroker.groups.alarms import Alarms
from kbroker.groups.answers import refusal, reply, unknown_group
from kbroker.groups.classic import ClassicGroup
from kbroker.groups.events import (
    Beat,
    Commit,
    Committed,
    Effect,
    Event,
    ForgetOffsets,
    Forgotten,
    GroupRecord,
    Join,
    Leave,
    Now,
    Offset,
    Reply,
    Sync,
    Tick,
    Write,
    Written,
)
from kbroker.groups.failures import told
from kbroker.groups.limits import GroupLimits
from kbroker.groups.offsets import Offsets, Where, expired, is_subscribed
from kbroker.groups.records import (
    Entry,
    OffsetEntry,
    OffsetKeys,
    Record,
    Unreadable,
    group_key,
    group_value,
    offset_value,
    read_record,
)
from kbroker.groups.work import Work
from kbroker.observe import logs
from kbroker.protocol.wire import ZERO_UUID
from kbroker.replication.partition import Partition
from kbroker.replication.shard import Shard, State
from kbroker.replication.shard_loading import Floor
from kbroker.seams import Clock, Threads
from kbroker.turn import Turn

log = logs.get_logger("groups")

# Reasons for which records are left out that the broker's log tells apart: damage may be of as many kinds as records.
REASONS_MAX = 20

# Answers that a group gives in one go: some milliseconds, with what sending them costs.
REPLIES_PER_SLICE = 200
# Offsets of a commit that are made to records, or taken over, in one go: a few milliseconds.
OFFSETS_PER_SLICE = 2000
# Offsets that are forgotten in one go, some milliseconds; to do so for a group costs as much as for some offsets more.
BURIED_PER_SLICE = 1500
BURIAL_COST = 6
# What a member offers stays in memory until its session ends, with or without its connection. As much as so many batches
# of the groups' topic: clients offer one to four protocols, and what is said in the one that is chosen is written down
# with what all other members say, as one record. Beyond it the member is refused.
MEMBER_BATCHES_MAX = 4

_COMMITTED = Committed(ErrorCode.NONE)

CommittedOffsets = tuple[tuple[str, int, Offset], ...]


class Parts(NamedTuple):
    """What all ledgers of a broker share."""

    turn: Turn
    threads: Threads
    clock: Clock
    alarms: Alarms
    limits: GroupLimits
    new_member_id: Callable[[str], str]
    commit_timeout_ms: Callable[[], int]
    floor: Floor
    work: Work
    codec: int
    id_of: Callable[[str], bytes | None]  # of the topic of this name, if there is one


class Hosted:
    """A group, its offsets, and what of it is on its way to the log."""

    __slots__ = (
        "armed_at",
        "effects",
        "gone",
        "group",
        "in_log",
        "keeping",
        "kept",
        "ledger",
        "performing",
        "under_way",
    )

    def __init__(self, ledger: Ledger, group: ClassicGroup, offsets: Offsets, *, in_log: bool) -> None:
        self.ledger = ledger
        self.group = group
        self.kept = offsets  # but for what `keeping` still puts among them
        self.keeping: Iterator[None] | None = None  # what sees to that: a commit of very many
        self.in_log = in_log  # something of it may be
        self.gone = False
        self.armed_at = inf
        # commits that are written and not yet committed, by their identity: thousands of members may commit at once
        self.under_way: dict[int, CommittedOffsets] | None = None
        # what its group has asked for and did not get yet, in order, and what sees to that: answers of thousands
        self.effects: deque[Effect] = deque()
        self.performing: Iterator[None] | None = None

    @property
    def offsets(self) -> Offsets:
        """All that count."""
        if self.keeping is not None:
            for _ in self.keeping:
                pass
        return self.kept

    def left_behind(self, where: list[Where], current: Mapping[str, bytes]) -> list[Where]:
        """Those of topics that are gone. `current`: the ids of topics that have such a name by now; what was committed
        to one of them stays."""
        if not current:
            return where
        kept = {
            (topic, at)
            for offsets in (self.under_way or {}).values()
            for topic, at, offset in offsets
            if offset.topic_id == current.get(topic)
        }
        stored = ((each, self.offsets.get(*each)) for each in where if each not in kept)
        return [each for each, offset in stored if offset is None or offset.topic_id != current.get(each[0])]

    def where(self, wanted: Callable[[str], bool]) -> list[Where]:
        """Partitions of wanted topics that the log may hold an offset for."""
        found = dict.fromkeys(each for each in self.offsets.where() if wanted(each[0]))
        for offsets in (self.under_way or {}).values():
            found.update(dict.fromkeys((topic, at) for topic, at, _ in offsets if wanted(topic)))
        return list(found)

    def where_under_way(self) -> set[Where]:
        """Partitions that the log is about to hold an offset for."""
        return {(topic, at) for offsets in (self.under_way or {}).values() for topic, at, _ in offsets}


class _Forgetting:
    """An OffsetDelete while it is done: called with the outcome of each slice, and with that of all of them together."""

    __slots__ = ("_error", "_to", "answers", "left")

    def __init__(self, to: Any) -> None:
        self._to = to
        self._error = ErrorCode.NONE
        self.answers: list[ErrorCode] = []
        self.left = 1  # outcomes to come

    def __call__(self, error: ErrorCode) -> None:
        self._error = self._error or error
        self.left -= 1
        if not self.left:
            answers = () if self._error else tuple(self.answers)
            reply(self._to, Forgotten(told(self._error), answers))


class _Found:
    """A group while the log is read."""

    __slots__ = ("offsets", "record")

    def __init__(self) -> None:
        self.record: GroupRecord | None = None
        self.offsets = Offsets()


class Ledger:
    """The groups that one partition holds."""

    def __init__(self, partition: Partition, parts: Parts) -> None:
        self.groups: dict[str, Hosted] = {}
        self.epoch = partition.leader_epoch
        self._parts = parts
        self._clock = parts.clock
        self._found: dict[str, _Found] = {}
        self._unreadable: dict[str, int] = {}  # why -> how many
        self._deleted: set[str] = set()  # topics that were deleted while the log was read
        self._refused = False  # the last thing that nobody had asked for
        self._stale: list[tuple[Hosted, set[str]]] = []  # topics whose offsets are to go when it is
        self._burying: list[frozenset[str]] = []  # topics that were deleted, whose offsets are going
        self.shard = Shard(
            partition,
            self,
            turn=parts.turn,
            threads=parts.threads,
            clock=parts.clock,
            timeout_ms=parts.commit_timeout_ms,
            floor=parts.floor,
            codec=parts.codec,
        )

    @property
    def error(self) -> ErrorCode:
        """Why nobody is served; NONE: they are."""
        state = self.shard.state
        if state is State.SERVING:
            return ErrorCode.NONE
        loading = state is State.LOADING
        return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS if loading else ErrorCode.NOT_COORDINATOR

    def end(self) -> None:
        """Serve no more; whoever waits is told to look for the coordinator again."""
        self.shard.end()
        self.reset()

    def now(self) -> Now:
        """The time of an event."""
        clock = self._clock
        return Now(clock.monotonic(), clock.wall_ms())

    # -- loading: the shard's side

    def decode(self, key: bytes | None, value: bytes | None) -> Entry:
        """What a record says."""
        return read_record(key, value)

    def reset(self) -> None:
        """Forget all groups; their members must find them again."""
        groups, self.groups = self.groups, {}
        self._found = {}
        self._unreadable = {}
        self._stale = []
        self._deleted.update(*self._burying)  # should it be read anew: again
        self._burying = []
        for hosted in groups.values():
            self._perform_all(hosted)
            hosted.gone = True
            self._parts.alarms.cancel(hosted)
            for effect in hosted.group.close(ErrorCode.NOT_COORDINATOR, self.now()):
                if isinstance(effect, Reply):
                    reply(effect.to, effect.answer)

    def apply(self, said: Entry) -> None:
        """The next record of the log."""
        if isinstance(said, Unreadable):
            why = said.why
            if why not in self._unreadable and len(self._unreadable) >= REASONS_MAX:
                why = "other reasons"
            self._unreadable[why] = self._unreadable.get(why, 0) + 1
            return
        found = self._found.get(said.group_id)
        if found is None:
            found = self._found[said.group_id] = _Found()
        if isinstance(said, OffsetEntry):
            if said.offset is None:
                found.offsets.forget(said.topic, said.partition)
            else:
                found.offsets.put(said.topic, said.partition, said.offset)
        else:
            found.record = said.record
        if found.record is None and not found.offsets:
            del self._found[said.group_id]

    def finish(self) -> Iterator[None]:
        """Groups come to life: sessions of members begin anew.

        Offsets of topics that were deleted and made anew go: the deletion may not have come so far. Those of topics that
        are not there stay until they are old. In the log of a Kafka they may be of topics that others held, or that were
        empty.
        """
        for why, count in self._unreadable.items():
            log.warning("records left out", partition=str(self.shard.tp), why=why, count=count)
        self._unreadable = {}
        id_of = self._parts.id_of
        while self._found:
            group_id, found = self._found.popitem()
            hosted = Hosted(self, self._alive(group_id, found.record), found.offsets, in_log=True)
            self.groups[group_id] = hosted
            self._arm(hosted)
            stale = {name for name, topic_id in hosted.offsets.topics() if is_other(topic_id, id_of(name))}
            if stale:
                self._stale.append((hosted, stale))
            yield

    def loaded(self) -> None:
        """From now on it can be written to."""
        deleted, self._deleted = frozenset(self._deleted), set()
        if deleted:
            self.topics_deleted(deleted)
        stale, self._stale = self._stale, []
        for hosted, names in stale:
            if not hosted.gone:
                self._bury(hosted, hosted.where(names.__contains__))

    def failed(self, error: KafkaError) -> None:
        """The shard has said it in the log."""
        self.reset()

    def _alive(self, group_id: str, record: GroupRecord | None) -> ClassicGroup:
        parts = self._parts
        if record is None:
            return ClassicGroup(
                group_id, limits=parts.limits, new_member_id=parts.new_member_id, now=self.now()
            )
        return ClassicGroup.restore(
            group_id, record, limits=parts.limits, new_member_id=parts.new_member_id, now=self.now()
        )

    # -- members

    def event(self, group_id: str, event: Join | Sync | Beat | Leave) -> None:
        """Something that a member wants."""
        if type(event) is Join and self._is_too_large(event):
            return reply(event.to, refusal(event, ErrorCode.MESSAGE_TOO_LARGE))
        hosted = self.groups.get(group_id)
        if hosted is None:
            if type(event) is not Join or event.member_id:
                return reply(event.to, unknown_group(event))
            hosted = self._create(group_id)
        self._handle(hosted, event)
        self._drop_if_nothing(hosted)

    def _is_too_large(self, join: Join) -> bool:
        offered = sum([len(protocol.metadata) for protocol in join.protocols])
        return offered > MEMBER_BATCHES_MAX * self.shard.partition.config.max_message_bytes

    def tick(self, hosted: Hosted) -> None:
        """Its alarm has rung."""
        if not hosted.gone:
            self._handle(hosted, Tick())
            self._drop_if_nothing(hosted)

    def _create(self, group_id: str) -> Hosted:
        hosted = Hosted(self, self._alive(group_id, None), Offsets(), in_log=False)
        self.groups[group_id] = hosted
        return hosted

    def _drop_if_nothing(self, hosted: Hosted) -> None:
        """A group that nobody joined after all, and of which nothing was written, leaves no trace."""
        if not hosted.in_log and hosted.group.is_empty:
            hosted.gone = True
            self._parts.alarms.cancel(hosted)
            del self.groups[hosted.group.group_id]

    def _handle(self, hosted: Hosted, event: Event) -> None:
        group = hosted.group
        was = group.state
        effects = group.handle(event, self.now())
        if group.state != was:
            news.tell(group, event)
        if hosted.performing is None and len(effects) == 1 and isinstance(effects[0], Reply):  # mostly
            reply(effects[0].to, effects[0].answer)
        elif effects:
            hosted.in_log = hosted.in_log or any(isinstance(effect, Write) for effect in effects)
            hosted.effects += effects
            if hosted.performing is None:
                hosted.performing = self._perform(hosted)
                self._parts.work.take(hosted.performing)
        self._arm(hosted)

    def _perform(self, hosted: Hosted) -> Iterator[None]:
        """What the group asks for, in order. In slices: a generation of thousands answers each of its members."""
        effects, given = hosted.effects, 0
        while effects:
            effect = effects.popleft()
            if isinstance(effect, Write):
                yield from self._write(hosted, effect)
                continue
            reply(effect.to, effect.answer)
            given += 1
            if given % REPLIES_PER_SLICE == 0:
                yield
        hosted.performing = None

    def _perform_all(self, hosted: Hosted) -> None:
        """Now, all that is left of it."""
        if hosted.performing is not None:
            for _ in hosted.performing:
                pass

    def _write(self, hosted: Hosted, write: Write) -> Iterator[None]:
        value = yield from group_value(write.record)
        record = (group_key(hosted.group.group_id), value)
        self.shard.append([record], partial(self._written, hosted, write.token), _nothing)

    def _written(self, hosted: Hosted, token: int, error: ErrorCode) -> None:
        if not hosted.gone:
            self._handle(hosted, Written(token, error))

    def _arm(self, hosted: Hosted) -> None:
        alarm_at = hosted.group.alarm_at
        if alarm_at < hosted.armed_at:
            self._parts.alarms.set(hosted, alarm_at)

    # -- offsets

    def commit(self, group_id: str, commit: Commit) -> None:
        """Keep offsets. A group that nobody knows is made, for consumers that assign their partitions themselves."""
        hosted = self.groups.get(group_id)
        if hosted is None:
            if commit.generation >= 0:
                return reply(commit.to, Committed(ErrorCode.GROUP_ID_NOT_FOUND))
            hosted = self._create(group_id)
        error = hosted.group.check_commit(commit, self.now())
        offsets = commit.offsets
        if error or not offsets:
            reply(commit.to, Committed(error))
            return self._drop_if_nothing(hosted)
        hosted.in_log = True
        if hosted.under_way is None:
            hosted.under_way = {}
        hosted.under_way[id(offsets)] = offsets
        if len(offsets) > OFFSETS_PER_SLICE:
            return self._parts.work.take(self._commit_many(hosted, commit))
        key = OffsetKeys(group_id).key
        self._append(
            hosted,
            commit,
            [(key(topic, partition), offset_value(offset)) for topic, partition, offset in offsets],
        )

    def _append(self, hosted: Hosted, commit: Commit, records: list[Record]) -> None:
        self.shard.append(
            records,
            partial(self._committed, hosted, commit.to, commit.offsets),
            partial(self._keep, hosted, commit.offsets),
        )

    def _commit_many(self, hosted: Hosted, commit: Commit) -> Iterator[None]:
        """The records of very many offsets are made in slices; the group may be deleted meanwhile, or moved, or be in
        another generation: what its members have committed by then must not be overwritten by who is none any more."""
        key = OffsetKeys(hosted.group.group_id).key
        records: list[Record] = []
        error = ErrorCode.UNKNOWN_SERVER_ERROR
        try:
            for number, (topic, partition, offset) in enumerate(commit.offsets, 1):
                records.append((key(topic, partition), offset_value(offset)))
                if number % OFFSETS_PER_SLICE == 0:
                    yield
            gone = hosted.gone
            error = ErrorCode.NOT_COORDINATOR if gone else hosted.group.check_commit(commit, self.now())
        finally:
            if error:
                self._arrived(hosted, commit.offsets)
                reply(commit.to, Committed(error))
        if not error:
            self._append(hosted, commit, records)

    def _keep(self, hosted: Hosted, offsets: CommittedOffsets) -> None:
        put = hosted.offsets.put  # those before are among them by now
        if len(offsets) > OFFSETS_PER_SLICE:
            hosted.keeping = _put_many(hosted, offsets)
            self._parts.work.take(hosted.keeping)
        else:
            for topic, partition, offset in offsets:
                put(topic, partition, offset)
        self._arrived(hosted, offsets)

    def _committed(self, hosted: Hosted, to: Any, offsets: CommittedOffsets, error: ErrorCode) -> None:
        if not error:
            return reply(to, _COMMITTED)
        if error != ErrorCode.REQUEST_TIMED_OUT:  # that one is still on its way
            self._arrived(hosted, offsets)
        reply(to, Committed(told(error)))

    def _arrived(self, hosted: Hosted, offsets: CommittedOffsets) -> None:
        if hosted.under_way is not None:
            hosted.under_way.pop(id(offsets), None)
            hosted.under_way = hosted.under_way or None

    def forget(self, group_id: str, what: ForgetOffsets) -> None:
        """Forget offsets of partitions that no member reads."""
        hosted = self.groups.get(group_id)
        if hosted is None or hosted.group.state == "Dead":
            return reply(what.to, Forgotten(ErrorCode.GROUP_ID_NOT_FOUND))
        if not_now := _why_nothing_is_forgotten(hosted):
            return reply(what.to, Forgotten(not_now))
        self._parts.work.take(self._forget(hosted, what))

    def _forget(self, hosted: Hosted, what: ForgetOffsets) -> Iterator[None]:
        """Slice by slice: members may come meanwhile, and the group may be deleted or moved. What of it was forgotten by
        then stays forgotten."""
        forgetting = _Forgetting(what.to)
        error = ErrorCode.UNKNOWN_SERVER_ERROR
        try:
            for at in range(0, len(what.partitions), BURIED_PER_SLICE):
                if at:
                    yield
                error = self._forget_some(hosted, what.partitions[at : at + BURIED_PER_SLICE], forgetting)
                if error:
                    break
            else:
                error = ErrorCode.NONE
        finally:
            forgetting(error)

    def _forget_some(
        self, hosted: Hosted, partitions: tuple[Where, ...], forgetting: _Forgetting
    ) -> ErrorCode:
        if error := _why_nothing_is_forgotten(hosted):
            return error
        group = hosted.group
        read = {topic: is_subscribed(group, topic) for topic in {topic for topic, _ in partitions}}
        forgetting.answers += [
            ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC if read[topic] else ErrorCode.NONE for topic, _ in partitions
        ]
        there, under_way = hosted.offsets, hosted.where_under_way()
        wanted = [
            where
            for where in partitions
            if not read[where[0]] and (where in under_way or there.get(*where) is not None)
        ]
        if wanted:
            forgetting.left += 1
            self._bury(hosted, wanted, forgetting)
        return ErrorCode.NONE

    def _bury(
        self, hosted: Hosted, where: Iterable[Where], done: Callable[[ErrorCode], None] | None = None
    ) -> None:
        """Tombstones for offsets; they go when these are committed."""
        where = list(where)
        key = OffsetKeys(hosted.group.group_id).key

        def committed() -> None:
            for topic, partition in where:
                hosted.offsets.forget(topic, partition)

        records: list[Record] = [(key(topic, partition), None) for topic, partition in where]
        self.shard.append(records, done or self._unanswered, committed)

    def topics_deleted(self, names: frozenset[str]) -> None:
        """Nobody will ask for offsets of topics that are gone, and one made anew begins at 0."""
        if self.shard.state is State.LOADING:
            self._deleted |= names
        if self.shard.state is State.SERVING:
            self._burying.append(names)
            self._parts.work.take_in_turn(self._bury_all(names, self._burying))

    def _bury_all(self, names: frozenset[str], burying: list[frozenset[str]]) -> Iterator[None]:
        """In slices: a hundred thousand groups may have read a topic. Another may have its name meanwhile."""
        if burying is not self._burying:  # read anew, and begun anew, before this was begun
            return
        id_of, left = self._parts.id_of, BURIED_PER_SLICE
        for hosted in list(self.groups.values()):
            left -= 1
            where: list[Where] = []
            if hosted.under_way is not None or any(name in names for name, _ in hosted.offsets.topics()):
                where = hosted.where(names.__contains__)
            while where or left <= 0:
                if left <= 0:
                    left = BURIED_PER_SLICE
                    yield
                    if burying is not self._burying:  # read anew, and begun anew
                        return
                if hosted.gone:
                    break
                current = {name: there for name in names if (there := id_of(name)) is not None}
                some, where = where[:BURIED_PER_SLICE], where[BURIED_PER_SLICE:]
                if buried := hosted.left_behind(some, current):
                    self._bury(hosted, buried)
                    left -= BURIAL_COST + len(buried)
        burying.remove(names)

    def _unanswered(self, error: ErrorCode) -> None:
        """How something ended that nobody asked for: the next round, or the next start, tries again."""
        if error and not self._refused:  # not for every group of a full disk
            log.warning("old offsets not forgotten", partition=str(self.shard.tp), error=error.name)
        self._refused = bool(error)

    # -- whole groups

    def delete(self, group_id: str, done: Callable[[ErrorCode], None]) -> None:
        """Delete a group without members."""
        hosted = self.groups.get(group_id)
        if hosted is None or hosted.group.state == "Dead":
            return done(ErrorCode.GROUP_ID_NOT_FOUND)
        error = hosted.group.deletable()
        if error:
            return done(error)
        self._remove(hosted, done)

    def _remove(self, hosted: Hosted, done: Callable[[ErrorCode], None]) -> None:
        """It goes at once, so that who comes next finds a new group; it is back if that cannot be written down.

        Where there is a new group by then, the log says what of both is true: commits of the old one may be under way.
        """
        self._perform_all(hosted)  # what it wrote stands in the log before its end
        group_id = hosted.group.group_id
        key = OffsetKeys(group_id).key
        records: list[Record] = [(key(topic, at), None) for topic, at in hosted.where(lambda _: True)]
        records.append((group_key(group_id), None))
        hosted.gone = True
        self._parts.alarms.cancel(hosted)
        del self.groups[group_id]

        def removed(error: ErrorCode) -> None:
            if error and error != ErrorCode.REQUEST_TIMED_OUT and self.shard.state is State.SERVING:
                self._put_back(hosted)
            done(told(error))

        self.shard.append(records, removed, _nothing)

    def _put_back(self, hosted: Hosted) -> None:
        if hosted.group.group_id in self.groups:
            return self.shard.read_anew()
        hosted.gone = False
        self.groups[hosted.group.group_id] = hosted
        self._arm(hosted)

    def expire(self, hosted: Hosted, retention_ms: int) -> None:
        """Let old offsets of a group go, and the group when it has neither offsets nor members."""
        if hosted.gone or self.shard.state is not State.SERVING or hosted.under_way is not None:
            return
        old = expired(hosted.offsets, hosted.group, self._clock.wall_ms(), retention_ms)
        if len(old) == len(hosted.offsets) and hosted.group.is_empty:
            return self._remove(hosted, self._unanswered)
        if old:
            self._bury(hosted, old)


def _why_nothing_is_forgotten(hosted: Hosted) -> ErrorCode:
    if hosted.gone:
        return ErrorCode.NOT_COORDINATOR
    group = hosted.group
    no_consumers = group.deletable() and group.protocol_type != "consumer"
    return ErrorCode.NON_EMPTY_GROUP if no_consumers else ErrorCode.NONE


def is_other(topic_id: bytes, current: bytes | None) -> bool:
    """An offset came with the id of another topic than the one that has the name now."""
    return current is not None and topic_id not in (ZERO_UUID, current)


def _put_many(hosted: Hosted, offsets: CommittedOffsets) -> Iterator[None]:
    put = hosted.kept.put
    for number, (topic, partition, offset) in enumerate(offsets, 1):
        put(topic, partition, offset)
        if number % OFFSETS_PER_SLICE == 0:
            yield
    hosted.keeping = None


def _nothing() -> None:
    """Nothing is left to be done when it is committed."""
