"""Who does a round of compaction: a thread of this process. `cleaning_process` is the other way.

Knows time as the functions that come in; what a round does is in `cleaning`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from kbroker.seams import Disk
from kbroker.storage.cleaning import Job, Outcome, Stopped, clean

# A wait for the limit of bytes per second is cut into pieces of this, so that a stop need not wait for it.
WAIT_SECONDS_MAX = 1.0
# What is less is not worth a wait; it is made up for by the next one.
WAIT_SECONDS_MIN = 0.001


class Round(Protocol):
    """A round in progress. `next` blocks: call it in a thread."""

    def next(self) -> Outcome:
        """The next segment that was made, or the end. OSError, Uncleanable, Stopped."""

    def stop(self) -> None:
        """Have it end soon; its files are left behind. Idempotent, from any thread."""

    def close(self) -> None:
        """It is over, and nothing of it is at work when this returns. Blocks: call it in a thread."""


class Pacer:
    """No more than so many bytes per second, read and written, over the whole of a round."""

    __slots__ = ("_began", "_bytes", "_monotonic", "_per_second", "_wait")

    def __init__(
        self, per_second: float, monotonic: Callable[[], float], wait: Callable[[float], None]
    ) -> None:
        self._per_second = per_second
        self._monotonic = monotonic
        self._wait = wait
        self._began = monotonic()
        self._bytes = 0

    def took(self, count: int) -> None:
        """So many more were read or written: wait until they may be."""
        self._bytes += count
        due = self._began + self._bytes / self._per_second
        while (left := due - self._monotonic()) > WAIT_SECONDS_MIN:
            self._wait(min(left, WAIT_SECONDS_MAX))


class ThreadRound:
    """A round in the thread that calls `next`."""

    def __init__(self, disk: Disk, job: Job, per_second: float, monotonic: Callable[[], float]) -> None:
        self._stopped = threading.Event()
        self._pacer = Pacer(per_second, monotonic, self._wait)
        self._outcomes = clean(disk, job, self._pace)

    def next(self) -> Outcome:
        return next(self._outcomes)

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self._outcomes.close()

    def _pace(self, count: int) -> None:
        if self._stopped.is_set():
            raise Stopped
        self._pacer.took(count)

    def _wait(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise Stopped
