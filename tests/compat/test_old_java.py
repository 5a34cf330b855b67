"""Kafka's Java client of years ago: 2.1, the oldest that Kafka 4 promises to serve, and 3.0, the first whose producer is
idempotent unasked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.compat import registry
from tests.compat.application import PROGRAMS
from tests.support.clients import require
from tests.support.peers import Peer

POM = PROGRAMS / "old-client-pom.xml"
PROGRAM = PROGRAMS / "OldClient.java"
RUN_S_MAX = 200

FINDS = """\
end: 12
partitions: 2
retention: 86400000
read: 12 [gzip, lz4, none, snappy, zstd]
assigned: 2
committed: 12
second at: 1
groups: 1
state: Empty
log start: 3
there: false
"""


def class_path(version: str) -> str:
    """The client of that version and the program compiled for it; both are made once."""
    maven = require("mvn", "apt-get install maven default-jdk-headless")
    copy = [
        maven,
        "-B",
        "-q",
        "-f",
        str(POM),
        f"-Dversion.of.kafka={version}",
        "-Daether.connector.http.retryHandler.count=10",
        "dependency:copy-dependencies",
    ]
    jars = registry.built(f"old-jars-{version}", [POM], lambda out: [*copy, f"-DoutputDirectory={out}"])
    compiler = [require("javac", "apt-get install default-jdk-headless"), "-nowarn", "-cp", f"{jars}/*"]
    classes = registry.built(
        f"old-client-{version}", [POM, PROGRAM], lambda out: [*compiler, "-d", str(out), str(PROGRAM)]
    )
    return f"{classes}:{jars}/*"


@pytest.fixture(scope="module", params=["2.1.1", "3.0.2"])
def command(request: pytest.FixtureRequest) -> list[str]:
    """What runs the program with one version of the client."""
    return ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", class_path(request.param), "OldClient"]


def test_an_application_with_an_old_client_finds_all_it_did(
    command: list[str], peer: Peer, topic: str, tmp_path: Path
) -> None:
    arguments = [*command, peer.plain.servers, topic]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=RUN_S_MAX, cwd=tmp_path)

    assert FINDS == done.stdout, done.stderr[-4000:]
