"""Kafka Connect, as its own scripts start it: a standalone worker from file to file, a distributed one with its topics."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.compat.application import Application, Looker, java_application, properties
from tests.support.peers import Peer, free_ports

STANDALONE = "org.apache.kafka.connect.cli.ConnectStandalone"
DISTRIBUTED = "org.apache.kafka.connect.cli.ConnectDistributed"
FILES = "org.apache.kafka.connect.file.FileStream"

WORKER = {
    "key.converter": "org.apache.kafka.connect.storage.StringConverter",
    "value.converter": "org.apache.kafka.connect.storage.StringConverter",
    "plugin.discovery": "service_load",
    "offset.flush.interval.ms": "500",
    "task.shutdown.graceful.timeout.ms": "30000",
}


class Files:
    """The file that lines come from, the topic they go through, and the file they end in."""

    def __init__(self, folder: Path, topic: str) -> None:
        self.source, self.sink = folder / "source.txt", folder / "sink.txt"
        self.topic = topic
        self.source.touch()

    def write(self, *lines: str) -> None:
        with self.source.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def arrived(self) -> list[str]:
        return self.sink.read_text().splitlines() if self.sink.exists() else []

    def place(self) -> bytes:
        """How the source's end is written where its place is kept."""
        return b'"position":%d' % self.source.stat().st_size

    @property
    def connectors(self) -> dict[str, dict[str, str]]:
        """Their configurations by name."""
        return {
            f"source-{self.topic}": {
                "connector.class": f"{FILES}SourceConnector",
                "file": str(self.source),
                "topic": self.topic,
            },
            f"sink-{self.topic}": {
                "connector.class": f"{FILES}SinkConnector",
                "file": str(self.sink),
                "topics": self.topic,
            },
        }


@pytest.fixture
def files(tmp_path: Path, topic: str) -> Files:
    return Files(tmp_path, topic)


@pytest.fixture
def rest() -> str:
    """Where a worker takes requests."""
    return f"http://127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
def worker(peer: Peer, tmp_path: Path, rest: str) -> Iterator[Any]:
    """Starts workers; those that still run are killed in the end."""
    started: list[Application] = []

    def start(main: str, values: Mapping[str, str], *connectors: Path) -> Application:
        config = properties(
            tmp_path / "worker.properties",
            {**WORKER, "bootstrap.servers": peer.plain.servers, "listeners": rest, **values},
        )
        arguments = (str(config), *map(str, connectors))
        started.append(java_application("connect", main, *arguments, folder=tmp_path))
        return started[-1]

    yield start
    for one in started:
        one.kill()


def test_a_standalone_worker_carries_lines_from_file_to_file_and_goes_on_after_a_restart(
    worker: Any, files: Files, peer: Peer, topic: str, tmp_path: Path
) -> None:
    connectors = [
        properties(tmp_path / f"{name}.properties", {"name": name, **values})
        for name, values in files.connectors.items()
    ]
    kept = tmp_path / "offsets"
    alone = {"offset.storage.file.filename": str(kept)}
    files.write("one", "two", "three and a half")

    first = worker(STANDALONE, alone, *connectors)
    first.until("lines arrive", files.arrived, ["one", "two", "three and a half"])
    files.write("four")
    first.until("a line more arrives", files.arrived, ["one", "two", "three and a half", "four"])
    # what a worker does at its end it may do too late
    first.until("the source's place is kept", lambda: files.place() in kept.read_bytes(), True)
    first.until("the sink's place is kept", lambda: sunk(peer, topic), [4])
    assert 143 == first.end() % 256  # a JVM's way to say SIGTERM

    files.write("five")
    second = worker(STANDALONE, alone, *connectors)
    second.until(
        "only the new line arrives", files.arrived, ["one", "two", "three and a half", "four", "five"]
    )
    assert 143 == second.end() % 256


def asked(rest: str, path: str, body: object = None, *, method: str = "GET") -> Any:
    """A request to a worker; OSError where it is not there or says no."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(rest + path, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")
    except urllib.error.HTTPError as error:
        raise OSError(f"{error.code}: {error.read().decode()}") from error


def sunk(peer: Peer, topic: str) -> list[int]:
    """Where the sink connector's group is in the topic."""
    return Looker(peer).committed(f"connect-sink-{topic}", topic, 1)


def test_a_distributed_worker_keeps_all_it_knows_in_its_compacted_topics(
    worker: Any, files: Files, peer: Peer, topic: str, rest: str
) -> None:
    internal = {name: f"{topic}-{name}" for name in ("config", "offset", "status")}
    values = {
        "group.id": f"{topic}-workers",
        **{f"{name}.storage.topic": stored for name, stored in internal.items()},
        **{f"{name}.storage.replication.factor": "1" for name in internal},
        "offset.storage.partitions": "3",
        "status.storage.partitions": "2",
        "session.timeout.ms": "30000",
        "heartbeat.interval.ms": "1000",
        "scheduled.rebalance.max.delay.ms": "0",
    }

    def states() -> list[str]:
        return [
            state["state"]
            for name in files.connectors
            for status in [asked(rest, f"/connectors/{name}/status")]
            for state in [status["connector"], *status["tasks"]]
        ]

    def source_is_kept() -> bool:
        records = (Looker(peer).records(internal["offset"], partition) for partition in range(3))
        return any(files.place() in (value or b"") for part in records for _, value in part)

    first = worker(DISTRIBUTED, values)
    first.until("it leads its group", lambda: asked(rest, "/connectors"), [])
    assert ["compact"] * 3 == [Looker(peer).config(stored, "cleanup.policy") for stored in internal.values()]
    for name, config in files.connectors.items():
        take = partial(asked, rest, f"/connectors/{name}/config", config, method="PUT")
        first.until("it takes a connector, between rebalances", lambda take=take: take()["name"], name)
    files.write("one", "two")
    first.until("lines arrive", files.arrived, ["one", "two"])
    first.until("all run", states, ["RUNNING"] * 4)
    first.until("the source's place is kept", source_is_kept, True)
    first.until("the sink's place is kept", lambda: sunk(peer, topic), [2])
    assert 143 == first.end() % 256

    files.write("three")
    second = worker(DISTRIBUTED, values)
    second.until("only the new line arrives", files.arrived, ["one", "two", "three"])
    second.until("all run again", states, ["RUNNING"] * 4)

    def left() -> list[str]:
        for name in asked(rest, "/connectors"):
            asked(rest, f"/connectors/{name}", method="DELETE")
        return list(asked(rest, "/connectors"))

    second.until("none is left", left, [])
    assert 143 == second.end() % 256

    configs = {key for key, _ in Looker(peer).records(internal["config"])}
    assert {f"connector-{name}".encode() for name in files.connectors} <= configs
