"""What CreateTopics and AlterConfigs may set, in the codes and words of Apache Kafka 4.3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.config import ConfigOp, ResourceType, Settings
from kbroker.config.alter import APPEND, DELETE, SET, SUBTRACT, altered
from kbroker.errors import ErrorCode, KafkaError

TOPIC, BROKER = ResourceType.TOPIC, ResourceType.BROKER
CONFIG, REQUEST = ErrorCode.INVALID_CONFIG, ErrorCode.INVALID_REQUEST


@pytest.fixture
def settings():
    return Settings.load({"node.id": "1", "log.dirs": "/data"})


def refusal(call, *arguments, **keywords):
    with pytest.raises(KafkaError) as refused:
        call(*arguments, **keywords)
    return refused.value.code, refused.value.message


def test_the_overrides_of_a_new_topic_are_those_given(settings):
    given = {"retention.ms": " 5 ", "cleanup.policy": "compact,delete"}

    assert given == settings.check_topic(given)


@pytest.mark.parametrize(
    "configs, message",
    [
        ({"bogus": "1"}, "Unknown topic config name: bogus"),
        ({"retention.msec": "1"}, "Unknown topic config name: retention.msec: did you mean retention.ms?"),
        (
            {"log.retention.hours": "1"},
            "Unknown topic config name: log.retention.hours: did you mean retention.ms?",
        ),
        ({"retention.ms": "x", "bogus": "1"}, "Unknown topic config name: bogus"),
        ({"retention.ms": None}, "Null value not supported for topic configs: retention.ms"),
        (
            {"retention.ms": "-2"},
            "Invalid value -2 for configuration retention.ms: Value must be at least -1",
        ),
        (
            {"min.compaction.lag.ms": "100", "max.compaction.lag.ms": "50"},
            "conflict topic config setting min.compaction.lag.ms (100) > max.compaction.lag.ms (50)",
        ),
        (
            {"remote.storage.enable": "true"},
            "Tiered Storage functionality is disabled in the broker. "
            "Topic cannot be configured with remote log storage.",
        ),
    ],
)
def test_a_new_topics_overrides_are_refused(settings, configs, message):
    assert (CONFIG, message) == refusal(settings.check_topic, configs)


def test_overrides_are_checked_against_the_brokers_defaults(settings):
    settings.apply_dynamic("", {"log.cleaner.min.compaction.lag.ms": "500"})

    code, message = refusal(settings.check_topic, {"max.compaction.lag.ms": "50"})

    assert (CONFIG, True) == (code, "(500) > max.compaction.lag.ms (50)" in message)


def alter(settings, type, name, *ops, current=None, replace=False):
    return settings.check_alter(type, name, [ConfigOp(*op) for op in ops], current or {}, replace=replace)


def test_lists_to_append_to_come_with_the_default_as_their_base(settings):
    assert [
        ConfigOp("cleanup.policy", APPEND, "compact", "delete"),
        ConfigOp("retention.ms", SET, "5"),
    ] == alter(settings, TOPIC, "t", ("cleanup.policy", APPEND, "compact"), ("retention.ms", SET, "5"))


@pytest.mark.parametrize(
    "ops, refused",
    [
        ([("bogus", SET, "1")], (CONFIG, "Unknown topic config name: bogus")),
        (
            [("retention.ms", APPEND, "5")],
            (CONFIG, "Can't APPEND to key retention.ms because its type is not LIST."),
        ),
        (
            [("retention.ms", SUBTRACT, "5")],
            (CONFIG, "Can't SUBTRACT to key retention.ms because its type is not LIST."),
        ),
        (
            [("cleanup.policy", APPEND, "foo")],
            (
                CONFIG,
                "Invalid value delete,foo for configuration cleanup.policy: String must be one of: compact, delete",
            ),
        ),
        ([("retention.ms", SET, None)], (REQUEST, "Null value not supported for : retention.ms")),
        (
            [("retention.ms", SET, "5"), ("retention.ms", DELETE)],
            (REQUEST, "Error due to duplicate config keys"),
        ),
        ([("retention.ms", 7, "5")], (REQUEST, "Unknown operation 7 for retention.ms")),
        (
            [("max.compaction.lag.ms", SET, "50")],
            (
                CONFIG,
                "conflict topic config setting min.compaction.lag.ms (100) > max.compaction.lag.ms (50)",
            ),
        ),
    ],
)
def test_a_change_of_a_topic_is_refused(settings, ops, refused):
    current = {"min.compaction.lag.ms": "100"}

    assert refused == refusal(alter, settings, TOPIC, "t", *ops, current=current)


def test_there_is_no_topic_without_a_name(settings):
    assert (REQUEST, "Default topic resources are not allowed.") == refusal(
        alter, settings, TOPIC, "", ("retention.ms", SET, "5")
    )


def test_unsetting_what_nobody_knows_is_harmless(settings):
    assert [ConfigOp("bogus", DELETE)] == alter(settings, TOPIC, "t", ("bogus", DELETE))
    assert [ConfigOp("bogus", DELETE)] == alter(settings, BROKER, "1", ("bogus", DELETE))
    assert [ConfigOp("num.partitions", DELETE)] == alter(settings, BROKER, "1", ("num.partitions", DELETE))


def test_a_conflict_goes_with_what_is_replaced(settings):
    current = {"min.compaction.lag.ms": "100"}

    assert alter(settings, TOPIC, "t", ("max.compaction.lag.ms", SET, "50"), current=current, replace=True)


@pytest.mark.parametrize("name", ["1", ""])
def test_a_brokers_dynamic_option_may_be_set_for_one_or_for_all(settings, name):
    assert [ConfigOp("log.segment.bytes", SET, "2000000")] == alter(
        settings, BROKER, name, ("log.segment.bytes", SET, "2000000")
    )


def test_a_listeners_tls_option_may_be_set_for_one_broker():
    settings = Settings.load(
        {"node.id": "1", "log.dirs": "/data", "listeners": "SSL://localhost:1,PLAINTEXT://localhost:2"}
    )
    option = "listener.name.ssl.ssl.keystore.location"

    assert alter(settings, BROKER, "1", (option, SET, "/x.pem"))
    code, message = refusal(alter, settings, BROKER, "", (option, SET, "/x.pem"))
    assert (REQUEST, True) == (code, "broker id must be specified" in message)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("INNER", "did you mean listener.name.inner.ssl.keystore.location?"),
        ("iner", "did you mean listener.name.inner.ssl.keystore.location?"),
        ("nosuch", "name one of inner, plaintext, controller"),
    ],
)
def test_an_option_of_a_listener_that_is_not_there_is_a_mistake(given, hint):
    """Kafka takes it, and it does nothing."""
    settings = Settings.load(
        {
            "node.id": "1",
            "log.dirs": "/data",
            "listeners": "INNER://localhost:1,PLAINTEXT://localhost:2,CONTROLLER://localhost:3",
            "listener.security.protocol.map": "INNER:SSL,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
        }
    )
    option = f"listener.name.{given}.ssl.keystore.location"

    expected = f"Unknown config name: {option}: there is no listener {given}: {hint}"
    assert (CONFIG, expected) == refusal(alter, settings, BROKER, "1", (option, SET, "/x.pem"))
    assert alter(settings, BROKER, "1", (option, DELETE))  # one that was set before goes
    assert alter(settings, BROKER, "1", ("listener.name.controller.ssl.key.password", SET, "x"))


@pytest.mark.parametrize(
    "option, value",
    [
        ("sasl.kerberos.min.time.before.relogin", "58000"),
        ("ssl.client.auth", "required"),
        ("ssl.keymanager.algorithm", "PKIX"),
    ],
)
def test_a_security_option_that_is_not_of_keys_or_trust_needs_no_listeners_name(settings, option, value):
    assert [ConfigOp(option, SET, value)] == alter(settings, BROKER, "1", (option, SET, value))
    code, message = refusal(alter, settings, BROKER, "", (option, SET, value))
    assert (REQUEST, True) == (code, "broker id must be specified" in message)


@pytest.mark.parametrize(
    "option", ["ssl.key.password", "ssl.keystore.certificate.chain", "ssl.truststore.type"]
)
def test_keys_and_trust_are_set_for_one_listener(settings, option):
    code, message = refusal(alter, settings, BROKER, "1", (option, SET, "PEM"))
    assert (REQUEST, True) == (code, f"using the listener prefix: [{option}]" in message)


@pytest.mark.parametrize(
    "name, ops, refused",
    [
        ("2", [], (REQUEST, "Unexpected broker id, expected 1, but received 2")),
        ("abc", [], (REQUEST, "Node id must be an integer, but it is: abc")),
        (
            "1",
            [("num.partitions", SET, "5"), ("log.dirs", SET, "/x")],
            (REQUEST, "Cannot update these configs dynamically: [num.partitions, log.dirs]"),
        ),
        (
            "1",
            [("log.segment.bytes", SET, "5")],
            (REQUEST, "Invalid value 5 for configuration log.segment.bytes: Value must be at least 1048576"),
        ),
        (
            "1",
            [("log.segment.bytes", APPEND, "5")],
            (CONFIG, "Config value append is not allowed for config key: log.segment.bytes"),
        ),
        (
            "",
            [("ssl.keystore.location", SET, "/x")],
            (
                REQUEST,
                "These security configs can be dynamically updated only per-listener using the listener prefix: "
                "[ssl.keystore.location]",
            ),
        ),
        (
            "1",
            [("retention.mss", SET, "5")],
            (CONFIG, "Unknown config name: retention.mss: did you mean retention.ms?"),
        ),
    ],
)
def test_a_change_of_a_broker_is_refused(settings, name, ops, refused):
    assert refused == refusal(alter, settings, BROKER, name, *ops)


def test_other_resources_cannot_be_changed(settings):
    assert (REQUEST, "Unknown resource type 99") == refusal(alter, settings, 99, "x", ("a", SET, "b"))


@pytest.mark.parametrize(
    "values, op, expected",
    [
        ({}, ConfigOp("l", APPEND, "b", "a"), "a,b"),
        ({"l": "a"}, ConfigOp("l", APPEND, "a, b"), "a,b"),
        ({"l": ""}, ConfigOp("l", APPEND, "a", "base"), "a"),
        ({"l": "a,b"}, ConfigOp("l", SUBTRACT, "a"), "b"),
        ({"l": "a"}, ConfigOp("l", SUBTRACT, "a"), ""),
        ({}, ConfigOp("l", SUBTRACT, "x", "a"), "a"),
        ({"l": "a"}, ConfigOp("l", SET, "c"), "c"),
        ({"l": "a"}, ConfigOp("l", DELETE), None),
    ],
)
def test_changes_to_a_list(values, op, expected):
    before = dict(values)

    assert expected == altered(values, [op]).get("l")
    assert before == values


@given(
    st.dictionaries(st.sampled_from("ab"), st.sampled_from(["", "x", "x,y"])),
    st.sampled_from(["x", "y", "z,x"]),
)
def test_what_is_appended_can_be_subtracted(values, members):
    appended = altered(values, [ConfigOp("a", APPEND, members)])
    without = altered(appended, [ConfigOp("a", SUBTRACT, members)])

    assert not set(members.split(",")) & set(without["a"].split(","))
    assert set(members.split(",")) <= set(appended["a"].split(","))
