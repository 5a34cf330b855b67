"""From batches to stdout: values, keys and values, or JSON lines. On a terminal what others wrote is made printable."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, BinaryIO, Protocol

import msgspec

from kbroker.cli.client.admin import Place
from kbroker.cli.client.batches import Seen, body_of, records_of, values_of
from kbroker.cli.output import json_text, printable
from kbroker.protocol.records import RecordBatch


class Sink(Protocol):
    """Writes records."""

    def batch(self, place: Place, batch: RecordBatch) -> None:
        """All records of a batch."""

    def some(self, place: Place, records: list[Seen]) -> None:
        """Some of them."""


class Values:
    """Each value and a line's end. Bytes as they are, unless a person looks."""

    def __init__(self, out: BinaryIO, *, safe: bool) -> None:
        self._out, self._safe = out, safe

    def batch(self, place: Place, batch: RecordBatch) -> None:
        """The values, without looking at anything else."""
        self._write(values_of(body_of(batch), batch.count))

    def some(self, place: Place, records: list[Seen]) -> None:
        """The values of these."""
        self._write([record.value for record in records])

    def _write(self, values: list[bytes | None]) -> None:
        lines = [b"" if value is None else value for value in values]
        if self._safe:
            lines = list(map(shown, lines))
        lines.append(b"")
        self._out.write(b"\n".join(lines))


class Pairs:
    """Key, separator, value, a line's end."""

    def __init__(self, out: BinaryIO, separator: bytes, *, safe: bool) -> None:
        self._out, self._separator = out, separator
        self._show = shown if safe else bytes

    def batch(self, place: Place, batch: RecordBatch) -> None:
        """All of them."""
        self.some(place, records_of(batch, body_of(batch)))

    def some(self, place: Place, records: list[Seen]) -> None:
        """These."""
        show, separator = self._show, self._separator
        lines = [show(record.key or b"") + separator + show(record.value or b"") for record in records]
        lines.append(b"")
        self._out.write(b"\n".join(lines))


class Json:
    """A line of JSON for each record: `produce --input json` reads the same. What is not UTF-8 is base64."""

    def __init__(self, out: BinaryIO, *, safe: bool) -> None:
        self._out, self._safe = out, safe
        self._encode = msgspec.json.Encoder().encode

    def batch(self, place: Place, batch: RecordBatch) -> None:
        """All of them."""
        self.some(place, records_of(batch, body_of(batch)))

    def some(self, place: Place, records: list[Seen]) -> None:
        """These."""
        encode = self._encode
        lines = [encode(document(place, record)) for record in records]
        if self._safe:
            lines = [json_text(line.decode()).encode() for line in lines]
        lines.append(b"")
        self._out.write(b"\n".join(lines))


def document(place: Place, record: Seen) -> dict[str, Any]:
    """A record as JSON has it."""
    found: dict[str, Any] = {
        "topic": place[0],
        "partition": place[1],
        "offset": record.offset,
        "timestamp": record.timestamp,
    }
    for name, data in (("key", record.key), ("value", record.value)):
        try:
            found[name] = None if data is None else data.decode()
        except UnicodeDecodeError:
            found[f"{name}_base64"] = b64encode(data or b"").decode()
    if record.headers:
        found.update(_headers(record))
    return found


def _headers(record: Seen) -> dict[str, Any]:
    try:
        named = [(name, None if value is None else value.decode()) for name, value in record.headers]
    except UnicodeDecodeError:
        raw = [(name, None if value is None else b64encode(value).decode()) for name, value in record.headers]
        return {"headers_base64": raw}
    as_dict = dict(named)
    return {"headers": as_dict if len(as_dict) == len(named) else named}


def shown(data: bytes) -> bytes:
    """Bytes as a terminal may have them."""
    return printable(data.decode("utf-8", "backslashreplace")).encode()
