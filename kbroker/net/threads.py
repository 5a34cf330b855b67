"""Blocking work in daemon threads, its ends delivered on the loop. Knows neither files nor partitions."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from kbroker.observe import logs
from kbroker.seams import Net

log = logs.get_logger("net")

# How long a stop waits for work that hangs in the system.
STOP_SECONDS_MAX = 5.0


class Bell:
    """Wakes the loop from a thread, as a descriptor that the loop's selector watches like a socket.

    asyncio's own way, `call_soon_threadsafe`, costs the loop a Handle and a round through everything asyncio looks at:
    more than all the rest of the end of a flush.
    """

    __slots__ = ("_lock", "_read_fd", "_write_fd")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        if sys.platform == "linux":
            self._read_fd = self._write_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            self._read_fd, self._write_fd = os.pipe()
            os.set_blocking(self._read_fd, False)
            os.set_blocking(self._write_fd, False)

    def fileno(self) -> int:
        """What to watch for reading."""
        return self._read_fd

    def ring(self) -> None:
        """From any thread."""
        with self._lock:  # a descriptor that was closed may be another file's by now
            if self._write_fd >= 0:
                try:
                    os.write(self._write_fd, b"\1\0\0\0\0\0\0\0")
                except BlockingIOError:
                    pass  # rung so often that nothing more fits: it will be heard

    def heard(self) -> None:
        """Be quiet until the next ring."""
        try:
            os.read(self._read_fd, 1024)
        except BlockingIOError:
            pass  # nobody rang since

    def close(self) -> None:
        """Nothing rings any more. Idempotent."""
        with self._lock:
            for fd in {self._read_fd, self._write_fd} - {-1}:
                os.close(fd)
            self._read_fd = self._write_fd = -1


class LoopThreads:
    """Daemon threads for blocking work, started when first needed. One ring for all that ended together."""

    def __init__(self, net: Net, *, threads_max: int = 6) -> None:
        self._net = net
        self._threads_max = threads_max
        self._threads: list[threading.Thread] = []
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Callable[..., None]] | None] = (
            queue.SimpleQueue()
        )
        self._ended: deque[tuple[Callable[..., None], Any, BaseException | None]] = deque()
        self._rung = False  # and not heard yet; two threads may both find it unset, which costs a ring
        self._idle = 0  # threads waiting for work; only a hint
        self._bell = Bell()
        self.running = True
        net.watch(self._bell, self._deliver)

    def run(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Run `work` in a thread, then `done(result, error)` on the loop."""
        if self._idle <= self._work.qsize() and len(self._threads) < self._threads_max:
            self._start_one()
        self._work.put((work, done))

    def _start_one(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"kbroker-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # the system gives us no more (ulimit -u, a container's pids.max): those we have must do
            if not self._threads:
                raise
        else:
            self._threads.append(thread)

    def _serve(self) -> None:
        while True:
            self._idle += 1
            item = self._work.get()
            self._idle -= 1
            if item is None:
                return
            work, done = item
            result: Any = None
            error: BaseException | None = None
            try:
                result = work()
            except BaseException as raised:  # noqa: BLE001 - a door: whoever asked for the work learns of it in `done`
                error = raised
            self._ended.append((done, result, error))
            if not self._rung:
                self._rung = True
                self._bell.ring()
            del item, work, done, result, error

    def _deliver(self) -> None:
        """On the loop: tell everybody whose work has ended."""
        self._bell.heard()
        self._rung = False  # before the queue is looked at: what ends from here on rings again
        ended = self._ended
        for _ in range(len(ended)):  # not what ends meanwhile: sockets get their turn
            done, result, error = ended.popleft()
            try:
                done(result, error)
            except Exception as raised:  # a door: one answer must not keep the others waiting
                log.exception("the end of blocking work failed", raised)

    def stop(self) -> None:
        """End the threads after the work they have; what nobody began is dropped, and nothing is delivered any more."""
        if not self.running:
            return
        self.running = False
        while True:
            try:
                self._work.get_nowait()
            except queue.Empty:
                break
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join(timeout=STOP_SECONDS_MAX)
        self._net.forget(self._bell)
        self._bell.close()
