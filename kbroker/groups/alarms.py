"""One timer for all groups: each may be woken at a time that it can move at no cost to later.

Knows nothing of groups but that they have an alarm. A heap entry that is no longer true is left where it is until its
time comes, or until such entries are the most.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf
from typing import Protocol

from kbroker.seams import Clock, Timer

# Below so many entries a heap is not worth tidying.
HEAP_TIDY_MIN = 64


class Sleeper(Protocol):
    """Wants to be woken. `armed_at` is ours: the time of its entry in the heap, inf without one."""

    armed_at: float


class Alarms:
    """Wakes sleepers: `ring(sleeper)` at its time or a little later."""

    def __init__(self, clock: Clock, ring: Callable[[Sleeper], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._heap: list[tuple[float, int, Sleeper]] = []
        self._number = 0  # sleepers do not compare
        self._armed = 0  # entries that are true
        self._timer: Timer | None = None
        self._timer_at = inf

    def set(self, sleeper: Sleeper, when: float) -> None:
        """Wake it at `when`, which is before what was set; later times need not be said: it asks again when rung."""
        if sleeper.armed_at == inf:
            self._armed += 1
        sleeper.armed_at = when
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, sleeper))
        if len(self._heap) > HEAP_TIDY_MIN + 2 * self._armed:
            self._heap = [entry for entry in self._heap if entry[0] == entry[2].armed_at]
            heapq.heapify(self._heap)
        if when < self._timer_at:
            self._set_timer(when)

    def cancel(self, sleeper: Sleeper) -> None:
        """Let it sleep."""
        if sleeper.armed_at != inf:
            self._armed -= 1
            sleeper.armed_at = inf

    def stop(self) -> None:
        """Wake nobody any more."""
        for _, _, sleeper in self._heap:
            sleeper.armed_at = inf
        self._heap.clear()
        self._armed = 0
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, inf

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._clock.call_at(when, self._due)

    def _due(self) -> None:
        self._timer, self._timer_at = None, inf
        now = self._clock.monotonic()
        due = []
        while self._heap and self._heap[0][0] <= now:
            when, _, sleeper = heapq.heappop(self._heap)
            if when == sleeper.armed_at:
                self.cancel(sleeper)
                due.append(sleeper)
        if self._heap:
            self._set_timer(self._heap[0][0])
        for sleeper in due:
            self._ring(sleeper)
