"""What helps when a broker refuses a config."""

from __future__ import annotations

import pytest

from kbroker.cli.cures import AT_START_ALONE, LISTED, OF_A_LISTENER, with_cure
from kbroker.config.options import INT, Option
from kbroker.errors import ErrorCode, KafkaError


def cured(words, **configs):
    error = KafkaError(ErrorCode.INVALID_CONFIG, words)
    configs = {name.replace("_", "."): value for name, value in configs.items()}
    told = with_cure(error, configs, clearing="say --unset {}")
    assert error.code == told.code
    return told.message


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("retention.ms", "", "say --unset retention.ms"),
        ("retention.ms", " ", "say --unset retention.ms"),
        ("retention.ms", "1h", "it is in milliseconds: write 1h as 3600000"),
        ("retention.ms", "90 min", "it is in milliseconds: write 90 min as 5400000"),
        ("retention.ms", "2W", "it is in milliseconds: write 2W as 1209600000"),
        ("segment.bytes", "64m", "it is in bytes: write 64m as 67108864"),
        ("segment.bytes", "1 GiB", "it is in bytes: write 1 GiB as 1073741824"),
        ("log.retention.hours", "7d", "it is in hours: write 7d as 168"),
        ("segment.bytes", "2g", "it is a number of bytes, 2147483647 at most"),
        ("log.retention.hours", "90m", "it is a number of hours"),
        ("retention.ms", "long", "it is a number of milliseconds"),
        ("retention.ms", "1.5h", "it is a number of milliseconds"),
        ("retention.ms", "5 parsecs", "it is a number of milliseconds"),
    ],
)
def test_a_value_that_is_no_number_is_told_what_it_should_be(name, value, cure):
    words = Option(name, INT, 0).refusal(value)

    assert f"{words}; {cure}" == cured(words, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("retention.ms", "-5"), ("segment.bytes", "1"), ("num.partitions", "many")]
)
def test_where_the_brokers_words_say_it_all_they_stay(name, value):
    words = f"Invalid value {value} for configuration {name}: Value must be at least 7"

    assert words == cured(words, **{name: value})


def test_the_cure_is_of_the_config_that_was_refused():
    words = "Invalid value 1g for configuration segment.bytes: Not a number of type INT"

    told = cured(words, retention_ms="1h", segment_bytes="1g", local_segment_bytes="")

    assert f"{words}; it is in bytes: write 1g as 1073741824" == told


@pytest.mark.parametrize(
    "words",
    [
        "Cannot update these configs dynamically: [log.retention.hours]",
        "Cannot update these configs dynamically: Set(log.retention.hours)",  # Apache Kafka
    ],
)
def test_what_is_taken_at_the_start_alone(words):
    assert f"{words}; {AT_START_ALONE}" == cured(words, log_retention_hours="8")


def test_a_file_of_tls_belongs_to_a_listener():
    words = (
        "These security configs can be dynamically updated only per-listener using the listener prefix: "
        "[ssl.keystore.location]"
    )

    assert f"{words}; {OF_A_LISTENER}" == cured(words, ssl_keystore_location="broker.pem")


def test_a_name_that_nobody_knows_is_told_where_names_are():
    words = "Unknown topic config name: xyzzy"

    assert f"{words}; {LISTED}" == cured(words, xyzzy="1")
    assert f"{words}: did you mean this?" == cured(f"{words}: did you mean this?", xyzzy="1")


def test_an_error_without_words_stays_one():
    assert cured(None, retention_ms="") is None
