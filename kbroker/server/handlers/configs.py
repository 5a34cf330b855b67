"""DescribeConfigs, ListConfigResources, IncrementalAlterConfigs, AlterConfigs: what is configured, and how it is changed.

What an option is, what it takes and where its value comes from is for `config` to say; here requests become rows of
answers, and commands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from kbroker.cluster.commands import AlterConfigs, ConfigChange
from kbroker.cluster.names import check_topic_name
from kbroker.config.alter import SET, ConfigOp, altered
from kbroker.config.options import ResourceType
from kbroker.errors import ErrorCode, KafkaError, StartError
from kbroker.protocol.messages.configs import (
    AlterConfigsRequest,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
    ConfigResource,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
    IncrementalAlterConfigsResponse,
    ListConfigResourcesRequest,
    ListConfigResourcesResponse,
)
from kbroker.server.handlers.loggers import LevelChange, checked_levels, logger_rows
from kbroker.server.handlers.shared import proposed, reason
from kbroker.server.rooms import Call, Rooms
from kbroker.server.slices import SLICE, Large, Pace, Steps, at_once, in_slices, result_of

if TYPE_CHECKING:
    from kbroker.config import Settings
    from kbroker.config.describe import ConfigRow  # read when somebody asks for rows

# Times that a request may ask for one resource. A few broker resources more would be answered by a thousand times the
# bytes of the request; clients name each once, or once for each of some keys.
TIMES_MAX = 10
# Groups and subscriptions that a request may name, for they need not exist: each is answered by a hundred times the bytes
# of its name, and each change takes the loop some time. Tools name one, or those that something is set for.
UNSEEN_MAX = 1000
_UNSEEN = frozenset({ResourceType.GROUP, ResourceType.CLIENT_METRICS})
_BROKER_ID = re.compile(r"-?[0-9]+")
ALL_BROKERS = ""  # the resource that holds what every broker takes where it has no value of its own


# DescribeConfigs -----------------------------------------------------------------------------------------------


def handle_describe_configs(
    rooms: Rooms, call: Call, request: DescribeConfigsRequest
) -> DescribeConfigsResponse | Coroutine[Any, Any, Large[DescribeConfigsResponse]]:
    """DescribeConfigs: v1-4.

    Topics, this broker, groups and client metrics: every option with its value and where that comes from; of all brokers
    ("") only what was set; of this broker's loggers their levels. Groups and client metrics need not exist. No keys, or
    none named, means all; else they are answered in that order, without those that do not exist. Secrets are sent as null.
    v1 sources and synonyms (KIP-226) · v3 types and documentation (KIP-569) · v4 flexible
    """
    return in_slices(call, _describing(rooms, request))


def _describing(rooms: Rooms, request: DescribeConfigsRequest) -> Steps[DescribeConfigsResponse]:
    rows, pace = _Rows(rooms, request), Pace()
    named = yield from _count(request.resources, pace)
    response = DescribeConfigsResponse()
    for each in request.resources:
        times = named.times[each.resource_type, each.resource_name]
        result = _described(rows, each, times, too_many=named.too_many)
        response.results.append(result)
        if pace.over(1 + len(each.configuration_keys or ()) + len(result.configs)):
            yield None
    return response


class _Named(NamedTuple):
    """How often a request names each resource, and whether too many that need not exist."""

    times: Mapping[tuple[int, str], int]
    too_many: bool


def _count(resources: Sequence[Any], pace: Pace) -> Generator[None, None, _Named]:
    times = yield from pace.counted((each.resource_type, each.resource_name) for each in resources)
    kinds = yield from pace.counted(each.resource_type for each in resources)
    return _Named(times, sum(kinds[kind] for kind in _UNSEEN) > UNSEEN_MAX)


def _check_number(kind: int, *, too_many: bool) -> None:
    if too_many and kind in _UNSEEN:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, f"A request may name {UNSEEN_MAX} groups and client metrics."
        )


def _described(
    rows: _Rows, asked: DescribeConfigsResource, times: int, *, too_many: bool
) -> DescribeConfigsResult:
    result = DescribeConfigsResult(
        resource_type=asked.resource_type, resource_name=asked.resource_name, error_message=""
    )
    try:
        if times > TIMES_MAX:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"A resource may be named {TIMES_MAX} times.")
        _check_number(asked.resource_type, too_many=too_many)
        result.configs = rows.of(asked)
    except KafkaError as error:
        result.error_code, result.error_message = error.code, reason(error)
    return result


class _Rows:
    """The rows that one request asks for. Equal ones are made once: many topics have the same configs."""

    def __init__(self, rooms: Rooms, request: DescribeConfigsRequest) -> None:
        self._rooms = rooms
        self._request = request
        self._made: dict[tuple[object, ...], list[DescribeConfigsResourceResult]] = {}

    def of(self, asked: DescribeConfigsResource) -> list[DescribeConfigsResourceResult]:
        """The rows of a resource, not to be changed; KafkaError where there is none."""
        keys = tuple(dict.fromkeys(asked.configuration_keys or ()))
        kind, name = asked.resource_type, asked.resource_name
        if kind == ResourceType.TOPIC:
            overrides = self._overrides(name)
            values = frozenset(overrides.items())
            return self._rows(
                (kind, values, keys), keys, lambda: self._rooms.settings.describe_topic(overrides)
            )
        if kind in (ResourceType.GROUP, ResourceType.CLIENT_METRICS):
            return self._of_anything(kind, name, keys)
        if kind == ResourceType.BROKER_LOGGER:
            _check_broker(self._rooms, name, "Broker id must not be empty")
            return list(logger_rows(frozenset(keys)))
        if kind != ResourceType.BROKER:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"Resources of type {kind} have no configs here.")
        if name == ALL_BROKERS:
            return self._rows((kind, name, keys), keys, self._rooms.settings.describe_all_brokers)
        _check_broker(self._rooms, name)
        return self._rows((kind, name, keys), keys, self._rooms.settings.describe_broker)

    def _of_anything(
        self, kind: int, name: str, keys: tuple[str, ...]
    ) -> list[DescribeConfigsResourceResult]:
        """A group or a subscription: any name has its configs, whether it exists or not."""
        if not name:
            what = "Group" if kind == ResourceType.GROUP else "Client metrics subscription"
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"{what} name must not be empty")
        settings, overrides = self._rooms.settings, self._rooms.cluster.state.config(kind, name)
        describe = settings.describe_group if kind == ResourceType.GROUP else settings.describe_client_metrics
        return self._rows((kind, frozenset(overrides.items()), keys), keys, lambda: describe(overrides))

    def _overrides(self, topic: str) -> Mapping[str, str]:
        state = self._rooms.cluster.state
        check_topic_name(topic)
        if topic not in state.topics:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return state.topic_config(topic)

    def _rows(
        self, made_of: tuple[object, ...], keys: tuple[str, ...], describe: Callable[[], list[ConfigRow]]
    ) -> list[DescribeConfigsResourceResult]:
        made = self._made.get(made_of)
        if made is None:
            synonyms, documentation = self._request.include_synonyms, self._request.include_documentation
            made = self._made[made_of] = [
                _result(row, synonyms=synonyms, documentation=documentation)
                for row in _picked(describe(), keys)
            ]
        return made


def _picked(rows: list[ConfigRow], keys: tuple[str, ...]) -> list[ConfigRow]:
    """Those that are named, in that order: programs find them by their places, as KafkaJS's tests do."""
    if not keys:
        return rows
    named = {row.name: row for row in rows}
    return [named[key] for key in keys if key in named]


