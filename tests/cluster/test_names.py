"""Names of topics."""

from __future__ import annotations

import pytest

from kbroker.cluster.names import check_topic_name
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
