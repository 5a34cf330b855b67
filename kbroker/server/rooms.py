"""What a handler may reach: `Rooms`, the broker's parts; `Call`, the facts of one request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from kbroker.net.slots import Slot

if TYPE_CHECKING:
    from kbroker.cluster.log import ReplicatedLog
    from kbroker.config import Settings
    from kbroker.groups.coordinator import GroupCoordinator
    from kbroker.model import BrokerId
    from kbroker.replication.replicas import Replicas
    from kbroker.seams import Clock, Random
    from kbroker.server.aside import Aside
    from kbroker.server.producer_ids import ProducerIds
    from kbroker.server.quotas import Quotas
    from kbroker.server.refusals import Refusals
    from kbroker.server.sessions import FetchSessions
    from kbroker.server.topic_answers import TopicAnswers
    from kbroker.storage.directory import LogDirectory
    from kbroker.turn import Turn


@dataclass(frozen=True, slots=True)
class Rooms:
    """The broker's parts, as handlers see them."""

    node_id: BrokerId
    settings: Settings
    cluster: ReplicatedLog
    partitions: Replicas
    groups: GroupCoordinator
    directory: LogDirectory
    clock: Clock
    random: Random
    sessions: FetchSessions
    producer_ids: ProducerIds
    quotas: Quotas
    topic_answers: TopicAnswers
    refusals: Refusals
    turn: Turn
    aside: Aside
    propose: Callable[
        [Any], Awaitable[Any]
    ]  # a command to the cluster's log; its result once it is durable and applied


class Kept(Protocol):
    """A request's frame, which stays as it is and counts as memory in use."""

    def give_back(self) -> None: ...


class Pausable(Protocol):
    """A connection, as far as a handler may touch it. `stamp` sees each response before it is encoded."""

    open: bool
    stamp: Callable[[Any], None] | None

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def keep(self, times: int = 1) -> Kept | None: ...


class Pause:
    """A request that takes long: its connection is not read from until `end`, so that what came behind it does not
    overtake it, and its frame counts as memory in use: `times` over, for what was made of it; 0: not at all."""

    __slots__ = ("_connection", "_kept")

    def __init__(self, connection: Pausable | None, *, times: int = 1) -> None:
        self._connection = connection
        self._kept: Kept | None = None
        if connection is not None:
            connection.pause()
            if times:
                self._kept = connection.keep(times)

    @property
    def keeps_frame(self) -> bool:
        """Whether views of the frame stay valid; else it was small, and its buffer is used again at once."""
        return self._kept is not None

    def drop_frame(self) -> None:
        """Nothing of the frame is needed any more; what comes may take long."""
        if self._kept is not None:
            self._kept.give_back()

    def end(self) -> None:
        """Read on. Idempotent."""
        self.drop_frame()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.resume()


class Caller(Protocol):
    """Who is at the other end of a connection."""

    listener: str
    principal: str
    client_id: str | None
    ip: str


class Call:
    """One request's facts beside its body."""

    __slots__ = ("_caller", "connection", "version")

    def __init__(self, version: int, caller: Caller, connection: Pausable | None = None) -> None:
        self.version = version
        self._caller = caller
        self.connection = (
            connection  # a handler that takes long stops reading from it; None without a network
        )

    @property
    def listener(self) -> str:
        """Name of the listener it came in by: answers advertise addresses of the same."""
        return self._caller.listener

    @property
    def principal(self) -> str:
        """Who asks; "User:ANONYMOUS" where the listener does not authenticate."""
        return self._caller.principal

    @property
    def client_host(self) -> str:
        """Where the client is, as Kafka writes it: "/127.0.0.1"."""
        return f"/{self._caller.ip}"

    @property
    def client_id(self) -> str | None:
        """What the client calls itself, in the latest request of this connection."""
        return self._caller.client_id


class NoResponse:
    """The type of NO_RESPONSE: this request is answered by nothing (Produce with acks=0)."""


NO_RESPONSE = NoResponse()

# What a handler returns when the response is not there yet.
Later = Slot


class _Breath:
    def __await__(self) -> Generator[None, None, None]:
        yield  # a bare yield in a task is asyncio's "again in the next turn"


def breathe() -> Awaitable[None]:
    """Let the loop serve others, then go on: between slices of long work in a handler."""
    return _Breath()
