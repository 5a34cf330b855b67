"""What a handler may reach: `Rooms`, the broker's parts; `Call`, the facts of one request; `Later`, an answer to come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from kbroker.cluster.log import ReplicatedLog
    from kbroker.config import Settings
    from kbroker.model import BrokerId
    from kbroker.replication.replicas import Replicas
    from kbroker.seams import Clock, Random
    from kbroker.server.sessions import FetchSessions
    from kbroker.storage.directory import LogDirectory
    from kbroker.turn import Turn


@dataclass(frozen=True, slots=True)
class Rooms:
    """The broker's parts, as handlers see them."""

    node_id: BrokerId
    settings: Settings
    cluster: ReplicatedLog
    partitions: Replicas
    directory: LogDirectory
    clock: Clock
    random: Random
    sessions: FetchSessions
    turn: Turn
    propose: Callable[
        [Any], Awaitable[Any]
    ]  # a command to the cluster's log; its result once it is durable and applied


class Pausable(Protocol):
    """A connection, as far as a handler may touch it."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Call:
    """One request's facts beside its body."""

    __slots__ = ("arrival", "client_id", "connection", "listener", "peer", "principal", "version")

    def __init__(
        self,
        *,
        version: int,
        client_id: str | None,
        listener: str,
        principal: str,
        peer: str,
        arrival: float,
        connection: Pausable | None = None,
    ) -> None:
        self.version = version
        self.client_id = client_id
        self.listener = (
            listener  # name of the listener it came in by: answers advertise addresses of the same
        )
        self.principal = principal  # "User:ANONYMOUS" until the listener authenticates
        self.peer = peer  # address as text, for log lines
        self.arrival = arrival  # monotonic seconds
        self.connection = connection  # a handler that takes long stops reading from it; None in tests


class NoResponse:
    """The type of NO_RESPONSE: this request is answered by nothing (Produce with acks=0)."""


NO_RESPONSE = NoResponse()


class Later:
    """What a handler returns when the answer is not there yet; it keeps the request's place in the connection's order.

    `fill` may come before or after the dispatcher has bound it to that place, once. `on_lost` is called if the
    connection ends before that.
    """

    __slots__ = ("_deliver", "_done", "on_lost")

    def __init__(self, on_lost: Callable[[], None] | None = None) -> None:
        self._deliver: Callable[[Any, BaseException | None], None] | None = None
        self._done: tuple[Any, BaseException | None] | None = None
        self.on_lost = on_lost

    def bind(self, deliver: Callable[[Any, BaseException | None], None]) -> None:
        """Where the response goes (the dispatcher calls this)."""
        self._deliver = deliver
        if self._done is not None:
            deliver(*self._done)

    async def wait(self) -> Any:
        """The response, for handlers that go on after it."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def deliver(response: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(response)

        self.bind(deliver)
        return await future

    def fill(self, response: Any) -> None:
        """Answer with a response message."""
        if self._deliver is not None:
            self._deliver(response, None)
        else:
            self._done = (response, None)

    def fail(self, error: BaseException) -> None:
        """There will be no answer: the connection closes."""
        if self._deliver is not None:
            self._deliver(None, error)
        else:
            self._done = (None, error)


class _Breath:
    def __await__(self) -> Generator[None, None, None]:
        yield  # a bare yield in a task is asyncio's "again in the next turn"


def breathe() -> Awaitable[None]:
    """Let the loop serve others, then go on: between slices of long work in a handler."""
    return _Breath()
