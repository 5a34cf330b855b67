"""Connections that are not read from for a while, and say so in their answers (KIP-219). Knows not why they have to wait.

A client that has been told the time keeps silent for it; one that does not look waits all the same.
"""

from __future__ import annotations

from typing import Any

from kbroker.seams import Clock, Timer
from kbroker.server.rooms import Pausable

# Of the times an answer can name, the longest.
THROTTLE_MS_MAX = (1 << 31) - 1


class Mutes:
    """The connections that have to wait, each until its time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._muted: dict[Pausable, _Mute] = {}

    def __len__(self) -> int:
        return len(self._muted)

    def mute(self, connection: Pausable | None, seconds: float, now: float) -> None:
        """Read nothing from a client for so long from now, or for longer where that was said before."""
        if seconds <= 0.0 or connection is None or not connection.open:
            return  # its client went while a handler was at work: nobody would forget it
        mute = self._muted.get(connection)
        if mute is None:
            mute = self._muted[connection] = _Mute(self, connection, self._clock)
        mute.extend(now + min(seconds, THROTTLE_MS_MAX / 1000))

    def end(self, connection: Pausable) -> None:
        """Its time is over."""
        if self._muted.pop(connection, None) is not None:
            connection.stamp = None
            connection.resume()

    def forget(self, connection: Pausable) -> None:
        """The connection has ended."""
        mute = self._muted.pop(connection, None)
        if mute is not None:
            mute.cancel()


class _Mute:
    """One connection's wait."""

    __slots__ = ("_clock", "_connection", "_mutes", "_timer", "_until")

    def __init__(self, mutes: Mutes, connection: Pausable, clock: Clock) -> None:
        self._mutes = mutes
        self._connection = connection
        self._clock = clock
        self._until = 0.0
        self._timer: Timer | None = None
        connection.stamp = self._stamp
        connection.pause()

    def extend(self, until: float) -> None:
        """Wait until then at least."""
        if until > self._until:
            self._until = until
            self.cancel()
            self._timer = self._clock.call_at(until, self._over)

    def cancel(self) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _over(self) -> None:
        self._mutes.end(self._connection)

    def _stamp(self, response: Any) -> None:
        if hasattr(response, "throttle_time_ms"):
            left = self._until - self._clock.monotonic()
            response.throttle_time_ms = max(round(left * 1000), 1)
