"""What a broker answers, written down: the same conversation with Apache Kafka is in `transcripts/`, and must be the same.

Answers are decoded to be read; that they are also the same bytes follows, because each is encoded again and compared.
`KBROKER_COMPAT_WRITE=1` with Apache Kafka as the peer writes the files anew.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any

from kbroker.protocol.frames import decode_response, encode_response
from kbroker.protocol.wire import ZERO_UUID, Struct
from tests.support.peers import Endpoint
from tests.support.raw_client import RawClient, address_of

FOLDER = Path(__file__).parent / "transcripts"
MEMBER_ID = re.compile(r"(?:raw|[a-z]+)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LEFT_OUT = {"throttle_time_ms", "host", "port", "node_id", "client_host"}  # the broker's own
LONG = 100  # longer strings and bytes are told by their size


class Transcript:
    """The lines of one conversation. `names` says what is written in place of words, member ids are numbers."""

    def __init__(self, names: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._names = names
        self._members: dict[str, str] = {}

    def say(self, words: str) -> None:
        """What comes next."""
        self.lines.append(f"-- {words}")

    def note(self, message: Any, version: int) -> None:
        """An answer."""
        name = type(message).__name__.removesuffix("Response")
        self.lines.append(f"{name} v{version} {self._told(message)}")

    def note_text(self, words: str) -> None:
        """Something else that came of it."""
        self.lines.append(self._masked(words))

    def _masked(self, line: str) -> str:
        for word, name in self._names.items():
            line = line.replace(word, name)

        def number(found: re.Match[str]) -> str:
            return self._members.setdefault(found[0], f"<member {len(self._members) + 1}>")

        return MEMBER_ID.sub(number, line)

    def _told(self, value: Any) -> str:
        """A message in one line, its fields in the order of the wire."""
        if isinstance(value, list):
            # Kafka tells what failed first, or in the order of a hash table: no order is promised
            return "[" + ", ".join(sorted(map(self._told, value))) + "]"
        if isinstance(value, Struct):
            shown = ((name, getattr(value, name)) for name in type(value).__slots__ if name not in LEFT_OUT)
            return "(" + " ".join(f"{name}={self._told(of)}" for name, of in shown) + ")"
        if isinstance(value, memoryview | bytearray):
            value = bytes(value)
        if isinstance(value, bytes) and value == ZERO_UUID:
            return "none"
        if isinstance(value, str | bytes) and len(value) > LONG:
            return f"{type(value).__name__} of {len(value)}"
        return self._masked(repr(value))

    def check(self, name: str, peer_kind: str) -> None:
        """It is as it was with Apache Kafka."""
        path = FOLDER / f"{name}.txt"
        text = "\n".join(self.lines) + "\n"
        if os.environ.get("KBROKER_COMPAT_WRITE") and peer_kind == "kafka":
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
        expected = path.read_text()
        difference = difflib.unified_diff(
            expected.splitlines(), text.splitlines(), "kafka", peer_kind, "", "", 1, ""
        )
        assert expected == text, "\n".join(difference)


class NotingClient(RawClient):
    """A connection whose answers are noted."""

    def __init__(self, at: Endpoint, transcript: Transcript) -> None:
        super().__init__(address_of(at.servers))
        self.transcript = transcript

    def receive(self) -> Any:
        """The next answer, noted."""
        number, cls, version = self._asked.pop(0)
        frame = self.receive_frame()
        if frame is None:
            self.transcript.note_text(f"{cls.__name__} v{version}: the connection is closed")
            return None
        found, message = decode_response(cls, version, memoryview(frame))
        assert number == found, "answers come in the order of the requests"
        assert _bytes(encode_response(message, version, number))[4:] == frame, f"other bytes: {frame!r}"
        self.transcript.note(message, version)
        return message


def _bytes(encoded: Any) -> bytes:
    return bytes(encoded) if isinstance(encoded, bytes | bytearray) else b"".join(map(bytes, encoded))
