"""Changes of a shard on their way into its log: who waits for what, and what has become of each part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from kbroker.errors import ErrorCode
from kbroker.observe import logs
from kbroker.replication.shard_records import Record

log = logs.get_logger("replication")


class Change:
    """Records that belong together, and who wants to know."""

    __slots__ = ("answered", "committed", "done", "error", "in_log", "over", "records")

    def __init__(
        self, records: Sequence[Record], done: Callable[[ErrorCode], None], committed: Callable[[], None]
    ) -> None:
        self.records = records
        self.done = done
        self.committed = committed
        self.answered = False
        self.in_log = False  # some of it is committed
        self.error = ErrorCode.NONE  # some of it never will be
        self.over = (
            False  # its last batch has ended; one before may end later, where the last was not even taken
        )

    def answer(self, error: ErrorCode) -> None:
        """Tell how it ended, once."""
        if self.answered:
            return
        self.answered = True
        try:
            self.done(error)
        except Exception as raised:  # a door: the others are told
            log.exception("whoever changed a shard failed to hear how it ended", raised, ended=error.name)


class Owner(Protocol):
    """Whoever sent a batch."""

    def ended(self, sent: Sent, error: ErrorCode) -> None: ...


class Sent:
    """A batch on its way, with the changes that it ends, and those of which it holds a part."""

    __slots__ = ("changes", "deadline", "over", "owner", "parts")

    def __init__(self, owner: Owner, changes: list[Change], parts: list[Change], deadline: float) -> None:
        self.owner = owner
        self.changes = changes
        self.parts = parts
        self.deadline = deadline
        self.over = False

    def __call__(self, error: ErrorCode) -> None:
        """The partition's answer."""
        self.over = True
        self.owner.ended(self, error)
