"""kill -9 while groups commit: what was answered is there, nothing appears that was not sent, a member keeps its
generation.

KBROKER_FAULT_KILLS says how many kills (100; a fifth of them here), KBROKER_FAULT_SEED which moments.
"""

from __future__ import annotations

import os
import random
import threading
import time

import pytest

from tests.support import raw_groups
from tests.support.broker_process import BrokerProcess
from tests.support.raw_client import RawClient

KILLS = max(1, int(os.environ.get("KBROKER_FAULT_KILLS", "100")) // 5)
SEED = int(os.environ.get("KBROKER_FAULT_SEED", "1"))
GROUPS = [f"group-{number}" for number in range(8)]
PARTITIONS = 4
RUN_S = (0.02, 0.4)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.fixture
def broker(tmp_path):
    # the smallest segments there may be: kills hit rolls too
    one = BrokerProcess(
        tmp_path,
        kbroker_fsync_before_ack="true",
        offsets_topic_segment_bytes="1048576",
        offsets_topic_num_partitions="3",
    )
    yield one
    one.close()


class Committer(threading.Thread):
    """Commits rising offsets of some groups until the connection ends."""

    def __init__(self, broker, groups, sent, answered):
        super().__init__(daemon=True)
        self.raw = RawClient(("127.0.0.1", broker.port))
        self.groups = groups
        self.sent, self.answered = sent, answered

    def run(self):
        try:
            while True:
                for group in self.groups:
                    self.commit(group)
        except (OSError, AssertionError):  # the broker is gone in the middle of something
            self.raw.close()

    def commit(self, group):
        offset = self.sent.get(group, -1) + 1
        self.sent[group] = offset
        wanted = {("t", partition): offset for partition in range(PARTITIONS)}
        if raw_groups.commit(self.raw, group, wanted) == 0:
            self.answered[group] = offset


def test_kills_lose_no_commit_that_was_answered(broker):
    moments = random.Random(SEED)
    broker.start()
    with broker.admin() as admin:
        admin.create_topic("t", PARTITIONS)
    sent, answered = {}, {}
    with RawClient(("127.0.0.1", broker.port)) as raw:
        member = raw_groups.join(raw, "members", session_ms=600_000)

    for kill in range(KILLS):
        committers = [Committer(broker, GROUPS[number::2], sent, answered) for number in range(2)]
        for committer in committers:
            committer.start()
        time.sleep(moments.uniform(*RUN_S))
        broker.kill()
        for committer in committers:
            committer.join(60)
            assert not committer.is_alive()
        broker.start()

        with RawClient(("127.0.0.1", broker.port)) as raw:
            assert 0 == raw_groups.beat(raw, "members", member), f"kill {kill}"
            for group in GROUPS:
                found = raw_groups.committed(raw, group)
                for partition in range(PARTITIONS):
                    offset = found.get(("t", partition), -1)
                    assert answered.get(group, -1) <= offset <= sent.get(group, -1), (
                        f"kill {kill}, seed {SEED}, {group}: {answered.get(group)}, {found}, {sent.get(group)}"
                    )

    assert sum(answered.values()) > KILLS
