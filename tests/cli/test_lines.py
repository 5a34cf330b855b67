"""Lines of stdin, by whatever descriptor they come."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
from pathlib import Path

import pytest

import kbroker
from kbroker.cli import lines
from tests.cli.conftest import LIMIT_S

# `select` knows descriptors below this.
SELECT_MAX = 1_024


@pytest.fixture
def high():
    """A pipe whose reading end has a high number, as in a process that has a thousand files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * SELECT_MAX)), hard))
    ours, theirs = os.pipe()
    number = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, SELECT_MAX + 1)
    os.close(ours)
    yield number, theirs
    for fd in (number, theirs):
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_descriptor_above_1023_is_read_like_any_other(high):
    reading, writing = high
    os.write(writing, b"one\ntwo\n")

    assert b"one\ntwo\n" == lines._read_some(reading)


def test_what_is_in_a_pipe_is_taken_together(high):
    reading, writing = high
    for _ in range(3):
        os.write(writing, b"x" * 10_000)

    assert 30_000 == len(lines._read_some(reading))


async def test_a_file_is_read_to_its_end(tmp_path):
    file = tmp_path / "lines"
    file.write_bytes(b"line\n" * 300_000 + b"last")

    with file.open("rb") as opened:
        got = [line async for some, _ in lines.read_lines(opened.fileno()) for line in some]

    assert (300_001, b"last") == (len(got), got[-1])


@pytest.mark.parametrize("error", [OSError("the disk"), ValueError("what nobody thought of")])
async def test_whatever_ends_the_reading_reaches_who_waits_for_lines(monkeypatch, error):
    def read_some(fd):
        raise error

    monkeypatch.setattr(lines, "_read_some", read_some)

    with pytest.raises(type(error), match=str(error)):
        async with asyncio.timeout(LIMIT_S):
            [each async for each in lines.read_lines(0)]


def test_select_is_used_nowhere():
    """It fails as soon as a process has a thousand files open."""
    root = Path(kbroker.__file__).parent

    assert [] == [path.name for path in root.rglob("*.py") if "select.select(" in path.read_text()]
