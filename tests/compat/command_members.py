"""Members of groups that are programs of their own, a line on stdout for each record. Knows processes, no client."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from tests.support.peers import Endpoint

END_LIMIT_S = 60  # from SIGTERM to the end: it commits and leaves

Ask = dict[str, Any]


class _Program:
    """One process and what it printed."""

    def __init__(self, argv: list[str], line: re.Pattern[bytes]) -> None:
        self.records: list[list[int]] = []
        self._line = line
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for text in lines:
                found = self._line.search(text)
                if found is not None:
                    self.records.append([int(found[1]), int(found[2])])

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(END_LIMIT_S)
        finally:
            self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(END_LIMIT_S)
        self._reader.join(END_LIMIT_S)


class CommandMembers:
    """`argv(at, ask)` is a consumer's command line; `line` finds partition and offset in what it prints."""

    def __init__(self, argv: Callable[[Endpoint, Ask], list[str]], line: bytes) -> None:
        self._argv = argv
        self._line = re.compile(line)
        self._running: dict[str, _Program] = {}
        self.ops: dict[str, Callable[[Endpoint, Ask], Ask]] = {
            "join": self._join,
            "look": self._look,
            "leave": self._leave,
        }

    def _join(self, at: Endpoint, ask: Ask) -> Ask:
        self._running[ask["member"]] = _Program(self._argv(at, ask), self._line)
        return {}

    def _look(self, _at: Endpoint, ask: Ask) -> Ask:
        program = self._running[ask["member"]]
        ended = program.process.poll()
        error = None if ended is None else {"code": None, "message": f"it ended with status {ended}"}
        return {"records": program.records[ask["since"] :], "revoked": [], "error": error}

    def _leave(self, _at: Endpoint, ask: Ask) -> Ask:
        self._running.pop(ask["member"]).end()
        return {}

    def kill(self) -> None:
        """SIGKILL all that are left."""
        while self._running:
            self._running.popitem()[1].kill()
