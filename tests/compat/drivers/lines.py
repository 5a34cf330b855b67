"""The JSON-lines loop that the Python drivers share: a thread per request. Knows no client."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Callable
from typing import Any

Ask = dict[str, Any]


class Failed(Exception):
    """The client reported an error: Kafka's code, or None."""

    def __init__(self, code: int | None, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


def serve(ops: dict[str, Callable[[Ask], Any]], code_of: Callable[[BaseException], int | None]) -> None:
    """Answer requests until stdin ends."""
    lock = threading.Lock()

    def answer(ask: Ask) -> None:
        try:
            said: dict[str, Any] = {"id": ask["id"], "ok": ops[ask["op"]](ask)}
        except Failed as error:
            said = {"id": ask["id"], "error": {"code": error.code, "message": error.message}}
        except BaseException as error:  # whatever a client raises is its answer
            text = f"{type(error).__name__}: {error}"
            said = {"id": ask["id"], "error": {"code": code_of(error), "message": text}}
        with lock:
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()

    for line in sys.stdin:
        threading.Thread(target=answer, args=(json.loads(line),), daemon=True).start()


def raw(text: str | None) -> bytes | None:
    """Base64 to bytes."""
    return None if text is None else base64.b64decode(text)


def text(value: bytes | None) -> str | None:
    """Bytes to base64."""
    return None if value is None else base64.b64encode(value).decode()


def headers_in(record: Ask) -> list[tuple[str, bytes | None]]:
    """A record's headers as the Python clients take them."""
    return [(name, raw(value)) for name, value in record["headers"]]


def record_out(offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: Any) -> Ask:
    """A consumed record as the tests read it."""
    named = [[name, text(content)] for name, content in headers or ()]
    return {
        "offset": offset,
        "timestamp": timestamp,
        "key": text(key),
        "value": text(value),
        "headers": named,
    }
