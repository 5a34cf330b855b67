"""A start that takes long: lets the loop breathe, and says now and then how far it is. Knows numbers only."""

from __future__ import annotations

from kbroker.observe import logs
from kbroker.seams import Clock
from kbroker.server.rooms import breathe

log = logs.get_logger("node")

# Between two lines of a long start.
LINE_SECONDS = 5.0
# Work in one go; a signal is heard after it.
SLICE_SECONDS = 0.01


class Progress:
    """So many partitions are to be opened."""

    __slots__ = ("_bytes", "_clock", "_line_at", "_of", "_path", "_pause_at")

    def __init__(self, clock: Clock, path: str, of: int) -> None:
        self._clock = clock
        self._path = path
        self._of = of
        self._bytes = 0
        self._pause_at = clock.monotonic() + SLICE_SECONDS
        self._line_at = clock.monotonic() + LINE_SECONDS

    async def at(self, done: int, size: int = 0) -> None:
        """`done` of them are open, `size` bytes were read since the last call."""
        self._bytes += size
        now = self._clock.monotonic()
        if now >= self._line_at:
            self._line_at = now + LINE_SECONDS
            log.info("opening partitions", path=self._path, done=done, of=self._of, mib=self._bytes >> 20)
        if now >= self._pause_at:
            await breathe()
            self._pause_at = self._clock.monotonic() + SLICE_SECONDS
