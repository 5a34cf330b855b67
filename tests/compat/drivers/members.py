"""Group members of the Python drivers: each a thread that polls until it is told to leave. Knows no client."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from lines import Ask

CALL_LIMIT_S = 60
POLL_S = 0.1


class Member(threading.Thread):
    """Reads its share of a topic and notes what it read. Only this thread touches the client. Subclasses do the rest."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(name=ask["member"], daemon=True)
        self.ask = ask
        self.records: list[list[int]] = []  # [partition, offset]
        self.revoked: list[int] = []  # partitions that were taken away, ever
        self.error: Ask | None = None
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()

    def open(self) -> None:
        """Subscribe."""
        raise NotImplementedError

    def poll(self) -> list[list[int]]:
        """What came within POLL_S."""
        raise NotImplementedError

    def commit(self, metadata: str | None) -> None:
        """Commit what was read."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave the group."""
        raise NotImplementedError

    def code_of(self, error: BaseException) -> int | None:
        """Kafka's code of a client's error."""
        return getattr(error, "errno", None)

    def passing(self, error: BaseException) -> bool:
        """Whether the user of this client would just go on."""
        return False

    def run(self) -> None:
        """Poll and do what others ask, until it left or failed for good."""
        opened = self._done(self.open)
        while not self._told():
            if self.error is not None:
                time.sleep(POLL_S)
                continue
            if opened:
                self._done(self._read)
            else:
                opened = self._done(self.open)

    def _read(self) -> None:
        self.records += self.poll()

    def _done(self, work: Callable[[], None]) -> bool:
        """`work()`; whether it came to its end. `look` tells why not, unless the user would just go on."""
        try:
            work()
        except BaseException as error:
            if self.passing(error):
                print(f"{self.name}: {error!r}", file=sys.stderr)
            else:
                self._fail(error)
            return False
        return True

    def _fail(self, error: BaseException) -> None:
        self.error = {"code": self.code_of(error), "message": f"{type(error).__name__}: {error}"}

    def _told(self) -> bool:
        """Do what was asked; whether that was to leave."""
        while not self._calls.empty():
            work, done = self._calls.get()
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)
            if work == self.close:
                return True
        return False

    def call(self, work: Callable[[], Any]) -> Any:
        """`work()` in this member's thread."""
        done: Future[Any] = Future()
        self._calls.put((work, done))
        return done.result(CALL_LIMIT_S)


def member_ops(kind: Callable[[Ask], Member]) -> dict[str, Callable[[Ask], Any]]:
    """join, look, commit and leave for members of this kind."""
    members: dict[str, Member] = {}

    def join(ask: Ask) -> Any:
        members[ask["member"]] = member = kind(ask)
        member.start()
        return {}

    def look(ask: Ask) -> Any:
        member = members[ask["member"]]
        return {"records": member.records[ask["since"] :], "revoked": member.revoked, "error": member.error}

    def commit(ask: Ask) -> Any:
        member = members[ask["member"]]
        member.call(lambda: member.commit(ask["metadata"]))
        return {}

    def leave(ask: Ask) -> Any:
        member = members.pop(ask["member"])
        member.call(member.close)
        return {}

    return {"join": join, "look": look, "commit": commit, "leave": leave}
