"""What carries a connection's bytes: the interface, and a plain socket. TLS is in `tls_stream`. Knows no frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from kbroker.seams import Buffer

# Up to here answers are joined and sent by one `send`, which is cheaper than `sendmsg` of several pieces.
JOIN_BYTES_MAX = 16 << 10
# A plain socket takes a region in pieces of up to this size.
REGION_PIECE_MAX = 1 << 20


def closed(_: object) -> int:
    """What a closed stream reads and sends with."""
    raise OSError("the connection is closed")


class Stream(Protocol):
    """What carries the bytes: a plain socket or TLS. Calls raise BlockingIOError when they would wait."""

    def recv_into(self, view: memoryview) -> int:
        """Bytes read into `view`; 0: the peer ended."""

    def send_one(self, piece: bytes) -> int:
        """`send([piece])`."""

    def send(self, pieces: list[Buffer]) -> int:
        """Send what goes; bytes sent. After BlockingIOError the next call has the same bytes in front."""

    def pending(self) -> bool:
        """Bytes are there that the socket will not announce (TLS)."""

    def wants_write(self) -> bool:
        """Reading waits for the socket to take bytes (a TLS handshake)."""

    def close(self) -> None: ...


class Plain:
    """A plain socket as a Stream."""

    __slots__ = ("_sock", "recv_into", "send_one")
    piece_max: ClassVar[int] = REGION_PIECE_MAX
    copies: ClassVar[bool] = False  # a memory map may be sent as it is: only the kernel reads it

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.recv_into: Callable[[memoryview], int] = sock.recv_into
        self.send_one: Callable[[bytes], int] = sock.send

    def send(self, pieces: list[Buffer]) -> int:
        """Send what goes in one call."""
        if len(pieces) == 1:
            return self._sock.send(pieces[0])  # type: ignore[no-any-return]  # sockets of simulations are Any
        if sum(map(len, pieces)) < JOIN_BYTES_MAX:
            return self._sock.send(b"".join(pieces))  # type: ignore[no-any-return]
        return self._sock.sendmsg(pieces)  # type: ignore[no-any-return]

    def pending(self) -> bool:
        """Never: the socket announces all."""
        return False

    def wants_write(self) -> bool:
        """Never while reading."""
        return False

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
        self.recv_into = self.send_one = closed  # what stood there holds the socket
