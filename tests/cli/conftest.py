"""Verbs in this process against an embedded broker: `cli("topic", "list")`."""

from __future__ import annotations

import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import threading

import pytest
from click.testing import CliRunner

from kbroker.cli import main
from kbroker.cli import produce as produce_module
from kbroker.cli.client import connection
from kbroker.cli.diagnosis import probe
from kbroker.testing import Broker

LIMIT_S = 60

_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def broker():
    with Broker(num_partitions=1) as running:
        yield running


@pytest.fixture
def topic(broker):
    """A topic of three partitions."""
    return broker.create_topic(f"cli-{next(_numbers)}", partitions=3)


class Done:
    """How a verb ended."""

    def __init__(self, result):
        self.code = result.exit_code
        self.out = result.stdout_bytes.decode()
        self.err = result.stderr
        self.exception = result.exception

    @property
    def rows(self):
        """Tab-separated lines."""
        return [line.split("\t") for line in self.out.splitlines()]

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self):
        """JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def cli(broker, monkeypatch):
    """Run a verb; it must end well unless `code` says otherwise."""
    monkeypatch.setenv("KBROKER_BOOTSTRAP", broker.bootstrap_servers)
    # nobody sits here who would rather be told than wait; a test of the telling sets its own
    monkeypatch.setattr(connection, "CONNECT_SECONDS_MAX", LIMIT_S)
    monkeypatch.setattr(probe, "STEP_SECONDS_MAX", LIMIT_S)

    def run(*args, stdin=b"", code=0):
        with tempfile.TemporaryFile() as file:
            file.write(stdin)
            file.seek(0)
            monkeypatch.setattr(produce_module, "stdin_fd", file.fileno)
            done = Done(CliRunner().invoke(main, [str(arg) for arg in args]))
        assert code == done.code, f"{done.err}{done.out}{done.exception!r}"
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return run


@pytest.fixture
def nobody():
    """An address where nobody listens."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def environment(broker):
    """For verbs as processes."""
    return {**os.environ, "KBROKER_BOOTSTRAP": broker.bootstrap_servers}


@pytest.fixture
def process(environment):
    """`process("consume", ...)`: a verb as a process of its own, which Ctrl-C reaches."""
    running, limits = [], []
    # what a shell starts in its background ignores Ctrl-C, and so do the processes that it starts
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(*args, **options):
        command = [sys.executable, "-P", "-m", "kbroker", *args]
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        one = subprocess.Popen(command, env=environment, **options)
        running.append(one)
        limits.append(threading.Timer(LIMIT_S, one.kill))  # whoever waits for its next line waits no longer
        limits[-1].start()
        return one

    yield start
    signal.signal(signal.SIGINT, before)
    for limit in limits:
        limit.cancel()
    for one in running:
        one.kill()
        one.wait(LIMIT_S)
        for stream in (one.stdin, one.stdout, one.stderr):
            if stream is not None:
                stream.close()


def ending(process):
    """What it printed to the end that Ctrl-C brings."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT_S)
    assert (130, b"") == (process.returncode, err)
    return out


def on_terminal(process, *args):
    """What the verb prints on a terminal."""
    ours, theirs = pty.openpty()
    try:
        one = process(*args, stdout=theirs)
        os.close(theirs)
        seen = b""
        while True:
            try:
                more = os.read(ours, 65_536)
            except OSError:  # Linux says so that nobody holds the other end
                break
            if not more:
                break
            seen += more
        assert 0 == one.wait(LIMIT_S), one.stderr.read()
        return seen
    finally:
        os.close(ours)
