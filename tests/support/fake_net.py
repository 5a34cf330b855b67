"""A network of plain objects: sockets that hold lists of bytes, a Net that remembers who is watched, no loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from kbroker.net.buffers import Budget, Buffers
from kbroker.net.connection import Connection
from kbroker.turn import Turn
from tests.support.storage import ManualThreads


class FakeSocket:
    """What arrives is given by `arrive`; what leaves is in `sent`. `room` bytes go out before it would block."""

    copies = False

    def __init__(self, *, room: int = 1 << 40, send_max: int = 1 << 40) -> None:
        self.arriving: deque[bytes | BaseException] = deque()
        self.sent = bytearray()
        self.sends = 0
        self.room = room
        self.send_max = send_max  # one call takes at most this much
        self.closed = False
        self.send_error: OSError | None = None

    def arrive(self, *pieces: bytes | BaseException) -> None:
        """One read gives one piece (or a part of it); b"" is the end, an error is raised."""
        self.arriving.extend(pieces)

    def recv_into(self, view: memoryview) -> int:
        if not self.arriving:
            raise BlockingIOError
        piece = self.arriving.popleft()
        if isinstance(piece, BaseException):
            raise piece
        part = piece[: len(view)]
        view[: len(part)] = part
        if len(part) < len(piece):
            self.arriving.appendleft(piece[len(part) :])
        return len(part)

    def send(self, piece: Any) -> int:
        return self.sendmsg([piece])

    def sendmsg(self, pieces: list[Any]) -> int:
        if self.send_error is not None:
            raise self.send_error
        data = b"".join(pieces)
        taken = data[: min(self.room, self.send_max)]
        if data and not taken:
            raise BlockingIOError
        self.sends += 1
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def close(self) -> None:
        self.closed = True


class FakeNet:
    """Who is watched, for what."""

    def __init__(self) -> None:
        self.watched: dict[Any, tuple[Callable[[], None] | None, Callable[[], None] | None]] = {}

    def watch(
        self, sock: Any, read: Callable[[], None] | None, write: Callable[[], None] | None = None
    ) -> None:
        self.watched[sock] = (read, write)

    def forget(self, sock: Any) -> None:
        self.watched.pop(sock, None)

    def accept(self, listening: Any, on_socket: Callable[[Any, Any], None]) -> None:
        raise AssertionError("nobody listens here")

    def reads(self, sock: Any) -> bool:
        """Bytes from this socket would be read."""
        return self.watched.get(sock, (None, None))[0] is not None

    def writes(self, sock: Any) -> bool:
        """It waits until the socket takes bytes."""
        return self.watched.get(sock, (None, None))[1] is not None


class Wire:
    """One connection on a fake socket. `serve` gets each frame's bytes and says what to `put`, if anything."""

    def __init__(
        self,
        serve: Callable[[Wire, bytes], Any] | None = None,
        *,
        frame_size_max: int = 1 << 20,
        budget: int = -1,
        buffers: Buffers | None = None,
        turn: Turn | None = None,
        sock: FakeSocket | None = None,
        stream: Any = None,
        on_frame: Callable[[Connection, memoryview, int, int], None] | None = None,
        on_close: Callable[[Connection], None] = lambda connection: None,
    ) -> None:
        self.frames: list[bytes] = []
        self.ends: list[BaseException | None] = []
        self.turn = turn or Turn()
        self.net = FakeNet()
        self.threads = ManualThreads()
        self.buffers = buffers or Buffers(Budget(budget))
        self.sock = sock or FakeSocket()
        self._serve = serve
        self.connection = Connection(
            self.sock,
            "peer:1",
            net=self.net,
            turn=self.turn,
            threads=self.threads,
            buffers=self.buffers,
            frame_size_max=frame_size_max,
            on_frame=on_frame or self._on_frame,
            on_close=lambda connection, error: (self.ends.append(error), on_close(connection)),
            stream=stream,
        )

    def _on_frame(self, connection: Connection, view: memoryview, start: int, end: int) -> None:
        self.frames.append(bytes(view[start:end]))
        if self._serve is not None:
            answer = self._serve(self, self.frames[-1])
            if answer is not None:
                connection.put(answer)

    def arrive(self, *pieces: bytes | BaseException) -> None:
        """These come in, each by a read of its own, and are read for as long as the connection wants to."""
        self.sock.arrive(*pieces)
        self.run()

    def step(self, work: Callable[[], Any]) -> None:
        """Do something in a turn of its own."""
        work()
        self.run()

    def answers(self) -> list[bytes]:
        """The frames that have been sent, without their sizes."""
        found, at = [], 0
        while at < len(self.sent):
            size = int.from_bytes(self.sent[at : at + 4], "big")
            found.append(self.sent[at + 4 : at + 4 + size])
            at += 4 + size
        return found

    def run(self) -> None:
        """Let the loop turn until nothing more happens."""
        for _ in range(100_000):
            read, write = self.net.watched.get(self.sock, (None, None))
            moved = False
            if read is not None and self.sock.arriving:
                read()
                moved = True
            _, write = self.net.watched.get(self.sock, (None, None))
            if write is not None and self.sock.room > 0:
                write()
                moved = True
            if self.turn.busy:
                self.turn.run()
                moved = True
            if not moved:
                return
        raise AssertionError("it never comes to rest")

    @property
    def sent(self) -> bytes:
        return bytes(self.sock.sent)


def frame(body: bytes) -> bytes:
    """A body with its size."""
    return len(body).to_bytes(4, "big") + body
