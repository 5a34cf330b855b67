"""Names and ids of topics."""

from __future__ import annotations

import random
from uuid import UUID

import pytest

from kbroker.cluster.names import check_topic_name, new_cluster_id, new_topic_id, uuid_of, uuid_text
from kbroker.errors import ErrorCode, KafkaError


@pytest.mark.parametrize("name", ["a", "a.b_c-D9", "x" * 249, "__consumer_offsets", "...", "-", "_"])
def test_a_legal_name_is_taken(name):
    check_topic_name(name)


@pytest.mark.parametrize(
    "name, why",
    [
        ("", "the empty string is not allowed"),
        (".", "'.' is not allowed"),
        ("..", "'..' is not allowed"),
        ("x" * 250, f"the length of '{'x' * 250}' is longer than the max allowed length 249"),
        ("a b", "'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"),
        ("ä", "'ä' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"),
        ("a\n", "'a\n' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"),
        ("../x", "'../x' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"),
    ],
)
def test_an_illegal_name_is_refused_in_kafkas_words(name, why):
    with pytest.raises(KafkaError) as refused:
        check_topic_name(name)

    assert (ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {why}") == (
        refused.value.code,
        refused.value.message,
    )


def test_ids_are_written_as_kafka_writes_them():
    assert "AAAAAAAAAAAAAAAAAAAAAQ" == uuid_text(UUID(int=1))
    assert UUID(int=1) == uuid_of("AAAAAAAAAAAAAAAAAAAAAQ")
    with pytest.raises(ValueError):
        uuid_of("short")


def test_new_ids_never_look_like_an_option():
    dice = random.Random(1)
    texts = [uuid_text(new_topic_id(dice)) for _ in range(500)] + [new_cluster_id(dice) for _ in range(200)]

    assert not [text for text in texts if text.startswith("-")]
    assert 700 == len(set(texts))
    assert {22} == {len(text) for text in texts}
