"""Starts that cannot be: one sentence that names the cure, exit status 1, and whoever runs already is not disturbed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.broker_process import BrokerProcess
from tests.support.peers import ROOT

LIMIT_S = 60

pytestmark = pytest.mark.faults


@pytest.fixture
def broker(tmp_path):
    one = BrokerProcess(tmp_path)
    one.start()
    yield one
    one.close()


def refused(*options):
    argv = [sys.executable, "-P", "-m", "kbroker", "start", *map(str, options)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (1, "") == (done.returncode, done.stdout), done.stderr
    assert done.stderr.startswith("kbroker cannot start: "), done.stderr
    assert 1 == done.stderr.count("\n"), done.stderr
    return done.stderr


def test_data_in_use(broker):
    sentence = refused("--port", 0, "--data-dir", broker.data)

    assert (
        f"{broker.data} is in use by another process, or by another broker of this one: stop it, " in sentence
    )
    assert "use another data directory (--data-dir)" in sentence
    with broker.admin() as admin:
        assert "t" == admin.create_topic("t")


def test_data_of_another_node(broker):
    assert 0 == broker.stop()

    sentence = refused("--port", 0, "--data-dir", broker.data, "--set", "node.id=7")

    assert "belongs to node 0, this is node 7: set node.id=0, or use another data directory" in sentence
    broker.start()  # as before


def test_port_taken(broker, tmp_path):
    sentence = refused("--port", broker.port, "--data-dir", tmp_path / "other")

    assert f"port {broker.port} of " in sentence
    assert "choose another (--port)" in sentence
    assert not (tmp_path / "other").exists()
    with broker.admin() as admin:
        assert [] == admin.topics()
