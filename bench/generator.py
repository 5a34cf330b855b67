"""The loads. They send frames built before the clock starts and read no more of the answers than they must.

One thread, one epoll: the machine has few cores and the broker needs one of them. Every load ends by itself, says
how many requests were answered, and how busy it was: near 100 % it measured itself and not the broker.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass

from bench import frames
from bench.client import Address, read_answer, read_exactly, wait_in_kernel

AGAIN = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

# Nothing here takes longer than this; a broker that is silent for so long has lost a request.
SILENCE_S_MAX = 30
INBOX = (1 << 20) + (64 << 10)


@dataclass(frozen=True, slots=True)
class Run:
    """What a load did."""

    requests: int
    bytes: int
    seconds: float
    client_cpu_s: float

    @property
    def client_busy(self) -> float:
        """Share of one core that the load took itself."""
        return self.client_cpu_s / self.seconds


class Stopwatch:
    """Wall clock and own CPU since it was made."""

    __slots__ = ("cpu", "wall")

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def run(self, requests: int, size: int) -> Run:
        return Run(requests, size, time.perf_counter() - self.wall, time.process_time() - self.cpu)


class Pipe:
    """A connection that keeps `depth` copies of one frame in flight."""

    __slots__ = ("at", "blocked", "frame_size", "in_flight", "owed", "partial", "sock", "stream")

    def __init__(self, sock: socket.socket, frame: bytes, depth: int) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.frame_size = len(frame)
        self.stream = memoryview(frame * (depth + 1))  # whatever is owed is one slice of it
        self.at = 0  # where in a frame the next byte to send stands
        self.owed = depth * self.frame_size  # bytes to send now
        self.in_flight = depth
        self.partial = 0  # bytes of an answer that is not whole yet
        self.blocked = False

    def push(self) -> None:
        """Send what is owed, as far as the socket takes it."""
        try:
            while self.owed:
                sent = self.sock.send(self.stream[self.at : self.at + self.owed])
                self.owed -= sent
                self.at = (self.at + sent) % self.frame_size
            self.blocked = False
        except AGAIN:
            self.blocked = True


def pipelined(
    address: Address,
    sent_frames: list[bytes],
    *,
    answer_size: int,
    depth: int,
    seconds: float,
    requests_max: int,
) -> Run:
    """One connection per frame, each with `depth` requests in flight, until time or number is up."""
    pipes = {}
    for frame in sent_frames:
        sock = address.connect()
        pipes[sock.fileno()] = Pipe(sock, frame, depth)
    try:
        return _pipelined(pipes, address.tls is not None, answer_size, seconds, requests_max)
    finally:
        for pipe in pipes.values():
            pipe.sock.close()


def _pipelined(pipes: dict[int, Pipe], tls: bool, answer_size: int, seconds: float, requests_max: int) -> Run:
    inbox = bytearray(64 << 10)
    read, write = select.EPOLLIN, select.EPOLLIN | select.EPOLLOUT
    answered = 0
    asked = sum(pipe.in_flight for pipe in pipes.values())
    with select.epoll() as epoll:
        watch = Stopwatch()
        until = watch.wall + seconds
        for fd, pipe in pipes.items():
            pipe.push()
            epoll.register(fd, write if pipe.blocked else read)
        while answered < asked:
            ready = epoll.poll(SILENCE_S_MAX)
            if not ready:
                raise TimeoutError(f"no answer for {SILENCE_S_MAX} s, {asked - answered} requests open")
            more = asked < requests_max and time.perf_counter() < until
            for fd, events in ready:
                pipe = pipes[fd]
                was_blocked = pipe.blocked
                if events != select.EPOLLOUT:
                    done = _take_answers(pipe, inbox, tls, answer_size)
                    answered += done
                    if more:
                        pipe.owed += done * pipe.frame_size
                        asked += done
                if pipe.owed:
                    pipe.push()
                if pipe.blocked != was_blocked:
                    epoll.modify(fd, write if pipe.blocked else read)
        size = sum(pipe.frame_size for pipe in pipes.values()) // len(pipes)
        return watch.run(answered, answered * size)


def _take_answers(pipe: Pipe, inbox: bytearray, tls: bool, answer_size: int) -> int:
    got = pipe.partial
    try:
        while True:
            size = pipe.sock.recv_into(inbox)
            if not size:
                raise ConnectionError("the broker closed the connection")
            got += size
            if not tls:  # with TLS more may wait inside, where epoll does not see it
                break
    except AGAIN:
        pass
    done, pipe.partial = divmod(got, answer_size)
    return done


def round_trips(address: Address, sent_frames: list[bytes], *, answer_size: int, seconds: float) -> Run:
    """One connection per frame, one request in flight on each."""
    socks = [address.connect() for _ in sent_frames]
    try:
        if len(socks) == 1:
            return _one_by_one(socks[0], sent_frames[0], answer_size, seconds)
        return _side_by_side(dict(zip(socks, sent_frames, strict=True)), answer_size, seconds)
    finally:
        for sock in socks:
            sock.close()


def _one_by_one(sock: socket.socket, frame: bytes, answer_size: int, seconds: float) -> Run:
    send, receive, clock = sock.send, sock.recv, time.perf_counter
    wait_in_kernel(sock, SILENCE_S_MAX)
    answered = 0
    watch = Stopwatch()
    until = watch.wall + seconds
    while clock() < until:
        send(frame)
        answer = receive(4096)
        if len(answer) != answer_size:
            _finish(sock, answer, answer_size)
        answered += 1
    return watch.run(answered, answered * len(frame))


def _side_by_side(socks: dict[socket.socket, bytes], answer_size: int, seconds: float) -> Run:
    calls = {sock.fileno(): (sock, sock.send, sock.recv, frame) for sock, frame in socks.items()}
    clock = time.perf_counter
    answered = asked = 0
    with select.epoll() as epoll:
        for fd, (sock, _, _, _) in calls.items():
            wait_in_kernel(sock, SILENCE_S_MAX)
            epoll.register(fd, select.EPOLLIN)
        watch = Stopwatch()
        until = watch.wall + seconds
        for _, send, _, frame in calls.values():
            send(frame)
            asked += 1
        while answered < asked:
            ready = epoll.poll(SILENCE_S_MAX)
            if not ready:
                raise TimeoutError(f"no answer for {SILENCE_S_MAX} s, {asked - answered} requests open")
            more = clock() < until
            for fd, _ in ready:
                sock, send, receive, frame = calls[fd]
                answer = receive(4096)
                if len(answer) != answer_size:
                    _finish(sock, answer, answer_size)
                answered += 1
                if more:
                    send(frame)
                    asked += 1
        return watch.run(answered, answered * len(frame))


def _finish(sock: socket.socket, answer: bytes, answer_size: int) -> None:
    """The rest of an answer that came in pieces."""
    if not 0 < len(answer) < answer_size:
        raise ConnectionError(f"an answer of {len(answer)} bytes where {answer_size} were expected")
    read_exactly(sock, answer_size - len(answer))


class Reader:
    """A connection that fetches one thing after the other, round and round."""

    __slots__ = ("asked", "left", "next", "sock")

    def __init__(self, sock: socket.socket, asked: list[bytes]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.asked = asked
        self.next = 0
        self.left = 0  # bytes still to come of the answer that has begun

    def ask(self) -> None:
        self.sock.send(self.asked[self.next])
        self.next = (self.next + 1) % len(self.asked)


def fetches(address: Address, asked: list[list[bytes]], *, seconds: float) -> Run:
    """One connection per list of fetch frames, one request in flight on each; whatever comes back is read into memory."""
    readers = {}
    for frames_of_one in asked:
        sock = address.connect()
        readers[sock.fileno()] = Reader(sock, frames_of_one)
    try:
        return _fetches(readers, address.tls is not None, seconds)
    finally:
        for reader in readers.values():
            reader.sock.close()


def _fetches(readers: dict[int, Reader], tls: bool, seconds: float) -> Run:
    inbox = memoryview(bytearray(INBOX))
    answered = total = 0
    with select.epoll() as epoll:
        for fd in readers:
            epoll.register(fd, select.EPOLLIN)
        watch = Stopwatch()
        until = watch.wall + seconds
        for reader in readers.values():
            reader.ask()
        open_requests = len(readers)
        while open_requests:
            ready = epoll.poll(SILENCE_S_MAX)
            if not ready:
                raise TimeoutError(f"no answer for {SILENCE_S_MAX} s, {open_requests} requests open")
            more = time.perf_counter() < until
            for fd, _ in ready:
                reader = readers[fd]
                size, whole = _take_fetched(reader, inbox, tls)
                total += size
                if whole:
                    answered += 1
                    if more:
                        reader.ask()
                    else:
                        open_requests -= 1
        return watch.run(answered, total)


def _take_fetched(reader: Reader, inbox: memoryview, tls: bool) -> tuple[int, bool]:
    """(bytes read, is the answer whole)."""
    total = 0
    try:
        while True:
            size = reader.sock.recv_into(inbox)
            if not size:
                raise ConnectionError("the broker closed the connection")
            if not reader.left:
                while size < 4:
                    try:
                        size += reader.sock.recv_into(inbox[size:])
                    except AGAIN:
                        continue
                reader.left = int.from_bytes(inbox[:4], "big") + 4
            total += size
            reader.left -= size
            if not reader.left:
                return total, True
            if not tls:
                return total, False
    except AGAIN:
        return total, False


def end_to_end(address: Address, topic: str, *, per_second: int, seconds: float) -> list[float]:
    """Seconds from the moment a record is sent until a long-polling reader has it, one per record.

    Records are sent by the clock, one per request (acks=all), whether or not earlier ones came back: a broker that
    pauses pays for every record that was sent meanwhile. What this process is woken too late by is not counted: it
    waits for nobody when it sends.
    """
    record = frames.batch(1, 100)
    frame = frames.produce(topic, 0, record.data)
    fetch = bytearray(frames.fetch(topic, 0, 0, max_bytes=1 << 20))
    count = int(per_second * seconds)
    with address.connect() as producer, address.connect() as consumer:
        on_the_way: deque[float] = deque()
        delays: list[float] = []
        unread = bytearray()
        consumer.sendall(fetch)
        begin = time.perf_counter() + 0.05
        sent = 0
        while len(delays) < count:
            now = time.perf_counter()
            when = begin + sent / per_second
            if sent < count and now >= when:
                on_the_way.append(now)
                producer.sendall(frame)
                sent += 1
                continue
            wait = max(0.0, when - now) if sent < count else SILENCE_S_MAX
            ready, _, _ = select.select([producer, consumer], [], [], wait)
            if not ready and sent == count:
                raise TimeoutError(f"{count - len(delays)} records never came back")
            if producer in ready and not producer.recv(65536):
                raise ConnectionError("the broker closed the producer's connection")
            if consumer not in ready:
                continue
            part = consumer.recv(1 << 20)
            if not part:
                raise ConnectionError("the broker closed the consumer's connection")
            unread += part
            if len(unread) < 4 or len(unread) < 4 + int.from_bytes(unread[:4], "big"):
                continue
            came = time.perf_counter()
            got = frames.fetched(topic, unread)
            if got.error:
                raise RuntimeError(f"Fetch answered error {got.error}")
            unread.clear()
            delays.extend(came - on_the_way.popleft() for _ in range(got.records_size // len(record.data)))
            frames.set_fetch_offset(fetch, len(delays))
            consumer.sendall(fetch)
        return delays


def idle_connections(address: Address, count: int) -> list[socket.socket]:
    """`count` connections that have asked for the broker's versions and now say nothing. The caller closes them."""
    hello = frames.api_versions()
    socks: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = address.connect()
            socks.append(sock)
            sock.sendall(hello)
            read_answer(sock)
    except BaseException:
        for sock in socks:
            sock.close()
        raise
    return socks
