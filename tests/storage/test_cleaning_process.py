"""Rounds of compaction in a process of their own, and at a pace."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from kbroker.protocol.records import RecordBatch, build_batch, record
from kbroker.storage.cleaning import Cleaned, Finished, Job, Stopped, Uncleanable
from kbroker.storage.cleaning_process import ProcessRound, Task, command
from kbroker.storage.disk import RealDisk
from kbroker.storage.log import PartitionLog
from kbroker.storage.rounds import Pacer, ThreadRound
from tests.support.compacting import job, records
from tests.support.storage import TOPIC_ID, TP, Broker, config

CONFIG = config(cleanup_policy=("compact",), segment_bytes=600, file_delete_delay_ms=0)
FAST = 1e300
ENDS_S_MAX = 60


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    made = Broker(RealDisk(), str(tmp_path / "data"))
    made.directory.open(0, "cluster")
    return made


def filled(broker: Broker) -> PartitionLog:
    log = broker.directory.log(TP, TOPIC_ID, CONFIG)
    for number in range(30):
        of = [record(b"at %d" % number, key=b"k%d" % (number % 3))]
        log.append(RecordBatch(memoryview(bytearray(build_batch(of)))), 0)
    broker.settle()
    return log


def test_a_process_makes_the_same_segments_as_a_thread(broker):
    log = filled(broker)
    asked = job(log)
    thread = ThreadRound(broker.disk, asked, FAST, lambda: 0.0)
    expected = [thread.next(), thread.next()]
    content = broker.disk.read(f"{log.folder}/{0:020d}.log.cleaned")

    process = ProcessRound(asked, FAST)
    outcomes = [process.next(), process.next()]

    assert expected == outcomes
    assert [Cleaned, Finished] == [type(outcome) for outcome in outcomes]
    assert content == broker.disk.read(f"{log.folder}/{0:020d}.log.cleaned")
    swapped: list[bool] = []
    log.swap(outcomes[0], log.truncations, swapped.append)  # type: ignore[arg-type]
    broker.settle()
    assert [True] == swapped
    assert [27, 28, 29] == [each.offset for each in records(log)][-3:]


def test_damage_is_told_as_such(broker):
    log = filled(broker)
    path = Path(log.segments[0].paths[0])
    raw = bytearray(path.read_bytes())
    raw[70] ^= 1
    path.write_bytes(raw)

    with pytest.raises(Uncleanable, match="CRC"):
        ProcessRound(job(log), FAST).next()


def test_what_the_system_says_is_told_with_its_number(broker):
    log = filled(broker)
    asked = job(log)
    os.remove(log.segments[0].paths[0])

    with pytest.raises(FileNotFoundError):
        ProcessRound(asked, FAST).next()


def test_a_process_that_is_killed_is_an_error_of_the_system(broker):
    process = ProcessRound(job(filled(broker)), 1.0)  # a byte a second: it does not end by itself
    running = process._start()
    process._process = running
    os.kill(running.pid, signal.SIGKILL)

    with pytest.raises(OSError, match="ended with status -9"):
        process.next()


def test_a_stop_ends_it(broker):
    process = ProcessRound(job(filled(broker)), 1.0)
    process._process = process._start()

    process.stop()

    with pytest.raises(Stopped):
        process.next()
    process.close()
    assert process._process.returncode == -signal.SIGKILL


def test_a_stop_before_it_begins_starts_nothing(broker):
    process = ProcessRound(job(filled(broker)), FAST)
    process.stop()

    with pytest.raises(Stopped):
        process.next()
    process.close()
    assert process._process is None


def test_it_ends_with_the_broker(broker):
    """Whoever holds the other end of its stdin is gone: nobody wants what it makes."""
    task = msgspec.json.encode(Task(job(filled(broker)), 1.0)) + b"\n"
    with subprocess.Popen(command(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as running:
        assert running.stdin is not None
        running.stdin.write(task)
        running.stdin.close()

        assert 0 == running.wait(ENDS_S_MAX)


def test_a_pace_is_kept():
    now, waits = [0.0], []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    pacer = Pacer(100.0, lambda: now[0], wait)
    for _ in range(5):
        pacer.took(50)

    assert 2.5 == pytest.approx(now[0])
    assert max(waits) <= 1.0
    now[0] += 10.0
    pacer.took(50)
    assert 12.5 == pytest.approx(now[0])


def test_a_thread_that_waits_for_its_pace_can_be_stopped(broker):
    asked: Job = job(filled(broker))
    round_ = ThreadRound(broker.disk, asked, 1.0, lambda: 0.0)
    round_.stop()

    with pytest.raises(Stopped):
        round_.next()
