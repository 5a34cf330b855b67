"""kill -9 at random moments under load: nothing acknowledged is lost, nothing read vanishes, nothing is there twice.

KBROKER_FAULT_KILLS says how many kills (100), KBROKER_FAULT_SEED which moments. A failure names its seed.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.support.broker_process import CLEAN_MARKER, BrokerProcess
from tests.support.histories import Load, end_of

KILLS = int(os.environ.get("KBROKER_FAULT_KILLS", "100"))
KILLS_PER_HISTORY = 20
HISTORIES = max(1, KILLS // KILLS_PER_HISTORY)
SEED = int(os.environ.get("KBROKER_FAULT_SEED", "1"))
PARTITIONS = 3
RUN_S = (0.02, 0.5)
# A start takes some 0.2 s: kills in it hit imports, recovery, registration and the first requests.
START_S = (0.05, 0.3)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.fixture
def broker(tmp_path):
    # the smallest segments there may be: kills hit rolls too
    one = BrokerProcess(tmp_path, kbroker_fsync_before_ack="true", log_segment_bytes="1048576")
    yield one
    one.close()


@pytest.mark.parametrize("seed", range(SEED, SEED + HISTORIES))
def test_kills_lose_nothing_that_was_acknowledged(broker, seed):
    moments = random.Random(seed)
    broker.start()
    with broker.admin() as admin:
        admin.create_topic("t", PARTITIONS)
    epochs = [-1] * PARTITIONS
    load = Load(broker, "t", PARTITIONS, seed=seed)

    with load:
        for _ in range(KILLS_PER_HISTORY):
            time.sleep(moments.uniform(*RUN_S))
            broker.kill()
            assert not (broker.data / CLEAN_MARKER).exists()
            if moments.random() < 0.3:
                broker.spawn()
                time.sleep(moments.uniform(*START_S))
                broker.kill()
            broker.start()
            epochs = grown(broker, epochs)
        time.sleep(0.3)

    assert load.check() > 0
    assert sum(producer.breaks for producer in load.producers) > 0
    assert broker.stop() == 0
    broker.start()
    load.check()


def grown(broker, before):
    """Each start is an election: every partition's leader epoch is above the one before."""
    wire = broker.wire()
    try:
        epochs = [end_of(wire, "t", partition)[1] for partition in range(PARTITIONS)]
    finally:
        wire.close()
    assert all(now > then for now, then in zip(epochs, before, strict=True)), (before, epochs)
    return epochs
