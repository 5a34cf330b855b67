"""Fetch sessions (KIP-227): which partitions a reader follows, and which of them may have something for it.

A session looks only at its *ready* partitions; a partition that had nothing is watched and comes back by itself, so a
poll costs nothing for the others. A request without session is a session of one request. Knows no wire layouts.
"""

from __future__ import annotations

from typing import Protocol

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.fetch import EpochEndOffset, FetchPartition, PartitionData
from kbroker.replication.partition import Partition
from kbroker.replication.replicas import Replicas
from kbroker.seams import Clock, Random

# Bytes for one batch are always given; after that a partition needs room for at least a batch header to be looked at.
ROOM_MIN = 1
# A cached session may be replaced when nobody used it for this long (min.incremental.fetch.session.eviction.ms).
EVICTION_SECONDS = 120.0

FINAL_EPOCH = -1  # a full request that opens no session
INITIAL_EPOCH = 0  # a full request that opens one
NO_SESSION = 0

TopicKey = str | bytes  # the name up to v12, the topic id from v13 on


class Waits(Protocol):
    """A request that waits on a session."""

    def ready(self) -> None: ...

    def answer_now(self) -> None: ...


class Interest:
    """One partition that a session follows, from an offset on."""

    __slots__ = (
        "epoch",
        "index",
        "last_fetched_epoch",
        "max_bytes",
        "offset",
        "partition",
        "sent_start",
        "sent_watermark",
        "session",
        "topic",
        "watched",
    )

    def __init__(self, session: FetchSession, topic: TopicKey, index: int) -> None:
        self.session = session
        self.topic = topic
        self.index = index
        self.partition: Partition | None = None
        self.offset = 0
        self.max_bytes = 0
        self.epoch = -1
        self.last_fetched_epoch = -1
        self.sent_watermark = -2  # what the reader was told last; -2: nothing yet
        self.sent_start = -2
        self.watched = False

    def update(self, asked: FetchPartition) -> None:
        """Take over what a request says of this partition."""
        self.offset = asked.fetch_offset
        self.max_bytes = asked.partition_max_bytes
        self.epoch = asked.current_leader_epoch
        self.last_fetched_epoch = asked.last_fetched_epoch

    def partition_moved(self) -> None:
        """The partition's watermark, start or role moved: look at it again."""
        self.watched = False
        session = self.session
        session.ready[self] = None
        if session.on_ready is not None:
            session.on_ready.ready()

    def watch(self) -> None:
        """Nothing here now: come back when something moved."""
        if self.partition is not None and not self.watched:
            self.watched = True
            self.partition.watch(self)

    def unwatch(self) -> None:
        """Look at it no more."""
        if self.watched and self.partition is not None:
            self.watched = False
            self.partition.unwatch(self)

    def is_news(self, data: PartitionData) -> bool:
        """The reader was told another watermark or log start."""
        return data.high_watermark != self.sent_watermark or data.log_start_offset != self.sent_start

    def look(self, partitions: Replicas, room: int, *, at_least_one: bool) -> PartitionData:
        """What a reader gets of this partition now, in at most `room` bytes."""
        partition = self.partition
        try:
            if partition is None or partition.gone is not None:
                topic = self.topic
                partition = (
                    partitions.get(topic, self.index)
                    if isinstance(topic, str)
                    else partitions.by_id(topic, self.index)
                )
                self.partition, self.watched = partition, False
                if partition is None:
                    known = isinstance(topic, str) or partitions.knows(topic)
                    return _failed(
                        self.index,
                        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if known else ErrorCode.UNKNOWN_TOPIC_ID,
                    )
            log = partition.log
            partition.check_epoch(self.epoch)
            if self.last_fetched_epoch >= 0:
                diverging = self._divergence(partition)
                if diverging is not None:
                    return diverging
            region = partition.read(self.offset, min(room, self.max_bytes), at_least_one=at_least_one)
        except KafkaError as error:
            return _failed(self.index, error.code)
        watermark = partition.high_watermark
        return PartitionData(
            partition_index=self.index,
            high_watermark=watermark,
            last_stable_offset=watermark,
            log_start_offset=log.start,
            aborted_transactions=None,
            records=b"" if region is None else region,
        )

    def _divergence(self, partition: Partition) -> PartitionData | None:
        """KIP-595: the reader's last epoch ended earlier here than where it stands: tell it where.

        KafkaError OFFSET_OUT_OF_RANGE for an epoch that the log does not know, as Kafka answers.
        """
        epoch, end = partition.end_of_epoch(self.last_fetched_epoch)
        if end < 0:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
        if epoch == self.last_fetched_epoch and end >= self.offset:
            return None
        return PartitionData(
            partition_index=self.index,
            high_watermark=partition.high_watermark,
            last_stable_offset=partition.high_watermark,
            log_start_offset=partition.log.start,
            diverging_epoch=EpochEndOffset(epoch=epoch, end_offset=end),
            records=b"",
        )


