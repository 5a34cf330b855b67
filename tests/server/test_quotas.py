"""Quotas on a clock that stands still: whose limit counts, who waits for how long, what is remembered."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.produce import ProduceResponse
from kbroker.server import quotas as q
from kbroker.server.quotas import FETCH, MUTATION, PRODUCE, REQUEST, Quotas, Windows
from kbroker.server.rooms import breathe
from tests.support.rooms import FakeConnection
from tests.support.storage import ManualClock

ANNE = (("user", "anne"),)
APP = (("client-id", "app"),)


class Told(FakeConnection):
    """What its answers say of the time to wait."""

    def throttle_ms(self) -> int:
        response = ProduceResponse()
        if self.stamp is not None:
            self.stamp(response)
        return response.throttle_time_ms


class House:
    """Quotas, and requests of one connection."""

    def __init__(self, quotas) -> None:
        self.clock = ManualClock()
        self.quotas = Quotas(self.clock, windows=Windows(11, 1), mutation_windows=Windows(11, 1))
        self.quotas.load(quotas)
        self.connection = Told()

    def call(self, user="anne", client_id="app", connection=None):
        return SimpleNamespace(
            principal=f"User:{user}", client_id=client_id, connection=connection or self.connection
        )


# -- whose

# Kafka's order, the first that is there counts; and who shares it
ORDER = [
    ((("client-id", "app"), ("user", "anne")), ("anne", "app")),
    ((("client-id", None), ("user", "anne")), ("anne", "app")),
    ((("user", "anne"),), ("anne", None)),
    ((("client-id", "app"), ("user", None)), ("anne", "app")),
    ((("client-id", None), ("user", None)), ("anne", "app")),
    ((("user", None),), ("anne", None)),
    ((("client-id", "app"),), (None, "app")),
    ((("client-id", None),), (None, "app")),
]


@pytest.mark.parametrize("place", range(len(ORDER)))
def test_the_closest_limit_counts(place):
    house = House(
        {entity: {PRODUCE: float(index + 1)} for index, (entity, _) in enumerate(ORDER) if index >= place}
    )

    limit = house.quotas.limit_of(PRODUCE, "anne", "app")

    assert ((PRODUCE, *ORDER[place][1]), place + 1.0) == limit


@pytest.mark.parametrize("first, second", [*combinations(range(len(ORDER)), 2)])
def test_of_two_limits_the_one_that_comes_first_in_kafkas_order_counts(first, second):
    house = House({ORDER[second][0]: {PRODUCE: 2.0}, ORDER[first][0]: {PRODUCE: 1.0}})

    assert 1.0 == house.quotas.limit_of(PRODUCE, "anne", "app").value


def test_each_key_is_looked_up_for_itself():
    house = House({ANNE: {FETCH: 1.0}, APP: {PRODUCE: 2.0}})

    assert [2.0, 1.0, None] == [
        limit and limit.value
        for limit in (house.quotas.limit_of(key, "anne", "app") for key in (PRODUCE, FETCH, REQUEST))
    ]


def test_a_client_without_an_id_has_the_default():
    house = House({(("client-id", None),): {PRODUCE: 3.0}, APP: {PRODUCE: 1.0}})

    house.quotas.produced(house.call(client_id=None), 60)

    assert 10_000 == house.connection.throttle_ms()


def test_quotas_of_addresses_concern_no_requests():
    house = House({(("ip", None),): {q.CONNECTION: 1.0}})

    assert (False, False, True) == (house.quotas.active, house.quotas.timed, house.quotas.for_addresses)


# -- bytes


def test_a_producer_beyond_its_limit_is_not_read_from_until_it_is_down_again():
    """1000 bytes/s over 10 s of windows allow 10,000; twice of that asks for 10 s of silence."""
    house = House({ANNE: {PRODUCE: 1000.0}})

    house.quotas.produced(house.call(), 10_000)
    assert (0, 0) == (house.connection.paused, house.connection.throttle_ms())
    house.quotas.produced(house.call(), 10_000)
    assert (1, 10_000) == (house.connection.paused, house.connection.throttle_ms())
    house.clock.advance(9_999)
    assert (1, 1) == (house.connection.paused, house.connection.throttle_ms())
    house.clock.advance(1)
    assert (0, 0) == (house.connection.paused, house.connection.throttle_ms())


def test_a_longer_wait_takes_the_place_of_a_shorter_one():
    house = House({ANNE: {PRODUCE: 1000.0}})
    house.quotas.produced(house.call(), 11_000)

    house.quotas.produced(house.call(), 10_000)

    assert (1, 11_000) == (house.connection.paused, house.connection.throttle_ms())
    house.clock.advance(1_000)
    assert 1 == house.connection.paused
    house.clock.advance(10_000)
    assert 0 == house.connection.paused


def test_connections_of_one_client_share_its_limit():
    house = House({ANNE: {PRODUCE: 1000.0}})
    other = Told()

    house.quotas.produced(house.call(), 10_000)
    house.quotas.produced(house.call(client_id="other", connection=other), 5_000)

    assert (0, 5_000) == (house.connection.throttle_ms(), other.throttle_ms())


def test_a_default_is_for_each_of_its_clients():
    house = House({(("client-id", None),): {PRODUCE: 1000.0}})

    for client_id in ("one", "two"):
        house.quotas.produced(house.call(client_id=client_id), 10_000)

    assert 0 == house.connection.throttle_ms()


def test_a_wait_ends_with_its_connection():
    house = House({ANNE: {PRODUCE: 1.0}})
    house.quotas.produced(house.call(), 1000)

    house.quotas.mutes.forget(house.connection)

    assert ([], 0) == (house.clock.timers, len(house.quotas.mutes))


def test_nobody_waits_whose_connection_ended_while_the_request_was_handled():
    house = House({ANNE: {PRODUCE: 1}})
    house.connection.open = False

    house.quotas.produced(house.call(), 100)

    assert 0 == len(house.quotas.mutes)


def test_no_wait_is_longer_than_an_answer_can_say():
    house = House({ANNE: {PRODUCE: 1.0}})

    house.quotas.produced(house.call(), 1 << 60)

    assert (1 << 31) - 1 == house.connection.throttle_ms()


def test_a_fetch_beyond_its_limit_gets_nothing_and_counts_nothing():
    house = House({ANNE: {FETCH: 1000.0}})

    assert house.quotas.fetched(house.call(), 10_000)
    assert not house.quotas.fetched(house.call(), 5_000)
    assert 5_000 == house.connection.throttle_ms()
    house.clock.advance(10_900)
    assert house.quotas.fetched(house.call(), 900)


def test_a_batch_that_is_more_than_all_windows_comes_through_alone_and_is_waited_for():
    house = House({ANNE: {FETCH: 1000.0}})

    assert house.quotas.fetched(house.call(), 20_000)
    assert 10_000 == house.connection.throttle_ms()


def test_an_answer_holds_no_more_than_all_windows_but_one():
    house = House({ANNE: {FETCH: 1000.0}})

    assert [10_000, None] == [house.quotas.fetch_bytes_max(house.call(user=user)) for user in ("anne", "ben")]


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 5_000)), min_size=30, max_size=60))
def test_a_client_that_keeps_silent_as_told_stays_at_its_limit(requests):
    house = House({ANNE: {PRODUCE: 1000.0}})
    began, sent = house.clock.now_ms, 0
    for wait, size in requests:
        house.clock.advance(wait)
        if house.connection.paused:
            house.clock.advance(house.connection.throttle_ms())
        house.quotas.produced(house.call(), size)
        sent += size
    house.clock.advance(house.connection.throttle_ms())

    seconds = (house.clock.now_ms - began) / 1000
    assert sent <= 1000 * (seconds + 11) + 5_000


# -- time


def test_time_counts_in_per_cent_of_one_processor_and_waits_for_a_window_at_most():
    house = House({ANNE: {REQUEST: 10.0}})

    house.quotas.handled(house.call(), 1.0)
    assert 0 == house.connection.throttle_ms()
    house.quotas.handled(house.call(), 0.05)
    assert 500 == house.connection.throttle_ms()
    house.quotas.handled(house.call(), 9.0)
    assert 1_000 == house.connection.throttle_ms()


def test_the_time_of_a_handler_that_waits_is_counted_between_its_waits():
    house = House({ANNE: {REQUEST: 100.0}})

    async def work():
        house.clock.advance(9_000)
        await breathe()
        house.clock.advance(2_000)
        return "done"

    steps = house.quotas.measured(house.call(), work()).__await__()
    next(steps)
    house.clock.advance(1_000)  # time of others
    with pytest.raises(StopIteration) as end:
        next(steps)

    # 11 s in the 10 that the windows allow at once
    assert ("done", 1_000) == (end.value.value, house.connection.throttle_ms())


async def test_an_error_of_a_handler_whose_time_is_counted_comes_through():
    house = House({ANNE: {REQUEST: 10.0}})

    async def work():
        raise KafkaError(ErrorCode.NOT_CONTROLLER)

    with pytest.raises(KafkaError):
        await house.quotas.measured(house.call(), work())


# -- changes of partitions


def test_strict_requests_are_refused_while_a_debt_is_open():
    """2 partitions/s over 11 s: 22 at once; what goes beyond is done and owed."""
    house = House({ANNE: {MUTATION: 2.0}})
    mutations = house.quotas.mutations(house.call(), strict=True)
    mutations.take(30)
    assert 0 == house.connection.throttle_ms()

    with pytest.raises(KafkaError) as refused:
        mutations.take(1)

    assert ErrorCode.THROTTLING_QUOTA_EXCEEDED == refused.value.code
    assert 4_000 == house.connection.throttle_ms()
    house.clock.advance(4_000)
    house.quotas.mutations(house.call(), strict=True).take(1)


def test_older_requests_are_done_and_waited_for():
    house = House({ANNE: {MUTATION: 2.0}})

    house.quotas.mutations(house.call(), strict=False).take(30)
    house.quotas.mutations(house.call(), strict=False).take(2)

    assert 5_000 == house.connection.throttle_ms()


# -- addresses


def test_a_limit_without_an_end_lets_everything_be_done_at_once():
    """Kafka takes "Infinity" for a rate of changes."""
    house = House({ANNE: {MUTATION: float("inf")}})

    for strict in (False, True):
        house.quotas.mutations(house.call(), strict=strict).take(100)

    assert 0 == house.connection.paused


def test_an_address_that_connects_too_often_is_kept_for_a_window_at_most():
    house = House({(("ip", "127.0.0.1"),): {q.CONNECTION: 1.0}})

    assert [0.0] * 10 + [1.0] == [house.quotas.connected("127.0.0.1") for _ in range(11)]
    assert 0.0 == house.quotas.connected("127.0.0.2")


def test_an_address_is_known_by_all_its_spellings():
    house = House({(("ip", "10.1.2.3"),): {q.CONNECTION: 1.0}, (("ip", "0:0::1"),): {q.CONNECTION: 1.0}})

    for address in ("::ffff:10.1.2.3", "::1"):
        assert 1.0 == [house.quotas.connected(address) for _ in range(11)][-1]


def test_refused_connections_do_not_count():
    house = House({(("ip", None),): {q.CONNECTION: 2.0}})
    for _ in range(100):
        house.quotas.connected("::1")

    house.clock.advance(10_900)  # 20 and 1 in 10.9 s

    assert 0.0 == house.quotas.connected("::1")


# -- what is remembered


def test_clients_that_come_with_a_new_name_each_time_fill_no_memory():
    house = House({(("client-id", None),): {PRODUCE: 1.0}})

    for number in range(q.METERS_MAX + 100):
        house.quotas.produced(house.call(client_id=str(number)), 1)

    assert q.METERS_MAX == len(house.quotas._meters)
    assert len(house.quotas._clients) <= q.CLIENTS_MAX


def test_what_is_kept_of_a_client_with_a_long_name_is_short():
    house = House({(("client-id", None),): {PRODUCE: 1}})
    names = [f"{'n' * 30_000}{number}" for number in range(2)]

    for name in names:
        house.quotas.produced(house.call(client_id=name), 10)

    kept = [*house.quotas._meters, *house.quotas._clients]
    assert 2 == len(house.quotas._meters)
    assert max(len(str(whose)) for whose in kept) < 1000


def test_a_long_name_may_have_a_limit_of_its_own():
    name = "n" * 30_000
    house = House({(("client-id", name),): {PRODUCE: 7}, (("client-id", None),): {PRODUCE: 1}})

    limit = house.quotas.limit_of(PRODUCE, "anne", name)

    assert 7 == limit.value


def test_what_was_used_before_all_windows_is_forgotten_whole():
    house = House({(("client-id", None),): {PRODUCE: 1.0}})
    for number in range(100):
        house.quotas.produced(house.call(client_id=str(number)), 1)
    house.clock.advance(12_000)

    house.quotas.produced(house.call(client_id="new"), 1)

    assert 1 == len(house.quotas._meters)


def test_other_limits_count_what_was_used_before():
    house = House({ANNE: {PRODUCE: 1000.0}})
    house.quotas.produced(house.call(), 9_000)

    house.quotas.load({ANNE: {PRODUCE: 500.0}})
    house.quotas.produced(house.call(), 0)

    assert 8_000 == house.connection.throttle_ms()


def test_without_quotas_nobody_is_looked_for():
    house = House({ANNE: {PRODUCE: 1000.0}})

    house.quotas.load({})

    assert (False, False) == (house.quotas.active, house.quotas.concerns(house.call()))
