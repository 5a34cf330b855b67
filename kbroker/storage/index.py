"""The two sparse indexes of a segment, Kafka's formats: offset -> file position, timestamp -> offset.

Both are caches of the `.log` beside them. Knows bytes and numbers, no files.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from operator import le, lt

_OFFSET_ENTRY = struct.Struct(">ii")
_TIME_ENTRY = struct.Struct(">qi")
OFFSET_ENTRY_SIZE = _OFFSET_ENTRY.size
TIME_ENTRY_SIZE = _TIME_ENTRY.size
_SWAP = sys.byteorder == "little"

# What an index without entries has: most partitions' newest segments are that short, and two arrays are 160 bytes.
# Never appended to.
_NO_INTS = array("i")
_NO_LONGS = array("q")


class OffsetIndex:
    """Entries (last offset of a batch, relative to the base; file position of that batch), both strictly rising."""

    __slots__ = ("offsets", "positions")

    def __init__(self) -> None:
        self.offsets = _NO_INTS
        self.positions = _NO_INTS

    @staticmethod
    def parse(raw: bytes) -> OffsetIndex:
        """Read a file's bytes. Zeros behind the last entry (Kafka preallocates) and what does not rise are left out."""
        index = OffsetIndex()
        whole = array("i")
        whole.frombytes(raw[: len(raw) - len(raw) % OFFSET_ENTRY_SIZE])
        if _SWAP:
            whole.byteswap()
        offsets, positions = whole[::2], whole[1::2]
        keep = len(offsets)
        while keep and not offsets[keep - 1] and not positions[keep - 1]:
            keep -= 1
        del offsets[keep:], positions[keep:]
        keep = min(_rising(offsets), _rising(positions))
        index.offsets, index.positions = offsets[:keep], positions[:keep]
        return index

    def __len__(self) -> int:
        return len(self.offsets)

    def add(self, relative: int, position: int) -> None:
        if self.offsets is _NO_INTS:
            self.offsets, self.positions = array("i"), array("i")
        self.offsets.append(relative)
        self.positions.append(position)

    def floor(self, relative: int) -> int:
        """Position of a batch at or before the one that holds `relative`: the start of the file when none is known."""
        at = bisect_right(self.offsets, relative) - 1
        return self.positions[at] if at >= 0 else 0

    def floor_position(self, position: int) -> int:
        """Where the last indexed batch at or before file position `position` begins; 0 when there is none."""
        at = bisect_right(self.positions, position) - 1
        return self.positions[at] if at >= 0 else 0

    def below(self, relative: int) -> tuple[int, int]:
        """The last indexed batch that ends below `relative`: (position, last offset); (0, -1) when there is none."""
        at = bisect_left(self.offsets, relative) - 1
        return (self.positions[at], self.offsets[at]) if at >= 0 else (0, -1)

    def truncate_position(self, size: int) -> None:
        """Forget batches at or beyond file position `size`."""
        keep = bisect_left(self.positions, size)
        del self.offsets[keep:], self.positions[keep:]

    def truncate(self, relative: int) -> bool:
        """Forget batches whose last offset is at or beyond `relative`. True when something went."""
        keep = bisect_left(self.offsets, relative)
        cut = keep < len(self.offsets)
        del self.offsets[keep:], self.positions[keep:]
        return cut

    def encode(self, first: int = 0) -> bytes:
        """File bytes of the entries from number `first` on."""
        whole = array("i", bytes(OFFSET_ENTRY_SIZE * (len(self.offsets) - first)))
        whole[::2] = self.offsets[first:]
        whole[1::2] = self.positions[first:]
        if _SWAP:
            whole.byteswap()
        return whole.tobytes()


def _rising(numbers: array[int], follows: Callable[[int, int], bool] = lt) -> int:
    """How many of them, from the first on, are each larger than the one before (or as `follows` says)."""
    if all(map(follows, numbers, numbers[1:])):
        return len(numbers)
    return next(at for at in range(1, len(numbers)) if not follows(numbers[at - 1], numbers[at]))


class TimeIndex:
    """Entries (largest timestamp so far, last offset of the batch that holds it, relative), timestamps strictly rising."""

    __slots__ = ("offsets", "timestamps")

    def __init__(self) -> None:
        self.timestamps = _NO_LONGS
        self.offsets = _NO_INTS

    @staticmethod
    def parse(raw: bytes) -> TimeIndex:
        """Read a file's bytes. Zeros behind the last entry and what does not rise are left out."""
        index = TimeIndex()
        # a large one has 200,000 entries, and is read while readers wait: no step of Python for each
        whole = array("i")
        whole.frombytes(raw[: len(raw) - len(raw) % TIME_ENTRY_SIZE])
        if _SWAP:
            whole.byteswap()
        halves = array("i", bytes(8 * (len(whole) // 3)))
        high, low = (1, 0) if _SWAP else (0, 1)
        halves[high::2], halves[low::2] = whole[::3], whole[1::3]
        timestamps = array("q", halves.tobytes())
        offsets = whole[2::3]
        keep = _rising(timestamps)
        zero = bisect_left(timestamps, 0, 0, keep)
        if zero < keep and not timestamps[zero] and not offsets[zero]:
            keep = zero
        keep = _rising(offsets[:keep], le)
        index.timestamps, index.offsets = timestamps[:keep], offsets[:keep]
        return index

    def __len__(self) -> int:
        return len(self.timestamps)

    def add(self, timestamp: int, relative: int) -> None:
        if self.offsets is _NO_INTS:
            self.timestamps, self.offsets = array("q"), array("i")
        self.timestamps.append(timestamp)
        self.offsets.append(relative)

    def last(self, base: int) -> tuple[int, int]:
        """(timestamp, absolute offset) of the newest entry; (-1, -1) when there is none."""
        return (self.timestamps[-1], base + self.offsets[-1]) if self.timestamps else (-1, -1)

    def last_up_to(self, relative: int, base: int) -> tuple[int, int]:
        """As `last`, of the batches up to offset `relative`."""
        at = bisect_right(self.offsets, relative) - 1
        return (self.timestamps[at], base + self.offsets[at]) if at >= 0 else (-1, -1)

    def floor(self, timestamp: int) -> int:
        """Relative offset of the batch with the largest indexed timestamp below `timestamp`; -1 when none is known."""
        at = bisect_left(self.timestamps, timestamp) - 1
        return self.offsets[at] if at >= 0 else -1

    def truncate(self, relative: int) -> bool:
        """Forget batches whose last offset is at or beyond `relative`. True when something went."""
        keep = bisect_left(self.offsets, relative)
        cut = keep < len(self.offsets)
        del self.timestamps[keep:], self.offsets[keep:]
        return cut

    def encode(self, first: int = 0) -> bytes:
        """File bytes of the entries from number `first` on."""
        return b"".join(map(_TIME_ENTRY.pack, self.timestamps[first:], self.offsets[first:]))
