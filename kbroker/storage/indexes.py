"""Which segments keep their indexes in memory: those used last, within a budget. Active segments are not counted."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from kbroker.storage.index import OFFSET_ENTRY_SIZE, TIME_ENTRY_SIZE

if TYPE_CHECKING:
    from kbroker.storage.segment import Segment

# Bytes of indexes of closed segments kept in memory. A full segment of 1 GiB with the default interval has up to 5 MB;
# one that is not kept costs reading and checking its two files again (about 10 ms when full).
INDEX_BYTES_MAX = 64 * 1024 * 1024


class Indexes:
    """Loaded closed segments, the one used last at the end."""

    __slots__ = ("_bytes", "_kept")

    def __init__(self) -> None:
        self._kept: OrderedDict[Segment, int] = OrderedDict()
        self._bytes = 0

    def keep(self, segment: Segment) -> None:
        """`segment` is about to be used (or was just closed): load it, and unload what was not used for long."""
        kept = self._kept
        if segment.index is not None and segment in kept:
            kept.move_to_end(segment)
            return
        segment.load_closed()
        assert segment.index is not None
        size = len(segment.index) * OFFSET_ENTRY_SIZE + len(segment.times) * TIME_ENTRY_SIZE
        self._bytes += size - kept.pop(segment, 0)
        kept[segment] = size
        while self._bytes > INDEX_BYTES_MAX and len(kept) > 1:
            old, freed = kept.popitem(last=False)
            self._bytes -= freed
            old.unload()

    def forget(self, segment: Segment) -> None:
        """`segment` is gone, or is the active one again."""
        self._bytes -= self._kept.pop(segment, 0)
