"""The common shape of every client under test, and its usual form: a program that speaks JSON lines.

A driver program embeds one stock client. It reads one request a line on stdin, `{"id": 1, "op": "produce", ...}`,
answers each with one line on stdout, `{"id": 1, "ok": {...}}` or `{"id": 1, "error": {"code": 10, "message": "..."}}`,
and works on several at once. Every request makes its own client object and closes it. Bytes travel as base64.

The operations (every one also has servers, ca, client_id):
    metadata        topics (null: all)                                   -> brokers [[id, host, port]], topics {name: [n]}
    create          topic, partitions, configs                           -> {}
    delete          topic                                                -> {}
    produce         topic, partition, records, acks, codec, idempotent,
                    tiny (a request per record, pipelined), pause_ms,
                    give_up_ms                                           -> offsets [n or null]
    begin_transaction  transactional_id, give_up_ms: initialise its producer, begin -> {}
    consume         topic, partition, offset (number, earliest, latest),
                    count, timeout_ms, committed, max_wait_ms, min_bytes -> records
    offset          topic, partition, when (number: a time, earliest, latest) -> offset (null: no such time)
    delete_records  topic, partition, offset                             -> low
    describe        topic                                                -> configs {name: value}
    alter           topic, configs                                       -> {}

A member of a group lives from `join` to `leave`, under a name of the test's, and reads in the background:
    join            member, group, topic, instance_id, protocol (classic, consumer), cooperative, auto_commit,
                    session_ms, heartbeat_ms                             -> {}
    look            member, since (how many records are known)           -> records [[partition, offset]], revoked
                                                                            [partition, ever], error (null: none)
    commit          member, metadata (null: none): all that it read      -> {}
    leave           member                                               -> {}
    groups                                                               -> groups [name]
    describe_group  group                        -> state, members [[client_id, instance_id or null, [partition]]]
    delete_group    group                                                -> {}
    group_offset    group, topic, partition                              -> offset (null: none), metadata, epoch
    alter_offset    group, topic, partition, offset                      -> {}
    delete_offset   group, topic, partition                              -> {}
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.peers import Endpoint

CALL_LIMIT_S = 100.0  # beyond every timeout that the drivers set for their clients
END_LIMIT_S = 30.0  # of a process that was killed


@dataclass(frozen=True, slots=True)
class Record:
    """A record as a client sends or receives it. `offset` is where it was read; None in what is sent."""

    key: bytes | None = None
    value: bytes | None = b""
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp: int | None = None
    offset: int | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """As the drivers read it."""
        headers = [[name, _text(value)] for name, value in self.headers]
        return {
            "key": _text(self.key),
            "value": _text(self.value),
            "headers": headers,
            "timestamp": self.timestamp,
        }

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Record:
        """As the drivers write it."""
        return Record(
            key=_bytes(fields["key"]),
            value=_bytes(fields["value"]),
            headers=tuple((name, _bytes(value)) for name, value in fields["headers"]),
            timestamp=fields["timestamp"],
            offset=fields["offset"],
        )


class ClientFailed(Exception):
    """What the client told its user: Kafka's error code where it names one, else None."""

    def __init__(self, client: str, code: int | None, message: str) -> None:
        super().__init__(f"{client}: {message} (code {code})")
        self.code = code
        self.message = message


