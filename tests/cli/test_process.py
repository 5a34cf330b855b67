"""`kbroker start` as a process: what it says, what ends it, what it refuses."""

from __future__ import annotations

import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kbroker import __version__, is_compiled
from kbroker.cli import process as process_module
from tests.support.peers import free_ports

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60

# The options of config/server.properties in Kafka 4.3's distribution, with their values there.
KAFKAS_OWN = """
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
#log.flush.interval.messages=10000
#log.flush.interval.ms=1000
log.retention.hours=168
#log.retention.bytes=1073741824
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
"""


@pytest.fixture
def process(tmp_path):
    """`process(options...)`: `kbroker start` with data in `tmp_path/data`."""
    running = []

    def start(*options):
        command = [
            sys.executable,
            "-P",  # the kbroker under test, which need not be the one in this folder
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

    name = re.escape(f"kbroker {__version__}{' (compiled)' if is_compiled() else ''}")
    said = rf"{name} serving on localhost:\d+, data in {tmp_path}/data, ready in \d+\.\d\d s\n"
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
    [port] = free_ports(1)
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


def test_kafkas_own_server_properties_start_it_and_one_line_names_what_has_no_effect(process, tmp_path):
    [port] = free_ports(1)
    file = tmp_path / "server.properties"
    file.write_text(KAFKAS_OWN.replace(":9092", f":{port}"))

    broker = process("--config", file, "--insecure")
    line = broker.stdout.readline()
    broker.send_signal(signal.SIGTERM)
    _, err = broker.communicate(timeout=LIMIT_S)

    assert f" serving on 0.0.0.0:{port}, data in {tmp_path}/data" in line, err
    assert 0 == broker.returncode
    (said,) = [line for line in err.splitlines() if "without effect" in line]
    named = set(said.rpartition("options=")[2].strip('"').split(","))
    assert {"process.roles", "num.io.threads", "controller.quorum.bootstrap.servers"} <= named
    assert not {"node.id", "listeners", "num.partitions", "log.retention.hours", "log.dirs"} & named


def test_kafkas_own_server_properties_need_a_word_to_listen_anywhere(process, tmp_path):
    file = tmp_path / "server.properties"
    file.write_text(KAFKAS_OWN)

    broker = process("--config", file)
    _, err = broker.communicate(timeout=LIMIT_S)

    assert 1 == broker.returncode
    assert "--insecure" in err


def test_the_descriptor_limit_rises_to_the_hard_one(monkeypatch):
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 20_000))
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: asked.append(limits))

    process_module.raise_descriptor_limit()

    assert [(20_000, 20_000)] == asked


def test_a_refused_descriptor_limit_stops_nothing(monkeypatch):
    def refuse(what, limits):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)

    process_module.raise_descriptor_limit()


def test_the_age_of_the_process_counts_from_its_start():
    code = "from kbroker.cli.process import process_age; print(process_age())"
    age = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=LIMIT_S, check=True
    )

    assert 0 <= float(age.stdout) < LIMIT_S
