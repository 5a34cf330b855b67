"""kill -9 while logs are compacted: the last record of each key is there, and whoever compacted ends with the broker."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from kbroker.protocol.records import build_batch, decode_records, record, split_batches
from tests.compat.scenario import eventually
from tests.support.broker_process import BrokerProcess
from tests.support.raw_client import RawClient, fetch_request, produce_request

SEED = int(os.environ.get("KBROKER_FAULT_SEED", "1"))
KILLS = max(1, int(os.environ.get("KBROKER_FAULT_KILLS", "100")) // 10)
BATCHES, RECORDS, KEYS = 60, 50, 400  # 6 MB between two kills
RUN_S = (0.0, 0.8)
COMPACTED = {"cleanup_policy": "compact", "segment_bytes": "1048576", "min_cleanable_dirty_ratio": "0.01"}

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture
def broker(tmp_path):
    one = BrokerProcess(tmp_path, log_cleaner_backoff_ms="50", kbroker_fsync_before_ack="true")
    yield one
    one.close()


def test_kills_while_a_log_is_compacted_lose_the_last_record_of_no_key(broker):
    moments = random.Random(SEED)
    last: dict[bytes, tuple[int, bytes]] = {}
    broker.start()
    with RawClient(("127.0.0.1", broker.port)) as client:
        client.create("t", **COMPACTED)
    for _ in range(KILLS):
        with RawClient(("127.0.0.1", broker.port)) as client:
            fill(client, moments, last)
        time.sleep(moments.uniform(*RUN_S))
        broker.kill()
        eventually(lambda: compacting(broker), [])
        broker.start()
        with RawClient(("127.0.0.1", broker.port)) as client:
            assert last.items() <= stored(client).items(), f"seed {SEED}"

    assert "log compacted" in broker.log_text()
    assert broker.stop() == 0
    eventually(lambda: compacting(broker), [])
    assert not [name for name in os.listdir(broker.data / "t-0") if name.endswith((".swap", ".log.cleaned"))]


def fill(client: RawClient, moments: random.Random, last: dict[bytes, tuple[int, bytes]]) -> None:
    """Records of random keys; `last` learns what was acknowledged."""
    for _ in range(BATCHES):
        now = int(time.time() * 1000)
        of = [
            record(moments.randbytes(2000), key=b"%d" % moments.randrange(KEYS), timestamp=now)
            for _ in range(RECORDS)
        ]
        [topic] = client.ask(produce_request("t", build_batch(of)), 9).responses
        [answer] = topic.partition_responses
        assert answer.error_code == 0
        for number, one in enumerate(of):
            last[one.key] = (answer.base_offset + number, one.value)


def stored(client: RawClient) -> dict[bytes, tuple[int, bytes]]:
    """The last record of each key."""
    found, offset = {}, 0
    while True:
        fetch = fetch_request("t", offset, max_wait_ms=0, max_bytes=1 << 20, partition_max_bytes=1 << 20)
        [partition] = client.ask(fetch, 12).responses[0].partitions
        assert partition.error_code == 0
        batches = split_batches(memoryview(partition.records or b""))
        if not batches:
            return found
        for batch in batches:
            for one in decode_records(batch):
                assert one.offset >= offset or batch.base_offset < offset
                found[one.key] = (one.offset, one.value)
            offset = batch.next_offset


def compacting(broker: BrokerProcess) -> list[str]:
    """Processes that compact a log of this broker."""
    folder = str(broker.data).encode()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                files = [os.readlink(fd).encode() for fd in (process / "fd").iterdir()]
                named = b"kbroker compaction" in (process / "cmdline").read_bytes()
            except OSError:
                continue
            if named and any(path.startswith(folder) for path in files):
                found.append(process.name)
    return found
