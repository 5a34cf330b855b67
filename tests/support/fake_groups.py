"""A coordinator of groups that answers what a test tells it to, and keeps what it was asked. For tests of handlers.

groups = FakeGroups(Beaten(ErrorCode.NONE))
await house.ask(handle_heartbeat, HeartbeatRequest(...), version=4)
[("group", beat)] = groups.asked
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

from kbroker.errors import ErrorCode
from kbroker.groups.events import Commit, Described, Fetched, ForgetOffsets, Listed, Offset


class FakeGroups:
    """One answer for all events; None: they wait until `tell`."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Any]] = []
        self.listed: tuple[ErrorCode, list[Listed]] = (ErrorCode.NONE, [])
        self.described: dict[str, Described] = {}
        self.offsets: dict[str, dict[tuple[str, int], Offset]] = {}
        self.fetch_error = ErrorCode.NONE
        self.errors: Mapping[str, ErrorCode] = {}

    @property
    def event(self) -> Any:
        """The only event asked for so far."""
        [(_, event)] = self.asked
        return event

    def tell(self, answer: Any) -> None:
        """Answer what waits longest."""
        self.asked.pop(0)[1].to(answer)

    # the coordinator's interface

    def partition_of(self, group_id: str) -> int:
        return 0

    def handle(self, group_id: str, event: Any) -> None:
        self.asked.append((group_id, event))
        if self.answer is not None:
            event.to(self.answer)

    def commit(self, group_id: str, commit: Commit) -> None:
        self.handle(group_id, commit)

    def forget(self, group_id: str, what: ForgetOffsets) -> None:
        self.handle(group_id, what)

    def fetch(self, group_id: str, partitions: list[tuple[str, int]] | None) -> Fetched:
        self.asked.append((group_id, partitions))
        if self.fetch_error is not ErrorCode.NONE:
            return Fetched(self.fetch_error, {})
        found = self.offsets.get(group_id, {})
        if partitions is None:
            return Fetched(ErrorCode.NONE, dict(found))
        return Fetched(ErrorCode.NONE, {key: found[key] for key in partitions if key in found})

    def fetching(
        self, group_id: str, partitions: list[tuple[str, int]] | None
    ) -> Generator[int, None, Fetched]:
        yield 1
        return self.fetch(group_id, partitions)

    def delete(self, group_ids: list[str], to: Callable[[dict[str, ErrorCode]], None]) -> None:
        self.asked.append((",".join(group_ids), None))
        to({group_id: self.errors.get(group_id, ErrorCode.NONE) for group_id in group_ids})

    def list(self) -> tuple[ErrorCode, list[Listed]]:
        return self.listed

    def describe(self, group_id: str) -> Described:
        return self.described.get(group_id, Described(ErrorCode.GROUP_ID_NOT_FOUND, "Dead"))
