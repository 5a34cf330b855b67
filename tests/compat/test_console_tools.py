"""Kafka's own command-line tools, each a process of its own, as an operator uses them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.compat.driver import Client, Record
from tests.support.clients import require
from tests.support.peers import Endpoint, Peer
from tools import kafka

LIMIT_S = 60
TOOLS = "org.apache.kafka.tools"


@pytest.fixture(autouse=True)
def _installed() -> None:
    why = kafka.missing()
    require("Kafka's command-line tools", (why or "").partition(": ")[2], found=why is None)


def tool(name: str, at: Endpoint, *args: str, stdin: str | None = None) -> str:
    """What the tool printed; it must have succeeded."""
    done = kafka.run(name, "--bootstrap-server", at.servers, *args, stdin=stdin, timeout=LIMIT_S)
    assert 0 == done.returncode, f"{name} {args} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_kafka_topics_creates_lists_describes_grows_and_deletes(at: Endpoint, topic: str) -> None:
    def topics(*args: str) -> str:
        return tool(f"{TOOLS}.TopicCommand", at, *args)

    topics("--create", "--topic", topic, "--partitions", "2", "--config", "retention.ms=3600000")
    assert topic in topics("--list").split()
    told = topics("--describe", "--topic", topic)
    assert "PartitionCount: 2" in told
    assert "retention.ms=3600000" in told
    topics("--alter", "--topic", topic, "--partitions", "5")
    assert "PartitionCount: 5" in topics("--describe", "--topic", topic)
    topics("--delete", "--topic", topic)
    assert topic not in topics("--list").split()


def test_console_producer_and_consumer(helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic)
    properties = ["parse.key=true", "key.separator=|", "parse.headers=true"]
    lines = [f"h:{number}\tkey-{number}|value {number}" for number in range(10)]

    tool(
        f"{TOOLS}.ConsoleProducer",
        at,
        *("--topic", topic, "--compression-codec", "zstd"),
        *(word for one in properties for word in ("--reader-property", one)),
        stdin="\n".join(lines) + "\n",
    )

    # with a partition it assigns itself; without one it would join a group
    shown = tool(
        f"{TOOLS}.consumer.ConsoleConsumer",
        at,
        *("--topic", topic, "--partition", "0", "--offset", "earliest", "--max-messages", "10"),
        *("--timeout-ms", "20000"),
        *(word for one in ("print.key=true", "print.headers=true") for word in ("--formatter-property", one)),
    )
    assert [f"h:{number}\tkey-{number}\tvalue {number}" for number in range(10)] == shown.splitlines()


def test_kafka_configs_describes_and_alters_a_topic(helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic)

    def configs(*args: str) -> str:
        return tool("kafka.admin.ConfigCommand", at, "--entity-type", "topics", "--entity-name", topic, *args)

    configs("--alter", "--add-config", "retention.ms=4711000,cleanup.policy=[compact,delete]")
    told = configs("--describe")
    assert "retention.ms=4711000 " in told
    assert "cleanup.policy=compact,delete " in told
    configs("--alter", "--delete-config", "retention.ms")
    assert "retention.ms" not in configs("--describe")
    assert "segment.bytes=1073741824 " in configs("--describe", "--all")


def test_kafka_configs_describes_the_broker(peer: Peer) -> None:
    told = tool("kafka.admin.ConfigCommand", peer.plain, "--entity-type", "brokers", "--describe", "--all")

    assert "log.retention.hours=168 " in told
    assert "advertised.listeners=" in told


def test_kafka_get_offsets(helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic)
    helper.produce(at, topic, [Record(timestamp=1_700_000_000_000 + number) for number in range(9)])
    helper.call("delete_records", at, topic=topic, partition=0, offset=2)

    def offset(time: str) -> str:
        return tool(f"{TOOLS}.GetOffsetShell", at, "--topic-partitions", f"{topic}:0", "--time", time).strip()

    assert [f"{topic}:0:{offset}" for offset in (9, 2, 6, 8)] == [
        offset(time) for time in ("latest", "earliest", "1700000000006", "max-timestamp")
    ]


def test_kafka_delete_records(helper: Client, at: Endpoint, topic: str, tmp_path: Path) -> None:
    helper.create(at, topic)
    helper.produce(at, topic, [Record()] * 9)
    wanted = tmp_path / "offsets.json"
    wanted.write_text(
        json.dumps({"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": 5}]})
    )

    told = tool(f"{TOOLS}.DeleteRecordsCommand", at, "--offset-json-file", str(wanted))

    assert "low_watermark: 5" in told
    assert 5 == helper.offset(at, topic, "earliest")


def test_kafka_log_dirs(helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic, partitions=2)
    helper.produce(at, topic, [Record(value=b"x" * 1000)] * 9)

    told = tool(f"{TOOLS}.LogDirsCommand", at, "--describe", "--topic-list", topic)

    line = next(line for line in told.splitlines() if line.startswith("{"))
    [directory] = json.loads(line)["brokers"][0]["logDirs"]
    sizes = {partition["partition"]: partition["size"] for partition in directory["partitions"]}
    assert {f"{topic}-0", f"{topic}-1"} == set(sizes)
    assert sizes[f"{topic}-0"] > 9_000
    assert 0 == sizes[f"{topic}-1"]


def test_producer_performance(helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic)
    args = ["--topic", topic, "--num-records", "20000", "--record-size", "100", "--throughput", "-1"]

    told = tool(f"{TOOLS}.ProducerPerformance", at, *args)

    assert "20000 records sent" in told
    assert 20_000 == helper.offset(at, topic, "latest")


def test_verifiable_producer(helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic)

    told = tool(f"{TOOLS}.VerifiableProducer", at, "--topic", topic, "--max-messages", "500", "--acks", "-1")

    assert 500 == sum('"name":"producer_send_success"' in line for line in told.splitlines())
    assert 500 == helper.offset(at, topic, "latest")


def test_kafka_broker_api_versions(at: Endpoint) -> None:
    told = tool(f"{TOOLS}.BrokerApiVersionsCommand", at)

    assert "Produce(0): 0 to 13 [usable: 13]" in told
    assert "Fetch(1): 4 to 18 [usable: 18]" in told
