"""DescribeConfigs, IncrementalAlterConfigs, AlterConfigs, against what Kafka 4.3 answers."""

import pytest

from kbroker.cluster.commands import AlterConfigs
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.configs import (
    AlterableConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    IncrementalAlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
)
from kbroker.server.handlers.configs import (
    handle_alter_configs,
    handle_describe_configs,
    handle_incremental_alter_configs,
)
from tests.support.rooms import House

TOPIC, BROKER, LOGGERS, METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = range(4)
OF_TOPIC, OF_BROKER, OF_ALL_BROKERS, OF_FILE, OF_DEFAULT = range(1, 6)
LONG, LIST = 5, 7


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path, {"num.partitions": "3", "ssl.key.password": "secret"})
    house.create("t", configs={"retention.ms": "5000"})
    return house


# DescribeConfigs


async def describe(house, *resources, version=4, **fields):
    request = DescribeConfigsRequest(
        resources=[
            DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=keys)
            for kind, name, keys in resources
        ],
        **fields,
    )
    return (await house.ask(handle_describe_configs, request, version=version)).results


async def shown(house, kind, name, *keys):
    """Values and sources by name."""
    [result] = await describe(house, (kind, name, list(keys) or None))
    assert (ErrorCode.NONE, "", kind, name) == (
        result.error_code,
        result.error_message,
        result.resource_type,
        result.resource_name,
    )
    return {each.name: (each.value, each.config_source) for each in result.configs}


@pytest.mark.parametrize("keys", [None, []])
async def test_without_keys_every_option_is_described(house, keys):
    [result] = await describe(house, (TOPIC, "t", keys))

    values = {each.name: (each.value, each.config_source) for each in result.configs}
    assert len(values) > 30
    assert ("5000", OF_TOPIC) == values["retention.ms"]
    assert ("delete", OF_DEFAULT) == values["cleanup.policy"]


async def test_keys_choose_options_and_unknown_ones_are_left_out(house):
    values = await shown(house, TOPIC, "t", "retention.ms", "nope", "cleanup.policy", "retention.ms")

    assert {"retention.ms", "cleanup.policy"} == set(values)


@pytest.mark.parametrize(
    "kind, name, one, two",
    [
        (TOPIC, "t", "cleanup.policy", "retention.ms"),
        (BROKER, "1", "default.replication.factor", "num.partitions"),
        (GROUP, "g", "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"),
    ],
)
async def test_options_are_answered_in_the_order_asked_for(house, kind, name, one, two):
    """KafkaJS reads those that it named by their places; Kafka's order happens to be the one it asks in."""
    results = await describe(house, (kind, name, [one, two, one]), (kind, name, [two, one]))

    assert [[one, two], [two, one]] == [[each.name for each in result.configs] for result in results]


async def test_resources_are_answered_in_order_also_twice(house):
    results = await describe(
        house, (TOPIC, "t", ["retention.ms"]), (TOPIC, "no", None), (TOPIC, "t", ["segment.ms"])
    )

    assert [["retention.ms"], [], ["segment.ms"]] == [[each.name for each in one.configs] for one in results]


async def test_a_small_request_has_no_huge_answer(house):
    """A broker's description is a thousand times as long as its name."""
    results = await describe(house, *[(BROKER, "1", None)] * 1000, (TOPIC, "t", None))

    assert {ErrorCode.INVALID_REQUEST} == {each.error_code for each in results[:-1]}
    assert ErrorCode.NONE == results[-1].error_code


async def test_topics_of_equal_configs_are_described_once(house):
    """A console asks for all of ten thousand topics."""
    for name in ("a", "b"):
        house.create(name)

    one, two, other = await describe(house, (TOPIC, "a", None), (TOPIC, "b", None), (TOPIC, "t", None))

    assert one.configs is two.configs
    assert other.configs is not one.configs


