"""Configs of groups, client metrics and broker loggers, and which resources have configs, against Kafka 4.3."""

import io

import pytest

from kbroker.errors import ErrorCode
from kbroker.observe import logs
from kbroker.protocol.messages.configs import (
    AlterableConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    IncrementalAlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
    ListConfigResourcesRequest,
)
from kbroker.server.handlers import configs
from kbroker.server.handlers.configs import (
    handle_alter_configs,
    handle_describe_configs,
    handle_incremental_alter_configs,
    handle_list_config_resources,
)
from tests.support.rooms import House

TOPIC, BROKER, LOGGERS, METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND = range(3)
OF_FILE, OF_DEFAULT, OF_LOGGER, OF_METRICS, OF_GROUP = range(4, 9)


@pytest.fixture
def house(tmp_path):
    return House(tmp_path, {"group.consumer.heartbeat.interval.ms": "6000"})


@pytest.fixture(autouse=True)
def said(monkeypatch):
    """What is logged. Levels of loggers are this process's: each test has its own."""
    stream = io.StringIO()
    monkeypatch.setattr(logs, "_outlet", logs.to_logging)
    logs.to_stderr(level="info", stream=stream)
    return stream


async def described(house, kind, name, *keys):
    """name -> (value, source, synonyms)."""
    asked = DescribeConfigsResource(
        resource_type=kind, resource_name=name, configuration_keys=list(keys) or None
    )
    request = DescribeConfigsRequest(resources=[asked], include_synonyms=True, include_documentation=True)
    [result] = (await house.ask(handle_describe_configs, request, version=4)).results
    assert ErrorCode.NONE == result.error_code, result.error_message
    return {
        row.name: (row.value, row.config_source, [(each.name, each.value) for each in row.synonyms])
        for row in result.configs
    }


async def changed(house, kind, name, *changes, validate_only=False):
    """The error of one resource's change."""
    configs = [
        IncrementalAlterableConfig(name=key, config_operation=op, value=value) for key, op, value in changes
    ]
    resource = IncrementalAlterConfigsResource(resource_type=kind, resource_name=name, configs=configs)
    request = IncrementalAlterConfigsRequest(resources=[resource], validate_only=validate_only)
    [response] = (await house.ask(handle_incremental_alter_configs, request, version=1)).responses
    assert (response.error_code == ErrorCode.NONE) == (response.error_message is None)
    return response.error_code


async def listed(house, *types, version=1):
    response = await house.ask(
        handle_list_config_resources, ListConfigResourcesRequest(resource_types=list(types)), version=version
    )
    return response.error_code, [
        (each.resource_type, each.resource_name) for each in response.config_resources
    ]


# Groups


async def test_any_group_has_the_brokers_values(house):
    rows = await described(house, GROUP, "nobody-knows-it")

    assert 17 == len(rows)
    expected = ("45000", OF_DEFAULT, [("group.consumer.session.timeout.ms", "45000")])
    assert expected == rows["consumer.session.timeout.ms"]
    names = [
        ("group.consumer.heartbeat.interval.ms", "6000"),
        ("group.consumer.heartbeat.interval.ms", "5000"),
    ]
    assert ("6000", OF_FILE, names) == rows["consumer.heartbeat.interval.ms"]
    assert ("latest", OF_DEFAULT, [("share.auto.offset.reset", "latest")]) == rows["share.auto.offset.reset"]


async def test_a_groups_config_is_set_and_deleted(house):
    key = "consumer.session.timeout.ms"
    assert ErrorCode.NONE == await changed(house, GROUP, "g", (key, SET, "50000"))

    synonyms = [(key, "50000"), (f"group.{key}", "45000")]
    assert {key: ("50000", OF_GROUP, synonyms)} == await described(house, GROUP, "g", key, "unknown")
    assert (ErrorCode.NONE, [(GROUP, "g")]) == await listed(house, GROUP)
    assert ErrorCode.NONE == await changed(house, GROUP, "g", (key, DELETE, None), ("unknown", DELETE, None))
    assert "45000" == (await described(house, GROUP, "g"))[key][0]
    assert (ErrorCode.NONE, []) == await listed(house, GROUP)


