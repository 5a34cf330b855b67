"""What is printed: rows for scripts, tables for people, nothing that moves a cursor."""

from __future__ import annotations

import json

import pytest

from kbroker.cli import output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("Grüße 東京 🙂", "Grüße 東京 🙂"),
        ("a\tb\nc\rd", r"a\tb\nc\rd"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("abc\u202edef", r"abc\u202edef"),
    ],
)
def test_control_characters_are_escaped(text, expected):
    assert expected == output.printable(text)


def test_rows_for_scripts_have_no_headings(capsys):
    output.table(["a", ">b"], [("x\ty", None), (True, [1, 2])])

    assert "x\\ty\t-\nyes\t1,2\n" == capsys.readouterr().out


def test_a_table_for_people_shows_brackets_as_they_are(capsys, monkeypatch):
    monkeypatch.setattr(output, "on_terminal", lambda: True)

    output.table(["name", ">count"], [("[bold]x[/bold]", 7)])

    shown = capsys.readouterr().out
    assert "[bold]x[/bold]" in shown
    assert "count" in shown


def test_json_is_the_same_json_without_what_a_terminal_would_obey():
    text = '{\n "a": "\x9b2J\u202e Grüße"\n}'

    safe = output.json_text(text)

    assert '{\n "a": "\\u009b2J\\u202e Grüße"\n}' == safe
    assert json.loads(text) == json.loads(safe)
