"""The event loop's two faces: sockets served inside the selector (Linux), or by `add_reader` on any loop. Knows no frames.

With `SelectorNet` a ready socket costs one Python call: no Handle, no call_soon, no Task. Timers, tasks and everything
else are ordinary asyncio on the same loop. Both run the `Turn` when what a wake-up made ready has been handled.
"""

from __future__ import annotations

import asyncio
import select
import selectors
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, cast

from kbroker.observe import logs
from kbroker.seams import Net, Timer
from kbroker.turn import Turn

log = logs.get_logger("net")

# Ready sockets taken per wake-up. More wait for the next one, so that timers get their time between.
EVENTS_PER_WAKE_MAX = 512
# Wake-ups served in a row before asyncio gets its turn whatever happens.
ROUNDS_MAX = 64
# Connections accepted per readiness of a listener, so that a flood of them does not starve those that are served.
ACCEPTS_PER_WAKE_MAX = 64
LISTEN_BACKLOG = 4096
# Out of descriptors: the listener rests this long instead of spinning on a connection it cannot take.
ACCEPT_REST_SECONDS = 0.1

OnReady = Callable[[], None]


def _accept_all(
    listening: socket.socket,
    on_socket: Callable[[Any, Any], None],
    rest: OnReady,
    forget: Callable[[Any], None],
) -> OnReady:
    def accept() -> None:
        for _ in range(ACCEPTS_PER_WAKE_MAX):
            try:
                sock, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # EMFILE, ENFILE, ENOBUFS, ENOMEM: the queue keeps them until we can
                return rest()
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                on_socket(sock, peer)
            except Exception as error:  # a door: this connection is not served, the listener goes on
                log.exception("connection not served", error, peer=str(peer))
                if sock.fileno() >= 0:
                    forget(sock)
                sock.close()

    return accept


class SocketBuffers(NamedTuple):
    """Bytes that the system keeps for each connection; -1: as it sees fit, which grows with what is in flight."""

    send: int = -1
    receive: int = -1


SYSTEMS_CHOICE = SocketBuffers()


def bind(host: str, port: int, buffers: SocketBuffers = SYSTEMS_CHOICE) -> socket.socket:
    """A listening socket on a numeric address; OSError where it cannot be had. Port 0: any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # :: means both families, as it does for Kafka; a named IPv6 address means itself
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        # accepted sockets have what the listening one has, and it must have it before: TCP tells its window at the start
        for name, size in ((socket.SO_SNDBUF, buffers.send), (socket.SO_RCVBUF, buffers.receive)):
            if size >= 0:
                sock.setsockopt(socket.SOL_SOCKET, name, size)
        sock.bind((host, port))
        sock.listen(LISTEN_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


if sys.platform == "linux":

    class SelectorNet(selectors.EpollSelector):
        """asyncio's own selector, with sockets of ours registered beside asyncio's and served inside `select`."""

        def __init__(self, turn: Turn) -> None:
            super().__init__()
            self._turn = turn
            self._epoll: select.epoll = self._selector  # type: ignore[attr-defined]  # the base class's own epoll
            self._loop: _Rounds | None = None
            self._calls: dict[int, tuple[int, OnReady | None, OnReady | None]] = {}  # fd -> mask, read, write
            turn.on_broken = _broke

        def attach(self, loop: asyncio.AbstractEventLoop) -> None:
            """The loop that this selector was given to."""
            if hasattr(loop, "_ready") and isinstance(getattr(loop, "_scheduled", None), list):
                self._loop = _Rounds(loop)

        def watch(self, sock: Any, read: OnReady | None, write: OnReady | None = None) -> None:
            """Call `read` when `sock` has bytes (or ended), `write` when it takes some; None: not interested."""
            fd = sock.fileno()
            mask = (select.EPOLLIN if read else 0) | (select.EPOLLOUT if write else 0)
            old = self._calls.get(fd)
            if old is None:
                self._epoll.register(fd, mask)
            elif old[0] != mask:
                self._epoll.modify(fd, mask)
            self._calls[fd] = (mask, read, write)

        def forget(self, sock: Any) -> None:
            """Watch `sock` no more; before it is closed."""
            if self._calls.pop(sock.fileno(), None) is not None:
                self._epoll.unregister(sock.fileno())

        def accept(self, listening: socket.socket, on_socket: Callable[[Any, Any], None]) -> None:
            """Hand each connection of a socket from `bind` to `on_socket`."""

            def rest() -> None:
                self.watch(listening, None)
                asyncio.get_running_loop().call_later(ACCEPT_REST_SECONDS, again)

            def again() -> None:
                if listening.fileno() >= 0:
                    self.watch(listening, accept)

            accept = _accept_all(listening, on_socket, rest, self.forget)
            self.watch(listening, accept)

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """asyncio's wait: serve our ready sockets, end the turn, return what is asyncio's.

            While only sockets of ours have something to do it waits on, without a round through asyncio, which would
            find nothing and cost a fifth of a small request.
            """
            turn, loop = self._turn, self._loop
            if (
                turn.busy
            ):  # asked for by asyncio's callbacks; they may have used call_soon, so do not sleep now
                turn.run()
                timeout = 0
            deadline = None if timeout is None else time.monotonic() + timeout
            next_timer = loop.next_timer() if loop is not None else None
            for _ in range(ROUNDS_MAX):
                wait = -1 if timeout is None else 0 if timeout <= 0 else -(-timeout // 0.001) * 0.001
                try:
                    events = self._epoll.poll(wait, EVENTS_PER_WAKE_MAX)
                except InterruptedError:
                    return []
                theirs = self._serve(events)
                if turn.busy:
                    turn.run()
                if theirs or not events or loop is None or loop.ready or turn.busy:
                    return theirs
                if loop.next_timer() is not next_timer:
                    return theirs
                if deadline is not None:
                    timeout = deadline - time.monotonic()
                    if timeout <= 0:
                        return theirs
            return []

        def _serve(self, events: list[tuple[int, int]]) -> list[tuple[selectors.SelectorKey, int]]:
            """Call whoever watches a ready socket of ours; what is asyncio's is returned."""
            calls = self._calls
            theirs: list[tuple[selectors.SelectorKey, int]] = []
            for fd, event in events:
                ours = calls.get(fd)
                if ours is None:
                    key = self._fd_to_key.get(fd)  # type: ignore[attr-defined]  # the base class's own table
                    if key is not None:
                        ready = (event & ~select.EPOLLIN and selectors.EVENT_WRITE) | (
                            event & ~select.EPOLLOUT and selectors.EVENT_READ
                        )
                        if ready & key.events:
                            theirs.append((key, ready & key.events))
                    continue
                _, read, write = ours
                try:
                    if event & ~select.EPOLLOUT:
                        if read is not None:
                            read()
                        elif write is not None:  # an error, seen while only writing
                            write()
                        elif event & (select.EPOLLHUP | select.EPOLLERR):
                            # nobody is interested, and a hang-up cannot be masked: out of the set, or we would spin;
                            # whoever looks at the socket next finds out
                            self._epoll.unregister(fd)
                            self._epoll.register(fd, select.EPOLLET)
                    if event & select.EPOLLOUT and write is not None and calls.get(fd) is ours:
                        write()
                except Exception as error:  # noqa: BLE001 - a door: one socket's failure is its own
                    self._broke_at(fd, error)
            return theirs

        def _broke_at(self, fd: int, error: BaseException) -> None:
            log.exception("a socket is served no more", error, fd=fd)
            if self._calls.pop(fd, None) is not None:
                with suppress(OSError):  # closed already
                    self._epoll.unregister(fd)


