"""kbroker's own command line against the broker under test: each verb, and a stock client on the other side.

Every verb is a process of its own, as a person uses it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.compat.driver import Client, Record
from tests.compat.scenario import eventually
from tests.support.peers import ROOT, Endpoint, Peer

LIMIT_S = 120


@pytest.fixture
def kbroker(at: Endpoint) -> Callable[..., str]:
    """`kbroker("topic", "list")`: what the verb printed; it must end with `code`."""

    def run(*args: object, stdin: str = "", code: int = 0, to: Endpoint = at) -> str:
        done = subprocess.run(
            command(to, *args), input=stdin, capture_output=True, text=True, timeout=LIMIT_S, cwd=ROOT
        )
        assert code == done.returncode, f"kbroker {args}:\n{done.stdout}{done.stderr}"
        return done.stderr if code else done.stdout

    return run


def command(to: Endpoint, *args: object) -> list[str]:
    flags = ["-b", to.servers, *(["--ca", to.ca] if to.ca else [])]
    return [sys.executable, "-P", "-m", "kbroker", *map(str, args), *flags]


@pytest.fixture
def running(at: Endpoint) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`running("consume", ...)`: a verb that goes on."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: object) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(command(at, *args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate(timeout=LIMIT_S)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_topics_from_their_creation_to_their_end(kbroker: Callable[..., str], topic: str) -> None:
    kbroker("topic", "create", topic, "-p", 2, "-c", "retention.ms=3600000")

    assert [topic, "2", "1"] in [line.split("\t") for line in kbroker("topic", "list").splitlines()]
    assert "TOPIC_ALREADY_EXISTS" in kbroker("topic", "create", topic, code=1)
    kbroker("topic", "alter", topic, "-p", 5, "-c", "segment.bytes=2000000", "-u", "retention.ms")

    def told() -> tuple[list[int], dict[str, str]]:
        described = json.loads(kbroker("topic", "describe", topic, "-o", "json"))
        return [part["partition"] for part in described["partitions"]], described["configs"]

    eventually(lambda: told()[0], [0, 1, 2, 3, 4])
    assert "2000000" == told()[1]["segment.bytes"]
    assert "retention.ms" not in told()[1]
    assert f"deleted {topic}\n" == kbroker("topic", "delete", topic)
    assert "UNKNOWN_TOPIC_OR_PARTITION" in kbroker("topic", "delete", topic, code=1)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_what_it_sends_others_read(
    kbroker: Callable[..., str], helper: Client, at: Endpoint, topic: str, codec: str
) -> None:
    helper.create(at, topic)

    kbroker("produce", topic, "-K", ":", "-H", "from=here", "-z", codec, stdin="a:1\nb:2\n" * 50)

    read = helper.consume(at, topic, "earliest", 100)
    assert [(b"a", b"1"), (b"b", b"2")] * 50 == [(record.key, record.value) for record in read]
    assert {(("from", b"here"),)} == {record.headers for record in read}


def test_what_others_send_it_reads(
    kbroker: Callable[..., str], helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic)
    sent = [
        Record(key=b"k", value=b"text", headers=(("h", b"1"), ("h", b"2")), timestamp=1_700_000_000_000),
        Record(key=b"\xff", value=None, timestamp=1_700_000_000_001),
    ]
    helper.produce(at, topic, sent)

    read = lines(kbroker("consume", topic, "-e", "-o", "json"))

    place = {"topic": topic, "partition": 0}
    first = {**place, "offset": 0, "timestamp": 1_700_000_000_000, "key": "k", "value": "text"}
    assert [
        {**first, "headers": [["h", "1"], ["h", "2"]]},
        {**place, "offset": 1, "timestamp": 1_700_000_000_001, "key_base64": "/w==", "value": None},
    ] == read


def test_a_topic_is_copied_by_a_pipe_of_json(kbroker: Callable[..., str], topic: str) -> None:
    kbroker("topic", "create", topic, "-p", 3)
    kbroker("topic", "create", f"{topic}-copy", "-p", 3)
    kbroker("produce", topic, "-K", "=", stdin="".join(f"key-{n}={n}\n" for n in range(30)))

    text = kbroker("consume", topic, "-e", "-o", "json")
    kbroker("produce", f"{topic}-copy", "-i", "json", stdin=text)

    copied = lines(kbroker("consume", f"{topic}-copy", "-e", "-o", "json"))

    def parts(records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return sorted(
            (each["partition"], each["offset"], each["timestamp"], each["key"], each["value"])
            for each in records
        )

    assert 30 == len(copied)
    assert parts(lines(text)) == parts(copied)


@pytest.mark.parametrize(
    ("where", "first"),
    [("beginning", 0), ("4", 4), ("-3", 7), ("@1700000005500", 6), ("end", 10), ("99", 10)],
)
def test_where_reading_begins(
    kbroker: Callable[..., str], helper: Client, at: Endpoint, topic: str, where: str, first: int
) -> None:
    helper.create(at, topic)
    helper.produce(
        at, topic, [Record(value=b"%d" % n, timestamp=1_700_000_000_000 + n * 1000) for n in range(10)]
    )

    assert [str(n) for n in range(first, 10)] == kbroker("consume", topic, "-e", "--from", where).split()


def test_a_hundred_thousand_lines_go_and_come(kbroker: Callable[..., str], topic: str) -> None:
    kbroker("topic", "create", topic)
    text = "".join(f"{n:090}\n" for n in range(100_000))

    done = json.loads(kbroker("produce", topic, "-z", "lz4", "-o", "json", stdin=text))

    assert (100_000, len(text)) == (done["records"], done["bytes"])
    assert text == kbroker("consume", topic, "-e")


def test_members_share_a_topic_and_one_takes_over(
    kbroker: Callable[..., str], running: Callable[..., subprocess.Popen[str]], topic: str
) -> None:
    """Both are there; one leaves by Ctrl-C; the other has everything, and nothing is read twice."""
    kbroker("topic", "create", topic, "-p", 3)
    members = [running("consume", topic, "-g", topic) for _ in range(2)]

    def told() -> dict[str, Any]:
        listed = [line.split("\t")[0] for line in kbroker("group", "list").splitlines()]
        found: dict[str, Any] = {"members": [], "partitions": []}
        return json.loads(kbroker("group", "describe", topic, "-o", "json")) if topic in listed else found

    eventually(lambda: len({part["member"] for part in told()["partitions"]} - {None}), 2)
    moving = kbroker("group", "reset-offsets", topic, "--topic", topic, "--to", "end", "--execute", code=1)
    assert f"group {topic} has members" in moving
    assert "NON_EMPTY_GROUP" in kbroker("group", "delete", topic, code=1)

    def send(word: str) -> None:
        for partition in range(3):
            kbroker("produce", topic, "-p", partition, stdin=f"{partition} {word}\n")

    def committed() -> list[int | None]:
        return [part["committed"] for part in told()["partitions"]]

    send("first")
    eventually(committed, [1, 1, 1])
    read = _ended(members[0])
    send("later")
    eventually(committed, [2, 2, 2])
    read += _ended(members[1])

    assert sorted(f"{partition} {word}" for partition in range(3) for word in ("first", "later")) == sorted(
        read
    )
    assert ("Empty", []) == (told()["state"], told()["members"])


def _ended(member: subprocess.Popen[str]) -> list[str]:
    """What it read, after Ctrl-C."""
    member.send_signal(signal.SIGINT)
    out, err = member.communicate(timeout=LIMIT_S)
    assert (130, "") == (member.returncode, err)
    return out.splitlines()


def test_offsets_of_a_group_are_moved_and_forgotten(kbroker: Callable[..., str], topic: str) -> None:
    kbroker("topic", "create", topic)
    kbroker("produce", topic, stdin="0\n1\n2\n3\n")
    assert ["0", "1", "2", "3"] == kbroker("consume", topic, "-g", topic, "-e").split()
    assert [] == kbroker("consume", topic, "-g", topic, "-e").split()

    assert f"{topic}\t0\t4\t1\n" == kbroker("group", "reset-offsets", topic, "--to", 1)
    kbroker("group", "reset-offsets", topic, "--by", -2, "--execute")
    assert ["2", "3"] == kbroker("consume", topic, "-g", topic, "-e").split()
    assert "lag" in json.loads(kbroker("group", "describe", topic, "-o", "json"))

    assert f"deleted {topic}\n" == kbroker("group", "delete", topic)
    assert "GROUP_ID_NOT_FOUND" in kbroker("group", "describe", topic, code=1)


def test_configs_of_a_topic_and_a_broker(kbroker: Callable[..., str], topic: str) -> None:
    kbroker("topic", "create", topic)
    kbroker("config", "set", "topic", topic, "retention.ms=5000000", "cleanup.policy=compact,delete")

    shown = dict(line.split("\t")[:2] for line in kbroker("config", "get", "topic", topic).splitlines())
    assert ("5000000", "compact,delete") == (shown["retention.ms"], shown["cleanup.policy"])
    kbroker("config", "set", "topic", topic, "-u", "retention.ms")
    eventually(lambda: kbroker("config", "get", "topic", topic, "retention.ms"), "604800000\n")

    node = json.loads(kbroker("topic", "describe", topic, "-o", "json"))["partitions"][0]["leader"]
    told = json.loads(kbroker("config", "get", "broker", node, "log.retention.hours", "-o", "json"))
    assert ("168", "default", "int") == tuple(
        told["log.retention.hours"][name] for name in ("value", "source", "type")
    )
    assert told["log.retention.hours"]["documentation"]
    assert "no.such" in kbroker("config", "set", "topic", topic, "no.such=1", code=1)


def test_the_doctor_finds_it_well(kbroker: Callable[..., str], peer: Peer) -> None:
    for to in (peer.plain, peer.tls):
        told = json.loads(kbroker("doctor", "-o", "json", to=to))
        assert told["ok"], told
        assert {"produce", "consume", "clock", "coordinator", "delete topic"} <= {
            each["check"] for each in told["checks"]
        }
    assert "kbroker-doctor" not in kbroker("topic", "list")


def test_the_doctor_knows_one_protocol_from_the_other(kbroker: Callable[..., str], peer: Peer) -> None:
    plain_to_tls = Endpoint(peer.tls.servers)
    tls_to_plain = Endpoint(peer.plain.servers, peer.tls.ca)

    for to, said in (
        (plain_to_tls, "speaks TLS, not plain text"),
        (tls_to_plain, "speaks plain text, not TLS"),
    ):
        done = subprocess.run(
            command(to, "doctor"), capture_output=True, text=True, timeout=LIMIT_S, cwd=ROOT
        )
        assert (1, True) == (done.returncode, said in done.stdout), done.stdout


def test_the_doctor_walks_to_what_is_advertised(kbroker: Callable[..., str], peer: Peer) -> None:
    """Came in by another name of this machine: the advertised address is looked at too."""
    host, _, port = peer.plain.servers.rpartition(":")
    told = json.loads(kbroker("doctor", "-o", "json", to=Endpoint(f"localhost:{port}")))

    assert host == "127.0.0.1"
    assert told["ok"], told
    assert [True] == [
        each["status"] == "ok" for each in told["checks"] if each["check"].endswith(": cluster")
    ]
