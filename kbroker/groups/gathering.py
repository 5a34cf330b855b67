"""How long a group waits for its members to join. Knows no members and no clock.

The first rebalance of an empty group waits a delay at a time, while new members come, so that a fleet that starts makes
one generation and not one per member. Any other waits once, as long as the most patient member wants.
"""

from __future__ import annotations

from kbroker.groups.members import NEVER


class Gathering:
    """The wait, if there is one."""

    __slots__ = ("_delay_ms", "_left_ms", "ends_at", "is_first", "newcomers")

    def __init__(self) -> None:
        self.ends_at = NEVER  # monotonic
        self.is_first = False
        self.newcomers = False  # whether somebody came since the last delay began
        self._delay_ms = 0
        self._left_ms = 0  # by how much more it may be extended

    def begin_first(self, delay_ms: int, timeout_ms: int, monotonic: float) -> None:
        """Wait for that delay, and on while members come, until the timeout."""
        self.is_first = True
        self.newcomers = False
        self._delay_ms = delay_ms
        self._left_ms = max(timeout_ms - delay_ms, 0)
        self.ends_at = monotonic + delay_ms / 1000

    def begin(self, timeout_ms: int, monotonic: float) -> None:
        """Wait that long at most."""
        self.is_first = False
        self.ends_at = monotonic + timeout_ms / 1000

    def extend(self, delay_ms: int, monotonic: float) -> bool:
        """The wait is over: whether to wait once more."""
        if not (self.is_first and self.newcomers and self._left_ms > 0):
            return False
        self.newcomers = False
        waited_ms = self._delay_ms
        self._delay_ms = min(delay_ms, self._left_ms)
        self._left_ms = max(self._left_ms - waited_ms, 0)
        self.ends_at = monotonic + self._delay_ms / 1000
        return True

    def postpone(self, seconds: float, monotonic: float) -> None:
        """Nobody has joined yet: wait on."""
        self.ends_at = monotonic + seconds

    def end(self) -> None:
        """All are there who will be."""
        self.is_first = False
        self.ends_at = NEVER