class _Rounds:
    """Whether an asyncio loop has something of its own to do: callbacks that are ready, another timer in front.

    Both queues are BaseEventLoop's own, the same since Python 3.4; where they are missing there is no shortcut.
    """

    __slots__ = ("_loop", "ready")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = cast(Any, loop)
        self.ready: Any = self._loop._ready

    def next_timer(self) -> object:
        """The timer that is due next; None without one."""
        timers = self._loop._scheduled  # asyncio replaces the list when many timers were cancelled
        return timers[0] if timers else None


def _broke(error: BaseException) -> None:
    log.exception("a failure could not be told to what had failed", error)


class LoopNet:
    """The same on any asyncio loop (macOS, uvloop), by `add_reader` and `add_writer`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: Turn) -> None:
        self._loop = loop
        self._reads: dict[int, bool] = {}
        self._writes: dict[int, bool] = {}

        def wake() -> None:
            loop.call_soon(turn.run)

        turn.wake = wake
        turn.on_broken = _broke

    def watch(self, sock: Any, read: OnReady | None, write: OnReady | None = None) -> None:
        """Call `read` when `sock` has bytes (or ended), `write` when it takes some; None: not interested."""
        fd = sock.fileno()
        if read is not None:
            self._loop.add_reader(fd, self._call, sock, read)
        elif self._reads.get(fd):
            self._loop.remove_reader(fd)
        if write is not None:
            self._loop.add_writer(fd, self._call, sock, write)
        elif self._writes.get(fd):
            self._loop.remove_writer(fd)
        self._reads[fd], self._writes[fd] = read is not None, write is not None

    def _call(self, sock: Any, call: OnReady) -> None:
        try:
            call()
        except Exception as error:  # a door: one socket's failure ends what we do with it, nothing else
            log.exception("a socket is served no more", error, fd=sock.fileno())
            if sock.fileno() >= 0:
                self.forget(sock)

    def forget(self, sock: Any) -> None:
        """Watch `sock` no more; before it is closed."""
        fd = sock.fileno()
        if self._reads.pop(fd, False):
            self._loop.remove_reader(fd)
        if self._writes.pop(fd, False):
            self._loop.remove_writer(fd)

    def accept(self, listening: socket.socket, on_socket: Callable[[Any, Any], None]) -> None:
        """Hand each connection of a socket from `bind` to `on_socket`."""

        def rest() -> None:
            self.watch(listening, None)
            self._loop.call_later(ACCEPT_REST_SECONDS, again)

        def again() -> None:
            if listening.fileno() >= 0:
                self.watch(listening, accept)

        accept = _accept_all(listening, on_socket, rest, self.forget)
        self.watch(listening, accept)


class LoopClock:
    """Real time on a running loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.monotonic = time.monotonic  # what loop.time is, without the call

    def wall_ms(self) -> int:
        """Milliseconds since 1970; may jump."""
        return time.time_ns() // 1_000_000

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        """Call at `when` (as `monotonic` counts)."""
        return self._loop.call_at(when, call)


def new_loop(turn: Turn) -> tuple[asyncio.AbstractEventLoop, Net]:
    """A fresh event loop and the `Net` on it: sockets inside the selector on Linux, `add_reader` elsewhere."""
    if sys.platform == "linux":
        net = SelectorNet(turn)
        loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop(net)
        net.attach(loop)
        return loop, net
    loop = asyncio.new_event_loop()
    return loop, LoopNet(loop, turn)