@pytest.mark.parametrize(
    "key, value, error",
    [
        ("consumer.session.timeout.ms", "44999", ErrorCode.INVALID_CONFIG),
        ("consumer.session.timeout.ms", "60001", ErrorCode.INVALID_CONFIG),
        ("consumer.session.timeout.ms", "0", ErrorCode.INVALID_CONFIG),
        ("consumer.session.timeout.ms", "x", ErrorCode.INVALID_CONFIG),
        ("consumer.session.timeout.ms", None, ErrorCode.INVALID_REQUEST),
        ("consumer.heartbeat.interval.ms", "15001", ErrorCode.INVALID_CONFIG),
        ("consumer.heartbeat.interval.ms", "15000", ErrorCode.NONE),
        ("consumer.assignment.interval.ms", "-1", ErrorCode.INVALID_CONFIG),
        ("consumer.assignment.interval.ms", "20000", ErrorCode.INVALID_CONFIG),
        ("share.record.lock.duration.ms", "14000", ErrorCode.INVALID_CONFIG),
        ("share.delivery.count.limit", "11", ErrorCode.INVALID_CONFIG),
        ("share.delivery.count.limit", "10", ErrorCode.NONE),
        ("share.partition.max.record.locks", "50", ErrorCode.INVALID_CONFIG),
        ("share.partition.max.record.locks", "5000", ErrorCode.INVALID_CONFIG),
        ("share.auto.offset.reset", "by_duration:PT1H30M", ErrorCode.NONE),
        ("share.auto.offset.reset", "by_duration:1h", ErrorCode.INVALID_CONFIG),
        ("share.auto.offset.reset", "by_duration:P", ErrorCode.INVALID_CONFIG),
        ("share.auto.offset.reset", "by_duration:PT", ErrorCode.INVALID_CONFIG),
        ("share.auto.offset.reset", "foo", ErrorCode.INVALID_CONFIG),
        ("share.isolation.level", "read_committed", ErrorCode.NONE),
        ("share.isolation.level", "READ_COMMITTED", ErrorCode.INVALID_CONFIG),
        ("streams.num.standby.replicas", "3", ErrorCode.INVALID_CONFIG),
        ("streams.num.standby.replicas", "-1", ErrorCode.INVALID_CONFIG),
        ("retention.ms", "1", ErrorCode.INVALID_CONFIG),
    ],
)
async def test_a_groups_config_lies_within_what_the_broker_allows(house, key, value, error):
    assert error == await changed(house, GROUP, "g", (key, SET, value))


async def test_a_session_is_longer_than_the_time_between_heartbeats(tmp_path):
    limits = {"group.consumer.max.heartbeat.interval.ms": "90000"}
    house = House(tmp_path, limits)

    error = await changed(house, GROUP, "g", ("consumer.heartbeat.interval.ms", SET, "50000"))

    assert ErrorCode.INVALID_CONFIG == error


# Client metrics


async def test_any_subscription_has_the_defaults(house):
    assert {
        "interval.ms": ("300000", OF_DEFAULT, []),
        "match": ("", OF_DEFAULT, []),
        "metrics": ("", OF_DEFAULT, []),
    } == await described(house, METRICS, "nobody-made-it")


async def test_a_subscription_is_made_by_its_first_config(house):
    changes = [("interval.ms", SET, "1000"), ("match", SET, "client_id=a.*,client_source_port=12")]
    assert ErrorCode.NONE == await changed(house, METRICS, "m", *changes)

    assert ("1000", OF_METRICS, [("interval.ms", "1000")]) == (await described(house, METRICS, "m"))[
        "interval.ms"
    ]
    assert (ErrorCode.NONE, [(METRICS, "m")]) == await listed(house, version=0)


@pytest.mark.parametrize(
    "key, op, value, error",
    [
        ("interval.ms", SET, "99", ErrorCode.INVALID_REQUEST),
        ("interval.ms", SET, "3600001", ErrorCode.INVALID_REQUEST),
        ("interval.ms", SET, "x", ErrorCode.INVALID_CONFIG),
        ("interval.ms", SET, "3600000", ErrorCode.NONE),
        ("metrics", SET, "*", ErrorCode.NONE),
        ("metrics", SET, "", ErrorCode.NONE),
        ("metrics", SET, "a,,b", ErrorCode.INVALID_CONFIG),
        ("metrics", APPEND, "a", ErrorCode.INVALID_CONFIG),
        ("match", SET, "", ErrorCode.NONE),
        ("match", SET, "foo=bar", ErrorCode.INVALID_CONFIG),
        ("match", SET, "client_id", ErrorCode.INVALID_CONFIG),
        ("match", SET, "client_id=a=b", ErrorCode.INVALID_CONFIG),
        ("match", SET, "client_id=[", ErrorCode.INVALID_CONFIG),
        ("match", SET, "client_id=" + "(" * 900 + ")" * 900, ErrorCode.INVALID_CONFIG),
        ("nope", SET, "1", ErrorCode.INVALID_REQUEST),
        ("nope", DELETE, None, ErrorCode.NONE),
    ],
)
async def test_a_subscription_takes_what_kafka_takes(house, key, op, value, error):
    assert error == await changed(house, METRICS, "m", (key, op, value))


async def test_a_whole_set_replaces_a_subscription(house):
    await changed(house, METRICS, "m", ("interval.ms", SET, "1000"), ("metrics", SET, "a"))
    resource = AlterConfigsResource(
        resource_type=METRICS, resource_name="m", configs=[AlterableConfig(name="match", value="client_id=b")]
    )

    [response] = (
        await house.ask(handle_alter_configs, AlterConfigsRequest(resources=[resource]), version=2)
    ).responses

    assert ErrorCode.NONE == response.error_code
    assert {"match": "client_id=b"} == house.state.config(METRICS, "m")


