"""The event loop's other face, by `add_reader` on any loop; real time; and the choice between both. Knows no frames.

The face for Linux is in `selector`. Both run the `Turn` when what a wake-up made ready has been handled.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from kbroker.net.listening import OnReady, accept_all, broke
from kbroker.observe import logs
from kbroker.seams import Net, Timer
from kbroker.turn import Turn

if sys.platform == "linux":
    from kbroker.net.selector import SelectorNet

log = logs.get_logger("net")


class LoopNet:
    """The same on any asyncio loop (macOS, uvloop), by `add_reader` and `add_writer`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: Turn) -> None:
        self._loop = loop
        self._reads: dict[int, bool] = {}
        self._writes: dict[int, bool] = {}

        def wake() -> None:
            loop.call_soon(turn.run)

        turn.wake = wake
        turn.on_broken = broke

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
        accept_all(self, listening, on_socket, self._loop.call_later)


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
