"""One connection: frames in, answers out, in order. Knows framing, file regions and back-pressure; not what frames mean.

Views of a frame are valid only inside `on_frame`, or until it is given back by who has called `keep`. Answers stand in a
queue in request order: bytes, parts, a `Region` of a file, or a `Slot` that somebody fills later; what can be sent is sent
once at the end of a turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from mmap import mmap
from struct import Struct
from typing import Any

from kbroker.errors import ProtocolError
from kbroker.net.buffers import SHARED_SIZE, Buffers
from kbroker.net.slots import Answer, Slot
from kbroker.net.streams import Plain, closed
from kbroker.protocol.frames import FRAME_SIZE_MIN, SIZE_BYTES
from kbroker.seams import Buffer, Net, Threads
from kbroker.storage.log import Region
from kbroker.turn import Turn

# Bytes of answers in memory on one connection, above which it is not read from until they are sent. A slow reader
# holds this much and no more (file regions count nothing: they are read when they can be sent).
UNSENT_BYTES_MAX = 4 << 20
# Requests on one connection that are not answered yet. Stock producers keep 5 in flight; load generators hundreds.
UNANSWERED_MAX = 256
# What the requests of one read may answer before other connections have their turn: small requests with large answers
# (all configs, all topics) take a millisecond each, and a connection may send 256 of them at once.
TURN_ANSWER_BYTES_MAX = 1 << 16
# Gathered for one send; the system takes 1,024 pieces.
GATHER_BYTES_MAX = 1 << 16
GATHER_PIECES_MAX = 64
# From this size on a piece of a region goes out from a memory map, without a copy of ours.
REGION_MAP_MIN = 32 << 10
# Read ahead of a frame that continues a large one: most of the next large frame should go to its own buffer.
AFTER_LARGE_READ = 16 << 10

# A frame takes nothing from the budget for its first SHARED_SIZE bytes, so that small requests never wait for large ones;
# behind them it takes as much as this at a time.
BUDGET_STEP = 1 << 20
# A frame that comes in pieces must come at this rate, or its connection ends: what is there of it fills memory. Counted
# in looks, FRAME_LOOK_SECONDS apart, while we read from the peer.
FRAME_BYTES_PER_SECOND_MIN = 64 << 10
FRAME_SECONDS_MAX = 60
FRAME_LOOK_SECONDS = 15

WHOLE_FRAME_MIN = SIZE_BYTES + FRAME_SIZE_MIN

_size_at = Struct(">i").unpack_from  # twice as fast as int.from_bytes of a slice

AGAIN = (BlockingIOError, InterruptedError)


class Connection:
    """A framed connection on a watched socket.

    on_frame(connection, buffer, start, end) gets each frame's body (after the 4-byte size) in order; it may `put` an
    answer. A ProtocolError from it closes the connection. on_close(connection, error | None) comes once.
    """

    __slots__ = (
        "_blocked",
        "_body",
        "_buffers",
        "_charged",
        "_frame_looks",
        "_got",
        "_granted",
        "_handled",
        "_held",
        "_large",
        "_need",
        "_net",
        "_on_close",
        "_on_frame",
        "_out",
        "_paused",
        "_reading",
        "_recv_into",
        "_send_one",
        "_short",
        "_size_max",
        "_sock",
        "_stream",
        "_threads",
        "_tls",
        "_turn",
        "_unsent",
        "_view",
        "active",
        "context",
        "marked",
        "open",
        "peer",
        "silent_looks",
        "stamp",
    )

    def __init__(
        self,
        sock: Any,
        peer: str,
        *,
        net: Net,
        turn: Turn,
        threads: Threads,
        buffers: Buffers,
        frame_size_max: int,
        on_frame: Callable[[Connection, memoryview, int, int], None],
        on_close: Callable[[Connection, BaseException | None], None],
        stream: Any = None,
    ) -> None:
        self._sock = sock
        self.peer = peer
        self._net = net
        self._turn = turn
        self._threads = threads
        self._buffers = buffers
        self._size_max = frame_size_max
        self._on_frame = on_frame
        self._on_close = on_close
        self._stream = Plain(sock) if stream is None else stream
        self._tls = stream is not None
        self._recv_into: Callable[[memoryview], int] = self._stream.recv_into
        self._send_one: Callable[[bytes], int] = self._stream.send_one
        self.context: Any = None  # whoever serves the frames keeps what it knows of the peer here
        # sees each response before it is encoded, while there is something to say in all of them; None: nothing
        self.stamp: Callable[[Any], None] | None = None
        self.open = True
        self.active = True  # something arrived or left since the last look of whoever closes idle connections
        self.silent_looks = 0  # looks in a row that found nothing had arrived or left
        self.marked = False  # will be flushed at the end of this turn
        # a frame that did not fit the shared buffer, or only in part: its own buffer, a view of it, bytes got and needed
        self._body: bytearray | mmap | None = None
        self._view: memoryview | None = None
        self._got = self._need = 0
        self._granted = 0  # bytes of it that may be there: free ones, and those taken from the budget
        self._charged = 0  # bytes of the budget that this frame has taken
        self._short = False  # the budget has no more for this frame at the moment
        self._frame_looks = 0  # looks that found this frame not whole
        self._handled: bytearray | mmap | None = None  # the own buffer of the frame that is being handled
        self._large = False  # the last frame had its own buffer
        # bytes of whole frames that were not handled yet, and what came behind them
        self._held: bytes | None = None
        self._out: deque[Any] = deque()
        self._unsent = 0  # bytes in _out, without regions and what slots behind the first have uncounted
        self._reading = False  # a thread reads what comes next from the disk
        self._blocked = False  # the socket takes no more: sending goes on when it says so
        self._paused = 0  # so many asked to stop reading, and have not asked to go on
        self._watch()

    # -- in

    def _watch(self) -> None:
        full = self._full
        write = self._writable if self._blocked or self._stream.wants_write() else None
        self._net.watch(self._sock, None if full else self._readable, write)

    def pause(self) -> None:
        """Stop reading from the peer until everybody who asked for that has called `resume`."""
        self._paused += 1
        if self.open:
            self._watch()

    def resume(self) -> None:
        """Read again, unless somebody else has asked for a pause."""
        self._paused -= 1
        if self.open and not self._paused:
            self._read_on()

    @property
    def _full(self) -> bool:
        return (
            self._paused > 0
            or self._short
            or self._unsent > UNSENT_BYTES_MAX
            or len(self._out) >= UNANSWERED_MAX
        )

    def go_on(self, size: int) -> None:
        """The budget has given `size` bytes for the frame that waited for them."""
        self._short = False
        self._charged += size
        self._granted += size
        self._read_on()

    def _read_on(self) -> None:
        """What is here already is read at this turn's end: whoever lets us go on may be in the middle of another
        connection's frames, and the buffer that they lie in is the one that we would use."""
        self._watch()
        if self._held is not None or self._stream.pending():
            self._turn.send(_ReadOn(self))

    def _readable(self) -> None:
        self.active = True
        try:
            if self._body is not None:
                self._read_body()
            elif self._held is not None:
                held, self._held = self._held, None
                self._handle_bytes(bytearray(held))
            elif self._large:
                self._read_shared()
            else:  # the straight path: one whole frame, as nearly always
                buffers = self._buffers
                view = buffers.view
                got = self._recv_into(view)
                if got >= WHOLE_FRAME_MIN and _size_at(view)[0] + SIZE_BYTES == got <= self._size_max:
                    self._on_frame(self, view, 4, got)
                else:
                    self._took(got)
            if self._tls:
                self._read_pending()
        except AGAIN:
            if self._tls and self._stream.wants_write():
                self._watch()
        except Exception as error:  # noqa: BLE001 - a door: the loop calls this, and one connection must not end it
            return self.close(error)
        if len(self._out) >= UNANSWERED_MAX and self.open:
            self._watch()

    def _read_pending(self) -> None:
        """Under TLS bytes may be there of which the socket says nothing."""
        while self.open and not self._full and self._stream.pending():
            if self._body is None:
                self._read_shared()
            else:
                self._read_body()
        if self.open and self._stream.wants_write():
            self._watch()

    def _read_shared(self) -> None:
        """Read what is there into the loop's buffer and handle every whole frame in place."""
        view = self._buffers.view
        got = self._recv_into(view[:AFTER_LARGE_READ] if self._large else view)
        self._large = False
        self._took(got)

    def _took(self, got: int) -> None:
        """So many bytes came into the shared buffer."""
        if not got:
            return self.close(None)
        view = self._buffers.view
        at = self._handle_frames(view, self._buffers.shared, got)
        if at < got and self.open:
            self._keep(view[at:got])

    def _handle_bytes(self, data: bytearray) -> None:
        view = memoryview(data)
        at = self._handle_frames(view, data, len(data))
        if at < len(data) and self.open:
            self._keep(view[at:])

    def _handle_frames(self, view: memoryview, data: bytearray, got: int) -> int:
        """Hand over the whole frames in view[:got]; the position of what is left."""
        turn = self._turn
        turn.lend()
        try:
            return self._each_frame(view, data, got)
        finally:
            turn.take_back()

    def _each_frame(self, view: memoryview, data: bytearray, got: int) -> int:
        at = 0
        on_frame = self._on_frame
        enough = self._unsent + TURN_ANSWER_BYTES_MAX
        while got - at >= 4:
            end = at + 4 + _size_at(data, at)[0]
            if end > got:
                break
            if end - at < FRAME_SIZE_MIN + 4 or end - at - 4 > self._size_max:
                self._check_size(end - at - 4)
            if self._paused or self._unsent > UNSENT_BYTES_MAX or len(self._out) >= UNANSWERED_MAX:
                break
            if self._unsent > enough:  # small requests with large answers: others first
                self._turn.send(_ReadOn(self))
                break
            on_frame(self, view, at + 4, end)
            if not self.open:
                return got
            at = end
        return at

    def _check_size(self, size: int) -> None:
        if not FRAME_SIZE_MIN <= size <= self._size_max:
            what = self._what_it_speaks(size)
            raise ProtocolError(
                what
                or f"a frame of {size} bytes: allowed are {FRAME_SIZE_MIN} to {self._size_max} "
                "(socket.request.max.bytes)"
            )

    @staticmethod
    def _what_it_speaks(size: int) -> str | None:
        """The first four bytes, taken for a size, betray peers that do not speak Kafka here."""
        head = (size & 0xFFFFFFFF).to_bytes(4, "big")
        if head[0] in (0x15, 0x16) and head[1] == 3:  # an alert, or a handshake
            return "TLS on a plaintext port: use the SSL listener, or security.protocol=PLAINTEXT"
        if head in (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI"):
            return "an HTTP request: this port speaks the Kafka protocol"
        return None

    def _keep(self, rest: memoryview) -> None:
        """Bytes of a frame that is not whole: into a buffer of its own, whose memory comes with the bytes."""
        if self._paused:
            self._held = bytes(rest)
            return
        if len(rest) < 4:
            self._body, self._view = (body := bytearray(4)), memoryview(body)
            self._need = self._granted = 4
        else:
            size = int.from_bytes(rest[:4], "big", signed=True)
            self._check_size(size)
            need = size + 4
            if need <= len(rest):  # whole, but it has to wait: paused, or too much is unanswered or unsent
                self._held = bytes(rest)
                return
            self._body = self._buffers.take(need)
            self._view = memoryview(self._body)[:need]
            self._need = need
            self._granted = min(need, max(SHARED_SIZE, len(rest)))  # what is there is there
        self._frame_looks = 0
        self._got = len(rest)
        self._view[: self._got] = rest

    def _read_body(self) -> None:
        """Read on into the frame's own buffer until it is whole or nothing more is there."""
        view, need = self._view, self._need
        assert view is not None
        while self._got < need:
            if self._got == self._granted and not self._take_step():
                return None
            got = self._recv_into(view[self._got : self._granted])
            if not got:
                return self.close(None)
            self._got += got
        body = self._body
        assert body is not None
        self._body = self._view = None
        if need == 4:
            return self._keep(memoryview(body))
        self._large = need > SHARED_SIZE  # smaller ones come several to a read of the shared buffer
        self._handled = body
        try:
            self._on_frame(self, view, 4, need)
        finally:
            del view
            if self._handled is not None:  # nobody keeps it
                self._handled = None
                charged, self._charged = self._charged, 0
                self._buffers.give(body)
                if charged:
                    self._buffers.budget.give(self, charged)

    def keep(self, times: int = 1) -> Kept | None:
        """The frame that is being handled stays as it is, and what it has taken of the budget stays taken, until the
        `give_back` of what is returned. None: it lies in the buffer that all use, with READ_SIZE bytes at most.
        `times`: it counts so many times, for what is made of it.

        For who has paused the connection: until then no other frame of it begins to come.
        """
        body, self._handled = self._handled, None
        if body is None:
            return None
        charged, self._charged = self._charged, 0
        if charged and times > 1:
            more = charged * (times - 1)
            self._buffers.budget.charge(more)
            charged += more
        return Kept(self, self._buffers, body, charged)

    def _take_step(self) -> bool:
        """Budget for the frame's next bytes; False: `go_on` comes when it has some."""
        step = min(BUDGET_STEP, self._need - self._granted)
        if not self._short and self._buffers.budget.take(self, step):
            self._charged += step
            self._granted += step
            return True
        self._short = True
        self._watch()
        return False

    def is_too_slow(self) -> bool:
        """Asked every FRAME_LOOK_SECONDS: the frame in progress comes slower than it must."""
        if self._body is None or self._paused or self._short:
            return False
        # it is not read from because of us; who does not take its answers has no such excuse
        if len(self._out) >= UNANSWERED_MAX and not self._blocked:
            return False
        seconds = self._frame_looks * FRAME_LOOK_SECONDS
        self._frame_looks += 1
        return seconds >= FRAME_SECONDS_MAX and self._got < seconds * FRAME_BYTES_PER_SECOND_MIN

    # -- out

    def put(self, answer: Answer | Slot) -> None:
        """Queue an answer in request order: bytes, parts or a Slot. Sent at the end of this turn."""
        self._out.append(answer)
        if type(answer) is bytes:
            self._unsent += len(answer)
        elif type(answer) is Slot:
            if answer.answer is None:
                return
        else:
            self.count(answer)
        if not self.marked:
            self.mark()

    def count(self, parts: Any) -> None:
        """An answer in parts is held for the peer until it takes it."""
        for part in parts:
            if type(part) is not Region:
                self._unsent += len(part)

    def replace(self, slot: Slot, other: Slot) -> None:
        """`other` is what `slot` stood for."""
        if self.open:
            self._out[self._out.index(slot)] = other
            self.mark()

    def mark(self) -> None:
        """Look at the queue of answers at the end of this turn."""
        if self.open and not self._blocked:
            self.marked = True
            self._turn.send(self)
        elif self._unsent > UNSENT_BYTES_MAX and self.open:
            self._watch()  # the peer takes nothing: it is not read from until it does

    def _writable(self) -> None:
        if self._stream.wants_write():
            self._readable()
            if self.open and not self._stream.wants_write():
                self._watch()
            return
        self._blocked = False
        self.marked = True
        try:
            self._flush(True)
        except Exception as error:  # noqa: BLE001 - a door: the loop calls this, and one connection must not end it
            self.close(error)

    def flush(self) -> None:
        """Send what is ready (the Turn calls this)."""
        out = self._out
        if len(out) == 1 and not self._blocked:  # the straight path: one answer is due, and it is there
            first = out[0]
            if type(first) is Slot:
                first = first.answer
            # above UNSENT_BYTES_MAX the peer may not be read from at the moment: `_flush` sees to that
            if type(first) is bytes and self._unsent <= UNSENT_BYTES_MAX:
                try:
                    sent = self._send_one(first)
                except AGAIN:
                    sent = 0
                except OSError as error:
                    return self.close(error)
                self.active = True
                if sent == len(first):
                    self.marked = False
                    self._unsent = 0
                    out.clear()
                    return None
                out[0] = memoryview(first)[sent:]
                self._unsent = len(out[0])
                self._blocked = True
        if self.open:
            self._flush(False)
        return None

    def failed(self, error: BaseException) -> None:
        """Something of ours broke while sending: this connection ends, the turn goes on."""
        self.close(error)

    def _flush(self, was_blocked: bool) -> None:
        out = self._out
        self.marked = False
        was_full = len(out) >= UNANSWERED_MAX or self._unsent > UNSENT_BYTES_MAX
        try:
            while out:
                first = out[0]
                kind = type(first)
                if kind is Slot:
                    first = first.answer
                    if first is None:
                        break
                    kind = type(first)
                    out[0] = first
                    if kind is bytes:
                        self._unsent += len(first)
                if kind is bytes and len(out) == 1:
                    sent = self._send_one(first)
                    self._unsent -= sent
                    self.active = True
                    if sent == len(first):
                        out.clear()
                        break
                    out[0] = memoryview(first)[sent:]
                    self._blocked = True
                    break
                if kind is list:
                    self._unpack_first(first)
                elif not self._send_some():
                    break
        except AGAIN:
            self._blocked = True
        except OSError as error:
            return self.close(error)
        if self._blocked or was_blocked or was_full:
            self._watch()
            if was_full and not self._full and (self._held is not None or self._stream.pending()):
                self._readable()

    def _unpack_first(self, answer: list[Any]) -> None:
        """An answer in parts comes to the front: its parts take its place."""
        out = self._out
        out.popleft()
        out.extendleft([piece for piece in answer[::-1] if len(piece)])

    def _send_some(self) -> bool:
        """One send of what stands in front; False when it must go on later."""
        pieces, cold = self._gather()
        if not pieces:
            return False
        sent = self._stream.send(pieces)
        self.active = True
        return self._sent(pieces, sent) and not cold

    def _gather(self) -> tuple[list[Buffer], bool]:
        """What one send takes: answers that are there, and one region with what stands around it.

        True: a region follows that a thread reads from the disk first; it marks us when it has.
        """
        out = self._out
        pieces: list[Buffer] = []
        size = 0
        region: Region | None = None
        for index in range(min(len(out), GATHER_PIECES_MAX)):
            item = out[index]
            kind = type(item)
            if kind is Slot and type(item.answer) is bytes:
                out[index] = item = item.answer
                self._unsent += len(item)
                kind = bytes
            if kind is bytes or kind is memoryview:
                pieces.append(item)
                size += len(item)
                if size > GATHER_BYTES_MAX:
                    break
            elif kind is Region and region is None:
                region = item
                data = self._region_piece(region)
                if data is None:
                    # TLS may have to repeat a send with the same bytes behind its first, so there the header does not
                    # leave alone
                    return ([], True) if self._tls else (pieces, True)
                pieces.append(data)
                if len(data) < region.size:
                    break
            else:
                break
        return pieces, False

    def _sent(self, pieces: list[Buffer], sent: int) -> bool:
        """So many bytes of them have left. False: the socket takes no more at the moment."""
        out = self._out
        for piece in pieces:
            length = len(piece)
            gone = length if length <= sent else sent
            sent -= gone
            first = out[0]
            if type(first) is Region:
                first.at += gone
                first.size -= gone
                if not first.size:
                    out.popleft()
            else:
                self._unsent -= gone
                if gone == length:
                    out.popleft()
                else:
                    out[0] = memoryview(first)[gone:]
            if gone < length:
                self._blocked = True
                return False
        return True

    def _region_piece(self, region: Region) -> Buffer | None:
        """The next bytes of a region; None when they must be read from the disk first (a thread does)."""
        if region.stale:
            # the log was truncated since the answer's header was made: these bytes may be of another history
            raise OSError("the answer's file was truncated before it was sent")
        size = min(region.size, self._stream.piece_max)
        send = self._buffers.send
        try:
            if size >= REGION_MAP_MIN and not self._stream.copies:
                # both ends in the page cache: so is, in all likelihood, what lies between
                region.file.read_into(send[:1], region.at, wait=False)
                region.file.read_into(send[:1], region.at + size - 1, wait=False)
                mapped = region.file.map(region.at + size)
                if mapped is not None:
                    return mapped[region.at : region.at + size]
            got = region.file.read_into(send[:size], region.at, wait=False)
        except BlockingIOError:
            self._read_later(region, size)
            return None
        if not got:
            raise OSError(f"{region.file.path} ends before byte {region.at + size}")
        return send[:got]

    def _read_later(self, region: Region, size: int) -> None:
        """Cold pages: a thread reads them into the page cache, then the connection sends on."""
        if self._reading:  # an answer behind this one is there: it does not make the disk faster
            return
        self._reading = True
        file, at = region.file, region.at

        def read() -> None:
            scratch = memoryview(bytearray(size))
            file.read_into(scratch, at, wait=True)

        def done(_: None, error: BaseException | None) -> None:
            self._reading = False
            if error is not None:
                self.close(error)
            elif not self.marked:
                self.mark()

        self._threads.run(read, done)

    # -- end

    def waits_for_us(self) -> bool:
        """The peer waits for an answer that is not there yet; it is not idle, we are."""
        return bool(self._out) and not self._blocked

    def close(self, error: BaseException | None = None) -> None:
        """End the connection at once; what is unsent is dropped. Idempotent."""
        if not self.open:
            return
        self.open = False
        self._net.forget(self._sock)
        self._stream.close()
        self._recv_into = self._send_one = closed
        self._out.clear()
        self._view = self._held = None
        if self._body is not None:
            self._body = None
        charged, self._charged = self._charged, 0
        if charged or self._short:
            self._buffers.budget.give(self, charged)
        self._on_close(self, error)


class Kept:
    """A frame's buffer, and what it has taken of the budget, beyond its handling; its connection may end before."""

    __slots__ = ("_body", "_buffers", "_charged", "_connection")

    def __init__(
        self, connection: Connection, buffers: Buffers, body: bytearray | mmap, charged: int
    ) -> None:
        self._connection = connection
        self._buffers = buffers
        self._body: bytearray | mmap | None = body
        self._charged = charged

    def give_back(self) -> None:
        """Nobody looks at the frame any more. Idempotent."""
        body, self._body = self._body, None
        if body is not None:
            self._buffers.give(body)
            if self._charged:
                self._buffers.budget.give(self._connection, self._charged)


class _ReadOn:
    """Reads what is held here or in a TLS stream, where no socket will announce it."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def flush(self) -> None:
        """At the turn's end no frame is being handled."""
        connection = self._connection
        if connection.open and not connection._full:
            connection._readable()

    def failed(self, error: BaseException) -> None:
        """Reading broke."""
        self._connection.close(error)
