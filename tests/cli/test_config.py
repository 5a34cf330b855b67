"""`kbroker config`: configs with sources, of topics and brokers."""

from __future__ import annotations

import pytest


def test_what_is_set_is_shown_with_its_source(cli, topic):
    assert (
        "changed retention.ms, cleanup.policy of topic " + topic + "\n"
        == cli("config", "set", "topic", topic, "retention.ms=5000", "cleanup.policy=delete").out
    )

    shown = cli("config", "get", "topic", topic).rows
    assert [["cleanup.policy", "delete", "topic"], ["retention.ms", "5000", "topic"]] == of_the_topic(shown)
    cli("config", "set", "topic", topic, "--unset", "cleanup.policy")
    assert [["retention.ms", "5000", "topic"]] == of_the_topic(cli("config", "get", "topic", topic).rows)


def of_the_topic(rows):
    return [row for row in rows if row[2] == "topic"]


def test_one_value_alone_is_for_scripts(cli, topic):
    assert "604800000\n" == cli("config", "get", "topic", topic, "retention.ms").out


def test_all_configs_and_what_they_mean(cli, topic):
    rows = {row[0]: row[1:] for row in cli("config", "get", "topic", topic, "--all", "--docs").rows}

    assert "1073741824" == rows["segment.bytes"][0]
    assert "default" == rows["segment.bytes"][1]
    assert rows["segment.bytes"][2]


def test_json_says_everything(cli, topic):
    cli("config", "set", "topic", topic, "retention.ms=5000")

    told = cli("config", "get", "topic", topic, "retention.ms", "-o", "json").json["retention.ms"]

    assert ("5000", "topic", "long", False) == (
        told["value"],
        told["source"],
        told["type"],
        told["sensitive"],
    )
    assert {"name": "retention.ms", "value": "5000", "source": "topic"} in told["synonyms"]


def test_a_broker_and_the_default_of_all(cli):
    cli("config", "set", "broker", "", "log.retention.ms=700000")
    cli("config", "set", "broker", "0", "log.retention.ms=800000")

    assert [["log.retention.ms", "700000", "all brokers"]] == cli("config", "get", "broker", "").rows
    assert "800000\n" == cli("config", "get", "broker", "0", "log.retention.ms").out
    cli("config", "set", "broker", "0", "-u", "log.retention.ms")
    assert "700000\n" == cli("config", "get", "broker", "0", "log.retention.ms").out
    cli("config", "set", "broker", "", "-u", "log.retention.ms")


def test_what_a_broker_was_started_with_is_called_so(cli, broker):
    assert ["num.partitions", "1", "start"] in cli("config", "get", "broker", "0").rows


def test_what_is_not_set_may_be_taken_back_to_its_default(cli, topic):
    assert (
        f"changed segment.bytes of topic {topic}\n"
        == cli("config", "set", "topic", topic, "-u", "segment.bytes").out
    )
    cli("config", "set", "broker", "", "-u", "log.segment.bytes")


def test_a_secret_is_neither_shown_nor_repeated(cli):
    done = cli(
        "config", "set", "broker", "0", "listener.name.plaintext.ssl.key.password=swordfish", "-o", "json"
    )
    shown = cli("config", "get", "broker", "0", "--all")

    assert "swordfish" not in done.out + done.err + shown.out + shown.err
    cli("config", "set", "broker", "0", "-u", "listener.name.plaintext.ssl.key.password")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["get", "topic", "never-was"], 1, "there is no topic 'never-was'"),
        (["get", "broker", "77"], 1, "there is no broker 77: choose among 0"),
        (["get", "broker", "seven"], 2, "'seven' is none"),
        (
            ["get", "broker", "0", "no.such"],
            1,
            "there is no config 'no.such' of a broker; kbroker config get broker ID --all",
        ),
        (["get", "topic", "known", "max.mesage.bytes"], 1, "of a topic: did you mean max.message.bytes?"),
        (
            ["set", "topic", "known", "-u", "nosuch.key"],
            1,
            "there is no config 'nosuch.key' of a topic; kbroker config get topic",
        ),
        (["set", "broker", "0", "-u", "log.retention.mss"], 1, "did you mean log.retention.ms?"),
        (["set", "broker", "", "-u", "log.retention.mss"], 1, "did you mean log.retention.ms?"),
        (["set", "broker", "0"], 2, "nothing to change"),
        (["set", "broker", "0", "log.retention.ms=soon"], 1, "log.retention.ms"),
    ],
)
def test_what_is_not_there(cli, args, code, said):
    cli("topic", "create", "known", "--if-not-exists")
    assert said in cli("config", *args, code=code).err
