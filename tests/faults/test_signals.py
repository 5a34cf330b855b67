"""SIGTERM, SIGSTOP and SIGCONT under load."""

from __future__ import annotations

import signal
import time

import pytest

from tests.support.broker_process import CLEAN_MARKER, BrokerProcess
from tests.support.histories import Load

PARTITIONS = 3

pytestmark = pytest.mark.faults


@pytest.fixture
def broker(tmp_path):
    one = BrokerProcess(tmp_path, kbroker_fsync_before_ack="true", log_segment_bytes="1048576")
    one.start()
    with one.admin() as admin:
        admin.create_topic("t", PARTITIONS)
    yield one
    one.close()


def test_sigterm_under_load_is_a_clean_stop(broker):
    load = Load(broker, "t", PARTITIONS, seed=1)
    with load:
        for _ in range(5):
            time.sleep(0.3)
            assert 0 == broker.stop()
            assert (broker.data / CLEAN_MARKER).exists()
            broker.start()
    assert load.check() > 0
    assert "recover" not in broker.log_text(), broker.log_text()
    assert "Traceback" not in broker.log_text()


def test_clients_go_on_after_a_pause(broker):
    load = Load(broker, "t", PARTITIONS, seed=2)
    with load:
        for pause_s in (0.1, 0.5, 1.0):
            time.sleep(0.2)
            before = acked(load)
            broker.send(signal.SIGSTOP)
            time.sleep(pause_s)
            broker.send(signal.SIGCONT)
            deadline = time.monotonic() + 20
            while acked(load) == before and time.monotonic() < deadline:
                time.sleep(0.01)
            assert acked(load) > before
    assert [0] * len(load.producers) == [each.breaks for each in load.producers]
    assert load.check() > 0


def acked(load):
    return sum(len(producer.acked) for producer in load.producers)
