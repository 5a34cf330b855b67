"""Completion: of verbs without importing them, of topics from a cluster that answers."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from kbroker.cli import main


def completed(*words):
    """What a shell offers for the last of the words."""
    shell = ShellComplete(main, {}, "kbroker", "_KBROKER_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


def test_verbs_are_completed():
    assert ["consume", "config", "completion"] == completed("co")
    assert ["create"] == completed("topic", "c")


def test_topics_are_completed(cli, broker):
    broker.create_topic("completed-1")
    broker.create_topic("completed-2")

    assert ["completed-1", "completed-2"] == completed("consume", "completed")
    assert ["completed-2"] == completed("consume", "-b", broker.bootstrap_servers, "completed-2")


@pytest.mark.parametrize("option", ["-g", "--group"])
def test_groups_are_completed(cli, topic, option):
    cli("group", "reset-offsets", "completed-group", "--topic", topic, "--to", "0", "--execute")

    assert ["completed-group"] == completed("consume", topic, option, "completed")
    assert ["completed-group"] == completed("consume", option, "completed")
    assert "completed-group" in completed("consume", option, "")
    assert ["completed-group"] == completed("group", "describe", "completed")


def test_without_a_cluster_nothing_is_offered_and_nothing_is_said(monkeypatch, nobody, capsys):
    monkeypatch.setenv("KBROKER_BOOTSTRAP", nobody)

    assert [] == completed("consume", "completed")
    assert ("", "") == capsys.readouterr()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_words(cli, shell, monkeypatch):
    if shell == "bash":  # click asks the installed bash for its version, and says so when it is old
        monkeypatch.setattr(
            "click.shell_completion.BashComplete._check_version", lambda self: None, raising=False
        )

    assert "_KBROKER_COMPLETE" in cli("completion", shell).out


def test_completing_a_verb_imports_none():
    code = (
        "import sys\n"
        "from click.shell_completion import ShellComplete\n"
        "from kbroker.cli import main\n"
        "ShellComplete(main, {}, 'kbroker', 'X').get_completions([], 't')\n"
        "print([name for name in sys.modules if name.startswith('kbroker.cli.')])\n"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert "[]\n" == done.stdout