@pytest.mark.parametrize(
    "kind, name, error",
    [
        (TOPIC, "no", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, "a b", ErrorCode.INVALID_TOPIC_EXCEPTION),
        (TOPIC, "", ErrorCode.INVALID_TOPIC_EXCEPTION),
        (BROKER, "0x1", ErrorCode.INVALID_REQUEST),
        (BROKER, " 1", ErrorCode.INVALID_REQUEST),
        (BROKER, "2", ErrorCode.INVALID_REQUEST),
        (BROKER, "-1", ErrorCode.INVALID_REQUEST),
        (BROKER, "x", ErrorCode.INVALID_REQUEST),
        (0, "", ErrorCode.INVALID_REQUEST),
        (LOGGERS, "", ErrorCode.INVALID_REQUEST),
        (LOGGERS, "7", ErrorCode.INVALID_REQUEST),
        (LOGGERS, "x", ErrorCode.INVALID_REQUEST),
        (GROUP, "", ErrorCode.INVALID_REQUEST),
        (METRICS, "", ErrorCode.INVALID_REQUEST),
        (99, "x", ErrorCode.INVALID_REQUEST),
    ],
)
async def test_what_is_not_there_has_no_configs(house, kind, name, error):
    [result] = await describe(house, (kind, name, None))

    assert (error, kind, name, []) == (
        result.error_code,
        result.resource_type,
        result.resource_name,
        result.configs,
    )
    assert result.error_message


async def test_synonyms_and_documentation_are_answered_when_asked_for(house):
    [plain] = await describe(house, (TOPIC, "t", ["segment.bytes"]))
    [full] = await describe(
        house, (TOPIC, "t", ["segment.bytes"]), include_synonyms=True, include_documentation=True
    )

    assert ([], None) == (plain.configs[0].synonyms, plain.configs[0].documentation)
    assert [("log.segment.bytes", str(1 << 30), OF_DEFAULT)] == [
        (each.name, each.value, each.source) for each in full.configs[0].synonyms
    ]
    assert full.configs[0].documentation


async def test_types_are_kafkas_numbers(house):
    [result] = await describe(house, (TOPIC, "t", ["retention.ms", "cleanup.policy"]))

    assert {"retention.ms": LONG, "cleanup.policy": LIST} == {
        each.name: each.config_type for each in result.configs
    }


async def test_a_broker_shows_its_options_and_hides_its_secrets(house):
    [result] = await describe(house, (BROKER, "1", None))

    options = {each.name: each for each in result.configs}
    assert len(options) > 300
    partitions, secret, retention = [
        options[name] for name in ("num.partitions", "ssl.key.password", "log.retention.ms")
    ]
    assert ("3", OF_FILE, True) == (partitions.value, partitions.config_source, partitions.read_only)
    assert (None, True) == (secret.value, secret.is_sensitive)
    assert not retention.read_only


async def test_of_all_brokers_only_what_was_set_is_shown(house):
    assert {} == await shown(house, BROKER, "")

    await incremental(house, (BROKER, "", [("log.retention.ms", SET, "1000")]))

    assert {"log.retention.ms": ("1000", OF_ALL_BROKERS)} == await shown(house, BROKER, "")


# IncrementalAlterConfigs


async def incremental(house, *resources, version=1, **fields):
    request = IncrementalAlterConfigsRequest(
        resources=[
            IncrementalAlterConfigsResource(
                resource_type=kind,
                resource_name=name,
                configs=[
                    IncrementalAlterableConfig(name=key, config_operation=op, value=value)
                    for key, op, value in configs
                ],
            )
            for kind, name, configs in resources
        ],
        **fields,
    )
    responses = (await house.ask(handle_incremental_alter_configs, request, version=version)).responses
    assert [(kind, name) for kind, name, _ in resources] == [
        (each.resource_type, each.resource_name) for each in responses
    ]
    return [(each.error_code, each.error_message) for each in responses]


DONE = (ErrorCode.NONE, None)


