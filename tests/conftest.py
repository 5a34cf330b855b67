"""What every test run shares: the command line's options, hypothesis' profile, and whose log lines a test sees."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import kbroker
from tests.support import clients

settings.register_profile(
    "kbroker",
    deadline=None,  # timing is not what properties are about, and CI machines pause
    max_examples=60,
    print_blob=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("kbroker")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our own options."""
    parser.addoption(
        "--require-clients",
        action="store_true",
        help="fail, instead of skipping, the tests whose client (kcat, Java...) is not installed",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tell the helpers what was asked for."""
    keep_bytecode()
    clients.required = bool(config.getoption("--require-clients"))
    wanted = os.environ.get("KBROKER_TESTS_ON", "source")
    if (wanted == "compiled") != kbroker.is_compiled():
        raise pytest.UsageError(f"these tests are of the {wanted}, but {kbroker.__file__} is imported")


def keep_bytecode() -> None:
    """Where the environment wants no bytecode beside the sources (images for containers do), it lies where `make clean`
    finds it: each worker, and each of a hundred processes that tests start, would compile everything anew."""
    if sys.dont_write_bytecode and not sys.pycache_prefix:
        sys.dont_write_bytecode = False
        sys.pycache_prefix = str(Path(__file__).parents[1] / ".cache" / "bytecode")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


def pytest_sessionstart() -> None:
    """What is collected stays: that there is ever more of it is no reason for the garbage collector to look at it."""
    gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """From here on the garbage collector looks at what tests make, not at half a million objects that they are made of."""
    gc.freeze()
    gc.enable()


THREADS_BEFORE = pytest.StashKey[list[threading.Thread]]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note who runs already, before this test's own brokers do."""
    item.stash[THREADS_BEFORE] = threading.enumerate()


@pytest.fixture
def caplog(
    caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> Iterator[pytest.LogCaptureFixture]:
    """pytest's, without the lines of brokers that other tests share: they log when they like, beside this test."""
    before = [each for each in request.node.stash[THREADS_BEFORE] if each is not threading.main_thread()]

    def of_this_test(line: logging.LogRecord) -> bool:
        # an ident that was given anew is no longer that of the thread which had it before
        return not any(each.ident == line.thread and each.is_alive() for each in before)

    caplog.handler.addFilter(of_this_test)
    yield caplog
    caplog.handler.removeFilter(of_this_test)
