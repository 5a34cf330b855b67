"""DescribeConfigs, IncrementalAlterConfigs, AlterConfigs: configurations of topics and of this broker.

What an option is, what it takes and where its value comes from is for `config` to say; here requests become rows of
answers, and commands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kbroker.cluster.commands import AlterConfigs, ConfigChange
from kbroker.cluster.names import check_topic_name
from kbroker.config.alter import SET, ConfigOp
from kbroker.config.options import ResourceType
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.configs import (
    AlterConfigsRequest,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
    IncrementalAlterConfigsResponse,
)
from kbroker.server.handlers.shared import reason
from kbroker.server.rooms import Call, Rooms

if TYPE_CHECKING:
    from kbroker.config.describe import ConfigRow  # read when somebody asks for rows

ALL_BROKERS = ""  # the resource that holds what every broker takes where it has no value of its own


# DescribeConfigs -----------------------------------------------------------------------------------------------


def handle_describe_configs(
    rooms: Rooms, call: Call, request: DescribeConfigsRequest
) -> DescribeConfigsResponse:
    """DescribeConfigs: v1-4.

    Topics and this broker, every option with its value and where that comes from; of all brokers ("") only what was
    set. No keys, or none named, means all; keys that do not exist are left out. Secrets are sent as null.
    Not done: broker loggers, groups, client metrics (INVALID_REQUEST).
    v1 sources and synonyms (KIP-226) · v3 types and documentation (KIP-569) · v4 flexible
    """
    return DescribeConfigsResponse(results=[_described(rooms, request, each) for each in request.resources])


def _described(
    rooms: Rooms, request: DescribeConfigsRequest, asked: DescribeConfigsResource
) -> DescribeConfigsResult:
    result = DescribeConfigsResult(
        resource_type=asked.resource_type, resource_name=asked.resource_name, error_message=""
    )
    try:
        rows = _rows(rooms, asked.resource_type, asked.resource_name)
    except KafkaError as error:
        result.error_code, result.error_message = error.code, reason(error)
        return result
    keys = set(asked.configuration_keys or ())
    result.configs = [
        _result(row, synonyms=request.include_synonyms, documentation=request.include_documentation)
        for row in rows
        if not keys or row.name in keys
    ]
    return result


def _rows(rooms: Rooms, kind: int, name: str) -> Sequence[ConfigRow]:
    state = rooms.cluster.state
    if kind == ResourceType.TOPIC:
        check_topic_name(name)
        if name not in state.topics:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return rooms.settings.describe_topic(state.topic_config(name))
    if kind == ResourceType.BROKER:
        if name == ALL_BROKERS:
            return rooms.settings.describe_all_brokers()
        _check_broker(rooms, name)
        return rooms.settings.describe_broker()
    raise KafkaError(ErrorCode.INVALID_REQUEST, f"Resources of type {kind} have no configs here.")


def _check_broker(rooms: Rooms, name: str) -> None:
    try:
        broker = int(name)
    except ValueError:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, f"Broker id must be an integer, but it is: {name}"
        ) from None
    if broker != rooms.node_id:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"This is broker {rooms.node_id}: send it to broker {broker}, or name no broker for all of them.",
        )


def _result(row: ConfigRow, *, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult:
    return DescribeConfigsResourceResult(
        name=row.name,
        value=row.value,
        read_only=row.read_only,
        config_source=row.source,
        is_sensitive=row.sensitive,
        synonyms=[
            DescribeConfigsSynonym(name=name, value=value, source=source)
            for name, value, source in (row.synonyms if synonyms else ())
        ],
        config_type=row.type,
        documentation=row.doc if documentation else None,
    )


# IncrementalAlterConfigs, AlterConfigs -------------------------------------------------------------------------


async def handle_incremental_alter_configs(
    rooms: Rooms, call: Call, request: IncrementalAlterConfigsRequest
) -> IncrementalAlterConfigsResponse:
    """IncrementalAlterConfigs: v0-1.

    Set, delete, append to or subtract from a list; all of one resource's changes or none. The next produce or fetch
    sees what was changed.
    Not done: broker loggers, groups, client metrics (INVALID_REQUEST).
    v1 flexible
    """
    return IncrementalAlterConfigsResponse(
        responses=await _altered(rooms, request.resources, _incremental, validate_only=request.validate_only)
    )


async def handle_alter_configs(
    rooms: Rooms, call: Call, request: AlterConfigsRequest
) -> AlterConfigsResponse:
    """AlterConfigs: v0-2.

    What is given replaces all the resource had before: an option that is left out goes back to its default.
    v2 flexible
    """
    return AlterConfigsResponse(
        responses=await _altered(rooms, request.resources, _whole, validate_only=request.validate_only)
    )


Resource = IncrementalAlterConfigsResource | AlterConfigsResource


async def _altered(
    rooms: Rooms,
    resources: Sequence[Any],
    change_of: Callable[[Rooms, Any], ConfigChange],
    *,
    validate_only: bool,
) -> list[AlterConfigsResourceResponse]:
    times = Counter((each.resource_type, each.resource_name) for each in resources)
    outcome: list[ConfigChange | KafkaError | None] = []
    for each in resources:
        try:
            if times[each.resource_type, each.resource_name] > 1:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "A resource may be named once in a request.")
            outcome.append(change_of(rooms, each))
        except KafkaError as error:
            outcome.append(error)
    if not validate_only:
        outcome = await _decided(rooms, outcome)
    return [_response(each, result) for each, result in zip(resources, outcome, strict=True)]


async def _decided(
    rooms: Rooms, outcome: Sequence[ConfigChange | KafkaError | None]
) -> list[ConfigChange | KafkaError | None]:
    """Propose the changes among `outcome`; their results in their places."""
    changes = [each for each in outcome if isinstance(each, ConfigChange)]
    if not changes:
        return list(outcome)
    try:
        results = iter(await rooms.propose(AlterConfigs(changes)))
    except KafkaError as error:
        results = iter([error] * len(changes))
    return [next(results) if isinstance(each, ConfigChange) else each for each in outcome]


def _response(asked: Resource, outcome: object) -> AlterConfigsResourceResponse:
    response = AlterConfigsResourceResponse(
        resource_type=asked.resource_type, resource_name=asked.resource_name, error_message=None
    )
    if isinstance(outcome, KafkaError):
        response.error_code, response.error_message = outcome.code, reason(outcome)
    return response


def _incremental(rooms: Rooms, asked: IncrementalAlterConfigsResource) -> ConfigChange:
    ops = [ConfigOp(config.name, config.config_operation, config.value) for config in asked.configs]
    return _change(rooms, asked, ops, replace=False)


def _whole(rooms: Rooms, asked: AlterConfigsResource) -> ConfigChange:
    ops = [ConfigOp(config.name, SET, config.value) for config in asked.configs]
    return _change(rooms, asked, ops, replace=True)


def _change(rooms: Rooms, asked: Resource, ops: Sequence[ConfigOp], *, replace: bool) -> ConfigChange:
    """The change to propose, or KafkaError."""
    kind, name, state = asked.resource_type, asked.resource_name, rooms.cluster.state
    if kind == ResourceType.TOPIC and name:  # none: there is no default topic resource, as the check says
        check_topic_name(name)
        if name not in state.topics:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
    checked = rooms.settings.check_alter(kind, name, ops, state.config(kind, name), replace=replace)
    return ConfigChange(kind, name, checked, replace=replace)
