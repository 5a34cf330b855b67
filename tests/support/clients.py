"""Clients of other people: found, or the test is visibly skipped. `--require-clients` turns such a skip into a failure."""

from __future__ import annotations

import importlib.util
import shutil
from typing import NoReturn

import pytest

required = False  # set from the command line by conftest


def require(name: str, install_hint: str, *, found: bool | None = None) -> str:
    """The client `name` is here, or this test ends: skipped, or failed under --require-clients.

    `name` is a program on the PATH, or else a Python module; `found` says so where neither is the question (a jar,
    an npm package). `install_hint` is the command that installs it. Returns the program's path, or `name`.
    """
    program = shutil.which(name)
    if found is None:
        found = program is not None or _is_module(name)
    if not found:
        missing(name, install_hint)
    return program or name


def missing(name: str, install_hint: str) -> NoReturn:
    """End this test because `name` is not installed."""
    sentence = f"{name} is not installed; to run this test: {install_hint}"
    if required:
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