class Client:
    """One stock client. `can` says which scenarios it can take part in; subclasses do `begin`."""

    def __init__(self, name: str, *, can: frozenset[str], codecs: tuple[str, ...]) -> None:
        self.name = name
        self.can = can
        self.codecs = codecs

    def begin(self, op: str, at: Endpoint, **params: Any) -> Future[dict[str, Any]]:
        """Ask for an operation; several may run at once."""
        raise NotImplementedError

    def close(self) -> None:
        """End its process."""

    def kill(self) -> None:
        """End it as a crash would."""
        raise NotImplementedError

    def call(self, op: str, at: Endpoint, **params: Any) -> dict[str, Any]:
        """An operation's result; ClientFailed when the client reports an error."""
        return self.begin(op, at, **params).result(CALL_LIMIT_S)

    def create(self, at: Endpoint, topic: str, *, partitions: int = 1, **configs: str) -> None:
        """Create a topic with its configs, underscores for dots."""
        self.call("create", at, topic=topic, partitions=partitions, configs=dotted(configs))

    def produce(
        self, at: Endpoint, topic: str, records: list[Record], *, partition: int = 0, **how: Any
    ) -> list[int | None]:
        """Produce to one partition and wait for the acknowledgements: the offsets as the client tells them."""
        return self.begin_produce(at, topic, records, partition=partition, **how).result(CALL_LIMIT_S)[
            "offsets"
        ]

    def begin_produce(
        self, at: Endpoint, topic: str, records: list[Record], *, partition: int = 0, **how: Any
    ) -> Future[dict[str, Any]]:
        """`produce` in the background."""
        lines = [record.to_json() for record in records]
        asked = {
            "acks": -1,
            "codec": "none",
            "idempotent": False,
            "tiny": False,
            "pause_ms": 0,
            "give_up_ms": 60_000,
            **how,
        }
        return self.begin("produce", at, topic=topic, partition=partition, records=lines, **asked)

    def consume(self, at: Endpoint, topic: str, offset: int | str, count: int, **how: Any) -> list[Record]:
        """`count` records from `offset` on, or as many as came in `timeout_ms`."""
        found = self.begin_consume(at, topic, offset, count, **how).result(CALL_LIMIT_S)["records"]
        return [Record.from_json(fields) for fields in found]

    def begin_consume(
        self, at: Endpoint, topic: str, offset: int | str, count: int, **how: Any
    ) -> Future[dict[str, Any]]:
        """`consume` in the background."""
        asked = {
            "partition": 0,
            "timeout_ms": 60_000,
            "committed": False,
            "max_wait_ms": 500,
            "min_bytes": 1,
            "client_id": "compat",
            **how,
        }
        return self.begin("consume", at, topic=topic, offset=offset, count=count, **asked)

    def offset(self, at: Endpoint, topic: str, when: int | str, *, partition: int = 0) -> int | None:
        """The first offset at or after a time, or the earliest or latest one."""
        found = self.call("offset", at, topic=topic, partition=partition, when=when)
        return found["offset"]  # type: ignore[no-any-return]  # a driver's answer

    def __str__(self) -> str:
        return self.name


class DriverClient(Client):
    """A client embedded in a driver program, started on first use."""

    def __init__(
        self, name: str, argv: list[str], *, can: frozenset[str], codecs: tuple[str, ...], log: Path
    ) -> None:
        super().__init__(name, can=can, codecs=codecs)
        self._log = log
        self._lock = threading.Lock()
        self._asked: dict[int, Future[dict[str, Any]]] = {}
        self._next = 0
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, cwd=log.parent
            )
        self._reader = threading.Thread(target=self._read, name=f"driver-{name}", daemon=True)
        self._reader.start()

    def begin(self, op: str, at: Endpoint, **params: Any) -> Future[dict[str, Any]]:
        """Send the request; the reader thread fills the future."""
        future: Future[dict[str, Any]] = Future()
        with self._lock:
            self._next += 1
            number = self._next
            self._asked[number] = future
            request = {
                "client_id": "compat",
                **params,
                "id": number,
                "op": op,
                "servers": at.servers,
                "ca": at.ca,
            }
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
            except OSError:
                self._asked.pop(number, None)
                future.set_exception(ClientFailed(self.name, None, f"its driver ended:\n{self._log_tail()}"))
        return future

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait(END_LIMIT_S)

    def close(self) -> None:
        """Close its stdin, which ends it; kill it when that does not help."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass  # it ended by itself with bytes unread
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_LIMIT_S)
        self._reader.join(END_LIMIT_S)
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        why = "its driver ended"
        for line in self._process.stdout:
            try:
                answer = json.loads(line)
            except ValueError:  # the client prints where only answers belong: nothing after it can be trusted
                why = f"its driver said {line[:200]!r}"
                self._process.kill()
                break
            self._settle(answer)
        with self._lock:
            left, self._asked = self._asked, {}
        for future in left.values():
            future.set_exception(ClientFailed(self.name, None, f"{why}:\n{self._log_tail()}"))

    def _settle(self, answer: dict[str, Any]) -> None:
        with self._lock:
            future = self._asked.pop(answer["id"], None)
        if future is None:
            return
        if "ok" in answer:
            future.set_result(answer["ok"])
        else:
            error = answer["error"]
            future.set_exception(ClientFailed(self.name, error.get("code"), error["message"]))

    def _log_tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-25:])


def dotted(configs: dict[str, str]) -> dict[str, str]:
    """Keyword arguments as config names."""
    return {name.replace("_", "."): value for name, value in configs.items()}


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
