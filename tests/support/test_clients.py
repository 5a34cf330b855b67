"""What happens where a client is not installed."""

from __future__ import annotations

import pytest

from tests.support import clients


def test_a_program_on_the_path_is_returned_with_its_path():
    assert clients.require("sh", "never needed").endswith("/sh")


def test_a_python_module_counts_as_installed():
    assert "json" == clients.require("json", "never needed")


def test_a_missing_client_is_a_skip_that_names_the_command(monkeypatch):
    monkeypatch.setattr(clients, "required", False)

    with pytest.raises(pytest.skip.Exception, match="apt-get install nosuchclient"):
        clients.require("nosuchclient", "apt-get install nosuchclient")


def test_a_missing_client_is_a_failure_when_clients_are_required(monkeypatch):
    monkeypatch.setattr(clients, "required", True)

    with pytest.raises(pytest.fail.Exception, match="apt-get install nosuchclient"):
        clients.require("nosuchclient", "apt-get install nosuchclient")
