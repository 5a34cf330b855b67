"""Java's properties format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.config.properties import parse_properties
from kbroker.errors import StartError


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a=b", {"a": "b"}),
        ("a = b ", {"a": "b "}),
        ("a:b", {"a": "b"}),
        ("a b", {"a": "b"}),
        ("a \t= b=c", {"a": "b=c"}),
        ("a", {"a": ""}),
        ("a=", {"a": ""}),
        ("=b", {"": "b"}),
        ("# a=b\n! c=d\n\n  # e", {}),
        ("a=b#c", {"a": "b#c"}),
        ("a=b\r\nc=d\re=f", {"a": "b", "c": "d", "e": "f"}),
        ("a=1\na=2", {"a": "2"}),
        ("a=b,\\\n   c,\\\n   d", {"a": "b,c,d"}),
        ("a=b\\\n# no comment", {"a": "b# no comment"}),
        ("a=b\\\\\nc=d", {"a": "b\\", "c": "d"}),
        ("a=b\\", {"a": "b"}),
        ("a\\ b\\=c = d", {"a b=c": "d"}),
        ("a=\\t\\n\\q", {"a": "\t\nq"}),
        ("a=\\u00e9\\uD83D\\uDE00", {"a": "é😀"}),
        ("   a=b", {"a": "b"}),
    ],
)
def test_a_file_reads_as_in_java(text, expected):
    assert expected == parse_properties(text.encode(), "server.properties")


def test_bytes_that_are_not_utf8_are_latin_1():
    assert {"a": "é"} == parse_properties(b"a=\xe9", "f") == parse_properties("\ufeffa=é".encode(), "f")


@pytest.mark.parametrize("text", ["x=1\na=\\u12", "x=1\na=\\u12g4"])
def test_a_broken_escape_names_file_and_line(text):
    with pytest.raises(StartError, match=r"server\.properties line 2"):
        parse_properties(text.encode(), "server.properties")


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_refused(data):
    try:
        assert all(isinstance(value, str) for value in parse_properties(data, "f").values())
    except StartError:
        pass