def _failed(index: int, error: ErrorCode) -> PartitionData:
    return PartitionData(partition_index=index, error_code=error, high_watermark=-1, records=b"")


class Found:
    """What one look at a session's ready partitions gave."""

    __slots__ = ("answers", "failed", "size")

    def __init__(self) -> None:
        self.answers: list[tuple[Interest, PartitionData]] = []
        self.size = 0  # bytes of records
        self.failed = False  # some partition answers an error or a divergence: do not wait


class FetchSession:
    """The partitions that one reader follows, in the order it named them."""

    __slots__ = ("epoch", "id", "interests", "on_ready", "ready", "untold", "used")

    def __init__(self, session_id: int = NO_SESSION) -> None:
        self.id = session_id
        self.epoch = 1  # the epoch that the next incremental request names
        self.used = 0.0  # monotonic seconds of the last request
        self.interests: dict[tuple[TopicKey, int], Interest] = {}
        self.ready: dict[Interest, None] = {}  # in the order in which they are looked at
        # looked at in an incremental request, without records, but with another watermark or start than the reader knows
        self.untold: dict[Interest, None] = {}
        self.on_ready: Waits | None = None  # the request that waits for a ready partition

    def follow(self, topic: TopicKey, asked: FetchPartition) -> None:
        """Follow one more partition, or go on in it from where the request says."""
        key = (topic, asked.partition)
        interest = self.interests.get(key)
        if interest is None:
            interest = self.interests[key] = Interest(self, topic, asked.partition)
        interest.update(asked)
        self.ready[interest] = None

    def forget(self, topic: TopicKey, index: int) -> None:
        """Follow a partition no more."""
        interest = self.interests.pop((topic, index), None)
        if interest is not None:
            interest.unwatch()
            self.ready.pop(interest, None)
            self.untold.pop(interest, None)

    def look(self, partitions: Replicas, max_bytes: int, *, incremental: bool) -> Found:
        """Whatever the ready partitions have, at most `max_bytes` beyond the first batch.

        An incremental answer names only partitions with records, an error, or another watermark or start than told.
        """
        found = Found()
        self.look_at(list(self.ready), found, partitions, max_bytes, incremental=incremental)
        return found

    def look_at(
        self,
        interests: list[Interest],
        found: Found,
        partitions: Replicas,
        max_bytes: int,
        *,
        incremental: bool,
    ) -> None:
        """Add what these of the ready partitions have."""
        ready = self.ready
        for interest in interests:
            room = max_bytes - found.size
            data = interest.look(partitions, max(room, 0), at_least_one=not found.size)
            size = 0 if data.records is None else len(data.records)
            if size:
                found.size += size
                del ready[interest]  # to the end: the others come first next time
                ready[interest] = None
                found.answers.append((interest, data))
            elif data.error_code or data.diverging_epoch is not None:
                found.failed = True
                found.answers.append((interest, data))
            else:
                if room >= ROOM_MIN and interest.offset >= data.high_watermark:
                    interest.watch()
                    del ready[interest]
                if not incremental:
                    found.answers.append((interest, data))
                elif interest.is_news(data):
                    self.untold[interest] = None
                    found.answers.append((interest, data))

    def add_untold(self, found: Found, partitions: Replicas) -> None:
        """KIP-227: an answer names whatever moved since the last one, also what was looked at before the wait."""
        if not self.untold:
            return
        for interest, _ in found.answers:
            self.untold.pop(interest, None)
        self.add(list(self.untold), found, partitions)
        self.untold.clear()

    def add(self, untold: list[Interest], found: Found, partitions: Replicas) -> None:
        """Add where these stand, if the reader does not know."""
        for interest in untold:
            data = interest.look(partitions, 0, at_least_one=False)
            if data.error_code or interest.is_news(data):
                data.records = b""
                found.answers.append((interest, data))

    def all_ready(self) -> None:
        """Look at every partition next, in the reader's order."""
        self.ready = dict.fromkeys(self.interests.values())

    def watch_ready(self) -> None:
        """The ready ones have too little: learn when they have more."""
        for interest in self.ready:
            interest.watch()

    def told(self, answers: list[tuple[Interest, PartitionData]]) -> None:
        """The answer with these leaves: remember what the reader knows."""
        for interest, data in answers:
            interest.sent_watermark = data.high_watermark
            interest.sent_start = data.log_start_offset

    def end(self) -> None:
        """Let go of every partition."""
        for interest in self.interests.values():
            interest.unwatch()
        self.interests.clear()
        self.ready.clear()
        self.untold.clear()


