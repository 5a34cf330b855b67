"""Rates over sliding windows, token buckets, and how long to wait to get below a limit. Pure: knows no clients, no clock.

Numbers come out as Kafka's do: what a limit means must not depend on who counts. Times are seconds of a clock that never
goes back.
"""

from __future__ import annotations


class Rate:
    """What happened per second over the last `windows` windows.

    A window begins with the first thing recorded after the one before it has ended. Until so many windows have passed
    the missing ones count as empty: a start is a burst, and is meant to be.
    """

    __slots__ = ("_samples", "_seconds", "_windows")

    def __init__(self, windows: int, seconds: float) -> None:
        self._windows = windows
        self._seconds = seconds
        self._samples: list[_Sample] = []  # by their beginnings; windows + 2 at most

    def record(self, amount: float, now: float) -> None:
        """So much happened (less than nothing: it did not happen after all)."""
        self._forget(now)
        samples = self._samples
        if samples and now - samples[-1].began < self._seconds:
            sample = samples[-1]
        else:
            sample = _Sample(now)
            samples.append(sample)
        sample.amount += amount
        sample.last = now

    def value(self, now: float) -> float:
        """Per second."""
        self._forget(now)
        return sum(sample.amount for sample in self._samples) / self.elapsed(now)

    def elapsed(self, now: float) -> float:
        """The time that `value` is about."""
        self._forget(now)
        elapsed = now - self._samples[0].began if self._samples else 0.0
        full = int(elapsed / self._seconds)
        elapsed += max(self._windows - 1 - full, 0) * self._seconds
        return max(elapsed, 0.001)

    def _forget(self, now: float) -> None:
        expired = now - self._windows * self._seconds
        samples = self._samples
        while samples and samples[0].last <= expired:
            del samples[0]


class _Sample:
    """One window."""

    __slots__ = ("amount", "began", "last")

    def __init__(self, began: float) -> None:
        self.began = self.last = began
        self.amount = 0.0


class Bucket:
    """Tokens that come at a rate, up to what comes in all windows; whoever takes more than there are leaves a debt."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst_seconds: float, now: float) -> None:
        self._rate = rate
        self._burst = self._tokens = rate * burst_seconds
        self._at = now

    def take(self, tokens: float, now: float) -> None:
        """Take so many, there or not."""
        self._tokens = self.left(now) - tokens

    def left(self, now: float) -> float:
        """How many there are; below 0 a debt."""
        self._tokens = min(self._burst, self._tokens + self._rate * (now - self._at))
        self._at = now
        return self._tokens

    def is_full(self, now: float) -> bool:
        """As many as there can be: nothing is remembered of who took some."""
        return self.left(now) >= self._burst

    def wait(self, now: float) -> float:
        """Seconds until the debt is paid."""
        left = self.left(now)
        return -left / self._rate if left < 0.0 else 0.0  # a rate may be infinite, and what is left then too

    def change_rate(self, rate: float, burst_seconds: float, now: float) -> None:
        """From now on tokens come at another rate; what is there, or owed, stays."""
        self.left(now)
        self._rate = rate
        self._burst = rate * burst_seconds


def wait_of(rate: Rate, limit: float, now: float) -> float:
    """Seconds of silence after which `rate` is down at `limit`: (value - limit) / limit of the time it is about."""
    value = rate.value(now)
    return (value - limit) / limit * rate.elapsed(now) if value > limit else 0.0
