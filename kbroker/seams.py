"""The four seams through which the outside comes in: network, clock, disk and threads. Interfaces only.

Real ones live in `net`, `storage.disk` and `node`; tests and the simulation pass others. Nobody else may reach for
the clock, the random generator, a thread, a data file or a socket on their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

Buffer = bytes | bytearray | memoryview


class Timer(Protocol):
    """Something that will be called; `cancel` is idempotent."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Time. `wall_ms` may jump and is for timestamps; `monotonic` (seconds) never goes back and is for waiting."""

    def wall_ms(self) -> int: ...

    def monotonic(self) -> float: ...

    def call_at(self, when: float, call: Callable[[], None]) -> Timer: ...


class Threads(Protocol):
    """Blocking work off the loop. `work` sees Files and bytes only; `done(result, None)` or `done(None, error)` runs
    on the loop afterwards. Work that has not begun when the threads stop is dropped."""

    def run(self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None: ...


class NotOpened(OSError):
    """A file or folder could not be opened for what was asked: nothing was done to it, and nothing is lost."""


class File(Protocol):
    """One data file, named by path; holds a descriptor only while it is used. One writer.

    Every method raises OSError as the system does; NotOpened (or FileNotFoundError) before it did anything.
    Safe to `read_into` and `sync` from a thread while the loop appends.
    """

    path: str
    size: int  # bytes, as this handle's own appends and truncations made it

    def append(self, parts: Sequence[Buffer]) -> None:
        """Write all of `parts` at the end; on an error the file may be longer than `size`: call `truncate(size)`."""

    def read_into(self, view: memoryview, at: int, *, wait: bool = True) -> int:
        """Read up to len(view) bytes at file position `at`; fewer (0 included) only at the end of the file.

        With `wait=False` raises BlockingIOError where the page cache does not have the bytes.
        """

    def map(self, size: int) -> memoryview | None:
        """The first `size` bytes (at least) as a read-only memory map, or None where there are no maps.

        Only the kernel may touch it (sendmsg): a truncated page kills a process that reads it.
        """

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None:
        """fdatasync: what was appended before the call is on the disk after it."""

    def close(self) -> None: ...


class Disk(Protocol):
    """A file system. Paths are absolute strings. Names become durable by `sync_dir` of their folder, data by `sync`."""

    def open(self, path: str, *, create: bool = False) -> File: ...

    def exists(self, path: str) -> bool: ...

    def list(self, folder: str) -> list[str]:
        """Names in `folder`, sorted."""

    def size(self, path: str) -> int: ...

    def read(self, path: str) -> bytes:
        """A whole small file."""

    def mkdir(self, folder: str) -> None:
        """Make a folder; its parent exists. FileExistsError when it is there."""

    def rename(self, old: str, new: str) -> None:
        """Atomic; replaces a file that has the new name."""

    def remove(self, path: str) -> None:
        """Remove a file, or an empty folder."""

    def sync_dir(self, folder: str) -> None: ...

    def free_bytes(self, folder: str) -> int: ...

    def total_bytes(self, folder: str) -> int: ...

    def lock(self, path: str) -> Lock:
        """Hold `path` exclusively until released or the process ends; BlockingIOError when another process has it."""


class Lock(Protocol):
    """A held lock file."""

    def release(self) -> None: ...


class Net(Protocol):
    """Non-blocking sockets, watched. `read` and `write` are called in the loop whenever the socket is ready."""

    def watch(
        self, sock: Any, read: Callable[[], None] | None, write: Callable[[], None] | None = None
    ) -> None: ...

    def forget(self, sock: Any) -> None: ...

    def accept(self, listening: Any, on_socket: Callable[[Any, Any], None]) -> None:
        """Hand each connection of a listening socket to `on_socket(sock, peer_address)`."""


class Random(Protocol):
    """Randomness; `random.Random` and `random.SystemRandom` have this shape."""

    def randrange(self, start: int, stop: int) -> int: ...

    def getrandbits(self, bits: int) -> int: ...

    def random(self) -> float: ...
