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


def test_names_are_never_folded_and_tables_grow_wider_than_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    name, words = "n" * 120, "some words that go on " * 10

    output.table(
        ["name", ">count", "meaning"], [(name, 1_234_567, words), ("東" * 60, 7, "")], folding=("meaning",)
    )

    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(name) and "1234567" in line for line in lines)
    assert any(line.startswith("東" * 60) for line in lines)
    assert len(lines) > 4


def test_a_table_that_fits_is_as_wide_as_its_words(capsys, monkeypatch):
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")

    output.table(["config", "value"], [("retention.ms", "5000")], folding=("value",))

    assert "config         value\n" == capsys.readouterr().out.splitlines(keepends=True)[0].rstrip(" ")


def test_json_is_the_same_json_without_what_a_terminal_would_obey():
    text = '{\n "a": "\x9b2J\u202e Grüße"\n}'

    safe = output.json_text(text)

    assert '{\n "a": "\\u009b2J\\u202e Grüße"\n}' == safe
    assert json.loads(text) == json.loads(safe)
