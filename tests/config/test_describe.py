"""DescribeConfigs: compared with what Apache Kafka 4.3 answered (the .tsv files beside this one)."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbroker.config import ConfigSource, Settings

HERE = Path(__file__).parent
TOPIC, BROKER, ALL, STATIC, DEFAULT = (
    ConfigSource.DYNAMIC_TOPIC,
    ConfigSource.DYNAMIC_BROKER,
    ConfigSource.DYNAMIC_DEFAULT_BROKER,
    ConfigSource.STATIC_BROKER,
    ConfigSource.DEFAULT,
)


def recorded(kind):
    rows = {}
    for line in (HERE / f"kafka-4.3-{kind}.tsv").read_text().splitlines()[1:]:
        name, type, default, dynamic, sensitive = (line + "\t\t").split("\t")[:5]
        rows[name] = (
            int(type),
            None if default == "null" else default,
            dynamic == "dynamic",
            bool(sensitive),
        )
    return rows


def ours(rows):
    described = {}
    for row in rows:
        default = next((each.value for each in row.synonyms if each[::2] == (row.name, DEFAULT)), None)
        value = row.value if default is None and row.is_default else default
        described[row.name] = (int(row.type), value, not row.read_only, row.sensitive)
    return described


def settings(**static):
    given = {"node.id": "1", "log.dirs": "/data"} | {
        name.replace("_", "."): text for name, text in static.items()
    }
    return Settings.load(given)


def row_of(rows, name):
    return next(row for row in rows if row.name == name)


# What differs from Kafka on purpose.
OWN_DEFAULTS = {
    "node.id",
    "listeners",
    "process.roles",
    "log.dir",
    "socket.send.buffer.bytes",
    "socket.receive.buffer.bytes",
}
FIXED_HERE = {"listeners", "listener.security.protocol.map"}  # change with a restart only


def test_every_broker_option_of_kafka_is_listed_with_its_type_default_and_kind():
    kafka, here = recorded("broker"), ours(settings().describe_broker())

    assert set() == kafka.keys() - here.keys()
    assert {
        "kbroker.fsync.before.ack",
        "kbroker.batch.decompressed.bytes.max",
        "kbroker.produce.validation",
    } == (here.keys() - kafka.keys())
    for name, (type, default, dynamic, sensitive) in kafka.items():
        expected = (
            type,
            here[name][1] if name in OWN_DEFAULTS else default,
            False if name in FIXED_HERE else dynamic,
            sensitive,
        )
        assert expected == here[name], name


def test_every_topic_option_of_kafka_is_listed_with_its_type_and_default():
    assert recorded("topic") == ours(settings().describe_topic({}))


def test_every_row_says_what_it_is_for():
    rows = [*settings().describe_broker(), *settings().describe_topic({})]

    assert [] == [row.name for row in rows if not row.doc.endswith(".")]


def four_levels():
    given = settings(log_segment_bytes="2097152", log_retention_minutes="2880", log_roll_ms="1000000")
    given.apply_dynamic("", {"log.segment.bytes": "5000000"})
    given.apply_dynamic("1", {"log.segment.bytes": "4000000", "log.retention.ms": "555555"})
    return given


@pytest.mark.parametrize(
    "name, value, synonyms",
    [
        (
            "segment.bytes",
            "3000000",
            [
                ("segment.bytes", "3000000", TOPIC),
                ("log.segment.bytes", "4000000", BROKER),
                ("log.segment.bytes", "5000000", ALL),
                ("log.segment.bytes", "2097152", STATIC),
                ("log.segment.bytes", "1073741824", DEFAULT),
            ],
        ),
        (
            "retention.ms",
            "7777",
            [
                ("retention.ms", "7777", TOPIC),
                ("log.retention.ms", "555555", BROKER),
                ("log.retention.minutes", "2880", STATIC),
                ("log.retention.hours", "168", DEFAULT),
            ],
        ),
        ("segment.ms", "1000000", [("log.roll.ms", "1000000", STATIC), ("log.roll.hours", "168", DEFAULT)]),
        ("segment.jitter.ms", "0", []),
        ("cleanup.policy", "delete", [("log.cleanup.policy", "delete", DEFAULT)]),
    ],
)
def test_a_topics_option_lists_where_it_is_looked_up(name, value, synonyms):
    row = row_of(four_levels().describe_topic({"retention.ms": " 7777", "segment.bytes": "+3000000"}), name)

    assert (value, synonyms) == (row.value, list(row.synonyms))
    assert (synonyms[0][2] if synonyms else DEFAULT) is row.source
    assert row.is_default is (row.source is DEFAULT)


def test_a_retention_in_hours_alone_is_shown_as_kafka_shows_it():
    row = row_of(settings(log_retention_hours="24").describe_topic({}), "retention.ms")

    assert ("86400000", [], DEFAULT) == (row.value, row.synonyms, row.source)


@pytest.mark.parametrize("policy", ["delete,compact", "compact,delete", "", "compact"])
def test_a_list_is_shown_as_it_was_given(policy):
    assert policy == row_of(settings().describe_topic({"cleanup.policy": policy}), "cleanup.policy").value


def test_a_brokers_option_lists_where_it_is_looked_up():
    row = row_of(four_levels().describe_broker(), "log.segment.bytes")

    assert ("4000000", BROKER) == (row.value, row.source)
    assert [("4000000", BROKER), ("5000000", ALL), ("2097152", STATIC), ("1073741824", DEFAULT)] == [
        each[1:] for each in row.synonyms
    ]


def test_a_listeners_own_option_stands_before_the_brokers():
    rows = Settings.load({"listener.name.plaintext.ssl.client.auth": "required"}).describe_broker()
    row = row_of(rows, "listener.name.plaintext.ssl.client.auth")

    assert ("required", STATIC, True) == (row.value, row.source, row.read_only)
    assert [
        ("listener.name.plaintext.ssl.client.auth", "required", STATIC),
        ("ssl.client.auth", "none", DEFAULT),
    ] == row.synonyms


def test_secrets_and_names_of_plug_ins_are_never_shown():
    rows = Settings.load(
        {"ssl.key.password": "hunter2", "config.providers.x.secret": "hunter2"}
    ).describe_broker()

    assert "hunter2" not in repr(rows)
    for name in ("ssl.key.password", "config.providers.x.secret"):
        row = row_of(rows, name)
        assert (None, STATIC, True, [(name, None, STATIC)]) == (
            row.value,
            row.source,
            row.sensitive,
            list(row.synonyms),
        )


def test_options_of_all_brokers_are_those_set_for_all():
    assert [("log.segment.bytes", "5000000", ALL, [("log.segment.bytes", "5000000", ALL)])] == [
        (row.name, row.value, row.source, row.synonyms) for row in four_levels().describe_all_brokers()
    ]


def test_internal_options_are_not_listed():
    assert "log.initial.task.delay.ms" not in ours(settings().describe_broker())
    assert "internal.segment.bytes" not in ours(settings().describe_topic({}))


def test_the_brokers_id_is_shown_under_both_of_its_names():
    rows = settings().describe_broker()

    assert ("1", STATIC, [("node.id", "1", STATIC), ("node.id", "0", DEFAULT)]) == (
        row_of(rows, "node.id").value,
        row_of(rows, "node.id").source,
        row_of(rows, "node.id").synonyms,
    )
    assert ("1", STATIC, [("broker.id", "1", STATIC), ("broker.id", "-1", DEFAULT)]) == (
        row_of(rows, "broker.id").value,
        row_of(rows, "broker.id").source,
        row_of(rows, "broker.id").synonyms,
    )
    assert "0" == row_of(Settings.load().describe_broker(), "broker.id").value
