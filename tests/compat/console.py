"""Kafka's console consumer as a member of a group: it joins, reads, commits by itself, leaves. Nothing else."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tests.compat.command_members import CommandMembers
from tests.compat.driver import Client
from tests.support.peers import Endpoint

AT_ONCE = 4  # operations running at the same time


class Console(Client):
    """`command` starts the tool; options follow."""

    def __init__(self, command: list[str], *, can: frozenset[str]) -> None:
        super().__init__("console", can=can, codecs=())
        self._command = command
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="console")
        self._members = CommandMembers(self._argv, rb"Partition:(\d+)\tOffset:(\d+)")

    def begin(self, op: str, at: Endpoint, **params: Any) -> Future[dict[str, Any]]:
        """Run it in a thread."""
        return self._threads.submit(self._members.ops[op], at, {"client_id": "compat", **params})

    def kill(self) -> None:
        """End every member, at once."""
        self._members.kill()

    def close(self) -> None:
        """End what is left."""
        self._threads.shutdown()
        self._members.kill()

    def _argv(self, at: Endpoint, ask: dict[str, Any]) -> list[str]:
        settings = {
            "client.id": ask["client_id"],
            "session.timeout.ms": ask["session_ms"],
            "heartbeat.interval.ms": ask["heartbeat_ms"],
            "auto.commit.interval.ms": 200,
            "metadata.max.age.ms": 2_000,
        }
        options = ["--bootstrap-server", at.servers, "--topic", ask["topic"], "--group", ask["group"]]
        options.append("--from-beginning")
        for name, value in settings.items():
            options += ["--command-property", f"{name}={value}"]
        for shown in ("print.partition", "print.offset"):
            options += ["--formatter-property", f"{shown}=true"]
        return [*self._command, *options]
