"""Slots: answers that somebody still has to give, each in its request's place in a connection's order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kbroker.protocol.frames import encode_response
from kbroker.protocol.wire import Message

if TYPE_CHECKING:
    from kbroker.net.connection import Connection

# A slot's answer of up to this size counts when it comes to the front, not when it is given: what the lanes give, Produce's
# answers, costs no more than an assignment. UNANSWERED_MAX of them are 256 KiB.
SLOT_BYTES_UNCOUNTED_MAX = 1 << 10

Answer = bytes | list[Any]


class Slot:
    """A response that somebody still has to give; it keeps its request's place in the connection's order.

    A handler makes it, the dispatcher binds it, and `fill` may come before or after that, once. `on_lost` is called
    if the connection ends first.
    """

    __slots__ = ("answer", "connection", "correlation_id", "on_lost", "response", "version")

    def __init__(self, on_lost: Callable[[], None] | None = None) -> None:
        self.answer: Answer | None = None  # encoded, ready to leave
        self.response: Message | None = None  # given before the slot was bound
        self.connection: Connection | None = None
        self.on_lost = on_lost
        self.version = self.correlation_id = 0

    def bind(self, connection: Connection, version: int, correlation_id: int) -> None:
        """Whose response this is, and how it is encoded."""
        self.connection, self.version, self.correlation_id = connection, version, correlation_id
        if self.response is not None:
            self.fill(self.response)

    def fill(self, response: Message) -> None:
        """Give the response; it is sent at the end of this turn if those before it are there."""
        connection = self.connection
        if connection is None:
            self.response = response
        elif connection.open:
            if connection.stamp is not None:
                connection.stamp(response)
            try:
                answer = encode_response(response, self.version, self.correlation_id)
            except Exception as error:  # noqa: BLE001 - a handler's mistake: whoever fills slots must not stop for it
                return connection.close(error)
            self.fill_bytes(answer)

    def fill_bytes(self, answer: Answer) -> None:
        """The same with a whole encoded frame; the slot is bound."""
        connection = self.connection
        assert connection is not None
        if type(answer) is bytes and len(answer) > SLOT_BYTES_UNCOUNTED_MAX:
            answer = [answer]  # parts have been counted, wherever they stand
        if type(answer) is list:
            connection.count(answer)
        self.answer = answer
        if not connection.marked:
            connection.mark()

    def fail(self, error: BaseException) -> None:
        """There will be no response: the connection closes."""
        if self.connection is not None:
            self.connection.close(error)
