"""Verbs that ask before they delete: on a terminal alone, and Ctrl-C is an answer too."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import termios
import time

import pytest

from tests.cli.conftest import LIMIT_S


@contextlib.contextmanager
def asked(process, *args):
    """A verb on a terminal that has asked: the process, and our end of the terminal."""
    ours, theirs = pty.openpty()
    try:
        # a session of its own, whose terminal this is: Ctrl-C is typed, not sent
        one = process(
            *args, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=lambda: own_terminal(theirs)
        )
        os.close(theirs)
        seen = b""
        while b"[y/N]: " not in seen:
            seen += read_some(ours)
        yield one, ours
    finally:
        os.close(ours)


def own_terminal(fd):
    os.setsid()
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


def read_some(fd):
    """What is printed next, within the limit."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(LIMIT_S * 1000), "nothing was printed"
    return os.read(fd, 65_536)


def topic_to_delete(broker, topic):
    return ["topic", "delete", topic], lambda: topic in broker.topics()


def group_to_delete(cli, topic):
    cli("group", "reset-offsets", "asked", "--topic", topic, "--to", "0", "--execute")
    return ["group", "delete", "asked"], lambda: "asked" in cli("group", "list").out


@pytest.fixture(params=["topic", "group"])
def deleting(request, broker, cli, topic):
    """A verb that deletes, and whether what it deletes is there."""
    return topic_to_delete(broker, topic) if request.param == "topic" else group_to_delete(cli, topic)


def test_ctrl_c_at_the_question_ends_it_at_once(process, deleting):
    verb, is_there = deleting
    with asked(process, *verb) as (one, terminal):
        os.write(terminal, b"\x03")

        assert 130 == ended(one, terminal)
    assert is_there()


@pytest.mark.parametrize(
    ("typed", "code", "stays"), [(b"y\n", 0, False), (b"\n", 1, True), (b"no\n", 1, True)]
)
def test_nothing_but_a_yes_deletes(process, deleting, typed, code, stays):
    verb, is_there = deleting
    with asked(process, *verb) as (one, terminal):
        os.write(terminal, typed)

        assert code == ended(one, terminal)
    assert stays == is_there()


def ended(one, terminal):
    """The exit code; what is printed meanwhile is read, so that printing it waits for nobody."""
    deadline = time.monotonic() + LIMIT_S
    while one.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # Linux says so that nobody holds the other end
            read_some(terminal)
    return one.wait(LIMIT_S)


def test_yes_is_an_option_too(cli, topic, broker):
    assert f"deleted {topic}\n" == cli("topic", "delete", topic, "--yes").out
