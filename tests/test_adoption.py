"""A first start on a log directory that Apache Kafka wrote: its topics become ours, also when the start is cut short."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from kbroker.cluster.local import LocalLog
from kbroker.errors import ErrorCode, KafkaError
from kbroker.node import PRODUCER_IDS_SKIPPED, Node
from kbroker.testing import Broker, StartError

ARCHIVE = Path(__file__).parent / "storage" / "data" / "kafka-4.3-log-directories.tar.gz"
IDEMPOTENT = "idem.potent_x-1"


@pytest.fixture(params=["stopped", "running"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return tmp_path / str(request.param)


def start(directory: Path) -> Broker:
    return Broker({"node.id": "1"}, data_dir=directory).start()


def state_of(broker: Broker):  # type: ignore[no-untyped-def]  # the broker's own, for what no client sees
    assert broker._running is not None
    return broker._running.node.cluster.state


def test_its_records_are_served_and_its_producer_ids_not_given_out_again(directory: Path) -> None:
    broker = start(directory)
    try:
        assert [b"v%d" % number for number in range(100)] == [
            each.value for each in broker.records(IDEMPOTENT)
        ]
        assert state_of(broker).next_producer_id >= PRODUCER_IDS_SKIPPED
    finally:
        broker.stop()


def test_committed_offsets_do_not_age_away(directory: Path) -> None:
    broker = start(directory)
    try:
        assert {"cleanup.policy": "compact"} == state_of(broker).config(2, "__consumer_offsets")
    finally:
        broker.stop()


def test_a_leader_epoch_without_records_counts(directory: Path) -> None:
    (directory / f"{IDEMPOTENT}-0" / "leader-epoch-checkpoint").write_text("0\n2\n0 0\n6 100\n")

    broker = start(directory)
    try:
        [partition] = state_of(broker).topics[IDEMPOTENT].partitions
        assert 7 == partition.leader_epoch
    finally:
        broker.stop()


@pytest.mark.parametrize("where", ["_adopt", "_open_partitions", "_skip_producer_ids", "_register"])
def test_a_start_that_was_cut_short_is_done_again(
    directory: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StartError("the power went")

    with monkeypatch.context() as broken:
        broken.setattr(Node, where, fail)
        with pytest.raises(StartError, match="the power went"):
            start(directory)

    broker = start(directory)
    try:
        assert 3000 == sum(1 for _ in broker.records("plain", 0))
        assert state_of(broker).next_producer_id >= PRODUCER_IDS_SKIPPED
    finally:
        broker.stop()


def test_a_refused_adoption_removes_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_log: LocalLog, _command: object, done) -> None:  # type: ignore[no-untyped-def]
        done(None, KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, "the disk is full"))

    before = sorted(path.name for path in directory.glob("*-[0-9]*"))
    with monkeypatch.context() as broken:
        broken.setattr(LocalLog, "propose", refuse)
        with pytest.raises(Exception, match="the disk is full"):
            start(directory)

    assert before == sorted(path.name for path in directory.glob("*-[0-9]*"))
    broker = start(directory)
    assert 3000 == sum(1 for _ in broker.records("plain", 0))
    broker.stop()