@pytest.mark.parametrize("version", [0, 1])
async def test_a_config_is_set_and_deleted(house, version):
    assert [DONE] == await incremental(
        house, (TOPIC, "t", [("retention.ms", SET, "7000"), ("segment.ms", SET, "60000")]), version=version
    )
    assert {"retention.ms": "7000", "segment.ms": "60000"} == house.state.topic_config("t")

    assert [DONE] == await incremental(house, (TOPIC, "t", [("retention.ms", DELETE, None)]), version=version)
    assert {"segment.ms": "60000"} == house.state.topic_config("t")


async def test_lists_are_appended_to_and_subtracted_from(house):
    steps = [
        (APPEND, "compact", "delete,compact"),
        (APPEND, "compact,delete", "delete,compact"),
        (SUBTRACT, "delete", "compact"),
        (SUBTRACT, "delete", "compact"),
        (SUBTRACT, "compact", ""),
        (APPEND, "", ""),
    ]

    for op, value, expected in steps:
        assert [DONE] == await incremental(house, (TOPIC, "t", [("cleanup.policy", op, value)]))
        assert expected == house.state.topic_config("t")["cleanup.policy"]


async def test_deleting_what_is_not_set_is_no_error(house):
    changes = [("segment.ms", DELETE, None), ("nope", DELETE, None), ("retention.bytes", DELETE, "x")]

    assert [DONE] == await incremental(house, (TOPIC, "t", changes))


@pytest.mark.parametrize(
    "change, error",
    [
        (("retention.ms", SET, "abc"), ErrorCode.INVALID_CONFIG),
        (("retention.ms", SET, None), ErrorCode.INVALID_REQUEST),
        (("nope", SET, "1"), ErrorCode.INVALID_CONFIG),
        (("retention.ms", 9, "1"), ErrorCode.INVALID_REQUEST),
        (("retention.ms", -1, "1"), ErrorCode.INVALID_REQUEST),
        (("retention.ms", APPEND, "1"), ErrorCode.INVALID_CONFIG),
        (("retention.ms", SUBTRACT, "1"), ErrorCode.INVALID_CONFIG),
        (("cleanup.policy", APPEND, "bad"), ErrorCode.INVALID_CONFIG),
        (("cleanup.policy", APPEND, None), ErrorCode.INVALID_REQUEST),
    ],
)
async def test_one_bad_change_keeps_all_of_its_resource_back(house, change, error):
    [(code, message)] = await incremental(house, (TOPIC, "t", [("segment.ms", SET, "60000"), change]))

    assert error == code
    assert message
    assert {"retention.ms": "5000"} == house.state.topic_config("t")


async def test_a_key_may_be_named_once(house):
    changes = [("retention.ms", SET, "1"), ("retention.ms", DELETE, None)]

    assert [ErrorCode.INVALID_REQUEST] == [
        code for code, _ in await incremental(house, (TOPIC, "t", changes))
    ]


@pytest.mark.parametrize(
    "kind, name, error",
    [
        (TOPIC, "no", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, "a b", ErrorCode.INVALID_TOPIC_EXCEPTION),
        (TOPIC, "", ErrorCode.INVALID_REQUEST),
        (BROKER, "7", ErrorCode.INVALID_REQUEST),
        (BROKER, "x", ErrorCode.INVALID_REQUEST),
        (0, "t", ErrorCode.INVALID_REQUEST),
        (LOGGERS, "7", ErrorCode.INVALID_REQUEST),
        (LOGGERS, "x", ErrorCode.INVALID_REQUEST),
        (GROUP, "", ErrorCode.INVALID_REQUEST),
        (METRICS, "", ErrorCode.INVALID_REQUEST),
        (99, "t", ErrorCode.INVALID_REQUEST),
    ],
)
async def test_what_is_not_there_cannot_be_changed(house, kind, name, error):
    change = ("log.retention.ms" if kind == BROKER else "retention.ms", SET, "1000")

    assert [error] == [code for code, _ in await incremental(house, (kind, name, [change]))]
    assert [] == house.proposed


