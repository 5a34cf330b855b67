"""Work on groups that is done slice by slice: of all ledgers together one slice in each turn of the loop.

Knows nothing of what the work is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from kbroker.observe import logs
from kbroker.seams import Clock

log = logs.get_logger("groups")


class Work:
    """Whose turn it is: each in turn has a slice."""

    __slots__ = ("_clock", "_queue")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: deque[Iterator[None]] = deque()

    def take(self, steps: Iterator[None]) -> None:
        """The first slice now, each other one when it is its turn."""
        if _goes_on(steps):
            self._wait(steps)

    def take_in_turn(self, steps: Iterator[None]) -> None:
        """The same, but where others wait the first slice does, too: nobody waits for this one."""
        if self._queue:
            self._queue.append(steps)
        else:
            self.take(steps)

    def _wait(self, steps: Iterator[None]) -> None:
        self._queue.append(steps)
        if len(self._queue) == 1:
            self._call()

    def _call(self) -> None:
        self._clock.call_at(self._clock.monotonic(), self._next)

    def _next(self) -> None:
        steps = self._queue[0]
        goes_on = _goes_on(steps)
        self._queue.popleft()
        if goes_on:
            self._queue.append(steps)
        if self._queue:
            self._call()


def _goes_on(steps: Iterator[None]) -> bool:
    """Take a slice; whether there are more."""
    try:
        for _ in steps:
            return True
    except Exception as error:  # a door: others are worked on
        log.exception("work on groups ended", error)
    return False
