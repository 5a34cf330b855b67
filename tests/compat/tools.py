"""Kafka's own command-line tools, many runs in one Java process (`drivers/Tools.java`)."""

from __future__ import annotations

import base64
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple

RUN_LIMIT_S = 90.0


class Done(NamedTuple):
    """What a tool printed, and how it ended."""

    code: int
    out: str
    err: str


class Tools:
    """`tools("org.apache.kafka.tools.TopicCommand", "--list", ...)`: one run at a time."""

    def __init__(self, argv: list[str], log: Path) -> None:
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, cwd=log.parent
            )

    def __call__(self, name: str, *args: str) -> Done:
        """A run to its end; a tool that hangs ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # a letter in front, so that an empty argument is a word too
        words = (b"x" + base64.b64encode(word.encode()) for word in (name, *args))
        watch = threading.Timer(RUN_LIMIT_S, self._process.kill)
        watch.start()
        try:
            self._process.stdin.write(b" ".join(words) + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            watch.cancel()
        if not line:
            raise AssertionError(f"{name} {args} did not end within {RUN_LIMIT_S:g} s")
        code, out, err = line.split()
        return Done(int(code), base64.b64decode(out[1:]).decode(), base64.b64decode(err[1:]).decode())

    @property
    def alive(self) -> bool:
        """Whether it can run another."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait(RUN_LIMIT_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
