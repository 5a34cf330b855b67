"""The shape of the code: who imports whom, what a start leaves out, what every module says."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from kbroker import is_compiled
from kbroker.cli import VERBS

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "kbroker").rglob("*.py"))

# Files in the data directory are opened by storage/disk.py, through the Disk seam; the rest reads what a user names.
MAY_OPEN = {
    "kbroker/storage/disk.py": "the Disk itself",
    "kbroker/cli": "what the user names, read only",
    "kbroker/security": "certificates and keys",
    "kbroker/config": "server.properties",
}


@cache
def parsed(path):
    return ast.parse(path.read_text())


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_module_says_what_it_is():
    silent = [name_of(path) for path in MODULES if not ast.get_docstring(parsed(path))]

    assert [] == silent


def test_all_that_pyproject_names_is_compiled_or_none_of_it():
    with (ROOT / "pyproject.toml").open("rb") as file:
        hooks = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    origins = [Path(find_spec(name).origin) for name in hooks["custom"]["modules"]]

    assert {is_compiled()} == {path.suffix == ".so" for path in origins}


def test_imports_point_one_way():
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert 0 == result.returncode, result.stdout[-3000:]


def test_only_the_disk_opens_data_files():
    opened = {}
    for path in MODULES:
        name = name_of(path)
        if any(name == allowed or name.startswith(f"{allowed}/") for allowed in MAY_OPEN):
            continue
        calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
        found = [ast.unparse(call.func) for call in calls if opens_a_file(call.func)]
        if found:
            opened[name] = found

    assert {} == opened


def opens_a_file(function):
    if isinstance(function, ast.Name):
        return function.id == "open"
    return ast.unparse(function) in {"os.open", "io.open"} or (
        isinstance(function, ast.Attribute)
        and function.attr in {"write_text", "write_bytes", "read_text", "read_bytes"}
    )


# What no start may load: each costs more than the whole broker's own code, or is for tests alone.
KEPT_OUT = (
    "rich",
    "pydantic",
    "cryptography",
    "opentelemetry",
    "kio",
    "prometheus_client",
    "structlog",
    "pysyncobj",
)


def test_a_start_leaves_heavy_packages_out(tmp_path):
    """In a process of its own: a broker that serves, and then looks at what it has loaded."""
    code = (
        "import os, signal, sys\n"
        "from kbroker.cli import main\n"
        "import kbroker.cli.start as start\n"
        "def look(serving):\n"
        f"    print('loaded:', [name for name in {KEPT_OUT!r} if name in sys.modules])\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "start.announce = look\n"
        f"main(['start', '--port', '0', '--data-dir', {str(tmp_path / 'data')!r}])\n"
    )

    result = run_python(code)

    assert (0, "loaded: []\n") == (result.returncode, result.stdout), result.stderr


def test_help_imports_no_verb():
    code = (
        "import sys\n"
        "from kbroker.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print('loaded:', [name for name in sys.modules if name.startswith('kbroker.cli.')])\n"
    )

    result = run_python(code)

    assert result.stdout.endswith("loaded: []\n"), result.stderr
    assert all(name in result.stdout for name in VERBS)


def test_the_pytest_plugin_costs_others_nothing():
    """It is loaded in every pytest run of whoever installed us: beyond pytest it imports nothing."""
    code = (
        "import sys, pytest\n"
        "before = set(sys.modules)\n"
        "import kbroker.pytest_plugin\n"
        "print(sorted(set(sys.modules) - before))\n"
    )

    assert "['kbroker', 'kbroker.pytest_plugin']\n" == run_python(code).stdout


@pytest.mark.parametrize(
    "ban",
    [
        "import time",
        "import random",
        "import pickle",
        "from asyncio import sleep",
        "import concurrent.futures",
    ],
)
def test_lint_knows_the_bans(ban):
    result = subprocess.run(
        [
            Path(sys.executable).parent / "ruff",
            "check",
            "--no-cache",
            "--select",
            "TID251",
            "--stdin-filename",
            "kbroker/x.py",
            "-",
        ],
        cwd=ROOT,
        input=f"{ban}\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "TID251" in result.stdout
