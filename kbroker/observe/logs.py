"""Log lines: one per change of state, `event key=value ...`. Imports nothing of ours.

`log = get_logger("storage")`, then `log.info("leader changed", partition=tp, leader=3)`. `kbroker start` sends the
lines to stderr (`to_stderr`). An embedded broker's go to Python's `logging` under `kbroker.<room>`: there the host
decides what is shown, and nothing of the host's own set-up is touched.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR
LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}

# What may stand in a line without quotes. Everything else is quoted and escaped: clients choose topic names and client
# ids, and must not be able to write a line of their own.
_PLAIN = re.compile(r"[\w.,:;/@+\-\[\]()<>|*%#~?!$&{}]+", re.ASCII)


class Logger:
    """What a room logs with: the event names what happened, keywords carry what varies."""

    __slots__ = ("_fields", "room")

    def __init__(self, room: str, fields: Mapping[str, Any] | None = None) -> None:
        self.room = room
        self._fields = dict(fields or {})

    def bind(self, **fields: Any) -> Logger:
        """A logger whose lines all carry `fields`."""
        return Logger(self.room, self._fields | fields)

    def debug(self, event: str, **fields: Any) -> None:
        """For developers."""
        self._log(DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """A change of state."""
        self._log(INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Something that needs a look: who, what, why, and the cure."""
        self._log(WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Something that stopped serving."""
        self._log(ERROR, event, fields)

    def exception(self, event: str, error: BaseException | None = None, **fields: Any) -> None:
        """A broken promise of our own: the line, then the traceback of `error` (the one being handled by default)."""
        self._log(ERROR, event, fields, error or sys.exception())

    def _log(
        self, level: int, event: str, fields: dict[str, Any], error: BaseException | None = None
    ) -> None:
        _outlet(self.room, level, event, self._fields | fields if self._fields else fields, error)


def get_logger(room: str) -> Logger:
    """The logger of a room; needs no set-up."""
    return Logger(room)


Outlet = Callable[[str, int, str, Mapping[str, Any], "BaseException | None"], None]


def to_logging(
    room: str, level: int, event: str, fields: Mapping[str, Any], error: BaseException | None
) -> None:
    """Hand a line to Python's logging: the outlet until `to_stderr` is called."""
    logger = logging.getLogger(f"kbroker.{room}")
    if logger.isEnabledFor(level):
        logger.log(level, "%s", sentence(event, fields), exc_info=error)


_outlet: Outlet = to_logging


def to_stderr(*, style: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Send this process's lines to stderr, as text or as JSON objects, from `level` up. For the command line."""
    global _outlet
    least = LEVELS.get(level.lower(), INFO)
    target = sys.stderr if stream is None else stream
    line_of = json_line if style.lower() == "json" else text_line

    def write(
        room: str, level: int, event: str, fields: Mapping[str, Any], error: BaseException | None
    ) -> None:
        if level < least:
            return
        line = line_of(_now(), room, level, event, fields, error)
        try:
            target.write(line)
            target.flush()
        except (OSError, ValueError):
            return  # nobody reads stderr any more: the broker serves on without a log

    _outlet = write


def sentence(event: str, fields: Mapping[str, Any]) -> str:
    """`event key=value ...`, quoted where a value could be mistaken."""
    return " ".join([event, *(f"{name}={_value(value)}" for name, value in fields.items())])


def text_line(
    now: str, room: str, level: int, event: str, fields: Mapping[str, Any], error: BaseException | None
) -> str:
    """A line for people; a traceback follows it."""
    line = f"{now} {logging.getLevelName(level).lower():<7} {room}: {sentence(event, fields)}\n"
    return line + _traceback(error) if error is not None else line


def json_line(
    now: str, room: str, level: int, event: str, fields: Mapping[str, Any], error: BaseException | None
) -> str:
    """A line for machines: one JSON object."""
    row = {"time": now, "level": logging.getLevelName(level).lower(), "room": room, "event": event}
    row |= {name: value for name, value in fields.items() if name not in row}
    if error is not None:
        row["traceback"] = _traceback(error)
    return json.dumps(row, default=str) + "\n"


def _value(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
