"""Before a clean stop: saves every log of a directory in threads, so that the stop itself finds little left to sync.

Knows logs by `closing` and `closed`. Nobody appends meanwhile, and no checkpoint is being written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kbroker.storage.directory import LogDirectory
    from kbroker.storage.log import PartitionLog

# The cost is some three fsyncs per log that moved, and parallel ones share the disk's own group commit.
SAVE_THREADS_MAX = 6
# Logs handed to a thread at a time: few, so that all threads end at about the same time.
LOGS_PER_STEP = 16

Steps = list[Callable[[], object]]


class Saver:
    """One round through the logs; `done()` when it ends. What fails, fails the directory."""

    __slots__ = ("_directory", "_done", "_left", "_running")

    def __init__(self, directory: LogDirectory, done: Callable[[], None]) -> None:
        self._directory = directory
        self._done = done
        self._left = deque(directory.logs.values())
        self._running = 0

    def start(self) -> None:
        """Begin; call it once."""
        self._running = 1
        for _ in range(SAVE_THREADS_MAX):
            self._next()
        self._ended()

    def _next(self) -> None:
        """Write what some logs have, let a thread sync it."""
        group: list[PartitionLog] = []
        work: Steps = []
        while self._left and len(group) < LOGS_PER_STEP and self._directory.failed is None:
            each = self._left.popleft()
            try:
                steps = each.closing()
            except OSError as error:
                self._directory.fail(f"it could not be saved: {error}")
                return
            if steps:
                group.append(each)
                work += steps
            else:
                each.closed()
        if work:
            self._running += 1
            self._directory.threads.run(partial(_do, work), partial(self._synced, group))

    def _synced(self, group: list[PartitionLog], _: None, error: BaseException | None) -> None:
        if error is None:
            for each in group:
                each.closed()
            self._next()
        else:
            self._directory.fsync_failed(error)
        self._ended()

    def _ended(self) -> None:
        self._running -= 1
        if not self._running:
            self._done()


def _do(work: Steps) -> None:
    for step in work:
        step()
