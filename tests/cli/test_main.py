"""The command line as a whole."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from kbroker import __version__, is_compiled
from kbroker.cli import VERBS, main

VERSION = f"kbroker {__version__} ({'compiled' if is_compiled() else 'not compiled'})\n"


def test_version():
    assert VERSION == CliRunner().invoke(main, ["--version"]).stdout


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("prodcue", "No such command 'prodcue': did you mean produce?"),
        ("topics", "No such command 'topics': did you mean topic?"),
        ("fly", "No such command 'fly': choose among start, topic, produce, "),
    ],
)
def test_an_unknown_verb_is_refused(word, said):
    result = CliRunner().invoke(main, [word])

    assert (2, True) == (result.exit_code, said in result.stderr), result.stderr


@pytest.mark.parametrize("line", [["--fly"], ["-b", "localhost:9092", "topic", "list"]])
def test_an_option_before_the_verb_is_sent_behind_it(line):
    result = CliRunner().invoke(main, line)

    assert 2 == result.exit_code
    assert "No such option" in result.stderr
    assert "Options of a verb stand behind it: kbroker VERB --help has them." in result.stderr


def test_a_mistyped_option_is_told_which_was_meant():
    said = CliRunner().invoke(main, ["--verson"]).stderr

    assert "--version" in said
    assert "behind it" not in said


@pytest.mark.parametrize("flag", ["--ca", "--cert", "--key", "--command-config"])
def test_an_empty_path_is_no_path(flag):
    done = CliRunner().invoke(main, ["topic", "list", flag, ""])

    assert 2 == done.exit_code
    assert f"Error: {flag} is empty: give a path, or leave {flag} out" in done.stderr


@pytest.mark.parametrize("name", VERBS)
def test_the_tables_help_is_the_verbs_own(name):
    """--help shows the table; the verb's own first line must not say something else."""
    command = main.get_command(click.Context(main), name)

    assert command.name == name
    assert VERBS[name].help == command.get_short_help_str(limit=200)


def test_it_runs_as_a_module():
    command = [sys.executable, "-P", "-m", "kbroker", "--version"]

    assert VERSION == subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
