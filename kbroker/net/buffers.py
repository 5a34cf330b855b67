"""Receive buffers: one shared by a loop's connections, a pool for larger frames, and the budget they are taken from."""

from __future__ import annotations

import mmap as system
from contextlib import suppress
from mmap import mmap
from typing import Protocol

# One read takes at most this much from a connection. Whole frames in it are handled in place, and what they append to one
# log is written by one call: a producer of 64 KiB batches has five in flight.
READ_SIZE = 512 << 10
# Up to here a frame that came in part is expected to come whole, with others, by the next read.
SHARED_SIZE = 256 << 10
# Buffers kept for the next large frame, and the size up to which one is worth keeping.
POOL_BUFFERS_MAX = 16
POOL_BUFFER_SIZE_MAX = 4 << 20
POOL_BUFFER_SIZE_MIN = 1 << 20
# From here on a buffer is anonymous memory: its pages come as bytes arrive. Python zeroes a bytearray, so that a peer
# could take 100 MB with the four bytes that announce them.
LAZY_SIZE_MIN = 64 << 10
# Bytes of requests in memory at once where nobody says another number: a quarter of the machine's memory, between enough
# for the largest request and more than all producers together keep under way.
OWN_LIMIT_SHARE = 4
OWN_LIMIT_MIN = 128 << 20
OWN_LIMIT_MAX = 1 << 30
# Where the system has huge pages that come by themselves, one byte would take 2 MiB of them.
SMALL_PAGES: int | None = getattr(system, "MADV_NOHUGEPAGE", None)


def own_limit(memory_bytes: int) -> int:
    """What requests may take together on a machine with this much memory."""
    return min(max(memory_bytes // OWN_LIMIT_SHARE, OWN_LIMIT_MIN), OWN_LIMIT_MAX)


class Taker(Protocol):
    """Holds bytes of a frame that is not whole: a connection."""

    def go_on(self, size: int) -> None: ...


class Budget:
    """Bytes of large frames in memory at once (`queued.max.request.bytes`), taken step by step as they arrive.

    There is always one taker that the limit does not stop: the first that finds too little left, until it gives all
    back, then whoever waits longest. So frames of which each has a part never wait for one another, and there is never
    more in memory than the limit and one frame, and what is made of large requests (`charge`).
    """

    __slots__ = ("_first", "_waiting", "left", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit  # below 0: none
        self.left = limit
        self._first: Taker | None = None  # the limit does not stop it
        self._waiting: dict[Taker, int] = {}  # in the order they came -> how much they want

    def take(self, taker: Taker, size: int) -> bool:
        """Take `size` bytes more; False: there are too few, `taker.go_on(size)` comes when it has them."""
        if self.limit < 0 or self._takes(taker, size):
            return True
        self._waiting[taker] = size
        return False

    def _takes(self, taker: Taker, size: int) -> bool:
        if self.left < size and self._first is not taker:
            if self._first is not None:
                return False
            self._first = taker
        self.left -= size
        return True

    def charge(self, size: int) -> None:
        """What was made of a frame is there, whether or not so much is left: others wait until it is given back."""
        if self.limit >= 0:
            self.left -= size

    def give(self, taker: Taker, size: int) -> None:
        """The taker's frame is over: it returns all it took, and waits no more. Others go on in the order they came."""
        if self.limit < 0:
            return
        self.left += size
        self._waiting.pop(taker, None)
        if self._first is taker:
            self._first = None
        while self._waiting:
            waiting, wanted = next(iter(self._waiting.items()))
            if not self._takes(waiting, wanted):
                return
            del self._waiting[waiting]
            waiting.go_on(wanted)


class Buffers:
    """The loop's receive buffer, its send buffer and a pool for frames that do not fit the first."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.shared = bytearray(READ_SIZE)
        self.view = memoryview(self.shared)
        self._send: memoryview | None = None
        self._free: list[mmap] = []
        # of SHARED_SIZE, for frames that came in pieces but would fit it
        self._free_middling: list[mmap] = []

    @property
    def send(self) -> memoryview:
        """1 MiB that a file region is read into right before it is sent; valid until the next user."""
        if self._send is None:
            self._send = memoryview(bytearray(1 << 20))
        return self._send

    def take(self, size: int) -> bytearray | mmap:
        """A buffer of at least `size` bytes. Memory follows what arrives: see LAZY_SIZE_MIN."""
        if size < LAZY_SIZE_MIN:
            return bytearray(size)
        middling = size < SHARED_SIZE
        free = self._free_middling if middling else self._free
        for index, buffer in enumerate(free):
            if len(buffer) >= size:
                try:
                    buffer.resize(len(buffer))
                except BufferError:
                    continue  # somebody still holds a view of it
                except SystemError:
                    pass  # nobody does, and this system could not have resized it, which is all the same to us
                del free[index]
                return buffer
        buffer = mmap(-1, SHARED_SIZE if middling else max(POOL_BUFFER_SIZE_MIN, size + size // 8))
        if SMALL_PAGES is not None:
            with suppress(OSError):  # a kernel built without huge pages does not know the word
                buffer.madvise(SMALL_PAGES)
        return buffer

    def give(self, buffer: bytearray | mmap) -> None:
        """Return a buffer from `take`."""
        if isinstance(buffer, mmap) and len(buffer) <= POOL_BUFFER_SIZE_MAX:
            free = self._free if len(buffer) >= POOL_BUFFER_SIZE_MIN else self._free_middling
            if len(free) < POOL_BUFFERS_MAX:
                free.append(buffer)
