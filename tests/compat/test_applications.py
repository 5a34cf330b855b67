"""Applications in consumer groups, each with one client of the languages people use: they copy a topic, two at a time.

Everything is copied at least once while a second process joins, the first is killed, the broker is killed and started
again, and the last is asked to end; what was copied is committed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compat import registry
from tests.compat.application import PROGRAMS, Application, Looker
from tests.compat.driver import Client, Record
from tests.support.peers import Peer

PARTITIONS = 4
EACH = 25  # records per partition at a time


def _go(client: str) -> list[str]:
    registry.require_go()
    folder = registry.DRIVERS / "go"
    sources = sorted([*folder.glob("go.*"), *(folder / "application").glob("*.go")])
    out = registry.built(
        "go-application",
        sources,
        lambda out: ["go", "build", "-o", str(out / "application"), "./application"],
        folder,
    )
    return [str(out / "application"), client]


def _kafkajs() -> list[str]:
    node, driver = registry.CLIENTS["kafkajs"].argv()
    modules = Path(driver).parent / "node_modules"
    return ["env", f"NODE_PATH={modules}", node, str(PROGRAMS / "kafkajs_application.js")]


def _faust() -> list[str]:
    wanted = PROGRAMS / "faust-requirements.txt"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--retries=10"]
    folder = registry.built(
        "faust", [wanted], lambda out: [*install, "-r", str(wanted), "--target", str(out)]
    )
    return ["env", f"PYTHONPATH={folder}", sys.executable, str(PROGRAMS / "faust_application.py")]


COMMANDS: dict[str, Callable[[], list[str]]] = {
    "franz-go": lambda: _go("franz-go"),
    "sarama": lambda: _go("sarama"),
    "kafkajs": _kafkajs,
    "faust": _faust,
}


@pytest.fixture(scope="session", params=COMMANDS)
def command(request: pytest.FixtureRequest) -> list[str]:
    """The command line of a copier, what it needs built or downloaded."""
    return COMMANDS[request.param]()


def test_a_topic_is_copied_while_its_copiers_come_and_go(
    command: list[str], peer: Peer, helper: Client, topic: str, tmp_path: Path
) -> None:
    at, group, looker = peer.plain, f"{topic}-group", Looker(peer)
    source, target = f"{topic}-source", f"{topic}-target"
    helper.create(at, source, partitions=PARTITIONS)
    helper.create(at, target)
    written: set[bytes] = set()

    def start(name: str) -> Application:
        arguments = [at.servers, group, source, target]
        if "faust_application.py" in command[-1]:
            arguments.append(str(tmp_path / name))
        return Application(name, [*command, *arguments], tmp_path)

    def write(word: str) -> None:
        value = word.encode()
        for partition in range(PARTITIONS):
            offsets = helper.produce(at, source, [Record(value=value)] * EACH, partition=partition)
            written.update(b"%d %d %s" % (partition, offset or 0, value) for offset in offsets)

    def missing() -> int:
        copied = set(looker.values(target))
        assert copied <= written, f"{copied - written} was never written"
        return len(written - copied)

    def committed() -> list[int]:
        return looker.committed(group, source, PARTITIONS)

    write("one")
    first = start("first")
    second = None
    try:
        first.until("what was there is copied", missing, 0)
        second = start("second")
        write("two")
        second.until("both copy", missing, 0)
        first.kill()
        write("three")
        second.until("the other goes on alone", missing, 0)
        peer.kill()
        peer.start()
        write("four")
        second.until("it goes on after the broker's crash", missing, 0)
        # a commit that an application begins at its end may meet one under way, and be none
        second.until("what was copied is committed", committed, [4 * EACH] * PARTITIONS)
        assert 0 == second.end(), second.log_tail()
    finally:
        for each in (first, second):
            if each is not None:
                each.kill()

    assert [4 * EACH] * PARTITIONS == committed(), second.log_tail()
