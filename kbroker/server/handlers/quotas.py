"""DescribeClientQuotas, AlterClientQuotas: what users, clients and addresses may use. What it does: `server.quotas`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address

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

EXACT, DEFAULT, SPECIFIED = range(3)  # how a filter matches names

# The largest value of each key, None where fractions are allowed. Answers have them in this order, that of
# Kafka's hash table for up to three: there are programs that compare whole answers.
OF_CLIENTS: dict[str, int | None] = {FETCH: LONG_MAX, MUTATION: None, REQUEST: None, PRODUCE: LONG_MAX}
OF_ADDRESSES: dict[str, int | None] = {CONNECTION: INT_MAX}
# A whole number may be that much more than one.
FRACTION_MAX = 1e-6


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


async def handle_alter_client_quotas(
    rooms: Rooms, call: Call, request: AlterClientQuotasRequest
) -> AlterClientQuotasResponse:
    """AlterClientQuotas: v0-1.

    All of an entity's changes or none; an entity that comes twice is refused. They count at once, also for clients that
    are connected.
    v1 flexible
    """
    counted = Counter(_entity(entry) for entry in request.entries)
    outcome: dict[QuotaEntity, QuotaChange | KafkaError | None] = {}
    for entry in request.entries:
        entity = _entity(entry)
        try:
            if counted[entity] > 1:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "An entity may be named once in a request.")
            outcome[entity] = QuotaChange(entity, _values(entity, entry.ops))
        except KafkaError as error:
            outcome[entity] = error
    changes = [each for each in outcome.values() if isinstance(each, QuotaChange)]
    if changes and not request.validate_only:
        try:
            await rooms.propose(AlterQuotas(changes))
        except KafkaError as error:
            outcome |= {change.entity: error for change in changes}
    return AlterClientQuotasResponse(entries=[_answer(entity, each) for entity, each in outcome.items()])


def _entity(entry: AlterClientQuotasEntryData) -> QuotaEntity:
    """By type; of several names of one type the last counts, as in Kafka."""
    return tuple(sorted({each.entity_type: each.entity_name for each in entry.entity}.items()))


def _answer(entity: QuotaEntity, outcome: object) -> AlterClientQuotasResponseEntryData:
    answer = AlterClientQuotasResponseEntryData(
        error_message=None, entity=[EntityData(entity_type=type, entity_name=name) for type, name in entity]
    )
    if isinstance(outcome, KafkaError):
        answer.error_code, answer.error_message = outcome.code, reason(outcome)
    return answer


def _values(entity: QuotaEntity, ops: Sequence[OpData]) -> dict[str, float | None]:
    """What an entity's quotas become; KafkaError where it cannot have them."""
    keys = _keys(entity)
    values: dict[str, float | None] = {}
    for op in ops:
        if op.key in values:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"The key {op.key} comes more than once.")
        values[op.key] = None if op.remove else _checked(keys, op.key, op.value)
    return values


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
