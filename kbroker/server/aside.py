"""Work of handlers that takes too long for the loop: one piece at a time in a thread, first come, first served.

One, because the threads are the disk's first of all: what waits here must not keep a flush waiting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from kbroker.seams import Threads


class Aside:
    """The queue of them. Each connection has at most one in it, and reads nothing meanwhile."""

    __slots__ = ("_busy", "_threads", "_waiting")

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._waiting: deque[tuple[Callable[[], None], asyncio.Future[None]]] = deque()
        self._busy = False

    async def do(self, work: Callable[[], None]) -> None:
        """Have `work` done in a thread, and return when it is. Raises what it raises."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, done))
        self._go_on()
        await done

    def _go_on(self) -> None:
        while self._waiting and not self._busy:
            work, done = self._waiting.popleft()
            if done.done():  # whoever waited was cancelled
                continue
            self._busy = True

            def ended(_: None, error: BaseException | None, waiter: asyncio.Future[None] = done) -> None:
                self._busy = False
                if not waiter.done():
                    if error is None:
                        waiter.set_result(None)
                    else:
                        waiter.set_exception(error)
                self._go_on()

            self._threads.run(work, ended)
