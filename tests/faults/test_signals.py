"""SIGTERM, SIGSTOP and SIGCONT under load."""

from __future__ import annotations

import signal
import sys
import time
from array import array

import pytest

from kbroker.protocol.records import build_batch, record
from tests.support.broker_process import CLEAN_MARKER, BrokerProcess
from tests.support.histories import Load, end_of, produce

PARTITIONS = 3
# Takes a broker seconds to check: a signal must reach it meanwhile, on a busy machine too.
BATCHES = 1_000_000

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
            deadline = time.monotonic() + 60
            while acked(load) == before and time.monotonic() < deadline:
                time.sleep(0.01)
            assert acked(load) > before
    assert [0] * len(load.producers) == [each.breaks for each in load.producers]
    assert load.check() > 0


def test_sigterm_ends_a_start_that_is_still_checking_a_log(broker):
    """A million small batches, all of them to be checked: nothing is served, nothing is lost."""
    wire = broker.wire()
    assert 0 == produce(wire, "t", 0, bytes(build_batch([record(b"x")]))).error_code
    wire.close()
    broker.kill()
    [path] = (broker.data / "t-0").glob("*.log")
    path.write_bytes(copies(path.read_bytes(), BATCHES))

    broker.spawn()
    deadline = time.monotonic() + 60
    while broker.log_text().count("checking partitions") == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 0 == broker.stop()
    assert "stopped before it served" in broker.log_text()

    broker.start()
    wire = broker.wire()
    assert BATCHES == end_of(wire, "t", 0)[0]
    wire.close()


def copies(batch, count):
    """A log of this batch of one record, so many times; a batch begins with its offset."""
    offsets = array("Q", range(count))
    if sys.byteorder == "little":
        offsets.byteswap()
    log = bytearray(batch) * count
    for at in range(8):
        log[at :: len(batch)] = offsets.tobytes()[at::8]
    return log


def acked(load):
    return sum(len(producer.acked) for producer in load.producers)
