"""Where a partition ends, for a client that asks: when all that it holds by now can be read. Knows no API.

A record answered with acks=1 can be read when it is synced, a moment later. A client that asks at once how far a log
goes, to read up to there or to delete it, means that record too: its answer waits for the sync.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from kbroker.errors import ErrorCode
from kbroker.replication.partition import Partition
from kbroker.turn import Turn

# A disk that takes longer is not waited for: the answer is what can be read then. Clients wait five seconds at least.
WAIT_MS_MAX = 1_000


def is_behind(partition: Partition) -> bool:
    """Whether it holds records that nobody can read yet."""
    return partition.is_leader and partition.high_watermark < partition.log.end


class CatchUp:
    """Calls `then`, once, when all that `partitions` hold now can be read, or will not be, or the time is over; in the
    turn's settling, where every partition has been settled before. `broken` gets what `then` raises."""

    __slots__ = ("_broken", "_left", "_then", "_turn")

    def __init__(
        self,
        turn: Turn,
        partitions: Collection[Partition],
        then: Callable[[], None],
        broken: Callable[[BaseException], None],
    ) -> None:
        self._turn = turn
        self._then = then
        self._broken = broken
        self._left = len(partitions)
        for partition in partitions:
            partition.when_readable(WAIT_MS_MAX, self._one_less)

    def _one_less(self, outcome: ErrorCode) -> None:
        del outcome  # `then` looks at the partition as it is by then
        self._left -= 1
        if not self._left:
            self._turn.settle(self)

    def settle(self) -> None:
        """They are there."""
        self._then()

    def failed(self, error: BaseException) -> None:
        """`then` broke."""
        self._broken(error)
