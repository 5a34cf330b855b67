"""Topics of consumers, read from bytes that may be anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.groups import subscriptions
from kbroker.groups.subscriptions import topics_of
from tests.support.group_stage import subscription


def test_topics_are_read_whatever_the_version_adds_behind_them():
    later = b"\x00\x03" + subscription("b", "é")[2:] + b"owned partitions, a generation, a rack"

    assert frozenset({"a", "b", "é"}) == topics_of([subscription("a", "b"), later])
    assert frozenset() == topics_of([])
    assert frozenset() == topics_of([subscription()])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00",
        b"\xff\xff" + subscription("t")[2:],
        b"\x00\x00\xff\xff\xff\xff",
        b"\x00\x00\x7f\xff\xff\xff",
        b"\x00\x00\x00\x00\x00\x01\x00",
        b"\x00\x00\x00\x00\x00\x01\x00\x05four",
        b"\x00\x00\x00\x00\x00\x01\xff\xff",
        b"\x00\x00\x00\x00\x00\x01\x00\x01\xff",
    ],
)
def test_what_is_no_subscription_names_no_topics(data):
    assert topics_of([subscription("t"), data]) is None


def test_more_topics_than_are_read_are_not_known(monkeypatch):
    monkeypatch.setattr(subscriptions, "TOPICS_MAX", 3)

    assert frozenset({"t", "u"}) == topics_of([subscription("t"), subscription("u"), subscription("t")])
    assert topics_of([subscription("t"), subscription("u")] * 2) is None


def test_members_that_name_the_same_topics_count_once(monkeypatch):
    """As nearly all do, with whatever they own behind it."""
    monkeypatch.setattr(subscriptions, "TOPICS_MAX", 2)

    same = [subscription("t", "u") + bytes([owned]) for owned in range(10)]

    assert frozenset({"t", "u"}) == topics_of(same)
    assert topics_of([*same, subscription("t")]) is None


@given(st.binary(max_size=60))
def test_any_bytes_at_all_are_read_or_refused(data):
    topics = topics_of([data])

    assert topics is None or all(isinstance(topic, str) for topic in topics)
