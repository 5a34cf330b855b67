"""Values: parsing, bounds, and Kafka's words for what is refused (asked of Apache Kafka 4.3)."""

from __future__ import annotations

import pytest

from kbroker.config.broker import BROKER_OPTIONS
from kbroker.config.options import BadValue, ConfigType, Option
from kbroker.config.topics import TOPIC_OPTIONS, TopicConfig


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("retention.ms", " 5 ", 5),
        ("retention.ms", "+5", 5),
        ("retention.ms", "-1", -1),
        ("cleanup.policy", "", ()),
        ("cleanup.policy", "delete, compact", ("delete", "compact")),
        ("cleanup.policy", "delete,delete", ("delete",)),
        ("compression.type", " gzip ", "gzip"),
        ("compression.gzip.level", "-1", -1),
        ("min.cleanable.dirty.ratio", "1", 1.0),
        ("preallocate", "TRUE", True),
        ("leader.replication.throttled.replicas", "0:1,1:2", ("0:1", "1:2")),
        ("leader.replication.throttled.replicas", "*", ("*",)),
        ("internal.segment.bytes", "100", 100),
    ],
)
def test_a_value_is_read_as_kafka_reads_it(name, text, expected):
    assert expected == TOPIC_OPTIONS[name].parse(text)


@pytest.mark.parametrize(
    "name, text, why",
    [
        ("retention.ms", "x", "Not a number of type LONG"),
        ("retention.ms", "", "Not a number of type LONG"),
        ("retention.ms", "5_0", "Not a number of type LONG"),
        ("retention.ms", "٣", "Not a number of type LONG"),
        ("retention.ms", "9223372036854775808", "Not a number of type LONG"),
        ("retention.ms", "9" * 5000, "Not a number of type LONG"),
        ("retention.ms", "-2", "Value must be at least -1"),
        ("max.message.bytes", "99999999999", "Not a number of type INT"),
        ("segment.bytes", "1024", "Value must be at least 1048576"),
        ("compression.zstd.level", "23", "Value must be no more than 22"),
        ("compression.gzip.level", "0", "Value must be between 1 and 9 or equal to -1"),
        ("cleanup.policy", "foo", "String must be one of: compact, delete"),
        ("cleanup.policy", "compact,,delete", "members of the list must not be empty"),
        (
            "compression.type",
            "GZIP",
            "String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        ("min.cleanable.dirty.ratio", "1.5", "Value must be no more than 1"),
        ("min.cleanable.dirty.ratio", "abc", "Not a number of type DOUBLE"),
        ("preallocate", "yes", "Expected value to be either true or false"),
        ("message.timestamp.type", "createtime", "String must be one of: CreateTime, LogAppendTime"),
    ],
)
def test_a_value_is_refused_in_kafkas_words(name, text, why):
    with pytest.raises(BadValue) as refused:
        TOPIC_OPTIONS[name].parse(text)

    assert why == str(refused.value)
    assert f"Invalid value {text} for configuration {name}: {why}" == TOPIC_OPTIONS[name].refusal(text)


def test_not_a_number_is_no_ratio():
    assert TOPIC_OPTIONS["min.cleanable.dirty.ratio"].refusal("nan")


def test_throttled_replicas_are_pairs_of_numbers():
    assert "[partitionId]:[brokerId]" in TOPIC_OPTIONS["leader.replication.throttled.replicas"].refusal("x")


def test_a_secret_is_not_repeated_in_a_refusal():
    secret = Option("p", ConfigType.PASSWORD, None, check=lambda value: "too short")

    assert "Invalid value [hidden] for configuration p: too short" == secret.refusal("hunter2")


@pytest.mark.parametrize("row", TOPIC_OPTIONS.values(), ids=lambda row: row.name)
def test_every_topic_default_is_a_value_of_its_option(row):
    if row.default is not None:
        assert row.default == row.parse(row.default_text)
    assert row.doc.endswith(".")
    assert row.attribute == row.name.replace(".", "_")
    assert row.attribute in TopicConfig.__annotations__


def test_a_topic_config_takes_any_field_and_never_changes():
    config = TopicConfig(segment_bytes=100, cleanup_policy=["compact"])

    assert (100, frozenset({"compact"}), True, 604800000) == (
        config.segment_bytes,
        config.cleanup_policy,
        config.compacted,
        config.retention_ms,
    )
    with pytest.raises(AttributeError):
        config.segment_bytes = 5
    with pytest.raises(TypeError, match="no such topic config: nope"):
        TopicConfig(nope=1)


def test_a_topic_config_shows_what_is_not_the_default():
    assert "TopicConfig(retention_ms=5)" == repr(TopicConfig(retention_ms=5))


def test_internal_segment_bytes_takes_the_place_of_segment_bytes():
    assert 100 == TopicConfig(internal_segment_bytes=100).segment_bytes


def test_an_option_is_marked_as_without_effect_where_its_words_say_so():
    silent = [name for name, row in BROKER_OPTIONS.items() if "no effect" in row.doc and not row.inert]

    assert [] == silent
