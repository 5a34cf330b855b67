"""A Kafka Streams application: counts words, at least once, through its own internal topics."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.compat import registry
from tests.compat.application import PROGRAMS, Application, Looker, java_application
from tests.compat.driver import Client, Record
from tests.support.peers import Peer

PARTITIONS = 2
LINES = ("the quick brown fox", "jumps over the lazy dog", "The fox, the dog!")
ONCE = {"the": 4, "quick": 1, "brown": 1, "fox": 2, "jumps": 1, "over": 1, "lazy": 1, "dog": 2}


@pytest.fixture(scope="session")
def classes() -> Path:
    """The application, compiled."""
    return registry.java_classes("streams", [PROGRAMS / "WordCount.java"])


def test_words_are_counted_while_instances_come_are_ended_and_are_killed(
    peer: Peer, helper: Client, topic: str, classes: Path, tmp_path: Path
) -> None:
    """While they come and are ended every word is counted once; after a kill at least once, nothing is left out."""
    at, looker = peer.plain, Looker(peer)
    lines, counts = f"{topic}-lines", f"{topic}-counts"
    application = f"{topic}-app"
    for name in (lines, counts):
        helper.create(at, name, partitions=PARTITIONS)

    def start(name: str) -> Application:
        arguments = (at.servers, application, lines, counts, str(tmp_path / name))
        return java_application(name, "WordCount", *arguments, folder=tmp_path, classes=classes)

    def write() -> None:
        for number, line in enumerate(LINES):
            helper.produce(at, lines, [Record(value=line.encode())], partition=number % PARTITIONS)

    def counted() -> dict[str, int]:
        """The last count of each word."""
        found = (record for partition in range(PARTITIONS) for record in looker.records(counts, partition))
        return {(key or b"").decode(): struct.unpack(">q", value or b"")[0] for key, value in found}

    def is_at_least(times: int) -> bool:
        now = counted()
        return all(now.get(word, 0) >= count * times for word, count in ONCE.items())

    def times(count: int) -> dict[str, int]:
        return {word: once * count for word, once in ONCE.items()}

    first = start("first")
    second = third = None
    try:
        write()
        first.until("words are counted", counted, ONCE)
        second = start("second")
        second.until("it has its share", lambda: "state RUNNING" in second.log_tail(), True)
        write()
        second.until("two count", counted, times(2))
        first.end()
        write()
        second.until("the other takes over what was counted", counted, times(3))
        second.kill()
        write()
        third = start("third")
        third.until("nothing is left out", lambda: is_at_least(4), True)
        third.end()
    finally:
        for each in (first, second, third):
            if each is not None:
                each.kill()

    made = set(helper.call("metadata", at, topics=None)["topics"])
    assert {f"{application}-counts-changelog", f"{application}-counts-repartition"} <= made
