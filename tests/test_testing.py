"""The embedded broker as its users meet it: topics, records, restarts, kills, failures, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from types import SimpleNamespace

import pytest

from kbroker.protocol.messages.fetch import FetchRequest
from kbroker.protocol.messages.list_offsets import ListOffsetsRequest
from kbroker.protocol.messages.metadata import MetadataRequest
from kbroker.protocol.records import build_batch, record
from kbroker.testing import Broker, ErrorCode, ExternalBroker, KafkaError, StartError
from kbroker.testing.external import Wire
from tests.support.histories import produce


@pytest.fixture
def broker():
    with Broker() as one:
        yield one


def address_of(broker):
    host, port = broker.bootstrap_servers.split(":")
    return host, int(port)


def send(broker, topic, *values, partition=0):
    wire = Wire(address_of(broker))
    try:
        answer = produce(
            wire, topic, partition, build_batch([record(value, timestamp=1) for value in values])
        )
    finally:
        wire.close()
    assert answer.error_code == 0


def values(broker, topic, partition=None):
    return [each.value for each in broker.records(topic, partition)]


def open_files():
    files = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            files.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue  # the listing's own
    return sorted(files)


@pytest.fixture
def left_open():
    """`left_open()`: this process's descriptors and threads; `left_open(before)`: those that it has more than it had.

    Brokers that run already open and close data files when they like, and notice late that a client of an earlier test
    has gone: their files do not count, nor does what is closed meanwhile.
    """
    running = tuple(file.removesuffix(".lock") for file in open_files() if file.endswith("/.lock"))

    def look(before=None):
        files = [file for file in open_files() if file.endswith("/.lock") or not file.startswith(running)]
        now = Counter([*files, *{thread.name for thread in threading.enumerate()}])
        return now if before is None else now - before

    return look


def test_it_serves_on_the_port_it_is_given(broker):
    host, port = address_of(broker)
    broker.stop()

    with Broker(port=port) as other:
        assert f"{host}:{port}" == other.bootstrap_servers


def test_a_port_beside_listeners_is_refused():
    with pytest.raises(ValueError, match="port=9092 is for a broker without listeners"):
        Broker({"listeners": "PLAINTEXT://127.0.0.1:0"}, port=9092)


@pytest.mark.parametrize("options", [{"log.dirs": "some/folder"}, {"log_dir": "some/folder"}])
def test_a_folder_of_data_by_another_name_than_data_dir_is_refused(options):
    with pytest.raises(ValueError, match="data_dir='some/folder'"):
        Broker(options)


def test_options_without_effect_are_named(caplog):
    with Broker(retention_ms=1, num_network_threads=3):
        pass

    [line] = [message for message in caplog.messages if "options without effect" in message]
    assert "num.network.threads, retention.ms (a topic's; the broker's is log.retention.ms)" in line


def test_a_folder_that_cannot_be_made_is_a_start_error(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StartError, match="file"):
        Broker(data_dir=tmp_path / "file" / "data").start()


def test_a_second_broker_on_one_folder_is_a_start_error(tmp_path):
    with (
        Broker(data_dir=tmp_path / "data"),
        pytest.raises(StartError, match="by another broker of this one"),
    ):
        Broker(data_dir=tmp_path / "data").start()


def test_it_serves_on_a_free_port_of_the_loopback(broker):
    host, port = address_of(broker)

    assert "127.0.0.1" == host
    assert port > 0


def test_records_come_back_partition_by_partition(broker):
    broker.create_topic("t", partitions=2)
    send(broker, "t", b"b", partition=1)
    send(broker, "t", b"a1", b"a2")

    assert [b"a1", b"a2", b"b"] == values(broker, "t")
    assert [b"b"] == values(broker, "t", 1)


@pytest.mark.parametrize("acks", [1, -1])
def test_what_is_acknowledged_can_be_read(broker, acks):
    """Nothing is synced: a test needs no acks=all."""
    broker.create_topic("orders")
    wire = Wire(address_of(broker))
    try:
        for count in range(1, 51):
            assert (
                0
                == produce(wire, "orders", 0, build_batch([record(b"x", timestamp=1)]), acks=acks).error_code
            )

            assert count == len(broker.records("orders"))
    finally:
        wire.close()


def test_refusals_are_kafka_errors(broker):
    broker.create_topic("t")

    with pytest.raises(KafkaError) as refused:
        broker.create_topic("t")

    assert ErrorCode.TOPIC_ALREADY_EXISTS == refused.value.code


def test_unknown_topics_and_partitions_have_no_records(broker):
    broker.create_topic("t")

    with pytest.raises(KeyError, match="no topic 'other'"):
        broker.records("other")
    with pytest.raises(KeyError, match="no partition 1"):
        broker.records("t", 1)


def test_a_topic_takes_configs_as_python_has_them(broker):
    broker.create_topic("t", config={"max.message.bytes": 100, "cleanup.policy": ["compact", "delete"]})

    wire = Wire(address_of(broker))
    try:
        keyless = produce(wire, "t", 0, build_batch([record(b"v", timestamp=1)]))
        large = produce(wire, "t", 0, build_batch([record(bytes(100), key=b"k", timestamp=1)]))
    finally:
        wire.close()
    assert [ErrorCode.INVALID_RECORD, ErrorCode.MESSAGE_TOO_LARGE] == [keyless.error_code, large.error_code]


def test_reset_deletes_every_topic(broker):
    broker.create_topic("a")
    broker.create_topic("b")

    broker.reset()

    assert [] == broker.topics()
    assert "a" == broker.create_topic("a")
    assert [] == broker.records("a")


def test_a_restart_keeps_port_and_data(broker):
    broker.create_topic("t")
    send(broker, "t", b"v")
    before = broker.bootstrap_servers

    broker.restart()

    assert (before, [b"v"]) == (broker.bootstrap_servers, values(broker, "t"))


def test_a_killed_broker_loses_nothing_and_recovers(broker, caplog):
    caplog.set_level("INFO", logger="kbroker")
    broker.create_topic("t")
    send(broker, "t", b"v")
    before, folder = broker.bootstrap_servers, broker.data_dir

    broker.kill()
    with pytest.raises(RuntimeError, match="not running"):
        broker.records("t")
    assert not (folder / ".kafka_cleanshutdown").exists()
    broker.start()

    assert (before, [b"v"]) == (broker.bootstrap_servers, values(broker, "t"))


def test_data_dir_keeps_the_data_for_the_next(tmp_path):
    with Broker(data_dir=tmp_path / "data") as one:
        one.create_topic("t")

    with Broker(data_dir=tmp_path / "data") as other:
        assert ["t"] == other.topics()


def test_options_have_kafkas_names_with_dots_or_underscores():
    with Broker({"num.partitions": 3}, auto_create_topics_enable=False) as broker:
        settings = broker.call(
            lambda node: (node.settings.num_partitions, node.settings.auto_create_topics_enable)
        )

    assert (3, False) == settings


def test_a_start_that_fails_raises_in_the_caller_and_leaves_nothing(broker, left_open):
    before = left_open()
    taken = Broker(listeners=f"PLAINTEXT://{broker.bootstrap_servers}")

    with pytest.raises(StartError, match="is taken"):
        taken.start()
    with pytest.raises(StartError, match=r"num\.partitions"):
        Broker({"num.partitionz": 3}).start()
    with pytest.raises(StartError, match="in use"):
        Broker(data_dir=broker.data_dir).start()

    assert not left_open(before)


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_nothing_stays_open_after_the_end(way, left_open):
    with Broker():
        pass  # whatever is made once per process
    before = left_open()
    broker = Broker().start()
    folder = broker.data_dir
    broker.create_topic("t", partitions=3)
    for partition in range(3):
        send(broker, "t", b"v", partition=partition)
    attached = [Wire(address_of(broker)) for _ in range(3)]
    values(broker, "t")

    getattr(broker, way)()
    for wire in attached:
        wire.close()

    assert not left_open(before)
    broker.stop()
    assert not folder.exists()


def test_stop_may_be_called_twice_and_start_again():
    broker = Broker().start()
    broker.stop()
    broker.stop()

    with broker:
        assert [] == broker.topics()


async def test_it_is_an_async_context_manager_too():
    async with Broker() as broker:
        broker.create_topic("t")
        _, writer = await asyncio.open_connection(*address_of(broker))
        writer.close()
        await writer.wait_closed()
        assert ["t"] == broker.topics()


def test_brokers_stand_side_by_side(broker):
    with Broker() as other:
        other.create_topic("t")

        assert ([], ["t"]) == (broker.topics(), other.topics())


# -- the same methods over the network


@pytest.fixture
def external(broker):
    with ExternalBroker(broker.bootstrap_servers) as one:
        yield one


def test_another_broker_has_the_same_methods(broker, external):
    assert "t" == external.create_topic("t", partitions=2, config={"retention.ms": 1000})
    send(broker, "t", b"a1", b"a2")
    send(broker, "t", b"b", partition=1)

    assert broker.records("t") == external.records("t")
    assert [b"b"] == values(external, "t", 1)
    with pytest.raises(KeyError, match="no partition 2"):
        external.records("t", 2)
    with pytest.raises(KafkaError) as refused:
        external.create_topic("t")
    assert ErrorCode.TOPIC_ALREADY_EXISTS == refused.value.code
    external.delete_topic("t")
    with pytest.raises(KeyError, match="no topic 't'"):
        external.records("t")


@pytest.fixture
def asked(monkeypatch):
    """What the external broker asks for, in order; `refusals` is what it hears instead, so often, by kind of request."""
    asked, ask = SimpleNamespace(kinds=[], refusals={}, code=0), Wire.ask

    def noted(wire, request, version):
        answer = ask(wire, request, version)
        kind = type(request)
        asked.kinds.append(kind)
        if asked.refusals.get(kind):
            asked.refusals[kind] -= 1
            topic = answer.responses[0] if kind is FetchRequest else answer.topics[0]
            topic.partitions[0].error_code = asked.code
        return answer

    monkeypatch.setattr(Wire, "ask", noted)
    return asked


@pytest.mark.parametrize(
    "code, looks",
    [("NOT_LEADER_OR_FOLLOWER", 4), ("UNKNOWN_TOPIC_OR_PARTITION", 4), ("OFFSET_NOT_AVAILABLE", 1)],
)
def test_another_broker_that_has_not_heard_yet_that_it_leads_is_asked_again(
    broker, external, asked, code, looks
):
    """As in Apache Kafka right after a topic was created. Who leads is asked anew where the answer says so."""
    external.create_topic("t")
    send(broker, "t", b"a")
    asked.kinds.clear()
    asked.refusals, asked.code = {ListOffsetsRequest: 2, FetchRequest: 1}, ErrorCode[code]

    assert [b"a"] == values(external, "t")
    assert [0, 0] == list(asked.refusals.values())
    assert looks == asked.kinds.count(MetadataRequest)


def test_another_broker_is_asked_once_who_leads(broker, external, asked):
    external.create_topic("t", partitions=3)
    for partition in range(3):
        send(broker, "t", b"a", partition=partition)
    asked.kinds.clear()

    assert [b"a"] * 3 == values(external, "t")
    assert 1 == asked.kinds.count(MetadataRequest)


def test_another_broker_that_goes_on_not_leading_is_asked_until_the_time_is_over(
    broker, external, asked, monkeypatch
):
    external.create_topic("t")
    assert [] == external.records("t")
    monkeypatch.setattr("kbroker.testing.external.ANSWER_SECONDS_MAX", 0.1)
    asked.refusals, asked.code = {ListOffsetsRequest: 1 << 30}, ErrorCode.NOT_LEADER_OR_FOLLOWER

    with pytest.raises(KafkaError) as refused:
        external.records("t")

    assert ErrorCode.NOT_LEADER_OR_FOLLOWER == refused.value.code


def test_a_topic_that_gets_no_leader_or_does_not_go_is_a_timeout(monkeypatch):
    external = ExternalBroker("localhost:1")  # nobody is asked
    leaderless = SimpleNamespace(leader_id=-1, error_code=0)
    topic = SimpleNamespace(name="t", is_internal=False, partitions=[leaderless])
    done = SimpleNamespace(error_code=0)
    monkeypatch.setattr("kbroker.testing.external.ANSWER_SECONDS_MAX", 0.1)
    monkeypatch.setattr(external, "_metadata", lambda names: SimpleNamespace(topics=[topic]))
    monkeypatch.setattr(
        external, "_ask_controller", lambda *_: SimpleNamespace(topics=[done], responses=[done])
    )

    with pytest.raises(TimeoutError, match="topic t has no leaders"):
        external.create_topic("t")
    with pytest.raises(TimeoutError, match="t not deleted"):
        external.delete_topic("t")


def test_another_brokers_reset_leaves_other_peoples_topics(broker, external):
    broker.create_topic("theirs")
    external.create_topic("ours")

    external.reset()

    assert ["theirs"] == external.topics()


def test_another_broker_is_not_ours_to_stop(broker, external):
    for forbidden in (external.restart, external.kill):
        with pytest.raises(RuntimeError, match="not ours"):
            forbidden()


def test_a_connection_that_ended_is_made_anew(broker, external):
    external.create_topic("t")
    broker.restart()

    assert ["t"] == external.topics()


def test_nobody_there_is_a_connection_error(broker):
    gone = broker.bootstrap_servers
    broker.stop()

    with pytest.raises(ConnectionError, match="no Kafka answers"):
        ExternalBroker(gone).start()
