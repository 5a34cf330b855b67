"""Kafka's own dump tool reads our files: it checks batches, both indexes and producer snapshots against each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kbroker.storage.disk import RealDisk
from tests.support.clients import require
from tests.support.storage import TOPIC_ID, TP, Broker, batch, config
from tools import kafka

DUMP = "org.apache.kafka.tools.DumpLogSegments"
BATCHES = 300
COMPLAINTS = (
    "mismatch",
    "non-consecutive",
    "out of order",
    "corrupt",
    "exception",
    "invalid",
    "error",
    "found ",
)


@pytest.fixture(autouse=True)
def _installed() -> None:
    why = kafka.missing()
    require("Kafka's dump tool", (why or "").partition(": ")[2], found=why is None)


@pytest.fixture(params=["closed", "recovered"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A partition's folder with several segments, every codec, times that go back and forth, two producers."""
    broker = Broker(RealDisk(), str(tmp_path))
    broker.directory.open(0, None)
    log = broker.directory.log(TP, TOPIC_ID, config(segment_bytes=8_000, index_interval_bytes=400))
    sequences = {9: 0, 10: 0, -1: -1}
    for number in range(BATCHES):
        producer_id = (9, 10, -1)[number % 3]
        count = 1 + number % 4
        fields = {"producer_id": producer_id, "producer_epoch": 0, "base_sequence": sequences[producer_id]}
        one = batch(
            *[b"value %d" % number] * count,
            timestamp=1_700_000_000_000 + 7 * number - number % 5 * 20,
            codec=number % 5,
            **(fields if producer_id >= 0 else {}),
        )
        log.append(one, number // 100)
        if producer_id >= 0:
            sequences[producer_id] += count
        if number % 10 == 0:
            broker.settle()
    broker.settle()
    if request.param == "closed":
        broker.directory.close()
        return tmp_path / str(TP)
    broker.directory.abandon()
    last = max(tmp_path.glob(f"{TP}/*.log"))
    with last.open("ab") as torn:
        torn.write(b"half a batch")
    again = Broker(RealDisk(), str(tmp_path))
    again.directory.open(0, None)
    assert (
        log.end
        == again.directory.log(TP, TOPIC_ID, config(segment_bytes=8_000, index_interval_bytes=400)).end
    )
    again.settle()
    again.directory.close()
    return tmp_path / str(TP)


def dump(files: list[Path], *options: str) -> str:
    """What the tool printed; it found nothing to complain about."""
    done = kafka.run(DUMP, "--files", ",".join(map(str, files)), *options, timeout=120)
    assert 0 == done.returncode, done.stdout + done.stderr
    # of any segment but a log's first, Kafka's own too, it says that "-1 is followed by" the segment's base
    text, pairs = done.stdout + done.stderr, re.compile(r"(?m)^  (-?\d+) is followed by \d+$")
    assert {"-1"} >= set(pairs.findall(text))
    text = re.sub(r"(?m)^Non-consecutive offsets in .*$", "", pairs.sub("", text))
    assert not [
        line for line in text.lower().splitlines() if line.startswith(COMPLAINTS) or "exception" in line
    ]
    return text


def test_every_batch_and_record_is_read(folder: Path) -> None:
    text = dump(sorted(folder.glob("*.log")), "--deep-iteration", "--print-data-log")

    assert BATCHES == text.count("baseOffset: ")
    assert "isvalid: false" not in text
    assert sum(1 + number % 4 for number in range(BATCHES)) == text.count("payload: value ")


def test_indexes_agree_with_the_log(folder: Path) -> None:
    indexes = sorted([*folder.glob("*.index"), *folder.glob("*.timeindex")])
    assert len(indexes) > 4

    text = dump(indexes, "--deep-iteration")

    assert "position: " in text
    assert "timestamp: " in text


def test_indexes_pass_the_sanity_check(folder: Path) -> None:
    indexes = sorted(folder.glob("*.index"))

    text = dump(indexes, "--index-sanity-check")

    assert len(indexes) == text.count("passed sanity check")


def test_producer_snapshots_are_read(folder: Path) -> None:
    text = dump(sorted(folder.glob("*.snapshot")))

    assert "producerId: 9 producerEpoch: 0" in text
    assert "producerId: 10 producerEpoch: 0" in text
