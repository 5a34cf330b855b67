"""The event loop's face on Linux: sockets served inside the selector that is given to asyncio. Knows no frames.

A ready socket costs one Python call: no Handle, no call_soon, no Task. Timers, tasks and everything else are ordinary
asyncio on the same loop. Runs the `Turn` when what a wake-up made ready has been handled.
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
from typing import Any, cast

from kbroker.net.listening import OnReady, accept_all, broke
from kbroker.observe import logs
from kbroker.turn import Turn

assert sys.platform == "linux"

log = logs.get_logger("net")

# Ready sockets taken per wake-up. More wait for the next one, so that timers get their time between.
EVENTS_PER_WAKE_MAX = 512
# Wake-ups served in a row before asyncio gets its turn whatever happens.
ROUNDS_MAX = 64


class _Watched:
    """A socket of ours: what epoll tells of it, and whom to call."""

    __slots__ = ("mask", "read", "write")

    def __init__(self, mask: int, read: OnReady | None, write: OnReady | None) -> None:
        self.mask = mask
        self.read = read
        self.write = write


class SelectorNet(selectors.EpollSelector):
    """asyncio's own selector, with sockets of ours registered beside asyncio's and served inside `select`."""

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self._turn = turn
        self._epoll: select.epoll = self._selector  # type: ignore[attr-defined]  # the base class's own epoll
        self._loop: _Rounds | None = None
        self._calls: dict[int, _Watched] = {}  # by descriptor
        turn.on_broken = broke

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
        elif old.mask != mask:
            self._epoll.modify(fd, mask)
        self._calls[fd] = _Watched(mask, read, write)

    def forget(self, sock: Any) -> None:
        """Watch `sock` no more; before it is closed."""
        if self._calls.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())

    def accept(self, listening: socket.socket, on_socket: Callable[[Any, Any], None]) -> None:
        """Hand each connection of a socket from `bind` to `on_socket`."""
        accept_all(self, listening, on_socket, _call_later)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """asyncio's wait: serve our ready sockets, end the turn, return what is asyncio's.

        While only sockets of ours have something to do it waits on, without a round through asyncio, which would
        find nothing and cost a fifth of a small request.
        """
        turn, loop = self._turn, self._loop
        if turn.busy:  # asked for by asyncio's callbacks; they may have used call_soon, so do not sleep now
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
            read, write = ours.read, ours.write
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


def _call_later(seconds: float, call: OnReady) -> object:
    return asyncio.get_running_loop().call_later(seconds, call)


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
