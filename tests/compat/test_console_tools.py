"""Kafka's console producer and consumer and its load tools, each a process of its own. The admin's: test_admin_tools."""

from __future__ import annotations

import pytest

from tests.compat.driver import Client
from tests.support.clients import require
from tests.support.peers import Endpoint
from tools import kafka

LIMIT_S = 120
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
        *("--timeout-ms", "60000"),
        *(word for one in ("print.key=true", "print.headers=true") for word in ("--formatter-property", one)),
    )
    assert [f"h:{number}\tkey-{number}\tvalue {number}" for number in range(10)] == shown.splitlines()


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
