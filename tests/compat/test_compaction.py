"""What compaction leaves: the same on either broker, at the same offsets, and Kafka's dump tool reads what we made."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from kbroker.protocol.records import RecordBatch, build_batch, record
from kbroker.storage.disk import RealDisk
from tests.compat.driver import Client, Record
from tests.compat.scenario import eventually
from tests.support.clients import require
from tests.support.compacting import compact, job
from tests.support.peers import Certificates, Peer, start_peer
from tests.support.storage import TOPIC_ID, TP, Broker, config
from tools import kafka

DUMP = "org.apache.kafka.tools.DumpLogSegments"
COMPACTED = {"cleanup_policy": "compact", "segment_bytes": "1048576", "min_cleanable_dirty_ratio": "0.01"}
START_MS = 1_700_000_000_000
DONE_S_MAX = 120.0


@pytest.fixture(scope="module")
def quick_peer(
    peer_kind: str, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Peer]:
    """A broker that looks for dirty logs all the time."""
    folder = tmp_path_factory.mktemp("quick")
    peer = start_peer(peer_kind, folder, certificates, {"log.cleaner.backoff.ms": "200"})
    yield peer
    peer.close()


def keyed() -> list[Record]:
    """300 records of 40 keys, one in seven a tombstone, with times that go back and forth."""
    choose = random.Random(4)
    return [
        Record(
            key=b"key %d" % choose.randrange(40),
            value=None if number % 7 == 3 else choose.randbytes(4000),
            timestamp=START_MS + number * 10 - number % 4 * 25,
            headers=(("number", b"%d" % number),) if number % 5 == 0 else (),
        )
        for number in range(300)
    ]


def filler() -> list[Record]:
    """Enough of other keys, none of them twice, that all of `keyed` is in closed segments."""
    noise = random.Random(5)
    return [Record(key=b"other %d" % number, value=noise.randbytes(50_000)) for number in range(60)]


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_the_last_record_of_each_key_stays_where_it_was(
    codec: str, quick_peer: Peer, helper: Client, topic: str
) -> None:
    at, sent = quick_peer.plain, keyed()
    helper.create(at, topic, **COMPACTED)
    last = {record.key: offset for offset, record in enumerate(sent)}
    expected = sorted(last.values())

    for first in range(0, len(sent), 30):
        helper.produce(at, topic, sent[first : first + 30], codec=codec, idempotent=True)
    helper.produce(at, topic, filler(), codec=codec, idempotent=True)

    def left() -> list[int | None]:
        return [record.offset for record in helper.consume(at, topic, "earliest", len(expected))]

    eventually(left, expected, limit_s=DONE_S_MAX)
    assert [sent[offset] for offset in expected] == helper.consume(at, topic, "earliest", len(expected))
    assert (0, 360) == (helper.offset(at, topic, "earliest"), helper.offset(at, topic, "latest"))
    after = helper.consume(at, topic, expected[10] + 1, 5)
    assert expected[11:16] == [record.offset for record in after]


def test_kafkas_dump_tool_reads_what_compaction_made(tmp_path: Path) -> None:
    why = kafka.missing()
    require("Kafka's dump tool", (why or "").partition(": ")[2], found=why is None)
    folder = compacted_folder(tmp_path)
    logs, indexes = sorted(folder.glob("*.log")), sorted(folder.glob("*.index"))

    text = dump(logs, "--deep-iteration", "--print-data-log")
    assert "isvalid: false" not in text
    assert 40 <= text.count("| offset: ") < 300
    assert "deleteHorizonMs: OptionalLong[" in text
    assert len(indexes) == dump(indexes, "--index-sanity-check").count("passed sanity check")
    text = dump([*indexes, *sorted(folder.glob("*.timeindex"))], "--deep-iteration")
    assert "position: " in text
    assert not [line for line in text.lower().splitlines() if "mismatch" in line or "out of order" in line]


def compacted_folder(tmp_path: Path) -> Path:
    """Two rounds over a log of several segments, every codec and an idempotent producer."""
    broker = Broker(RealDisk(), str(tmp_path))
    broker.directory.open(0, None)
    configured = config(cleanup_policy=("compact",), segment_bytes=20_000, index_interval_bytes=400)
    log = broker.directory.log(TP, TOPIC_ID, configured)
    choose, dirty, sequence = random.Random(6), 0, 0
    for part in range(2):
        for number in range(100):
            of = [
                record(
                    None if choose.random() < 0.1 else choose.randbytes(100),
                    key=b"key %d" % choose.randrange(40),
                    timestamp=START_MS + number * 7 - number % 5 * 20,
                )
                for _ in range(1 + number % 4)
            ]
            fields = {"producer_id": 9, "producer_epoch": 0, "base_sequence": sequence} if number % 3 else {}
            sequence += len(of) if fields else 0
            raw = build_batch(of, codec=number % 5, **fields)
            log.append(RecordBatch(memoryview(bytearray(raw))), part)
            broker.settle()
        log.roll()
        broker.settle()
        dirty = compact(broker, log, job(log, first_dirty=dirty)).end
    broker.directory.close()
    return tmp_path / str(TP)


def dump(files: list[Path], *options: str) -> str:
    done = kafka.run(DUMP, "--files", ",".join(map(str, files)), *options, timeout=120)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "Exception" not in done.stdout + done.stderr
    return done.stdout
