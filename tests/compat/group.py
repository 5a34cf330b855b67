"""A member of a group as the scenarios use it, and what they wait for. Knows the operations of `driver.py`."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any

from tests.compat.driver import CALL_LIMIT_S, Client, ClientFailed, Record
from tests.support.peers import Endpoint

# A client's process may stand still for as long, and keeps its partitions: scenarios say who reads what, how often.
SESSION_MS = 30_000
SHORT_SESSION_MS = 6_000  # the shortest that brokers allow, for members whose end is waited for
HEARTBEAT_MS = 500
LIMIT_S = 60.0
UNDER_WAY = {14, 15, 16}  # the coordinator is loading, not available, elsewhere: ask again

Place = tuple[int, int]  # partition, offset
_numbers = itertools.count(1)
_running: list[Member] = []


class Member:
    """Joins on creation; `read` is what it read so far, in order."""

    def __init__(self, client: Client, at: Endpoint, group: str, topic: str, **how: Any) -> None:
        self.client = client
        self.at = at
        self.name = f"{group}-{next(_numbers)}"  # also its client id
        self.read: list[Place] = []
        self.revoked: list[int] = []
        self.error: ClientFailed | None = None
        asked = {
            "instance_id": None,
            "protocol": "classic",
            "cooperative": False,
            "auto_commit": True,
            "session_ms": SESSION_MS,
            "heartbeat_ms": HEARTBEAT_MS,
            **how,
        }
        _running.append(self)
        self._call("join", group=group, topic=topic, client_id=self.name, **asked)

    def _call(self, op: str, **params: Any) -> dict[str, Any]:
        return self.client.call(op, self.at, member=self.name, **params)

    def look(self) -> list[Place]:
        """Everything it read; its error, when it has one, is in `error`."""
        told = self._call("look", since=len(self.read))
        self.read += [(partition, offset) for partition, offset in told["records"]]
        self.revoked = told["revoked"]
        if told["error"] is not None:
            self.error = ClientFailed(self.client.name, told["error"]["code"], told["error"]["message"])
        return self.read

    def failed(self) -> bool:
        """Whether it told its user an error that it does not mend by itself."""
        self.look()
        return self.error is not None

    def places(self) -> set[Place]:
        """Everything it read, in no order."""
        return set(self.look())

    def commit(self, metadata: str | None = None) -> None:
        """Commit all that it read."""
        self._call("commit", metadata=metadata)

    def die(self) -> None:
        """Kill its client's process."""
        _running.remove(self)
        self.client.kill()

    def leave(self) -> None:
        """Close it."""
        _running.remove(self)
        self._call("leave")


def leave_all() -> None:
    """Close the members that a test left behind when it failed."""
    while _running:
        with contextlib.suppress(ClientFailed, TimeoutError, KeyError):  # it may not have come to anything
            _running[-1].leave()


def until(
    what: str, look: Callable[[], object], expected: object, *members: Member, limit_s: float = LIMIT_S
) -> None:
    """`look()` comes to be `expected`; the failure says `what` was waited for and what its members say.

    A coordinator that is not there yet is no answer; members that left are not asked.
    """
    deadline = time.monotonic() + limit_s
    while (found := _answer(look)) != expected and time.monotonic() < deadline:
        if any(member.failed() for member in members if member in _running):
            break
        time.sleep(0.05)
    if expected != found:
        said = [(member.name, len(member.read), member.error) for member in members]
        raise AssertionError(f"{what}, within {limit_s} s: expected {expected}, found {found}; {said}")


def _answer(look: Callable[[], object]) -> object:
    try:
        return look()
    except ClientFailed as failed:
        if failed.code in UNDER_WAY:
            return failed
        raise


def write(helper: Client, at: Endpoint, topic: str, partitions: int, each: int) -> None:
    """`each` records to every partition."""
    begun = [
        helper.begin_produce(at, topic, [Record(value=b"x")] * each, partition=partition)
        for partition in range(partitions)
    ]
    for one in begun:
        one.result(CALL_LIMIT_S)


def places(partitions: int, start: int, end: int) -> set[Place]:
    """Offsets from `start` to before `end` in every partition."""
    return {(partition, offset) for partition in range(partitions) for offset in range(start, end)}


def shares(helper: Client, at: Endpoint, group: str) -> tuple[str, dict[str, int]]:
    """The group's state and how many partitions each member has."""
    told = describe(helper, at, group)
    return told["state"], {name: len(partitions) for name, _, partitions in told["members"]}


def describe(helper: Client, at: Endpoint, group: str) -> dict[str, Any]:
    """describe_group with the state spelled alike by all clients: lower case, letters only."""
    told = helper.call("describe_group", at, group=group)
    return {**told, "state": told["state"].replace("_", "").lower()}


def settled(
    helper: Client, at: Endpoint, group: str, partitions: int, members: Iterable[Member], **how: Any
) -> None:
    """The group is stable with these members alone, which share all partitions as evenly as can be."""
    names = [member.name for member in members]

    def look() -> object:
        state, share = shares(helper, at, group)
        even = sorted(share.values()) == sorted(
            partitions // len(names) + (n < partitions % len(names)) for n in range(len(names))
        )
        return state, sorted(share), even or share

    until(f"{group} is stable", look, ("stable", sorted(names), True), *members, **how)


def offsets(helper: Client, at: Endpoint, group: str, topic: str, partitions: int) -> list[int | None]:
    """What the group committed in each partition."""
    return [
        helper.call("group_offset", at, group=group, topic=topic, partition=partition)["offset"]
        for partition in range(partitions)
    ]
