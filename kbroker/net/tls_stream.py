"""TLS as a Stream for `Connection`: a non-blocking SSLSocket. Knows no contexts: `security.tls` builds them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import ClassVar

from kbroker.seams import Buffer


class TlsStream:
    """An SSLSocket whose handshake and records never block.

    OpenSSL may hold decrypted bytes while the socket is silent, so `recv_into` reads on until it would wait; a send
    that would wait is repeated with the very same bytes.
    """

    __slots__ = ("_established", "_refused", "_retry", "_sock", "_wants_write", "hold")
    # larger pieces save calls, smaller ones are read again less when the peer is slow
    piece_max: ClassVar[int] = 256 << 10
    # OpenSSL reads the bytes in this process: a truncated memory map would kill it
    copies: ClassVar[bool] = True

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._established = False
        self._refused = False  # the peer was sent an alert that says why there is no connection
        # keeps a socket for a moment, then closes it. None: nobody does
        self.hold: Callable[[socket.socket], None] | None = None
        self._wants_write = False
        self._retry: bytes | None = None

    def recv_into(self, view: memoryview) -> int:
        """Decrypted bytes into `view`, as many as are there; 0: the peer ended."""
        self._wants_write = False
        if not self._established:
            self._handshake()
        got = 0
        size = len(view)
        try:
            while got < size:
                count = self._sock.recv_into(view[got:])
                if not count:
                    break
                got += count
        except ssl.SSLWantReadError:
            if not got:
                raise BlockingIOError from None
        except ssl.SSLWantWriteError:
            self._wants_write = True
            if not got:
                raise BlockingIOError from None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            pass  # ended without close_notify, as most Kafka clients do
        return got

    def _handshake(self) -> None:
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        except ssl.SSLWantWriteError:
            self._wants_write = True
            raise BlockingIOError from None
        except ssl.SSLError as error:
            self._refused = not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)
            raise
        self._established = True

    def send_one(self, piece: bytes) -> int:
        """`send([piece])`."""
        return self.send([piece])

    def send(self, pieces: list[Buffer]) -> int:
        """Encrypt and send what goes; bytes of `pieces` taken."""
        data: Buffer
        if self._retry is not None:
            data = self._retry
        else:
            data = b"".join(pieces) if len(pieces) > 1 else pieces[0]
        self._retry = None
        sent = 0
        view = memoryview(data)[: self.piece_max]
        try:
            while sent < len(view):
                sent += self._sock.send(view[sent:])
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            # What OpenSSL refused must come again with the same bytes and length: it is the rest of what the caller has
            # in front, so keep a copy and tell what went.
            self._retry = bytes(view[sent:])
            if not sent:
                raise BlockingIOError from None
        return sent

    def pending(self) -> bool:
        """Decrypted bytes are waiting that the socket will not announce."""
        return self._established and self._sock.pending() > 0

    def wants_write(self) -> bool:
        """The handshake (or a renegotiation) waits for the socket to take bytes."""
        return self._wants_write

    def close(self) -> None:
        """Close the socket; no close_notify is waited for.

        Of a peer that was refused only our direction is closed now. Under TLS 1.3 a client has sent its first request when
        the alert comes to it: were the socket closed with that unread, the system would reset the connection, and the peer
        would not learn why.
        """
        if self.hold is None or not self._refused:
            return self._sock.close()
        raw = socket.socket(fileno=self._sock.detach())
        try:
            raw.shutdown(socket.SHUT_WR)
        except OSError:
            return raw.close()  # it is gone already
        self.hold(raw)
        return None
