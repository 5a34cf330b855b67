"""How verbs end: Ctrl-C, SIGTERM, a closed pipe, a broker that is not there; and what a terminal gets."""

from __future__ import annotations

import signal

import pytest

from kbroker.protocol.records import Record, build_batch
from tests.cli.conftest import LIMIT_S, on_terminal


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_following_without_a_word(process, cli, topic, how, code):
    cli("produce", topic, stdin=b"here\n")
    consumer = process("consume", topic)
    assert b"here\n" == consumer.stdout.readline()

    consumer.send_signal(how)

    out, err = consumer.communicate(timeout=LIMIT_S)
    assert (code, b"", b"") == (consumer.returncode, out, err)


def test_ctrl_c_ends_a_producer_that_waits_for_a_line(process, topic, broker):
    producer = process("produce", topic)
    producer.stdin.write(b"first\n")
    producer.stdin.flush()
    while not broker.records(topic):
        assert producer.poll() is None

    producer.send_signal(signal.SIGINT)

    assert 130 == producer.wait(LIMIT_S)
    assert b"" == producer.stderr.read()


def test_a_reader_that_goes_away_ends_it_without_a_word(process, cli, topic):
    cli("produce", topic, "-p", 0, stdin=b"line\n" * 200_000)
    consumer = process("consume", topic)
    assert b"line\n" == consumer.stdout.readline()

    consumer.stdout.close()

    assert 141 == consumer.wait(LIMIT_S)
    assert b"" == consumer.stderr.read()


@pytest.mark.parametrize(
    "verb",
    [
        ["consume", "{topic}", "-e"],
        ["consume", "{topic}", "-e", "-o", "json"],
        ["consume", "{topic}", "-e", "-g", "full"],
        ["topic", "list"],
        ["topic", "list", "-o", "json"],
        ["dump-log", "{file}"],
        ["completion", "zsh"],
    ],
)
def test_a_full_disk_behind_stdout_is_one_sentence(process, cli, topic, tmp_path, verb):
    cli("produce", topic, "-p", 0, stdin=b"line\n" * 5_000)
    file = tmp_path / "00000000000000000000.log"
    file.write_bytes(build_batch([Record(0, 1, None, b"value")]))

    with open("/dev/full", "wb") as full:
        one = process(*(word.format(topic=topic, file=file) for word in verb), stdout=full)
        _, err = one.communicate(timeout=LIMIT_S)

    assert (1, b"Error: stdout cannot be written: No space left on device\n") == (one.returncode, err)


def test_what_stdout_did_not_take_is_not_committed(process, cli, topic):
    cli("produce", topic, "-p", 0, stdin=b"line\n" * 100)
    with open("/dev/full", "wb") as full:
        process("consume", topic, "-e", "-g", "kept", stdout=full).communicate(timeout=LIMIT_S)

    assert 100 == len(cli("consume", topic, "-e", "-g", "kept").out.split())


def test_a_record_is_sent_when_its_line_is_there(process, topic, broker):
    """Somebody types: nothing waits for a batch to fill."""
    producer = process("produce", topic)
    for count in (1, 2, 3):
        producer.stdin.write(b"line\n")
        producer.stdin.flush()
        while len(broker.records(topic)) < count:
            assert producer.poll() is None

    producer.stdin.close()

    assert 0 == producer.wait(LIMIT_S)


def test_nobody_listens(cli, nobody):
    failed = cli("topic", "list", "-b", nobody, code=1)

    assert (
        f"Error: nobody listens at {nobody}; is the broker running, and is this its address?\n" == failed.err
    )


def test_the_second_bootstrap_server_serves_when_the_first_does_not(cli, broker, nobody, topic):
    assert topic in cli("topic", "list", "-b", f"{nobody},{broker.bootstrap_servers}").out


def test_a_host_without_an_address(cli):
    failed = cli("topic", "list", "-b", "nowhere.invalid", code=1)

    assert failed.err.startswith("Error: the host 'nowhere.invalid' has no address (")
    assert failed.err.endswith("); is this its name?\n")


def test_a_terminal_gets_a_table_and_no_control_characters(process, cli, broker, topic):
    cli("produce", topic, stdin=b"a\x1b[2Jb\xff\n")

    shown = on_terminal(process, "consume", topic, "-e")
    raw = on_terminal(process, "consume", topic, "-e", "--raw")
    table = on_terminal(process, "topic", "describe", topic)

    assert b"a\\x1b[2Jb\\xff\r\n" == shown
    assert b"a\x1b[2Jb\xff\r\n" == raw
    assert all(word in table for word in (b"partition", b"leader", b"earliest"))


def test_it_waits_for_a_broker_that_restarts_while_it_sends(process):
    """One that is there, goes, and comes back: every line is there once."""
    from kbroker.testing import Broker

    with Broker() as broker:
        broker.create_topic("kept", partitions=1)
        producer = process("produce", "kept", "-b", broker.bootstrap_servers)
        producer.stdin.write(b"before\n")
        producer.stdin.flush()
        while not broker.records("kept"):
            assert producer.poll() is None
        broker.restart()
        producer.stdin.write(b"after\n")

        _, err = producer.communicate(timeout=LIMIT_S)

        assert (0, b"") == (producer.returncode, err)
        assert [b"before", b"after"] == [record.value for record in broker.records("kept")]
