"""DescribeClientQuotas and AlterClientQuotas: what is refused, what is found, as Kafka does."""

from __future__ import annotations

import pytest

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.quotas import (
    AlterClientQuotasEntryData,
    AlterClientQuotasRequest,
    ComponentData,
    DescribeClientQuotasRequest,
    EntityData,
    OpData,
)
from kbroker.server.handlers.quotas import handle_alter_client_quotas, handle_describe_client_quotas
from tests.support.rooms import House

PRODUCE, FETCH, REQUEST = "producer_byte_rate", "consumer_byte_rate", "request_percentage"
MUTATION, CONNECTION = "controller_mutation_rate", "connection_creation_rate"
INVALID = ErrorCode.INVALID_REQUEST
EXACT, DEFAULT, SPECIFIED = 0, 1, 2
ANNE, EVERY_CLIENT, HERE = ("user", "anne"), ("client-id", None), ("ip", "127.0.0.1")


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


def entry(entity, *values):
    """Values of None are removed."""
    return AlterClientQuotasEntryData(
        entity=[EntityData(entity_type=type, entity_name=name) for type, name in entity],
        ops=[OpData(key=key, value=value or 0.0, remove=value is None) for key, value in values],
    )


async def alter(house, *entries, validate_only=False):
    asked = AlterClientQuotasRequest(entries=list(entries), validate_only=validate_only)
    answer = await house.ask(handle_alter_client_quotas, asked, version=1)
    return [each.error_code for each in answer.entries]


async def described(house, *components, strict=False):
    asked = DescribeClientQuotasRequest(
        components=[
            ComponentData(entity_type=type, match_type=kind, match=name) for type, kind, name in components
        ],
        strict=strict,
    )
    answer = await house.ask(handle_describe_client_quotas, asked, version=1)
    if answer.error_code:
        assert answer.entries is None
        return answer.error_code
    assert "" == answer.error_message
    return {
        tuple((part.entity_type, part.entity_name) for part in each.entity): {
            value.key: value.value for value in each.values
        }
        for each in answer.entries
    }


@pytest.mark.parametrize(
    ("entity", "key", "value", "error"),
    [
        ([ANNE], PRODUCE, 1000.0, 0),
        ([ANNE], PRODUCE, 1000.0000001, 0),
        ([ANNE], PRODUCE, 999.9999999, INVALID),
        ([ANNE], PRODUCE, 1000.5, INVALID),
        ([ANNE], PRODUCE, 0.0, INVALID),
        ([ANNE], PRODUCE, -1.0, INVALID),
        ([ANNE], PRODUCE, float("nan"), INVALID),
        ([ANNE], PRODUCE, float("inf"), INVALID),
        ([ANNE], PRODUCE, 9.3e18, INVALID),
        ([ANNE], REQUEST, 0.5, 0),
        ([EVERY_CLIENT, ANNE], MUTATION, 0.1, 0),
        ([ANNE], CONNECTION, 1.0, INVALID),
        ([ANNE], "nothing", 1.0, INVALID),
        ([ANNE], "nothing", None, 0),
        ([ANNE], PRODUCE, None, 0),
        ([HERE], CONNECTION, 100.0, 0),
        ([("ip", None)], CONNECTION, 100.0, 0),
        ([("ip", "::1")], CONNECTION, 100.0, 0),
        ([HERE], CONNECTION, 3e9, INVALID),
        ([HERE], PRODUCE, 100.0, INVALID),
        ([("ip", "no address")], CONNECTION, 100.0, INVALID),
        ([HERE, ANNE], CONNECTION, 100.0, INVALID),
        ([("user", "")], PRODUCE, 1.0, INVALID),
        ([("team", "x")], PRODUCE, 1.0, INVALID),
        ([], PRODUCE, 1.0, INVALID),
    ],
)
async def test_what_is_taken_is_there_and_what_is_refused_is_not(house, entity, key, value, error):
    assert [error] == await alter(house, entry(entity, (key, value)))

    expected = {} if error or value is None else {tuple(sorted(entity)): {key: value}}
    assert expected == await described(house)


