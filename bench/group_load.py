"""Loads of groups: members that settle, and commits by the clock. As `generator`: one thread, one epoll, frames built
before the clock starts where they can be."""

from __future__ import annotations

import select
import socket
import time

from bench import group_frames as gf
from bench.client import Address, ask, read_answer, wait_in_kernel
from bench.generator import SILENCE_S_MAX, Run, Stopwatch

UNKNOWN_MEMBER_ID, REBALANCE_IN_PROGRESS, MEMBER_ID_REQUIRED = 25, 27, 79


class Member:
    """One member on a connection of its own."""

    __slots__ = ("generation", "group", "joining", "member_id", "sock", "state", "topic")

    def __init__(self, address: Address, group: str, topic: str) -> None:
        self.sock = address.connect()
        wait_in_kernel(self.sock, SILENCE_S_MAX)
        self.group, self.topic = group, topic
        self.generation = -1
        self.state = ""
        self.sock.sendall(gf.join(group, "", topic))
        given = gf.joined(read_answer(self.sock))
        if given.error != MEMBER_ID_REQUIRED:
            raise RuntimeError(f"JoinGroup of a new member answered error {given.error}")
        self.member_id = given.member_id
        self.joining = gf.join(group, self.member_id, topic)

    def beat(self) -> None:
        self.state = "beats"
        self.sock.sendall(gf.heartbeat(self.group, self.generation, self.member_id))

    def join(self) -> None:
        self.state = "joins"
        self.sock.sendall(self.joining)

    def sync(self, assignments: dict[str, bytes]) -> None:
        self.state = "syncs"
        self.sock.sendall(gf.sync(self.group, self.generation, self.member_id, assignments))

    def leave(self) -> None:
        self.sock.sendall(gf.leave(self.group, self.member_id))
        if error := gf.error_of(read_answer(self.sock)):
            raise RuntimeError(f"LeaveGroup answered error {error}")
        self.sock.close()


def find_coordinator(address: Address, group: str) -> None:
    """Wait until it serves: it knows then that nobody is nobody's member."""
    deadline = time.monotonic() + SILENCE_S_MAX
    while gf.error_of(ask(address, gf.find_coordinator(group))) or (
        gf.error_of(ask(address, gf.heartbeat(group, 0, "nobody"))) != UNKNOWN_MEMBER_ID
    ):
        if time.monotonic() > deadline:
            raise TimeoutError("there is no coordinator")
        time.sleep(0.05)


def settle(members: list[Member], newcomers: list[Member]) -> float:
    """Seconds from the newcomers' join until each member has its assignment.

    The others hear of it by a heartbeat each, which they send at once: when theirs would be due is not the broker's
    matter.
    """
    everybody = members + newcomers
    assignments = {m.member_id: gf.assignment(m.topic, at) for at, m in enumerate(everybody)}
    by_fd = {member.sock.fileno(): member for member in everybody}
    left = len(everybody)
    with select.epoll() as epoll:
        for fd in by_fd:
            epoll.register(fd, select.EPOLLIN)
        began = time.perf_counter()
        for member in newcomers:
            member.join()
        for member in members:
            member.beat()
        while left:
            ready = epoll.poll(SILENCE_S_MAX)
            if not ready:
                raise TimeoutError(f"no answer for {SILENCE_S_MAX} s, {left} members are not settled")
            for fd, _ in ready:
                left -= _next(by_fd[fd], assignments)
        return time.perf_counter() - began


def _next(member: Member, assignments: dict[str, bytes]) -> bool:
    """Read an answer and do what comes next. True: this member is settled."""
    answer = read_answer(member.sock)
    if member.state == "joins":
        told = gf.joined(answer)
        if told.error:
            raise RuntimeError(f"JoinGroup answered error {told.error}")
        member.generation = told.generation
        member.sync(assignments if told.leader == member.member_id else {})
        return False
    error = gf.error_of(answer)
    if error == REBALANCE_IN_PROGRESS:
        member.join()
    elif error:
        raise RuntimeError(f"a member that {member.state} is answered error {error}")
    elif member.state == "beats":
        member.beat()  # it has not heard of it yet
    else:
        return True
    return False


def gathered(address: Address, group: str, topic: str, count: int) -> list[Member]:
    """A settled group of `count` members."""
    find_coordinator(address, group)
    members = [Member(address, group, topic) for _ in range(count)]
    settle([], members)
    return members


def alone(sock: socket.socket, group: str, topic: str) -> tuple[str, int]:
    """The id and generation of a group's only member, who joins and syncs on a connection that many share."""
    sock.sendall(gf.join(group, "", topic, version=3))
    told = gf.joined(read_answer(sock))
    sock.sendall(gf.sync(group, told.generation, told.member_id, {told.member_id: gf.assignment(topic, 0)}))
    if error := told.error or gf.error_of(read_answer(sock)):
        raise RuntimeError(f"joining {group} answered error {error}")
    return told.member_id, told.generation


def by_the_clock(
    socks: list[socket.socket], sent_frames: list[bytes], *, answer: bytes, per_second: int, seconds: float
) -> Run:
    """`per_second` requests, evenly, in turn over frames and connections; each answer must be `answer`."""
    count = int(per_second * seconds)
    size = sum(map(len, sent_frames)) // len(sent_frames)
    expected, got = dict.fromkeys(socks, 0), dict.fromkeys(socks, 0)
    by_fd = {sock.fileno(): sock for sock in socks}
    sent = answered = 0
    with select.epoll() as epoll:
        for fd in by_fd:
            epoll.register(fd, select.EPOLLIN)
        watch = Stopwatch()
        while answered < count:
            due = min(count, int((time.perf_counter() - watch.wall) * per_second) + 1)
            while sent < due:
                sock = socks[sent % len(socks)]
                sock.sendall(sent_frames[sent % len(sent_frames)])
                expected[sock] += 1
                sent += 1
            wait = watch.wall + sent / per_second - time.perf_counter() if sent < count else SILENCE_S_MAX
            ready = epoll.poll(max(0.0, wait))
            if not ready and sent == count:
                raise TimeoutError(f"{count - answered} requests were not answered")
            for fd, _ in ready:
                sock = by_fd[fd]
                if read_answer(sock) != answer:
                    raise RuntimeError("an unexpected answer")
                got[sock] += 1
                answered += 1
        return watch.run(answered, answered * size)
