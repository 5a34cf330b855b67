"""Where groups give their answers: `Pending`, the `to` of an event. Knows slots; what is answered it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from kbroker.net.slots import Slot
from kbroker.protocol.wire import Message

R = TypeVar("R", bound=Message)


class Pending(Generic[R]):
    """Called with an answer, once, now or later: it becomes a response, in the slot if there is one by then.

    A handler makes it, hands it over with its event and returns `outcome()`. It keeps nothing of a connection that has
    ended, however long the group keeps it: a member whose connection is lost stays until its session ends.
    """

    __slots__ = ("_respond", "_response", "_slot", "_version")

    def __init__(self, respond: Callable[[Any, int], R], version: int) -> None:
        self._respond = respond  # from answer and version
        self._version = version
        self._response: R | None = None
        self._slot: Slot | None = None

    def __call__(self, answer: Any) -> None:
        """Here is the answer."""
        response = self._respond(answer, self._version)
        slot, self._slot = self._slot, None
        if slot is None:
            self._response = response  # given at once, or nobody waits any more
        else:
            slot.fill(response)

    def outcome(self) -> R | Slot:
        """What the handler returns: the response where it is there, else the slot that it goes to."""
        if self._response is None:
            self._slot = Slot(self._lost)
            return self._slot
        return self._response

    def _lost(self) -> None:
        self._slot = None