def _check_broker(rooms: Rooms, name: str, empty: str = "") -> None:
    if not name and empty:
        raise KafkaError(ErrorCode.INVALID_REQUEST, empty)
    if not _BROKER_ID.fullmatch(name):
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Broker id must be an integer, but it is: {name}")
    if name != str(rooms.node_id):
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"This is broker {rooms.node_id}: send it to broker {name}, or name no broker for all of them.",
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


# ListConfigResources -------------------------------------------------------------------------------------------


def handle_list_config_resources(
    rooms: Rooms, call: Call, request: ListConfigResourcesRequest
) -> ListConfigResourcesResponse | Coroutine[Any, Any, Large[ListConfigResourcesResponse]]:
    """ListConfigResources: v0-1.

    Topics, brokers and their loggers as they are; groups and client metrics that something is set for. A type that nobody
    knows is UNSUPPORTED_VERSION, as in Kafka.
    v0 client metrics alone (KIP-714, under another name) · v1 any types, none named: all (KIP-1142)
    """
    types = set(request.resource_types) if call.version else {ResourceType.CLIENT_METRICS}
    if not types <= set(ResourceType):
        return ListConfigResourcesResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
    return in_slices(call, _listed(rooms, sorted(types or ResourceType, reverse=True)))


def _listed(rooms: Rooms, kinds: Sequence[int]) -> Steps[ListConfigResourcesResponse]:
    resources, pace = [], Pace()
    for kind in kinds:
        for name in _named(rooms, kind):
            resources.append(ConfigResource(resource_name=name, resource_type=kind))
            if pace.over():
                yield None
    return ListConfigResourcesResponse(config_resources=resources)


def _named(rooms: Rooms, kind: int) -> list[str]:
    """The resources of a type."""
    state = rooms.cluster.state
    if kind == ResourceType.TOPIC:
        return list(state.topics)
    if kind in (ResourceType.BROKER, ResourceType.BROKER_LOGGER):
        return [str(broker) for broker in state.brokers]
    return [name for each, name in state.configs if each == kind]


