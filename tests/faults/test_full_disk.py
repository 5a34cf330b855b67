"""A full disk: produces are refused, reads go on; with space again all goes on, and nothing acknowledged is lost."""

from __future__ import annotations

import time

import pytest

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.records import build_batch, record
from tests.support import raw_groups
from tests.support.broker_process import BrokerProcess
from tests.support.histories import produce
from tests.support.raw_client import RawClient
from tests.support.small_disk import mounted

SIZE_MB = 64  # more than the broker wants to see free before it takes writes again
BATCHES_MAX = 2_000
COMMITS_MAX = 50_000
AGAIN_S = 60.0

pytestmark = pytest.mark.faults


@pytest.fixture(params=["ext4", "tmpfs"])
def disk(request, tmp_path):
    one = mounted(tmp_path, request.param, SIZE_MB)
    yield one
    one.unmount()


@pytest.fixture
def broker(tmp_path, disk):
    one = BrokerProcess(tmp_path, data=disk.path / "data")
    one.start()
    yield one
    one.close()


def sent(wire, value):
    """The answer's error code and base offset."""
    part = produce(wire, "t", 0, build_batch([record(value, timestamp=int(time.time() * 1000))]))
    return ErrorCode(part.error_code), part.base_offset


def send_until_refused(wire, acked):
    for number in range(BATCHES_MAX):
        value = b"%06d" % (len(acked)) + bytes(20_000)
        code, offset = sent(wire, value)
        if code:
            return code, number
        assert offset == len(acked)
        acked.append(value)
    raise AssertionError("the disk is never full")


def create_until_refused(admin):
    """The journal's last block has room for some."""
    made = []
    for number in range(BATCHES_MAX):
        try:
            made.append(admin.create_topic(f"t-{number}"))
        except KafkaError as error:
            return made, error.code
    raise AssertionError("the disk is never full")


def test_a_full_disk_refuses_produces_and_serves_reads(broker, disk):
    with broker.admin() as admin:
        admin.create_topic("t")
        wire, acked = broker.wire(), []
        sent_first = sent(wire, b"first")
        acked.append(b"first")
        disk.fill(leave=200_000)

        code, _ = send_until_refused(wire, acked)

        assert (ErrorCode.NONE, 0) == sent_first
        assert ErrorCode.KAFKA_STORAGE_ERROR == code
        assert 1 == broker.log_text().count("log directory full"), broker.log_text()
        assert ErrorCode.KAFKA_STORAGE_ERROR == sent(wire, b"again")[0]
        assert acked == [each.value for each in admin.records("t")]

        disk.free()
        deadline = time.monotonic() + AGAIN_S
        while (got := sent(wire, b"after"))[0] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (ErrorCode.NONE, len(acked)) == got
        acked.append(b"after")
        assert "log directory has space again" in broker.log_text()
        wire.close()
    broker.kill()
    broker.start()
    with broker.admin() as admin:
        assert acked == [each.value for each in admin.records("t")]
    assert 0 == broker.stop()
    assert "Traceback" not in broker.log_text()


def test_a_disk_that_is_full_at_the_start_and_at_the_stop_loses_nothing(broker, disk):
    with broker.admin() as admin:
        admin.create_topic("t")
        wire, acked = broker.wire(), []
        disk.fill(leave=200_000)
        send_until_refused(wire, acked)
        wire.close()
    disk.fill()
    broker.stop()
    disk.free()
    broker.start()
    with broker.admin() as admin:
        assert acked == [each.value for each in admin.records("t")]
        wire = broker.wire()
        assert (ErrorCode.NONE, len(acked)) == sent(wire, b"after")
        wire.close()
    assert "Traceback" not in broker.log_text()


def test_topics_are_refused_while_the_disk_is_full_and_made_afterwards(broker, disk):
    with broker.admin() as admin:
        admin.create_topic("before")
        disk.fill()
        made, code = create_until_refused(admin)

        assert ErrorCode.KAFKA_STORAGE_ERROR == code
        assert sorted(["before", *made]) == admin.topics()

        disk.free()
        admin.create_topic("after")
    broker.kill()
    broker.start()
    with broker.admin() as admin:
        assert sorted(["before", "after", *made]) == admin.topics()
    assert "Traceback" not in broker.log_text()


def test_commits_are_refused_while_the_disk_is_full_and_groups_go_on(broker, disk, monkeypatch):
    monkeypatch.setattr(raw_groups, "NOT_YET", (14, 15))  # 16 is what a refused commit is answered
    with broker.admin() as admin:
        admin.create_topic("t")
    at, answered = ("t", 0), -1
    with RawClient(("127.0.0.1", broker.port)) as raw:
        member = raw_groups.join(raw, "members", session_ms=600_000)
        disk.fill()
        while (code := raw_groups.commit(raw, "simple", {at: answered + 1})) == 0:  # what is left of a block
            answered += 1
            assert answered < COMMITS_MAX, "the disk is never full"

        assert ErrorCode.NOT_COORDINATOR == code
        assert ErrorCode.NOT_COORDINATOR == raw_groups.commit(raw, "members", {at: 1}, member)
        assert answered == raw_groups.committed(raw, "simple").get(at, -1)
        assert 0 == raw_groups.beat(raw, "members", member)

        disk.free()
        deadline = time.monotonic() + AGAIN_S
        while (code := raw_groups.commit(raw, "simple", {at: 1_000_000})) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert 0 == code
        assert 0 == raw_groups.commit(raw, "members", {at: 2}, member)
    broker.kill()
    broker.start()
    with RawClient(("127.0.0.1", broker.port)) as raw:
        monkeypatch.undo()
        assert {at: 1_000_000} == raw_groups.committed(raw, "simple")
        assert {at: 2} == raw_groups.committed(raw, "members")
        assert 0 == raw_groups.beat(raw, "members", member)
    assert "Traceback" not in broker.log_text()
