"""Offsets of a group: kept whole in little room, and forgotten by Kafka's rules."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.groups.events import Offset
from kbroker.groups.offsets import Offsets, expired, is_subscribed

ID, OTHER, NO_ID = bytes(range(16)), bytes(range(16, 32)), bytes(16)
NOW_MS = 1_000_000
RETENTION_MS = 1000


def offset(value=1, *, epoch=-1, metadata="", at=NOW_MS, expires=-1, topic_id=ID):
    return Offset(value, epoch, metadata, at, expires, topic_id)


@st.composite
def histories(draw):
    where = st.tuples(st.sampled_from(["t", "u"]), st.integers(0, 3))
    made = st.builds(
        Offset,
        st.integers(0, 2**63 - 1),
        st.integers(-1, 2**31 - 1),
        st.sampled_from(["", "mine"]),
        st.integers(0, 2**50),
        st.sampled_from([-1, 5]),
        st.sampled_from([ID, OTHER, NO_ID]),
    )
    return draw(st.lists(st.tuples(where, st.none() | made), max_size=30))


@given(histories())
def test_they_are_a_dictionary(history):
    offsets, naive = Offsets(), {}
    for (topic, partition), what in history:
        if what is None:
            offsets.forget(topic, partition)
            naive.pop((topic, partition), None)
        else:
            offsets.put(topic, partition, what)
            naive[topic, partition] = what

        assert naive == {(name, index): each for name, index, each in offsets.all()}
        assert (len(naive), bool(naive)) == (len(offsets), bool(offsets))
        assert naive.get((topic, partition)) == offsets.get(topic, partition)
    assert set(naive) == set(offsets.where())
    assert {topic for topic, _ in naive} == {topic for topic, _ in offsets.topics()}


@given(histories(), st.integers(-1, 2**50), st.integers(0, 2**50), st.sampled_from([0, 1000, 2**40]))
def test_the_old_ones_are_found(history, since, now_ms, retention_ms):
    offsets, naive = Offsets(), {}
    for where, what in history:
        if what is not None:
            offsets.put(*where, what)
            naive[where] = what

    def is_old(each):
        if each.expire_ms >= 0:
            return now_ms >= each.expire_ms
        return now_ms - (each.commit_ms if since < 0 else since) >= retention_ms

    expected = {where for where, each in naive.items() if where[0] != "u" and is_old(each)}
    assert expected == set(offsets.old(frozenset("u"), since, now_ms, retention_ms))


def test_most_offsets_take_little_room():
    offsets = Offsets()
    offsets.put("t", 0, offset(1))

    assert sys.getsizeof(offsets._topics["t"].partitions[0]) < 64


def group(state="Empty", protocol_type="", since=-1, subscribed=None):
    return SimpleNamespace(
        state=state, protocol_type=protocol_type, state_timestamp_ms=since, subscribed=lambda: subscribed
    )


OLD, YOUNG = NOW_MS - RETENTION_MS, NOW_MS - RETENTION_MS + 1


@pytest.mark.parametrize(
    ("kept", "by", "goes"),
    [
        # no protocol: by the commit
        (offset(at=OLD), group(), True),
        (offset(at=YOUNG), group(), False),
        # without members: since the last one left
        (offset(at=0), group(protocol_type="consumer", since=OLD), True),
        (offset(at=0), group(protocol_type="consumer", since=YOUNG), False),
        (offset(at=0), group(protocol_type="connect", since=OLD), True),
        # an old record does not say since when
        (offset(at=OLD), group(protocol_type="consumer"), True),
        (offset(at=YOUNG), group(protocol_type="consumer"), False),
        # Stable: by the commit, of topics that nobody reads
        (offset(at=OLD), group("Stable", "consumer", 0, frozenset({"u"})), True),
        (offset(at=YOUNG), group("Stable", "consumer", 0, frozenset({"u"})), False),
        (offset(at=OLD), group("Stable", "consumer", 0, frozenset({"t"})), False),
        (offset(at=0), group("Stable", "consumer", 0, None), False),
        (offset(at=0), group("Stable", "connect", 0, None), False),
        # in a rebalance: never
        (offset(at=0), group("PreparingRebalance", "consumer", 0, frozenset()), False),
        (offset(at=0, expires=1), group("CompletingRebalance", "consumer", 0, frozenset()), False),
        # a time of its own
        (offset(at=0, expires=NOW_MS), group(), True),
        (offset(at=0, expires=NOW_MS + 1), group(), False),
        (offset(at=0, expires=NOW_MS), group(protocol_type="consumer", since=NOW_MS), True),
    ],
)
def test_what_goes_and_what_stays(kept, by, goes):
    offsets = Offsets()
    offsets.put("t", 0, kept)

    assert ([("t", 0)] if goes else []) == expired(offsets, by, NOW_MS, RETENTION_MS)


@pytest.mark.parametrize(
    ("by", "reads"),
    [
        (group("Stable", "consumer", 0, frozenset({"t"})), True),
        (group("Stable", "consumer", 0, frozenset({"u"})), False),
        (group("Stable", "consumer", 0, None), True),
        (group("PreparingRebalance", "consumer", 0, frozenset({"t"})), True),
        (group("Empty", "consumer", 0, frozenset({"t"})), False),
        (group("Stable", "connect", 0, None), False),
        (group(), False),
    ],
)
def test_who_reads_a_topic(by, reads):
    assert reads == is_subscribed(by, "t")
