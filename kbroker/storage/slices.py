"""Long work in slices: a generator that stops now and then, so that whoever drives it may let others have the loop.

Knows nothing of what the work is.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

# Bytes of a log read between two stops: some milliseconds, some tens of them where batches hold one small record each.
SLICE_BYTES = 1 << 20

Slices = Generator[int, None, T]  # yields the bytes read since the last stop; returns what the work gives


def whole(work: Slices[T]) -> T:
    """Do it to its end, without a stop."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
