"""`kbroker start` as a process: what it says, what ends it, what it refuses."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kbroker import __version__

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60


@pytest.fixture
def process(tmp_path):
    """`process(options...)`: `kbroker start` with data in `tmp_path/data`."""
    running = []

    def start(*options):
        command = [
            sys.executable,
            "-m",
            "kbroker",
            "start",
            "--data-dir",
            str(tmp_path / "data"),
            *map(str, options),
        ]
        one = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(one)
        return one

    yield start
    for one in running:
        one.kill()
        one.wait(LIMIT_S)
        one.stdout.close()
        one.stderr.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(process, tmp_path, how):
    broker = process("--port", 0)
    line = broker.stdout.readline()

    broker.send_signal(how)
    out, err = broker.communicate(timeout=LIMIT_S)

    said = rf"kbroker {re.escape(__version__)} serving on localhost:\d+, data in {tmp_path}/data, ready in \d+\.\d\d s\n"
    assert re.fullmatch(said, line), err
    assert (0, "") == (broker.returncode, out), err
    assert (tmp_path / "data" / ".kafka_cleanshutdown").exists()


def test_a_second_broker_on_the_same_data_is_refused(process):
    first = process("--port", 0)
    assert first.stdout.readline()

    second = process("--port", 0)
    _, err = second.communicate(timeout=LIMIT_S)

    assert 1 == second.returncode
    assert "kbroker cannot start: " in err.splitlines()[-1]


def test_a_taken_port_is_named(process):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        broker = process("--port", port)
        _, err = broker.communicate(timeout=LIMIT_S)

    assert 1 == broker.returncode
    assert f"{port}" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_closed_stdout_stops_nothing(process):
    """Whoever started it may not read what it says."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    broker = process("--port", port)
    broker.stdout.close()

    wait_for_port(broker, port)
    broker.send_signal(signal.SIGTERM)

    assert 0 == broker.wait(LIMIT_S), broker.stderr.read()


def wait_for_port(broker, port):
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and broker.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.01)
    raise AssertionError(f"nobody listens on {port}: {broker.stderr.read()}")
