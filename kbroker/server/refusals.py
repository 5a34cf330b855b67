"""Log lines about clients that ask for what is not here yet: all that they tell is an error's name, without a cure.

A client that is refused starts again and again, and there may be thousands of it: each is told of once in a while, and
no more than some of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbroker.observe import logs

if TYPE_CHECKING:
    from kbroker.seams import Clock
    from kbroker.server.rooms import Call

log = logs.get_logger("server")

TELL_SECONDS = 600.0
CLIENTS_TOLD_MAX = 20  # within TELL_SECONDS, for each event; those beyond it are not told of


class Refusals:
    """The clients that were told of lately, by event."""

    __slots__ = ("_clients", "_clock", "_since")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.monotonic()
        self._clients: dict[str, set[str | None]] = {}

    def tell(self, call: Call, event: str, *, cure: str, **fields: str) -> None:
        """Say that this client is refused, unless it was said of the same client id a while ago."""
        now = self._clock.monotonic()
        if now - self._since >= TELL_SECONDS:
            self._since = now
            self._clients.clear()
        clients = self._clients.setdefault(event, set())
        if call.client_id in clients or len(clients) >= CLIENTS_TOLD_MAX:
            return
        clients.add(call.client_id)
        log.warning(event, client_id=call.client_id, host=call.client_host, **fields, cure=cure)
