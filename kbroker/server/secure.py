"""TLS on the sockets that a listener accepts, with the listener's options as they are at the moment.

Knows which options are whose; what they mean is for `security.tls` to say, how bytes flow for `net.tls_stream`.
"""

from __future__ import annotations

from typing import Any

from kbroker.config import Settings
from kbroker.net.tls_stream import TlsStream
from kbroker.observe import logs
from kbroker.seams import Clock
from kbroker.security.certificates import Validity, validity_of
from kbroker.security.tls import build_server_context

log = logs.get_logger("server")


class TlsListener:
    """What puts TLS on a socket of one listener: a `listener.Secure`."""

    __slots__ = ("_clock", "_context", "_listener", "_settings", "_told")

    def __init__(self, settings: Settings, listener: str, clock: Clock) -> None:
        self._settings = settings
        self._listener = listener
        self._clock = clock
        self._told: Validity | None = None  # of the certificate that was warned of
        self.reload()

    def reload(self) -> None:
        """Read the options, and the files they name, anew; connections that are open keep what they have.

        StartError where they do not fit together: then new connections get what they got before.
        """
        options = self._settings.tls(self._listener)
        self._context = build_server_context(options)
        self._warn(validity_of(options))

    def _warn(self, found: Validity | None) -> None:
        """Say once of a certificate that clients will refuse it, or soon will."""
        fault = found.fault(self._clock.wall_ms() / 1000) if found is not None else None
        if fault is not None and found != self._told:
            self._told = found
            log.warning(
                f"this broker's certificate {fault}",
                listener=self._listener,
                cure="put a new one into ssl.keystore.location; clients refuse an expired one",
            )

    def __call__(self, sock: Any) -> tuple[Any, TlsStream]:
        """The socket to watch, and the stream that reads and writes it."""
        wrapped = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, TlsStream(wrapped)
