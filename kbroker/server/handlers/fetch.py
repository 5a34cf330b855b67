"""Fetch: records out, as regions of files, at once or when something arrives."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any

from kbroker.errors import KafkaError
from kbroker.observe import logs
from kbroker.protocol.messages.fetch import (
    FetchableTopicResponse,
    FetchRequest,
    FetchResponse,
    PartitionData,
)
from kbroker.seams import Timer
from kbroker.server.rooms import Call, Later, Pause, Rooms
from kbroker.server.sessions import (
    FINAL_EPOCH,
    INITIAL_EPOCH,
    NO_SESSION,
    FetchSession,
    Found,
    Interest,
    TopicKey,
)
from kbroker.server.slices import DECODED_TIMES, SLICE, Awaited, Large, Pace, Steps, in_slices

log = logs.get_logger("server")

FIRST_WITH_TOPIC_IDS = 13
# While a request waits for more partitions than these, its connection is not read from, as in Kafka: of smaller ones a
# connection may have net.connection.UNANSWERED_MAX, some 10 MB of what they follow.
WAITING_PARTITIONS_MAX = 100
# A request waits no longer than this, whatever it says: while its connection is not read from nobody sees that the
# client has gone, and its session's slot and what it follows stay taken. As long as systems keep their half of a closed
# connection; the default of clients is half a second.
WAIT_MS_MAX = 60_000
READ_COMMITTED = 1


Topics = dict[TopicKey, FetchableTopicResponse]


def handle_fetch(
    rooms: Rooms, call: Call, request: FetchRequest
) -> FetchResponse | Later | Coroutine[Any, Any, Large[FetchResponse]]:
    """Fetch: v4-18.

    Whole batches below the high watermark, at once if there are `min_bytes` or an error, else when they arrive or
    after `max_wait_ms`, a minute at most. The first batch goes out even if it is larger than the limits (KIP-74).
    A client beyond its quota gets an empty answer with the time to wait, and the same records afterwards (KIP-219).
    read_committed: the last stable offset is the high watermark while there are no transactions.
    v7 sessions (KIP-227) · v9 leader epochs (KIP-320) · v11 rack (this broker is the only replica) · v12 flexible,
    divergence (KIP-595) · v13 topic ids (KIP-516) · v15 replica state · v16 node endpoints (KIP-951)
    """
    try:
        session = _session_of(rooms, call, request)
    except KafkaError as error:
        return FetchResponse(error_code=error.code, session_id=NO_SESSION, responses=[])
    fetch = _Fetch(rooms, call, request, session)
    left = SLICE - len(session.ready)
    for topic in request.topics:
        left -= 1 + len(topic.partitions)
    for forgotten in request.forgotten_topics_data:
        left -= 1 + len(forgotten.partitions)
    if left < 0:
        pause = Pause(call.connection, times=DECODED_TIMES)
        return in_slices(call, fetch.in_slices(request, pause), pause)
    try:
        _follow(rooms, session, request, by_id=call.version >= FIRST_WITH_TOPIC_IDS)
        found = fetch.look()
        if fetch.is_enough(found) or request.max_wait_ms <= 0 or not session.interests:
            return fetch.answer(found)
        return fetch.wait(min(request.max_wait_ms, WAIT_MS_MAX))
    except BaseException:
        fetch.let_go()
        raise


def _session_of(rooms: Rooms, call: Call, request: FetchRequest) -> FetchSession:
    """The session this request goes on in, opens, or is (without one); before it follows what the request says."""
    sessions = rooms.sessions
    with_ids = call.version >= FIRST_WITH_TOPIC_IDS
    epoch = request.session_epoch
    if epoch in (FINAL_EPOCH, INITIAL_EPOCH):
        if request.session_id != NO_SESSION:
            sessions.close(request.session_id)
        session = sessions.open() if epoch == INITIAL_EPOCH and request.topics else None
        session = session or FetchSession()
    else:
        session = sessions.use(request.session_id, epoch, by_id=with_ids)
        if (
            session.on_ready is not None
        ):  # the request before still waits, on another connection: it answers now
            session.on_ready.answer_now()
    return session


def _follow(rooms: Rooms, session: FetchSession, request: FetchRequest, *, by_id: bool) -> None:
    for topic in request.topics:
        key = topic.topic_id if by_id else topic.topic
        for partition in topic.partitions:
            session.follow(key, partition)
    for forgotten in request.forgotten_topics_data:
        key = forgotten.topic_id if by_id else forgotten.topic
        for index in forgotten.partitions:
            session.forget(key, index)
    _end_if_empty(rooms, session)


def _follow_many(
    rooms: Rooms, session: FetchSession, request: FetchRequest, *, by_id: bool
) -> Generator[None, None, None]:
    pace = Pace()
    for topic in request.topics:
        key = topic.topic_id if by_id else topic.topic
        for partition in topic.partitions:
            session.follow(key, partition)
            if pace.over():
                yield None
        if pace.over():
            yield None
    for forgotten in request.forgotten_topics_data:
        key = forgotten.topic_id if by_id else forgotten.topic
        for index in forgotten.partitions:
            session.forget(key, index)
            if pace.over():
                yield None
        if pace.over():
            yield None
    _end_if_empty(rooms, session)


def _end_if_empty(rooms: Rooms, session: FetchSession) -> None:
    if not session.interests and session.id != NO_SESSION:  # nothing left to follow
        rooms.sessions.close(session.id)
        session.id = NO_SESSION


class _Fetch:
    """One request while it is looked at and, perhaps, waits. Keeps nothing of the request but a few numbers: it may be
    large, and name a partition many times."""

    __slots__ = (
        "_call",
        "_committed_only",
        "_incremental",
        "_later",
        "_marked",
        "_max_bytes",
        "_min_bytes",
        "_pause",
        "_rooms",
        "_session",
        "_timer",
    )

    def __init__(self, rooms: Rooms, call: Call, request: FetchRequest, session: FetchSession) -> None:
        self._rooms = rooms
        self._call = call
        self._session = session
        self._max_bytes = min(request.max_bytes, rooms.settings.fetch_max_bytes)
        self._min_bytes = request.min_bytes
        if rooms.quotas.active:
            quota = rooms.quotas.fetch_bytes_max(call)
            if quota is not None:
                self._max_bytes = min(self._max_bytes, quota)
                self._min_bytes = min(self._min_bytes, quota)  # more will never be found
        self._incremental = request.session_epoch > INITIAL_EPOCH
        self._committed_only = request.isolation_level == READ_COMMITTED
        self._later: Later | None = None
        self._timer: Timer | None = None
        self._marked = False
        self._pause: Pause | None = None  # its connection is not read from meanwhile

    def look(self) -> Found:
        """What is there now."""
        return self._session.look(self._rooms.partitions, self._max_bytes, incremental=self._incremental)

    def look_at_all(self) -> Found:
        """What goes into the answer: a full one names every partition, not only the ready ones."""
        if not self._incremental:
            self._session.all_ready()
        return self.look()

    def is_enough(self, found: Found) -> bool:
        """Whether it is worth an answer now."""
        return found.size >= self._min_bytes or found.failed

    def answer(self, found: Found) -> FetchResponse:
        """The response with what was found."""
        session = self._session
        quotas = self._rooms.quotas
        if quotas.active and not quotas.fetched(self._call, found.size):
            return self._nothing_now()
        session.add_untold(found, self._rooms.partitions)
        topics: Topics = {}
        self._add(topics, found.answers)
        session.told(found.answers)
        if session.id == NO_SESSION:
            session.end()
        return FetchResponse(session_id=session.id, responses=list(topics.values()))

    def _add(self, topics: Topics, answers: list[tuple[Interest, PartitionData]]) -> None:
        if self._committed_only:
            for _, data in answers:
                data.aborted_transactions = []
        for interest, data in answers:
            key = interest.topic
            topic = topics.get(key)
            if topic is None:
                topic = topics[key] = (
                    FetchableTopicResponse(topic=key, partitions=[])
                    if isinstance(key, str)
                    else FetchableTopicResponse(topic_id=key, partitions=[])
                )
            topic.partitions.append(data)

    def _nothing_now(self) -> FetchResponse:
        """The client has to wait: it is told of nothing, and everything stays to be found. A session goes on, but one that
        would have begun with this answer; the client asks for it again."""
        session = self._session
        if not self._incremental:
            self._rooms.sessions.close(session.id)
            session.end()
            session.id = NO_SESSION
        return FetchResponse(session_id=session.id, responses=[])

    def wait(self, wait_ms: int) -> Later:
        """Answer when the partitions have enough, one of them fails, or the time is over."""
        self._later = Later(self.let_go)
        self._session.on_ready = self
        self._session.watch_ready()
        self._timer = self._rooms.clock.call_at(
            self._rooms.clock.monotonic() + wait_ms * 0.001, self.answer_now
        )
        if len(self._session.interests) > WAITING_PARTITIONS_MAX:
            self._pause = Pause(self._call.connection, times=0)
        return self._later

    def ready(self) -> None:
        """A partition moved: look once all of them have settled in this turn."""
        if not self._marked:
            self._marked = True
            self._rooms.turn.settle(self)

    def settle(self) -> None:
        """All partitions have settled: is it enough?"""
        self._marked = False
        if self._later is None:
            return
        found = self.look()
        if self.is_enough(found):
            if not self._incremental and len(found.answers) < len(self._session.interests):
                found = self.look_at_all()
            self._finish(found)
        else:
            self._session.watch_ready()

    def answer_now(self) -> None:
        """The time is over: answer with what is there."""
        if self._later is None:
            return
        try:
            self._finish(self.look_at_all())
        except Exception as error:  # noqa: BLE001 - a door: a timer calls this
            self.failed(error)

    def _finish(self, found: Found) -> None:
        response = self.answer(found)
        later = self._stop_waiting()
        if later is not None:
            later.fill(response)
        self._read_on()

    def _stop_waiting(self) -> Later | None:
        later, self._later = self._later, None
        self._session.on_ready = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return later

    def let_go(self) -> None:
        """Nobody will get an answer: the connection ended, or looking broke."""
        self._stop_waiting()
        if self._session.id == NO_SESSION:
            self._session.end()
        self._read_on()

    def _read_on(self) -> None:
        if self._pause is not None:
            self._pause.end()

    def failed(self, error: BaseException) -> None:
        """Looking broke: the connection ends (it would wait for ever), the turn goes on."""
        later = self._later
        self.let_go()
        if later is not None:
            log.exception("fetch failed", error)
            later.fail(error)

    # -- of very many partitions: the same with pauses, between which a session has nobody else

    def in_slices(self, request: FetchRequest | None, pause: Pause) -> Steps[FetchResponse]:
        """The whole of it. Who comes with the same session meanwhile finds none, and begins anew."""
        assert request is not None
        rooms, session, max_wait_ms = self._rooms, self._session, request.max_wait_ms
        session_id = session.id
        rooms.sessions.take_out(session)
        try:
            by_id = self._call.version >= FIRST_WITH_TOPIC_IDS
            yield from _follow_many(rooms, session, request, by_id=by_id)
            found = yield from self._look_at_many()
            request = None  # it is large, and this may wait
            pause.drop_frame()
            if not self.is_enough(found) and max_wait_ms > 0 and session.interests:
                found = yield from self._wait_for_many(min(max_wait_ms, WAIT_MS_MAX))
            return (yield from self._answer_many(found))
        except BaseException:
            session.end()
            session.id = NO_SESSION
            raise
        finally:
            rooms.sessions.put_back(session_id, session)

    def _look_at_many(self) -> Generator[None, None, Found]:
        found = Found()
        ready = list(self._session.ready)
        for at in range(0, len(ready), SLICE):
            if at:
                yield None
            self._session.look_at(
                ready[at : at + SLICE],
                found,
                self._rooms.partitions,
                self._max_bytes,
                incremental=self._incremental,
            )
        return found

    def _wait_for_many(self, wait_ms: int) -> Generator[Awaited[None] | None, None, Found]:
        session, clock = self._session, self._rooms.clock
        waiter = _Waiter()
        timer = clock.call_at(clock.monotonic() + wait_ms * 0.001, waiter.answer_now)
        session.on_ready = waiter
        try:
            while True:
                waiter.moved = Awaited()
                ready = list(session.ready)
                for at in range(0, len(ready), SLICE):
                    for interest in ready[at : at + SLICE]:
                        interest.watch()
                    yield None
                found = yield from self._look_at_many()  # behind that: what moved in between was not watched
                if self.is_enough(found):
                    break
                if not waiter.is_over:
                    yield waiter.moved
                if waiter.is_over:
                    break
        finally:
            session.on_ready = None
            timer.cancel()
        if waiter.is_over or (not self._incremental and len(found.answers) < len(session.interests)):
            if not self._incremental:
                session.all_ready()
            found = yield from self._look_at_many()
        return found

    def _answer_many(self, found: Found) -> Generator[None, None, FetchResponse]:
        session, rooms = self._session, self._rooms
        if rooms.quotas.active and not rooms.quotas.fetched(self._call, found.size):
            return self._nothing_now()
        if session.untold:
            for at in range(0, len(found.answers), SLICE):
                for interest, _ in found.answers[at : at + SLICE]:
                    session.untold.pop(interest, None)
                yield None
            untold = list(session.untold)
            for at in range(0, len(untold), SLICE):
                session.add(untold[at : at + SLICE], found, rooms.partitions)
                yield None
            session.untold.clear()
        topics: Topics = {}
        for at in range(0, len(found.answers), SLICE):
            answers = found.answers[at : at + SLICE]
            self._add(topics, answers)
            session.told(answers)
            yield None
        if session.id == NO_SESSION:
            for number, interest in enumerate(session.interests.values(), 1):
                interest.unwatch()
                if number % SLICE == 0:
                    yield None
            session.end()
        return FetchResponse(session_id=session.id, responses=list(topics.values()))


class _Waiter:
    """A request of many that waits on its session: `moved` is called when it should look again."""

    __slots__ = ("is_over", "moved")

    def __init__(self) -> None:
        self.is_over = False  # the time is
        self.moved: Awaited[None] = Awaited()

    def ready(self) -> None:
        """A partition moved."""
        self.moved(None)

    def answer_now(self) -> None:
        """The time is over."""
        self.is_over = True
        self.moved(None)
