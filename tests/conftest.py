"""What every test run shares: the command line's options and hypothesis' profile."""

from __future__ import annotations

import os

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
    clients.required = bool(config.getoption("--require-clients"))
    wanted = os.environ.get("KBROKER_TESTS_ON", "source")
    if (wanted == "compiled") != kbroker.is_compiled():
        raise pytest.UsageError(f"these tests are of the {wanted}, but {kbroker.__file__} is imported")
