"""The fixtures, in pytest runs of their own: with other plug-ins, under xdist, against another Kafka."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kbroker.testing import Broker
from tests.support.peers import free_ports
from tools.kafka import Kafka, missing

LIMIT_S = 100
ROOT = Path(__file__).resolve().parents[1]

TESTS = """
import os

def test_a_topic_of_ones_own(kafka_broker, kafka_topic):
    assert kafka_topic in kafka_broker.topics()
    assert kafka_topic.startswith("test_a_topic_of_ones_own")
    assert [] == kafka_broker.records(kafka_topic)

def test_both_names_are_the_same_broker(kafka_broker, kbroker):
    assert kafka_broker is kbroker

def test_say_which(kafka_broker, kafka_topic):
    with open(os.environ["SAY"], "a") as file:
        file.write(f"{os.getpid()} {kafka_broker.bootstrap_servers} {kafka_topic}\\n")

test_say_which_again = test_say_which
"""

FACTORY_TESTS = """
def test_brokers_of_ones_own(kafka_broker_factory):
    one = kafka_broker_factory(num_partitions=3)
    other = kafka_broker_factory({"num.partitions": 5})
    assert one.bootstrap_servers != other.bootstrap_servers
    assert 5 == other.call(lambda node: node.settings.num_partitions)
"""

ASYNC_TEST = """
async def test_async(kafka_broker, kafka_topic):
    assert kafka_topic in kafka_broker.topics()
"""

ANYIO_TEST = (
    """
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
"""
    + ASYNC_TEST
)


# Heavy, and nothing that our fixtures have to do with.
WITHOUT_HYPOTHESIS = ("-p", "no:hypothesispytest")
WITHOUT_ASYNCIO = (*WITHOUT_HYPOTHESIS, "-p", "no:asyncio")
WITH_ASYNCIO = (
    *WITHOUT_HYPOTHESIS,
    *("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"),
)
ALONE = [f"-pno:{name}" for name in ("asyncio", "anyio", "xdist", "timeout", "hypothesispytest")]


def run(tmp_path, tests, *options, plugins=WITHOUT_ASYNCIO, **environment):
    """A pytest run of its own, every warning an error; its output."""
    (tmp_path / "test_it.py").write_text(tests)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-rs",
            "-p",
            "no:cacheprovider",
            str(tmp_path),
            *plugins,
            *options,
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SAY": str(tmp_path / "said"), **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def said(tmp_path):
    return [line.split() for line in (tmp_path / "said").read_text().splitlines()]


def test_fixtures_without_any_other_plugin(tmp_path):
    assert "5 passed" in run(tmp_path, TESTS + FACTORY_TESTS, plugins=ALONE)
    (_, first, topic), (_, second, other_topic) = said(tmp_path)
    assert first == second
    assert topic != other_topic


def test_fixtures_in_async_tests_of_pytest_asyncio(tmp_path):
    assert "1 passed" in run(tmp_path, ASYNC_TEST, plugins=WITH_ASYNCIO)


def test_fixtures_in_async_tests_of_anyio(tmp_path):
    pytest.importorskip("anyio")

    assert "1 passed" in run(tmp_path, ANYIO_TEST)


def test_a_test_may_delete_its_topic_or_everything(tmp_path):
    tests = """
def test_deletes_it(kafka_broker, kafka_topic):
    kafka_broker.delete_topic(kafka_topic)

def test_deletes_all(kafka_broker, kafka_topic):
    kafka_broker.reset()
"""
    assert "2 passed" in run(tmp_path, tests, plugins=ALONE)


def test_one_broker_per_xdist_worker(tmp_path):
    assert "4 passed" in run(tmp_path, TESTS, "-n", "2", "--dist", "load")

    lines = said(tmp_path)
    assert len({pid for pid, _, _ in lines}) == len({at for _, at, _ in lines})
    assert len(lines) == len({topic for _, _, topic in lines})


def test_the_same_tests_against_another_kafka(tmp_path):
    with Broker() as other:
        out = run(tmp_path, TESTS + FACTORY_TESTS, KBROKER_TEST_BOOTSTRAP=other.bootstrap_servers)

        assert "4 passed, 1 skipped" in out
        assert "KBROKER_TEST_BOOTSTRAP is set" in out
        assert {other.bootstrap_servers} == {at for _, at, _ in said(tmp_path)}
        assert [] == other.topics()


@pytest.mark.needs_kafka
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_the_same_tests_against_apache_kafka(tmp_path):
    folder = tmp_path / "kafka"
    folder.mkdir()
    with Kafka(port=free_ports(1)[0], folder=folder) as peer:
        assert "4 passed" in run(tmp_path, TESTS, KBROKER_TEST_BOOTSTRAP=peer.bootstrap_servers)