class FetchSessions:
    """The sessions kept between requests, at most `slots`; a reader that finds no room gets none, which is legal."""

    def __init__(self, slots: int, *, clock: Clock, random: Random) -> None:
        self._slots = slots
        self._clock = clock
        self._random = random
        self._sessions: dict[int, FetchSession] = {}  # least recently used first
        self._out: set[int] = set()  # ids of those that were taken out

    def __len__(self) -> int:
        return len(self._sessions) + len(self._out)

    def open(self) -> FetchSession | None:
        """A new session, or None where no slot is free."""
        now = self._clock.monotonic()
        if len(self) >= self._slots:
            oldest = next(iter(self._sessions.values()), None)
            if oldest is None or now - oldest.used < EVICTION_SECONDS or oldest.on_ready is not None:
                return None
            self.close(oldest.id)
        session_id = NO_SESSION
        while session_id == NO_SESSION or session_id in self._sessions or session_id in self._out:
            session_id = self._random.randrange(1, 1 << 31)
        session = self._sessions[session_id] = FetchSession(session_id)
        session.used = now
        return session

    def use(self, session_id: int, epoch: int, *, by_id: bool) -> FetchSession:
        """The session that an incremental request names. Raises KafkaError 70, 71, or 106 where one of names goes on
        with topic ids or the reverse."""
        session = self._sessions.get(session_id)
        if session is None:
            raise KafkaError(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        if epoch != session.epoch:
            raise KafkaError(ErrorCode.INVALID_FETCH_SESSION_EPOCH)
        if session.interests and isinstance(next(iter(session.interests))[0], bytes) != by_id:
            raise KafkaError(ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR)
        session.epoch = 1 if epoch == 0x7FFFFFFF else epoch + 1
        session.used = self._clock.monotonic()
        self._sessions[session_id] = self._sessions.pop(session_id)
        return session

    def close(self, session_id: int) -> None:
        """End a session, if it is there."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            session.end()

    def take_out(self, session: FetchSession) -> None:
        """A request has this session to itself: until `put_back` others do not find it. Its slot stays taken."""
        if self._sessions.pop(session.id, None) is not None:
            self._out.add(session.id)

    def put_back(self, session_id: int, session: FetchSession) -> None:
        """A session that may have been taken out, and may have ended (NO_SESSION) meanwhile."""
        if session_id in self._out:
            self._out.remove(session_id)
            if session.id == session_id:
                self._sessions[session_id] = session
