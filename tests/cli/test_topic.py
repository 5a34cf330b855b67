"""`kbroker topic`: create, list, describe, alter, delete."""

from __future__ import annotations

import pytest


def test_a_topic_is_created_described_grown_and_deleted(cli):
    assert (
        "created fresh with 2 partitions\n"
        == cli("topic", "create", "fresh", "-p", 2, "-c", "retention.ms=5000").out
    )
    assert ["fresh", "2", "1"] in cli("topic", "list").rows
    described = cli("topic", "describe", "fresh").rows
    assert [
        ["0", "0", "0", "0", "0", "0", "retention.ms=5000"],
        ["1", "0", "0", "0", "0", "0", "retention.ms=5000"],
    ] == described

    cli("topic", "alter", "fresh", "-p", 4, "-c", "segment.bytes=2000000", "-u", "retention.ms")

    told = cli("topic", "describe", "fresh", "-o", "json").json
    assert ([0, 1, 2, 3], {"segment.bytes": "2000000"}) == (
        [part["partition"] for part in told["partitions"]],
        told["configs"],
    )
    assert "deleted fresh\n" == cli("topic", "delete", "fresh").out
    assert "fresh" not in cli("topic", "list").out


def test_json_has_the_topics_id_and_the_offsets(cli, broker, topic):
    cli("produce", topic, "-p", 1, stdin=b"one\ntwo\n")

    told = cli("topic", "describe", topic, "--output", "json").json

    assert (topic, False, 22) == (told["topic"], told["internal"], len(told["id"]))
    assert {"partition": 1, "leader": 0, "replicas": [0], "in_sync": [0], "earliest": 0, "latest": 2} == told[
        "partitions"
    ][1]


def test_all_configs_are_shown_when_asked_for(cli, topic):
    assert {} == cli("topic", "describe", topic, "-o", "json").json["configs"]
    assert (
        "604800000"
        == cli("topic", "describe", topic, "--all-configs", "-o", "json").json["configs"]["retention.ms"]
    )


def test_creating_a_topic_that_exists_fails_unless_that_is_said_to_be_fine(cli, topic):
    failed = cli("topic", "create", topic, code=1)

    assert ("", True) == (failed.out, "TOPIC_ALREADY_EXISTS" in failed.err)
    assert f"{topic} exists already\n" == cli("topic", "create", topic, "--if-not-exists").out


def test_deleting_tells_of_each_what_became_of_it(cli, topic):
    done = cli("topic", "delete", topic, "never-was", code=1)

    assert f"deleted {topic}\n" == done.out
    assert done.err.startswith("Error: never-was: ")
    assert {"deleted": []} == cli("topic", "delete", "never-was", "--if-exists", "-o", "json").json


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["describe", "never-was"], "there is no topic 'never-was' (UNKNOWN_TOPIC_OR_PARTITION)"),
        (["alter", "never-was", "-p", "2"], "there is no topic 'never-was' (UNKNOWN_TOPIC_OR_PARTITION)"),
        (["create", "b/d"], "INVALID_TOPIC_EXCEPTION"),
        (["create", "x", "-r", "3"], "INVALID_REPLICATION_FACTOR"),
        (["create", "x", "-c", "no.such=1"], "INVALID_CONFIG"),
        (
            ["alter", "known", "-u", "retention.mss"],
            "there is no config 'retention.mss' of a topic: did you mean retention.ms?",
        ),
    ],
)
def test_a_failure_is_one_sentence_on_stderr(cli, args, said):
    cli("topic", "create", "known", "--if-not-exists")
    failed = cli("topic", *args, code=1)

    assert ("", 1, True) == (failed.out, failed.err.count("\n"), failed.err.startswith("Error: "))
    assert said in failed.err


@pytest.mark.parametrize(
    "args", [["create", "x", "-c", "retention.ms"], ["alter", "x"], ["create"], ["create", "x", "-p", "0"]]
)
def test_a_line_that_makes_no_sense_ends_with_2(cli, args):
    cli("topic", *args, code=2)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["-c", "retention.ms=1", "-c", "retention.ms=2"],
            "retention.ms is given twice: leave one of them out",
        ),
        (
            ["-c", "retention.ms=1", "-u", "retention.ms"],
            "retention.ms is set and unset: leave one of them out",
        ),
    ],
)
def test_one_config_is_not_asked_to_be_two_things(cli, topic, args, said):
    assert said in cli("topic", "alter", topic, *args, code=2).err
    assert {} == cli("topic", "describe", topic, "-o", "json").json["configs"]


@pytest.mark.parametrize(
    ("verb", "given", "cure"),
    [
        ("alter", "retention.ms=", "to have its default say --unset retention.ms"),
        ("alter", "compression.type= ", "to have its default say --unset compression.type"),
        ("alter", "retention.ms=1h", "it is in milliseconds: write 1h as 3600000"),
        ("create", "retention.ms=", "leave retention.ms out, and it has the broker's default"),
        ("create", "retention.ms=7d", "it is in milliseconds: write 7d as 604800000"),
    ],
)
def test_a_refused_config_comes_with_the_cure(cli, topic, verb, given, cure):
    name = topic if verb == "alter" else "not-to-be"

    assert f"; {cure} (INVALID_CONFIG)\n" in cli("topic", verb, name, "-c", given, code=1).err


def test_fewer_partitions_are_refused(cli, topic):
    assert "INVALID_PARTITIONS" in cli("topic", "alter", topic, "-p", 2, code=1).err