async def test_resources_are_changed_for_themselves_by_one_command(house):
    house.create("u")
    house.create("twice")
    good = [("retention.ms", SET, "1000")]

    answers = await incremental(
        house,
        (TOPIC, "t", good),
        (TOPIC, "twice", good),
        (TOPIC, "no", good),
        (TOPIC, "u", good),
        (TOPIC, "twice", good),
    )

    assert [
        ErrorCode.NONE,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.NONE,
        ErrorCode.INVALID_REQUEST,
    ] == [code for code, _ in answers]
    [command] = house.proposed
    assert isinstance(command, AlterConfigs)
    assert ["t", "u"] == [change.name for change in command.changes]


async def test_changes_can_be_validated_alone(house):
    changes = (TOPIC, "t", [("retention.ms", SET, "1000")])
    bad = (TOPIC, "no", [("retention.ms", SET, "1000")])

    assert [ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION] == [
        code for code, _ in await incremental(house, changes, bad, validate_only=True)
    ]
    assert [] == house.proposed


async def test_a_change_that_is_not_decided_is_its_resources_error(house):
    async def late(command):
        raise KafkaError(ErrorCode.REQUEST_TIMED_OUT)

    house.rooms = house.rooms_with(propose=late)

    assert [ErrorCode.REQUEST_TIMED_OUT] == [
        code for code, _ in await incremental(house, (TOPIC, "t", [("retention.ms", SET, "1000")]))
    ]


async def test_a_topic_that_goes_meanwhile_is_the_changes_error(house):
    async def overtaken(command):
        house.delete("t")
        return house.do(command)

    house.rooms = house.rooms_with(propose=overtaken)

    assert [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION] == [
        code for code, _ in await incremental(house, (TOPIC, "t", [("retention.ms", SET, "1000")]))
    ]


async def test_a_topic_takes_what_brokers_were_told(house):
    """The chain: the topic's own, this broker's, all brokers', the file's, the default."""
    await incremental(
        house,
        (BROKER, "1", [("log.retention.ms", SET, "1000")]),
        (BROKER, "", [("log.retention.ms", SET, "2000")]),
    )

    [result] = await describe(house, (TOPIC, "t", ["retention.ms"]), include_synonyms=True)

    assert [
        ("retention.ms", "5000", OF_TOPIC),
        ("log.retention.ms", "1000", OF_BROKER),
        ("log.retention.ms", "2000", OF_ALL_BROKERS),
        ("log.retention.hours", "168", OF_DEFAULT),
    ] == [(each.name, each.value, each.source) for each in result.configs[0].synonyms]
    assert {"log.retention.ms": ("1000", OF_BROKER)} == await shown(house, BROKER, "1", "log.retention.ms")


@pytest.mark.parametrize(
    "name, change, error",
    [
        ("1", ("num.partitions", SET, "3"), ErrorCode.INVALID_REQUEST),
        ("", ("node.id", SET, "3"), ErrorCode.INVALID_REQUEST),
        ("", ("listeners", SET, "PLAINTEXT://:1"), ErrorCode.INVALID_REQUEST),
        ("1", ("log.retention.ms", SET, "abc"), ErrorCode.INVALID_REQUEST),
        ("1", ("log.retention.ms", APPEND, "5"), ErrorCode.INVALID_CONFIG),
        ("1", ("log.retention.hours", SET, "1"), ErrorCode.INVALID_REQUEST),
        ("", ("max.connections", SET, "0"), ErrorCode.INVALID_REQUEST),
        ("", ("log.cleaner.threads", SET, "0"), ErrorCode.INVALID_REQUEST),
        ("", ("log.cleaner.threads", SET, "128"), ErrorCode.INVALID_REQUEST),  # a MiB of the buffer for each
        ("", ("log.cleaner.dedupe.buffer.size", SET, "1048576"), ErrorCode.INVALID_REQUEST),
        ("1", ("max.connections.per.ip", SET, "0"), ErrorCode.INVALID_REQUEST),
        ("1", ("group.consumer.assignment.interval.ms", SET, "10000000"), ErrorCode.INVALID_REQUEST),
    ],
)
async def test_a_broker_changes_what_is_dynamic(house, name, change, error):
    [(code, message)] = await incremental(house, (BROKER, name, [change]))

    assert error == code
    assert message
    assert [] == house.proposed


