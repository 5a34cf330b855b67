"""Group commit: takes the logs that were written and has threads sync them. One per log directory.

Knows logs as `Flushed`; threads get files and file names only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from kbroker.seams import Threads
from kbroker.turn import Turn

# Threads that sync at the same time. The cost is one fdatasync per dirty file, and parallel ones share the disk's own
# group commit: four do twice the work of one, more gain nothing.
FLUSH_THREADS_MAX = 4

# A thread is handed this fraction of the logs that wait. Up to so many logs get a thread each: a log that is synced
# behind another one's file in the same thread answers a whole fdatasync later, which costs more than the hand-over
# (about 10 us of the loop). With a thousand logs the hand-overs would cost more than they give.
SHARE = 2 * FLUSH_THREADS_MAX


class Flushed(Protocol):
    """A log, as the flusher sees it."""

    deleted: bool

    def flush_begins(self) -> list[Callable[[], object]]: ...

    def flush_ended(self) -> bool: ...

    def flush_again(self) -> bool:
        """Files were removed in the middle of the flush, by the log itself: True, and it begins anew."""

    def flush_put_off(self) -> None:
        """A file could not be opened: it begins anew, later."""

    def flush_failed(self, error: BaseException) -> None:
        """Nothing beyond what was flushed before counts."""

    def failed(self, error: BaseException) -> None:
        """One of these broke, our own fault: it takes no more writes."""


class Flusher:
    """Logs written since the last flush, and the flushes in progress.

    A log is in one flush at a time; what is written meanwhile makes the next group.
    """

    __slots__ = (
        "_asked",
        "_failed",
        "_free",
        "_later",
        "_on_error",
        "_put_off",
        "_threads",
        "_turn",
        "error",
        "logs",
    )

    def __init__(
        self,
        turn: Turn,
        threads: Threads,
        on_error: Callable[[BaseException], None],
        later: Callable[[Callable[[], None], BaseException], bool],
    ) -> None:
        self._turn = turn
        self._threads = threads
        self._on_error = on_error
        self._later = later  # calls back after a while, unless the error is of a kind that stays: False
        self._put_off: list[Flushed] = []  # until then
        self._asked = False
        self._free = FLUSH_THREADS_MAX
        self.logs: list[Flushed] = []
        self.error: BaseException | None = None  # a flush failed: none is tried again

    @property
    def idle(self) -> bool:
        """Nothing is being flushed or waits."""
        return self._free == FLUSH_THREADS_MAX and not self.logs and not self._put_off

    def add(self, log: Flushed) -> None:
        """Flush `log` in the next group."""
        self.logs.append(log)
        if not self._asked:
            self._asked = True
            self._turn.sync(self)

    def begin(self) -> None:
        """Turn: hand what was written to the threads that are free."""
        self._asked = False
        if self.error is not None:
            self._refuse()
            return
        while self.logs and self._free:
            count = -(-len(self.logs) // SHARE)
            group = self.logs[:count]
            work = [log.flush_begins() for log in group]
            self._threads.run(partial(_do, work), partial(self._done, group))
            self._free -= 1
            del self.logs[:count]  # last: where that broke they are told, as all that wait

    def failed(self, error: BaseException) -> None:
        """`begin` broke."""
        self._on_error(error)
        self.error = error
        self._refuse()

    def _done(
        self, group: list[Flushed], errors: list[BaseException | None] | None, broke: BaseException | None
    ) -> None:
        self._free += 1
        for log, error in zip(group, errors or [broke] * len(group), strict=True):
            try:
                self._end(log, error)
            except Exception as raised:  # noqa: BLE001 - a door: the others of the group have ended their flush too
                self._stop(log, raised)
        if self.error is not None:
            self._refuse()
        elif self.logs and not self._asked:
            self._asked = True
            self._turn.sync(self)

    def _end(self, log: Flushed, error: BaseException | None) -> None:
        """A log's flush is over: it ended well, or begins anew, or failed."""
        if error is None:
            if log.flush_ended():
                self.logs.append(log)
        elif log.deleted:  # its files may be gone in the middle of its flush
            return
        elif isinstance(error, FileNotFoundError) and log.flush_again():
            self.logs.append(log)
        elif self.error is None and self._later(self._go_on, error):
            log.flush_put_off()
            self._put_off.append(log)
        else:
            if self.error is None:
                self.error = error
                self._on_error(error)
            log.flush_failed(error)

    def _stop(self, log: Flushed, error: BaseException) -> None:
        """What a log makes of its flush broke. Nobody knows what it would have told those who wait: they learn that it
        is stopped, and the other logs go on."""
        try:
            log.failed(error)
            log.flush_failed(error)
        except Exception as raised:  # noqa: BLE001 - a door: as where an item of a turn cannot even fail
            if self._turn.on_broken is not None:
                self._turn.on_broken(raised)

    def _go_on(self) -> None:
        logs, self._put_off = self._put_off, []
        for log in logs:
            if not log.deleted:
                self.add(log)

    def _refuse(self) -> None:
        logs, self.logs, self._put_off = self.logs + self._put_off, [], []
        assert self.error is not None
        for log in logs:
            try:
                log.flush_failed(self.error)
            except Exception as raised:  # noqa: BLE001 - a door: the others are told
                self._stop(log, raised)


def _do(work: list[list[Callable[[], object]]]) -> list[BaseException | None]:
    """Do each log's steps, in a thread. What one log's files cannot do says nothing of another's."""
    errors: list[BaseException | None] = []
    for steps in work:
        try:
            for step in steps:
                step()
            errors.append(None)
        except Exception as error:  # noqa: BLE001 - handed to `_done`, which tells whose it was
            errors.append(error)
    return errors