async def test_of_one_entity_all_changes_are_made_or_none(house):
    assert [INVALID] == await alter(house, entry([ANNE], (PRODUCE, 1.0), ("nothing", 1.0)))

    assert {} == await described(house)


async def test_what_no_entity_has_may_be_removed_and_is_not_written_down(house):
    assert [0] == await alter(house, entry([ANNE], ("nothing", None), (PRODUCE, None), (CONNECTION, None)))

    [command] = house.proposed
    assert [{PRODUCE: None}] == [change.values for change in command.changes]


async def test_an_entity_that_comes_twice_is_refused_and_the_others_are_done(house):
    answer = await alter(
        house,
        entry([ANNE], (PRODUCE, 1.0)),
        entry([EVERY_CLIENT], (PRODUCE, 2.0)),
        entry([ANNE], (PRODUCE, 3.0)),
    )

    assert [INVALID, 0] == answer
    assert {(EVERY_CLIENT,): {PRODUCE: 2.0}} == await described(house)


async def test_a_key_that_comes_twice_is_refused(house):
    assert [INVALID] == await alter(house, entry([ANNE], (PRODUCE, 1.0), (PRODUCE, 2.0)))


async def test_what_is_only_checked_changes_nothing(house):
    assert [0] == await alter(house, entry([ANNE], (PRODUCE, 1.0)), validate_only=True)

    assert {} == await described(house)


async def test_quotas_count_from_the_answer_on(house):
    await alter(house, entry([ANNE], (PRODUCE, 1.0)))

    assert 1.0 == house.quotas.limit_of(PRODUCE, "anne", "app").value


@pytest.mark.parametrize("left_out", [FETCH, MUTATION, REQUEST, PRODUCE])
async def test_up_to_three_values_are_in_the_order_of_kafkas_hash_table(house, left_out):
    """@platformatic/kafka compares whole answers in its suite."""
    in_order = [key for key in (FETCH, MUTATION, REQUEST, PRODUCE) if key != left_out]
    await alter(house, entry([ANNE], *((key, 1.0) for key in sorted(in_order))))

    assert in_order == list((await described(house))[(ANNE,)])


@pytest.fixture
async def full(house):
    """A house with quotas of every kind."""
    for number, entity in enumerate(
        (
            [ANNE],
            [("user", None)],
            [EVERY_CLIENT, ANNE],
            [("client-id", "app"), ("user", None)],
            [("client-id", "app")],
        )
    ):
        assert [0] == await alter(house, entry(entity, (PRODUCE, number + 1.0)))
    await alter(house, entry([HERE], (CONNECTION, 9.0)))
    return house


@pytest.mark.parametrize(
    ("components", "strict", "values"),
    [
        ([], False, {1, 2, 3, 4, 5, 9}),
        ([], True, set()),
        ([("user", EXACT, "anne")], False, {1, 3}),
        ([("user", EXACT, "anne")], True, {1}),
        ([("user", DEFAULT, None)], False, {2, 4}),
        ([("user", SPECIFIED, None)], False, {1, 2, 3, 4}),
        ([("user", SPECIFIED, None)], True, {1, 2}),
        ([("user", SPECIFIED, None), ("client-id", EXACT, "app")], True, {4}),
        ([("client-id", EXACT, "app")], False, {4, 5}),
        ([("ip", SPECIFIED, None)], False, {9}),
        ([("user", EXACT, "nobody")], False, set()),
    ],
)
async def test_a_filter_finds_what_has_its_types_and_names(full, components, strict, values):
    found = await described(full, *components, strict=strict)

    assert values == {value for of in found.values() for value in of.values()}


@pytest.mark.parametrize(
    ("components", "error"),
    [
        ([("user", EXACT, None)], INVALID),
        ([("user", DEFAULT, "anne")], INVALID),
        ([("user", SPECIFIED, "anne")], INVALID),
        ([("user", 3, None)], INVALID),
        ([("", EXACT, "x")], INVALID),
        ([("team", EXACT, "x")], ErrorCode.UNSUPPORTED_VERSION),
        ([("user", EXACT, "a"), ("user", EXACT, "b")], INVALID),
        ([("user", EXACT, "a"), ("ip", SPECIFIED, None)], INVALID),
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused(house, components, error):
    assert error == await described(house, *components)