async def test_each_thread_of_the_cleaner_needs_its_share_of_the_buffer(house):
    buffer, threads = "log.cleaner.dedupe.buffer.size", "log.cleaner.threads"

    assert [(0, None)] == await incremental(house, (BROKER, "", [(buffer, SET, "2097152")]))
    [(code, _)] = await incremental(house, (BROKER, "", [(threads, SET, "2")]))
    assert ErrorCode.INVALID_REQUEST == code
    both = [(buffer, SET, "4194304"), (threads, SET, "2")]
    assert [(0, None)] == await incremental(house, (BROKER, "", both))


@pytest.mark.parametrize("broker", ["1", ""])
async def test_options_of_a_broker_that_contradict_each_other_are_refused(house, broker):
    changes = [("log.retention.bytes", SET, "10"), ("log.local.retention.bytes", SET, "50")]

    [(code, message)] = await incremental(house, (BROKER, broker, changes))

    assert ErrorCode.INVALID_REQUEST == code
    assert "log.local.retention.bytes" in message
    changes[1] = ("log.local.retention.bytes", SET, "10")
    assert [ErrorCode.NONE] == [code for code, _ in await incremental(house, (BROKER, broker, changes))]


# AlterConfigs


async def alter(house, *resources, version=2, **fields):
    request = AlterConfigsRequest(
        resources=[
            AlterConfigsResource(
                resource_type=kind,
                resource_name=name,
                configs=[AlterableConfig(name=key, value=value) for key, value in configs],
            )
            for kind, name, configs in resources
        ],
        **fields,
    )
    responses = (await house.ask(handle_alter_configs, request, version=version)).responses
    return [each.error_code for each in responses]


@pytest.mark.parametrize("version", range(3))
async def test_what_is_given_replaces_all_there_was(house, version):
    assert [ErrorCode.NONE] == await alter(house, (TOPIC, "t", [("segment.ms", "60000")]), version=version)
    assert {"segment.ms": "60000"} == house.state.topic_config("t")

    assert [ErrorCode.NONE] == await alter(house, (TOPIC, "t", []), version=version)
    assert {} == house.state.topic_config("t")


@pytest.mark.parametrize(
    "kind, name, configs, error",
    [
        (TOPIC, "t", [("segment.ms", None)], ErrorCode.INVALID_REQUEST),
        (TOPIC, "t", [("segment.ms", "1"), ("segment.ms", "2")], ErrorCode.INVALID_REQUEST),
        (TOPIC, "t", [("nope", "1")], ErrorCode.INVALID_CONFIG),
        (TOPIC, "t", [("segment.ms", "x")], ErrorCode.INVALID_CONFIG),
        (TOPIC, "no", [("segment.ms", "1")], ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (BROKER, "1", [("node.id", "5")], ErrorCode.INVALID_REQUEST),
        (BROKER, "9", [], ErrorCode.INVALID_REQUEST),
        (LOGGERS, "1", [("root", "INFO")], ErrorCode.INVALID_REQUEST),
        (99, "", [], ErrorCode.INVALID_REQUEST),
    ],
)
async def test_a_bad_set_changes_nothing(house, kind, name, configs, error):
    assert [error] == await alter(house, (kind, name, configs))
    assert {"retention.ms": "5000"} == house.state.topic_config("t")


async def test_a_set_can_be_validated_alone(house):
    assert [ErrorCode.NONE] == await alter(house, (TOPIC, "t", []), validate_only=True)
    assert {"retention.ms": "5000"} == house.state.topic_config("t")


async def test_a_brokers_set_is_replaced(house):
    await alter(house, (BROKER, "1", [("log.retention.ms", "5")]))
    assert ("5", OF_BROKER) == (await shown(house, BROKER, "1", "log.retention.ms"))["log.retention.ms"]

    assert [ErrorCode.NONE] == await alter(house, (BROKER, "1", []))
    assert (None, OF_DEFAULT) == (await shown(house, BROKER, "1", "log.retention.ms"))["log.retention.ms"]
