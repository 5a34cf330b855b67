"""kcat as a client under test: a process per operation, text in and out. Knows the operations of `driver.py`."""

from __future__ import annotations

import json
import re
import subprocess
from base64 import b64decode, b64encode
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tests.compat.command_members import CommandMembers
from tests.compat.driver import Client, ClientFailed
from tests.support.peers import Endpoint

KEY_END = ":"  # between key and value on stdin; keys of text hold none
RECORD_END = b"\x1e<end>\n"
FORMAT = "%o %T %K %S %k%s%h\\x1e<end>\n"
AT_ONCE = 4  # operations running at the same time
LIMIT_S = 80


class Kcat(Client):
    """The program at `path`."""

    def __init__(self, path: str, *, can: frozenset[str], codecs: tuple[str, ...]) -> None:
        super().__init__("kcat", can=can, codecs=codecs)
        self._path = path
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="kcat")
        self._members = CommandMembers(self._member, rb"^(\d+) (\d+)$")

    def begin(self, op: str, at: Endpoint, **params: Any) -> Future[dict[str, Any]]:
        """Run it in a thread."""
        work = {
            "metadata": self._metadata,
            "produce": self._produce,
            "consume": self._consume,
            "offset": self._offset,
            **self._members.ops,
        }[op]
        return self._threads.submit(work, at, {"client_id": "compat", **params})

    def kill(self) -> None:
        """End every member of a group, at once."""
        self._members.kill()

    def close(self) -> None:
        """Only members of groups run between operations."""
        self._threads.shutdown()
        self._members.kill()

    def _metadata(self, at: Endpoint, ask: dict[str, Any]) -> dict[str, Any]:
        wanted = ["-t", ask["topics"][0]] if ask["topics"] is not None else []
        told = json.loads(self._run(at, ask, ["-L", "-J", "-m", "60", *wanted]))
        topics = {
            topic["topic"]: [partition["partition"] for partition in topic["partitions"]]
            for topic in told["topics"]
            if "error" not in topic
        }
        brokers = [[broker["id"], *_address(broker["name"])] for broker in told["brokers"]]
        return {"brokers": brokers, "topics": topics}

    def _produce(self, at: Endpoint, ask: dict[str, Any]) -> dict[str, Any]:
        records = ask["records"]
        args = ["-P", "-t", ask["topic"], "-p", str(ask["partition"]), "-z", ask["codec"]]
        for name, value in records[0]["headers"]:
            args += ["-H", f"{name}={b64decode(value).decode()}"]
        keyed = any(record["key"] is not None for record in records)
        if keyed:
            args += ["-K", KEY_END]
        settings = {
            "acks": ask["acks"],
            "enable.idempotence": str(ask["idempotent"]).lower(),
            "linger.ms": 0 if ask["tiny"] else 50,
            "batch.num.messages": 1 if ask["tiny"] else 10_000,
            "message.max.bytes": 4_000_000,
            "message.timeout.ms": ask["give_up_ms"],
            "topic.metadata.propagation.max.ms": 2_000,
        }
        lines = [
            (b64decode(record["key"] or "") + KEY_END.encode() if keyed else b"") + b64decode(record["value"])
            for record in records
        ]
        self._run(at, ask, args, settings, stdin=b"\n".join(lines))
        return {"offsets": [None] * len(records)}

    def _consume(self, at: Endpoint, ask: dict[str, Any]) -> dict[str, Any]:
        offset = {"earliest": "beginning", "latest": "end"}.get(ask["offset"], str(ask["offset"]))
        args = ["-C", "-u", "-t", ask["topic"], "-p", str(ask["partition"]), "-o", offset]
        args += ["-c", str(ask["count"]), "-f", FORMAT]
        settings = {
            "isolation.level": "read_committed" if ask["committed"] else "read_uncommitted",
            "fetch.wait.max.ms": ask["max_wait_ms"],
            "fetch.min.bytes": ask["min_bytes"],
            "topic.auto.offset.reset": "error",
        }
        out = self._run(at, ask, args, settings, limit_s=ask["timeout_ms"] / 1000)
        return {"records": [_record(text) for text in out.split(RECORD_END) if text]}

    def _offset(self, at: Endpoint, ask: dict[str, Any]) -> dict[str, Any]:
        when = {"earliest": -2, "latest": -1}.get(ask["when"], ask["when"])
        out = self._run(at, ask, ["-Q", "-t", f"{ask['topic']}:{ask['partition']}:{when}"])
        found = re.search(rb"offset (-?\d+)", out)
        if found is None:
            raise ClientFailed(self.name, None, f"no offset in {out!r}")
        return {"offset": int(found[1]) if int(found[1]) >= 0 else None}

    def _member(self, at: Endpoint, ask: dict[str, Any]) -> list[str]:
        settings = {
            "auto.offset.reset": "earliest",
            "session.timeout.ms": ask["session_ms"],
            "heartbeat.interval.ms": ask["heartbeat_ms"],
            "auto.commit.interval.ms": 200,
            "topic.metadata.refresh.interval.ms": 2_000,
        }
        if ask["instance_id"] is not None:
            settings["group.instance.id"] = ask["instance_id"]
        if ask["cooperative"]:
            settings["partition.assignment.strategy"] = "cooperative-sticky"
        # options first: everything after the group's name is a topic
        options = ["-E", "-u", "-f", r"%p %o\n"]  # -E: a broker that is away does not end it
        return [*self._argv(at, ask, options, settings), "-G", ask["group"], ask["topic"]]

    def _run(
        self,
        at: Endpoint,
        ask: dict[str, Any],
        args: list[str],
        settings: dict[str, Any] | None = None,
        *,
        stdin: bytes = b"",
        limit_s: float = LIMIT_S,
    ) -> bytes:
        argv = self._argv(at, ask, args, settings or {})
        try:
            done = subprocess.run(argv, input=stdin, capture_output=True, timeout=limit_s)
        except subprocess.TimeoutExpired as late:
            return late.stdout or b""  # what came until then, as the other clients report it
        if done.returncode != 0:
            raise ClientFailed(self.name, None, done.stderr.decode(errors="replace").strip())
        return done.stdout

    def _argv(
        self, at: Endpoint, ask: dict[str, Any], args: list[str], settings: dict[str, Any]
    ) -> list[str]:
        settings = {"client.id": ask["client_id"], **settings}
        if at.ca is not None:
            settings |= {"security.protocol": "ssl", "ssl.ca.location": at.ca}
        argv = [self._path, "-q", "-b", at.servers, *args]
        for name, value in settings.items():
            argv += ["-X", f"{name}={value}"]
        return argv


def _record(text: bytes) -> dict[str, Any]:
    offset, timestamp, key_size, value_size, rest = text.split(b" ", 4)
    key, rest = _cut(rest, int(key_size))
    value, headers = _cut(rest, int(value_size))
    return {
        "offset": int(offset),
        "timestamp": int(timestamp),
        "key": key,
        "value": value,
        "headers": [_header(one) for one in headers.split(b",")] if headers else [],
    }


def _cut(text: bytes, size: int) -> tuple[str | None, bytes]:
    """Base64 of the first `size` bytes (null: -1), and what follows."""
    if size < 0:
        return None, text
    return b64encode(text[:size]).decode(), text[size:]


def _header(text: bytes) -> list[str | None]:
    name, value = text.split(b"=", 1)
    return [name.decode(), None if value == b"NULL" else b64encode(value).decode()]


def _address(text: str) -> list[Any]:
    host, port = text.rsplit(":", 1)
    return [host, int(port)]
