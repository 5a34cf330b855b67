"""Which leader epoch began at which offset, in one partition: a cache of what the batch headers say.

Knows nothing of files but its pairs; the log reads and writes them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class EpochCache:
    """(epoch, start offset) pairs, both rising. An epoch lasts until the next one starts."""

    __slots__ = ("_epochs", "_starts", "last")

    def __init__(self, pairs: list[tuple[int, int]]) -> None:
        self._epochs = [epoch for epoch, _ in pairs]
        self._starts = [start for _, start in pairs]
        self.last = self._epochs[-1] if pairs else -1  # the newest epoch; -1 in an empty log

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """A copy, oldest first."""
        return list(zip(self._epochs, self._starts, strict=True))

    def assign(self, epoch: int, start: int) -> None:
        """`epoch` begins at `start`. Pairs that this makes wrong (not older, not before) go."""
        while self._epochs and (self._epochs[-1] >= epoch or self._starts[-1] >= start):
            self._epochs.pop()
            self._starts.pop()
        self._epochs.append(epoch)
        self._starts.append(start)
        self.last = epoch

    def truncate_to(self, end: int) -> bool:
        """Forget epochs that begin at or beyond `end`. True when something went."""
        keep = bisect_left(self._starts, end)
        if keep == len(self._starts):
            return False
        del self._epochs[keep:], self._starts[keep:]
        self.last = self._epochs[-1] if self._epochs else -1
        return True

    def delete_before(self, start: int) -> bool:
        """The log now begins at `start`: epochs that ended there go, the one that holds it begins there."""
        first = bisect_right(self._starts, start) - 1
        if first < 0 or (first == 0 and self._starts[0] == start):
            return False
        del self._epochs[:first], self._starts[:first]
        self._starts[0] = start
        return True

    def end_of(self, epoch: int, log_end: int) -> tuple[int, int]:
        """OffsetForLeaderEpoch: (the largest epoch <= `epoch`, where it ended); (-1, -1) beyond the newest or unknown.

        An epoch below the first one known answers (the asked epoch, start of the first), as Kafka does.
        """
        epochs = self._epochs
        if epoch < 0 or not epochs or epoch > epochs[-1]:
            return (-1, -1)
        if epoch == epochs[-1]:
            return (epoch, log_end)
        after = bisect_right(epochs, epoch)
        if after == 0:
            return (epoch, self._starts[0])
        return (epochs[after - 1], self._starts[after])

    def epoch_at(self, offset: int) -> int:
        """The epoch of the record at `offset`; -1 before the first."""
        at = bisect_right(self._starts, offset) - 1
        return self._epochs[at] if at >= 0 else -1
