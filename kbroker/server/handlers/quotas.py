"""DescribeClientQuotas, AlterClientQuotas: what users, clients and addresses may use. What it does: `server.quotas`."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from ipaddress import ip_address
from typing import Any

from kbroker.cluster.commands import AlterQuotas, QuotaChange, QuotaEntity
from kbroker.config.options import INT_MAX, LONG_MAX
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.quotas import (
    AlterClientQuotasEntryData,
    AlterClientQuotasRequest,
    AlterClientQuotasResponse,
    AlterClientQuotasResponseEntryData,
    ComponentData,
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
    EntityData,
    EntryData,
    OpData,
    ValueData,
)
from kbroker.server.handlers.shared import reason
from kbroker.server.quotas import CLIENT_ID, CONNECTION, FETCH, IP, MUTATION, PRODUCE, REQUEST, USER
from kbroker.server.rooms import Call, Rooms
from kbroker.server.slices import SLICE, Large, Pace, Steps, at_once, in_slices, result_of

EXACT, DEFAULT, SPECIFIED = range(3)  # how a filter matches names

# The largest value of each key, None where fractions are allowed. Answers have them in this order, that of
# Kafka's hash table for up to three: there are programs that compare whole answers.
OF_CLIENTS: dict[str, int | None] = {FETCH: LONG_MAX, MUTATION: None, REQUEST: None, PRODUCE: LONG_MAX}
OF_ADDRESSES: dict[str, int | None] = {CONNECTION: INT_MAX}
# A whole number may be that much more than one.
FRACTION_MAX = 1e-6
# Entities that one request may name, for they need not exist: the command that changes them is applied in one go.
ENTITIES_MAX = 10_000


# DescribeClientQuotas ------------------------------------------------------------------------------------------


def handle_describe_client_quotas(
    rooms: Rooms, call: Call, request: DescribeClientQuotasRequest
) -> DescribeClientQuotasResponse:
    """DescribeClientQuotas: v0-1.

    Every entity that has the types asked for, with the names asked for; `strict`: and no other types.
    v1 flexible
    """
    try:
        names = _names(request.components)
    except KafkaError as error:
        return DescribeClientQuotasResponse(error_code=error.code, error_message=reason(error), entries=None)
    return DescribeClientQuotasResponse(
        error_message="",
        entries=[
            _entry(entity, values)
            for entity, values in rooms.cluster.state.quotas.items()
            if _matches(entity, names, strict=request.strict)
        ],
    )


def _names(components: Sequence[ComponentData]) -> dict[str, tuple[str | None, ...]]:
    """By type the name that is asked for; an empty tuple: any."""
    names: dict[str, tuple[str | None, ...]] = {}
    for each in components:
        if not each.entity_type:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Invalid empty entity type.")
        if each.entity_type in names:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"The filter names the entity type {each.entity_type} more than once.",
            )
        if each.entity_type not in (USER, CLIENT_ID, IP):
            raise KafkaError(ErrorCode.UNSUPPORTED_VERSION, f"Unsupported entity type {each.entity_type}")
        names[each.entity_type] = _name(each)
    if IP in names and len(names) > 1:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, "Addresses have no quotas together with users or client ids."
        )
    return names


def _name(asked: ComponentData) -> tuple[str | None, ...]:
    kind, name = asked.match_type, asked.match
    if kind not in (EXACT, DEFAULT, SPECIFIED):
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown match type {kind}")
    if (kind == EXACT) != (name is not None):
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            "An exact match needs a name." if kind == EXACT else f"Match type {kind} takes no name.",
        )
    return () if kind == SPECIFIED else (name,)


def _matches(entity: QuotaEntity, names: dict[str, tuple[str | None, ...]], *, strict: bool) -> bool:
    there = dict(entity)
    if strict and len(there) != len(names):
        return False
    return all(type in there and (not name or name[0] == there[type]) for type, name in names.items())


def _entry(entity: QuotaEntity, values: dict[str, float]) -> EntryData:
    return EntryData(
        entity=[EntityData(entity_type=type, entity_name=name) for type, name in entity],
        values=[
            ValueData(key=key, value=values[key]) for key in (*OF_CLIENTS, *OF_ADDRESSES) if key in values
        ],
    )


# AlterClientQuotas ---------------------------------------------------------------------------------------------


def handle_alter_client_quotas(
    rooms: Rooms, call: Call, request: AlterClientQuotasRequest
) -> (
    Coroutine[Any, Any, AlterClientQuotasResponse | Large[AlterClientQuotasResponse]]
    | AlterClientQuotasResponse
):
    """AlterClientQuotas: v0-1.

    All of an entity's changes or none; an entity that comes twice is refused, and all where they are more than
    ENTITIES_MAX. They count at once, also for clients that are connected.
    v1 flexible
    """
    steps = _altering(rooms, request)
    many = sum([1 + len(entry.entity) + len(entry.ops) for entry in request.entries]) > SLICE
    return in_slices(call, steps) if many else at_once(steps)


def _altering(rooms: Rooms, request: AlterClientQuotasRequest) -> Steps[AlterClientQuotasResponse]:
    pace = Pace()
    entities: list[QuotaEntity] = []
    for entry in request.entries:
        entities.append(_entity(entry))
        if pace.over(1 + len(entry.entity)):
            yield None
    counted = yield from pace.counted(entities)
    answers: dict[QuotaEntity, AlterClientQuotasResponseEntryData] = {}
    changes: list[QuotaChange] = []
    for entity, entry in zip(entities, request.entries, strict=True):
        answer = answers[entity] = _answer(entity)
        try:
            if len(counted) > ENTITIES_MAX:
                raise KafkaError(ErrorCode.INVALID_REQUEST, f"A request may name {ENTITIES_MAX} entities.")
            if counted[entity] > 1:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "An entity may be named once in a request.")
            changes.append(QuotaChange(entity, _values(entity, entry.ops)))
        except KafkaError as error:
            _refuse(answer, error)
        if pace.over(1 + len(entry.ops)):
            yield None
    if changes and not request.validate_only:
        refused = yield from result_of(_refused(rooms, AlterQuotas(changes)))
        if refused is not None:
            for change in changes:
                _refuse(answers[change.entity], refused)
    return AlterClientQuotasResponse(entries=list(answers.values()))


async def _refused(rooms: Rooms, command: AlterQuotas) -> KafkaError | None:
    """Propose it; why it could not be decided."""
    try:
        await rooms.propose(command)
    except KafkaError as error:
        return error
    return None


def _entity(entry: AlterClientQuotasEntryData) -> QuotaEntity:
    """By type; of several names of one type the last counts, as in Kafka."""
    return tuple(sorted({each.entity_type: each.entity_name for each in entry.entity}.items()))


def _answer(entity: QuotaEntity) -> AlterClientQuotasResponseEntryData:
    return AlterClientQuotasResponseEntryData(
        error_message=None, entity=[EntityData(entity_type=type, entity_name=name) for type, name in entity]
    )


def _refuse(answer: AlterClientQuotasResponseEntryData, error: KafkaError) -> None:
    answer.error_code, answer.error_message = error.code, reason(error)


def _values(entity: QuotaEntity, ops: Sequence[OpData]) -> dict[str, float | None]:
    """What an entity's quotas become; KafkaError where it cannot have them."""
    keys = _keys(entity)
    values: dict[str, float | None] = {}
    for op in ops:
        if op.key in values:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"The key {op.key} comes more than once.")
        values[op.key] = None if op.remove else _checked(keys, op.key, op.value)
    # what no entity has may be removed: nothing changes
    return {key: value for key, value in values.items() if key in keys}


def _keys(entity: QuotaEntity) -> dict[str, int | None]:
    """The keys that an entity of these types may have, with their largest values."""
    if not entity:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Invalid empty client quota entity")
    types = set()
    for type, name in entity:
        if type not in (USER, CLIENT_ID, IP):
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unhandled client quota entity type: {type}")
        if name == "":
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"Empty {type} not supported")
        types.add(type)
    if IP not in types:
        return OF_CLIENTS
    if len(types) > 1:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, "Addresses have no quotas together with users or client ids."
        )
    _check_address(entity[0][1])
    return OF_ADDRESSES


def _check_address(name: str | None) -> None:
    if name is None:
        return
    try:
        ip_address(name)
    except ValueError:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"{name} is not a valid IP.") from None


def _checked(keys: dict[str, int | None], key: str, value: float) -> float:
    if key not in keys:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Invalid configuration key {key}")
    if not value > 0.0:  # neither is what is no number
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Quota {key} must be greater than 0")
    largest = keys[key]
    if largest is not None:
        if value > largest:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"Proposed value for {key} is too large.")
        if value % 1.0 > FRACTION_MAX:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"{key} cannot be a fractional value.")
    return value
