"""TLS on the sockets that a listener accepts, with the listener's options as they are at the moment.

Knows which options are whose; what they mean is for `security.tls` to say, how bytes flow for `net.tls_stream`.
"""

from __future__ import annotations

from typing import Any

from kbroker.config import Settings
from kbroker.net.tls_stream import TlsStream
from kbroker.security.tls import build_server_context


class TlsListener:
    """What puts TLS on a socket of one listener: a `listener.Secure`."""

    __slots__ = ("_context", "_listener", "_settings")

    def __init__(self, settings: Settings, listener: str) -> None:
        self._settings = settings
        self._listener = listener
        self.reload()

    def reload(self) -> None:
        """Read the options, and the files they name, anew; connections that are open keep what they have.

        StartError where they do not fit together: then new connections get what they got before.
        """
        self._context = build_server_context(self._settings.tls(self._listener))

    def __call__(self, sock: Any) -> tuple[Any, TlsStream]:
        """The socket to watch, and the stream that reads and writes it."""
        wrapped = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, TlsStream(wrapped)
