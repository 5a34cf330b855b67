"""Where this broker listens: its sockets from their binding to their end, with TLS where a listener's protocol says so.

Knows neither connections nor requests: who comes in is for `Connections`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from kbroker.config import Settings
from kbroker.errors import StartError
from kbroker.model import Endpoint
from kbroker.net.listening import SocketBuffers
from kbroker.observe import logs
from kbroker.seams import Clock, Net
from kbroker.server.dispatch import Serves
from kbroker.server.listener import Connections, bind_all

if TYPE_CHECKING:
    from kbroker.server.secure import TlsListener

log = logs.get_logger("server")


class Endpoints:
    """The listeners of one broker. `bind`, then `serve` until `close`."""

    def __init__(self, settings: Settings, *, net: Net, clock: Clock) -> None:
        self.bound: tuple[Endpoint, ...] = ()  # with real ports; known after `bind`, and kept
        self._settings = settings
        self._net = net
        self._clock = clock
        self._sockets: list[tuple[str, Any]] = []  # each with its listener
        self._accepting = False
        self._tls: dict[str, TlsListener] = {}  # of the listeners that speak it

    def bind(self) -> None:
        """Open a socket, or several, for each listener. StartError where that cannot be; then none is open."""
        settings = self._settings
        for endpoint in settings.listeners:
            if endpoint.protocol == "SSL":
                from kbroker.server.secure import TlsListener  # imports more of ssl than plain listeners need

                self._tls[endpoint.listener] = TlsListener(settings, endpoint.listener, self._clock)
        buffers = SocketBuffers(settings.socket_send_buffer_bytes, settings.socket_receive_buffer_bytes)
        bound = []
        try:
            for endpoint in settings.listeners:
                sockets = bind_all(endpoint, buffers)
                self._sockets += ((endpoint.listener, sock) for sock in sockets)
                port = sockets[0].getsockname()[1]
                bound.append(Endpoint(endpoint.listener, endpoint.host, port, endpoint.protocol))
        except BaseException:
            self.close()
            raise
        self.bound = tuple(bound)

    def serve(self, connections: Connections, dispatcher: Serves) -> None:
        """Let clients in."""
        self._accepting = True
        for name, sock in self._sockets:
            self._net.accept(
                sock,
                partial(connections.add, listener=name, dispatcher=dispatcher, secure=self._tls.get(name)),
            )

    def reload_tls(self) -> None:
        """Take the TLS options, and the files they name, as they are now. Options that do not fit change nothing."""
        for listener, tls in self._tls.items():
            try:
                tls.reload()
            except StartError as error:
                log.warning("TLS options not taken, the ones before stay", listener=listener, why=str(error))

    def close(self) -> None:
        """Let nobody in any more. Idempotent."""
        for _, sock in self._sockets:
            if self._accepting:
                self._net.forget(sock)
            sock.close()
        self._sockets.clear()
