"""Log lines about clients that ask for what is not here yet: all that they tell is an error's name, without a cure.

A client that is refused starts again and again, and there may be thousands of it: each is told of once in a while, and
no more than some of them.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from kbroker.config import Settings
from kbroker.observe import logs
from kbroker.server.rooms import Call, Rooms

log = logs.get_logger("server")

TELL_SECONDS = 600.0
CLIENTS_TOLD_MAX = 20  # within TELL_SECONDS, for each event; those beyond it are not told of


class _Told:
    """The clients that were told of, by event, since a time."""

    __slots__ = ("clients", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.clients: dict[str, set[str | None]] = {}


_told: WeakKeyDictionary[Settings, _Told] = WeakKeyDictionary()  # of each broker in this process


def tell_refused(rooms: Rooms, call: Call, event: str, *, cure: str, **fields: str) -> None:
    """Say that this client is refused, unless it was said of the same client id a while ago."""
    now = rooms.clock.monotonic()
    told = _told.get(rooms.settings)
    if told is None or now - told.since >= TELL_SECONDS:
        told = _told[rooms.settings] = _Told(now)
    clients = told.clients.setdefault(event, set())
    if call.client_id in clients or len(clients) >= CLIENTS_TOLD_MAX:
        return
    clients.add(call.client_id)
    log.warning(event, client_id=call.client_id, host=call.client_host, **fields, cure=cure)
