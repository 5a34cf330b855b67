"""What members of a group tell each other, and how partitions are divided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.cli.client import membership
from kbroker.cli.client.errors import ClientError

TOPICS = st.lists(st.text("abc", min_size=1, max_size=3), unique=True, max_size=3)


def test_a_range_each_and_the_first_get_one_more():
    assert {
        "a": [("t", 0), ("t", 1), ("u", 0)],
        "b": [("t", 2), ("t", 3)],
        "c": [("t", 4)],
    } == membership.by_range({"b": ["t"], "a": ["u", "t"], "c": ["t", "gone"]}, {"t": 5, "u": 1})


WANTED = st.dictionaries(st.text("xyz", min_size=1, max_size=3), TOPICS, max_size=6)
COUNTS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 7))


@given(WANTED, COUNTS)
def test_every_partition_goes_to_one_member_that_wants_it(wanted, counts):
    given_out = membership.by_range(wanted, counts)

    places = [place for places in given_out.values() for place in places]
    assert len(places) == len(set(places))
    asked = {topic for topics in wanted.values() for topic in topics}
    assert {(topic, part) for topic in asked for part in range(counts.get(topic, 0))} == set(places)
    assert all(topic in wanted[member] for member, places in given_out.items() for topic, _ in places)


@given(TOPICS)
def test_a_subscription_is_read_as_it_was_written(topics):
    assert topics == membership.parse_subscription(membership.subscription(topics))


def test_a_newer_subscription_is_read_too():
    """Version 3: owned partitions, generation and rack stand behind what we look at."""
    newer = b"\x00\x03" + membership.subscription(["t"])[2:] + b"\x00\x00\x00\x00\x00\x00\x00\x07\xff\xff"

    assert ["t"] == membership.parse_subscription(newer)


@given(st.lists(st.tuples(st.sampled_from(["t", "u"]), st.integers(0, 9)), unique=True))
def test_an_assignment_is_read_as_it_was_written(places):
    assert sorted(places) == sorted(membership.parse_assignment(membership.assignment(places)))


@given(st.binary(max_size=60))
def test_what_others_wrote_is_refused_and_nothing_worse(data):
    assert isinstance(membership.parse_subscription(data), list)
    try:
        membership.parse_assignment(data)
    except ClientError:
        pass


def test_nothing_assigned():
    assert [] == membership.parse_assignment(b"")
    with pytest.raises(ClientError):
        membership.parse_assignment(b"\x00")