# IncrementalAlterConfigs, AlterConfigs -------------------------------------------------------------------------


def handle_incremental_alter_configs(
    rooms: Rooms, call: Call, request: IncrementalAlterConfigsRequest
) -> (
    IncrementalAlterConfigsResponse
    | Coroutine[Any, Any, IncrementalAlterConfigsResponse | Large[IncrementalAlterConfigsResponse]]
):
    """IncrementalAlterConfigs: v0-1.

    Set, delete, append to or subtract from a list; all of one resource's changes or none. The next produce or fetch
    sees what was changed. Levels of this broker's loggers last until it stops. TLS options of this broker's listeners are
    tried, with the files that they name, before they are taken.
    v1 flexible
    """
    steps = _altering(rooms, request, _incremental, IncrementalAlterConfigsResponse())
    return in_slices(call, steps) if _change_much(request.resources) else at_once(steps)


def handle_alter_configs(
    rooms: Rooms, call: Call, request: AlterConfigsRequest
) -> AlterConfigsResponse | Coroutine[Any, Any, AlterConfigsResponse | Large[AlterConfigsResponse]]:
    """AlterConfigs: v0-2.

    What is given replaces all the resource had before: an option that is left out goes back to its default. Broker
    loggers are for IncrementalAlterConfigs alone, as in Kafka.
    v2 flexible
    """
    steps = _altering(rooms, request, _whole, AlterConfigsResponse())
    return in_slices(call, steps) if _change_much(request.resources) else at_once(steps)


Resource = IncrementalAlterConfigsResource | AlterConfigsResource


Altered = TypeVar("Altered", IncrementalAlterConfigsResponse, AlterConfigsResponse)


def _change_much(resources: Sequence[Any]) -> bool:
    return sum([1 + len(each.configs) for each in resources]) > SLICE


def _altering(
    rooms: Rooms,
    request: IncrementalAlterConfigsRequest | AlterConfigsRequest,
    change_of: Callable[[Rooms, Any], ConfigChange | LevelChange],
    response: Altered,
) -> Steps[Altered]:
    """Fill `response`: all resources are checked, then those changed that may be."""
    pace = Pace()
    named = yield from _count(request.resources, pace)
    levels: list[LevelChange] = []
    changes: list[tuple[ConfigChange, AlterConfigsResourceResponse]] = []
    for each in request.resources:
        answer = AlterConfigsResourceResponse(
            resource_type=each.resource_type, resource_name=each.resource_name, error_message=None
        )
        response.responses.append(answer)
        try:
            _check_number(each.resource_type, too_many=named.too_many)
            if named.times[each.resource_type, each.resource_name] > 1:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "A resource may be named once in a request.")
            change = change_of(rooms, each)
            if isinstance(change, LevelChange):
                levels.append(change)
            else:
                changes.append((change, answer))
        except KafkaError as error:
            _refuse(answer, error)
        if pace.over(1 + len(each.configs)):
            yield None
    if request.validate_only:
        return response
    for level in levels:
        level.apply()
    # as many topics as there are may be changed: several commands, for each is applied in one go
    for first in range(0, len(changes), SLICE):
        some = changes[first : first + SLICE]
        command = AlterConfigs([change for change, _ in some])
        results = yield from result_of(proposed(rooms, command, len(some)))
        for (_, answer), result in zip(some, results, strict=True):
            if isinstance(result, KafkaError):
                _refuse(answer, result)
    return response


def _refuse(answer: AlterConfigsResourceResponse, error: KafkaError) -> None:
    answer.error_code, answer.error_message = error.code, reason(error)


def _incremental(rooms: Rooms, asked: IncrementalAlterConfigsResource) -> ConfigChange | LevelChange:
    if asked.resource_type == ResourceType.BROKER_LOGGER:
        return checked_levels(rooms.node_id, asked.resource_name, asked.configs)
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
    current = state.config(kind, name)
    checked = rooms.settings.check_alter(kind, name, ops, current, replace=replace)
    if kind == ResourceType.BROKER and name != ALL_BROKERS:
        touched = {op.name for op in checked}
        if replace:
            touched.update(current)
        _check_tls(rooms.settings, touched, altered({} if replace else current, checked))
    return ConfigChange(kind, name, checked, replace=replace)


def _check_tls(settings: Settings, touched: Iterable[str], after: Mapping[str, str]) -> None:
    """INVALID_REQUEST, as Kafka, where a TLS listener could not serve with what `touched` is `after` the change.

    It reads the files, a few KiB, in the loop, as the listener does when the change is made.
    """
    concerned = settings.tls_listeners(touched)
    if not concerned:
        return
    from kbroker.security.tls import build_server_context  # loaded where a listener has TLS

    for listener in concerned:
        try:
            build_server_context(settings.tls(listener, after))
        except StartError as error:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"Validation of dynamic config update failed: listener {listener}: {error}",
            ) from None