# Broker loggers


async def test_each_room_that_logs_has_a_level(house):
    rows = await described(house, LOGGERS, "1")

    assert ("INFO", OF_LOGGER, []) == rows["root"]
    assert {"server", "storage", "cluster"} <= set(rows)


async def test_a_level_is_set_at_once_and_taken_back(house, said):
    assert ErrorCode.NONE == await changed(
        house, LOGGERS, "1", ("server", SET, "WARN"), ("root", SET, "DEBUG")
    )
    logs.get_logger("server").info("hidden")
    logs.get_logger("storage").debug("shown")

    assert "hidden" not in said.getvalue()
    assert "shown" in said.getvalue()
    assert {"server": ("WARN", OF_LOGGER, [])} == await described(house, LOGGERS, "1", "server")
    assert ErrorCode.NONE == await changed(house, LOGGERS, "1", ("server", DELETE, None))
    assert {"server": ("DEBUG", OF_LOGGER, [])} == await described(house, LOGGERS, "1", "server")
    assert [] == house.proposed


async def test_a_level_can_be_validated_alone(house):
    assert ErrorCode.NONE == await changed(house, LOGGERS, "1", ("root", SET, "ERROR"), validate_only=True)

    assert {"root": ("INFO", OF_LOGGER, [])} == await described(house, LOGGERS, "1", "root")


@pytest.mark.parametrize(
    "key, op, value, error",
    [
        ("root", SET, "debug", ErrorCode.INVALID_CONFIG),
        ("root", SET, "nope", ErrorCode.INVALID_CONFIG),
        ("root", SET, None, ErrorCode.INVALID_REQUEST),
        ("root", DELETE, None, ErrorCode.INVALID_REQUEST),
        ("root", APPEND, "INFO", ErrorCode.INVALID_REQUEST),
        ("ROOT", SET, "INFO", ErrorCode.INVALID_CONFIG),
        ("no.such.logger", SET, "INFO", ErrorCode.INVALID_CONFIG),
        ("no.such.logger", DELETE, None, ErrorCode.INVALID_CONFIG),
    ],
)
async def test_a_level_that_cannot_be_changes_nothing(house, key, op, value, error):
    assert error == await changed(house, LOGGERS, "1", ("server", SET, "ERROR"), (key, op, value))

    assert {"server": ("INFO", OF_LOGGER, [])} == await described(house, LOGGERS, "1", "server")


async def test_a_logger_is_named_once(house):
    error = await changed(house, LOGGERS, "1", ("root", SET, "INFO"), ("root", SET, "WARN"))

    assert ErrorCode.INVALID_REQUEST == error


# ListConfigResources


async def test_resources_are_listed_by_type(house):
    house.create("b")
    house.create("a")
    await changed(house, GROUP, "g", ("consumer.session.timeout.ms", SET, "50000"))
    await changed(house, METRICS, "m", ("interval.ms", SET, "1000"))

    everything = [(GROUP, "g"), (METRICS, "m"), (LOGGERS, "1"), (BROKER, "1"), (TOPIC, "b"), (TOPIC, "a")]
    assert (ErrorCode.NONE, everything) == await listed(house)
    assert (ErrorCode.NONE, everything[3:]) == await listed(house, TOPIC, BROKER, TOPIC)
    assert (ErrorCode.NONE, [(METRICS, "m")]) == await listed(house, version=0)


@pytest.mark.parametrize("kind", [0, 3, 64])
async def test_a_type_that_nobody_knows_is_refused(house, kind):
    assert (ErrorCode.UNSUPPORTED_VERSION, []) == await listed(house, TOPIC, kind)


# Requests that name what need not exist


@pytest.mark.parametrize("kind", [GROUP, METRICS])
async def test_a_request_names_so_many_groups_and_subscriptions_at_most(house, kind, monkeypatch):
    """Each is answered by a hundred times the bytes of its name."""
    house.create("t")
    monkeypatch.setattr(configs, "UNSEEN_MAX", 2)

    def asked(make, number):
        return [make(resource_type=kind, resource_name=f"g{n}") for n in range(number)] + [
            make(resource_type=TOPIC, resource_name="t")
        ]

    def describe(**which):
        return DescribeConfigsResource(configuration_keys=None, **which)

    for number, error in ((2, ErrorCode.NONE), (3, ErrorCode.INVALID_REQUEST)):
        described = DescribeConfigsRequest(resources=asked(describe, number))
        results = (await house.ask(handle_describe_configs, described, version=4)).results
        assert [error] * number + [ErrorCode.NONE] == [each.error_code for each in results]
        altered = IncrementalAlterConfigsRequest(resources=asked(IncrementalAlterConfigsResource, number))
        responses = (await house.ask(handle_incremental_alter_configs, altered, version=1)).responses
        assert [error] * number + [ErrorCode.NONE] == [each.error_code for each in responses]
