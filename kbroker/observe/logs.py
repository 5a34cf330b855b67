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
from typing import Any, Protocol, TextIO

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR
LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}
# As Kafka's tools name them: TRACE is all there is, FATAL nothing.
KAFKA_LEVELS = {
    "TRACE": 5,
    "DEBUG": DEBUG,
    "INFO": INFO,
    "WARN": WARNING,
    "ERROR": ERROR,
    "FATAL": logging.CRITICAL,
}
ROOT = "root"  # the room that stands for those without a level of their own

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
    _rooms.add(room)
    return Logger(room)


_rooms: set[str] = set()  # that have a logger


def levels() -> dict[str, str]:
    """What each room logs, and "root" what the others do: names of Kafka's log levels."""
    return {room: _name(_outlet.level(room)) for room in (ROOT, *sorted(_rooms))}


def set_level(room: str, name: str | None) -> None:
    """From now on `room` (or "root") logs from this level up; None: what the root does. KeyError for other names."""
    if room != ROOT and room not in _rooms:
        raise KeyError(room)
    _outlet.set_level(room, None if name is None else KAFKA_LEVELS[name])


def _name(level: int) -> str:
    return next((name for name, least in KAFKA_LEVELS.items() if level <= least), "FATAL")


class Outlet(Protocol):
    """Where lines go, and from which level up."""

    def __call__(
        self, room: str, level: int, event: str, fields: Mapping[str, Any], error: BaseException | None
    ) -> None: ...

    def level(self, room: str) -> int: ...

    def set_level(self, room: str, level: int | None) -> None: ...


class _ToLogging:
    """Hands lines to Python's logging: the outlet until `to_stderr` is called."""

    def __call__(
        self, room: str, level: int, event: str, fields: Mapping[str, Any], error: BaseException | None
    ) -> None:
        logger = self._logger(room)
        if logger.isEnabledFor(level):
            logger.log(level, "%s", sentence(event, fields), exc_info=error)

    def level(self, room: str) -> int:
        return self._logger(room).getEffectiveLevel()

    def set_level(self, room: str, level: int | None) -> None:
        self._logger(room).setLevel(logging.NOTSET if level is None else level)

    @staticmethod
    def _logger(room: str) -> logging.Logger:
        return logging.getLogger("kbroker" if room == ROOT else f"kbroker.{room}")


to_logging = _ToLogging()
_outlet: Outlet = to_logging


class _ToStream:
    """Writes lines to a stream of ours."""

    def __init__(self, target: TextIO, line_of: Callable[..., str], least: int) -> None:
        self._target = target
        self._line_of = line_of
        self._root = least
        self._levels: dict[str, int] = {}  # of rooms that differ

    def __call__(
        self, room: str, level: int, event: str, fields: Mapping[str, Any], error: BaseException | None
    ) -> None:
        if level < self.level(room):
            return
        line = self._line_of(_now(), room, level, event, fields, error)
        try:
            self._target.write(line)
            self._target.flush()
        except (OSError, ValueError):
            return  # nobody reads stderr any more: the broker serves on without a log

    def level(self, room: str) -> int:
        return self._levels.get(room, self._root)

    def set_level(self, room: str, level: int | None) -> None:
        if level is None:
            self._levels.pop(room, None)
        elif room == ROOT:
            self._root = level
        else:
            self._levels[room] = level


def to_stderr(*, style: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Send this process's lines to stderr, as text or as JSON objects, from `level` up. For the command line."""
    global _outlet
    line_of = json_line if style.lower() == "json" else text_line
    _outlet = _ToStream(sys.stderr if stream is None else stream, line_of, LEVELS.get(level.lower(), INFO))


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
