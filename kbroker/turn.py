"""One turn of the event loop: write, sync, settle, send. Knows lists of items and nothing of what they are.

Objects ask during a turn; at its end everything asked for is done once, in that order, and from `write` again while
something is left, then `send`. An item that fails stops itself (`failed`), never the turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Writer(Protocol):
    """Has bytes for a file: a partition's log."""

    def write_out(self) -> None: ...

    def failed(self, error: BaseException) -> None: ...


class Borrower(Protocol):
    """Holds views of a buffer that will be used again: a partition's log, with batches to write."""

    def return_views(self) -> None: ...

    def failed(self, error: BaseException) -> None: ...


class Syncer(Protocol):
    """Starts an fsync group: a log directory's flusher."""

    def begin(self) -> None: ...

    def failed(self, error: BaseException) -> None: ...


class Settler(Protocol):
    """Its written, flushed, position or role moved: a partition. The only place where a watermark rises."""

    def settle(self) -> None: ...

    def failed(self, error: BaseException) -> None: ...


class Sender(Protocol):
    """Has answers to send: a connection."""

    def flush(self) -> None: ...

    def failed(self, error: BaseException) -> None: ...


class Turn:
    """What has been asked for in this turn. Askers mark themselves so that they ask once; `run` takes the lists."""

    __slots__ = ("borrowers", "busy", "on_broken", "sends", "settles", "syncs", "wake", "writes")

    def __init__(self) -> None:
        self.busy = False  # there is work for the end of this turn
        # called when `busy` becomes true, for loops that must be told to call `run` (None: the loop looks by itself)
        self.wake: Callable[[], None] | None = None
        # hears of an item whose `failed` failed (None: nobody does)
        self.on_broken: Callable[[BaseException], None] | None = None
        self.writes: list[Writer] = []
        self.syncs: list[Syncer] = []
        self.settles: list[Settler] = []
        self.sends: list[Sender] = []
        # who keeps views of the buffer being handled, to write several batches with one call; None: nobody may
        self.borrowers: list[Borrower] | None = None

    def lend(self) -> None:
        """What lies in the buffer being handled stays as it is until `take_back`."""
        assert self.borrowers is None, "a buffer was lent and not taken back"
        self.borrowers = []

    def take_back(self) -> None:
        """The buffer will be used again: whoever keeps views of it is done with them now."""
        borrowers, self.borrowers = self.borrowers, None
        for borrower in borrowers or ():
            try:
                borrower.return_views()
            except Exception as error:
                self._fail(borrower, error)

    def write(self, item: Writer) -> None:
        """`item.write_out()` at this turn's end."""
        self.writes.append(item)
        if not self.busy:
            self._work()

    def sync(self, item: Syncer) -> None:
        """`item.begin()` after the writes."""
        self.syncs.append(item)
        if not self.busy:
            self._work()

    def settle(self, item: Settler) -> None:
        """`item.settle()` after the syncs have begun."""
        self.settles.append(item)
        if not self.busy:
            self._work()

    def send(self, item: Sender) -> None:
        """`item.flush()` last."""
        self.sends.append(item)
        if not self.busy:
            self._work()

    def _work(self) -> None:
        self.busy = True
        if self.wake is not None:
            self.wake()

    def _fail(self, item: Writer | Borrower | Syncer | Settler | Sender, error: BaseException) -> None:
        try:
            item.failed(error)
        except Exception as raised:  # a door: the others are served
            if self.on_broken is not None:
                self.on_broken(raised)

    def run(self) -> None:
        """Do all that was asked for. Called by the loop at the end of each turn in which `busy` is set.

        Who was woken by what settled (readers that waited) is sent to before those whose waiting ended with it
        (producers): a producer has more in flight meanwhile, a reader has nothing to do, and each send takes its time.
        """
        woken = 0  # where their sends begin
        while self.writes or self.syncs or self.settles:
            if self.writes:
                writes, self.writes = self.writes, []
                for writer in writes:
                    try:
                        writer.write_out()
                    except Exception as error:
                        self._fail(writer, error)
            if self.syncs:
                syncs, self.syncs = self.syncs, []
                for syncer in syncs:
                    try:
                        syncer.begin()
                    except Exception as error:
                        self._fail(syncer, error)
            if self.settles:
                settles, self.settles = self.settles, []
                for settler in settles:
                    try:
                        settler.settle()
                    except Exception as error:
                        self._fail(settler, error)
                if self.settles and not woken:
                    woken = len(self.sends)
        sends, self.sends = self.sends, []
        if woken:
            sends = sends[woken:] + sends[:woken]
        for sender in sends:
            try:
                sender.flush()
            except Exception as error:
                self._fail(sender, error)
        # a send may free somebody who asks again: the loop comes back at once, sockets get their turn between
        self.busy = bool(self.writes or self.syncs or self.settles or self.sends)
        if self.busy and self.wake is not None:
            self.wake()
