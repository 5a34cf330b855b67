"""One configuration option: its name, type, bounds, default and words. Knows how a text becomes a value and back.

Texts, bounds and refusals are Kafka's. Knows nothing of brokers, topics or where a value came from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any


class ConfigType(IntEnum):
    """Types of values, with the codes that DescribeConfigs sends."""

    UNKNOWN = 0  # of names that only others know: never shown
    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


class ConfigSource(IntEnum):
    """Where a value comes from, with the codes that DescribeConfigs sends."""

    DYNAMIC_TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5
    DYNAMIC_BROKER_LOGGER = 6
    CLIENT_METRICS = 7
    GROUP = 8


class ResourceType(IntEnum):
    """What a configuration belongs to, with the codes of the wire."""

    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
    GROUP = 32


class BadValue(ValueError):
    """A text that an option does not take; says why, in a clause."""


BOOLEAN, STRING, INT, SHORT, LONG = (
    ConfigType.BOOLEAN,
    ConfigType.STRING,
    ConfigType.INT,
    ConfigType.SHORT,
    ConfigType.LONG,
)
DOUBLE, LIST, CLASS, PASSWORD = ConfigType.DOUBLE, ConfigType.LIST, ConfigType.CLASS, ConfigType.PASSWORD

READ_ONLY, CLUSTER_WIDE, PER_BROKER = "read-only", "cluster-wide", "per-broker"

LONG_MAX = (1 << 63) - 1
INT_MAX = (1 << 31) - 1
_WIDTHS = {ConfigType.INT: 31, ConfigType.SHORT: 15, ConfigType.LONG: 63}
_DIGITS = frozenset("0123456789")
_UNITS = {
    "ms": "milliseconds",
    "minutes": "minutes",
    "hours": "hours",
    "seconds": "seconds",
    "bytes": "bytes",
}
# How long and how much is kept: of topics, and behind "log." of brokers.
_KEEP = frozenset({"retention.ms", "retention.minutes", "retention.hours", "retention.bytes"})


class Option:
    """A row of the table. As a class attribute of `Settings` or `TopicConfig` it names the field it stands for."""

    __slots__ = (
        "also",
        "at_least",
        "at_most",
        "attribute",
        "check",
        "choices",
        "cure",
        "default",
        "doc",
        "dynamic",
        "falls_back_to",
        "ignores_case",
        "inert",
        "internal",
        "name",
        "type",
    )

    def __init__(
        self,
        name: str,
        type: ConfigType,
        default: Any,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        also: float | None = None,
        choices: Sequence[str] | None = None,
        ignores_case: bool = False,
        dynamic: str = READ_ONLY,
        falls_back_to: Sequence[tuple[str, int]] = (),
        check: Callable[[Any], str | None] | None = None,
        inert: bool = False,
        internal: bool = False,
        cure: str = "",
        doc: str = "",
    ) -> None:
        self.name = name
        self.type = type
        self.default = default  # the typed value; None: unset
        self.at_least = at_least
        self.at_most = at_most
        self.also = also  # one value allowed outside the bounds
        self.choices = choices  # of the text, or of each member of a list
        self.ignores_case = ignores_case
        self.dynamic = dynamic  # READ_ONLY | CLUSTER_WIDE | PER_BROKER
        self.falls_back_to = (
            falls_back_to  # a topic's option: (broker option, factor to this one's unit), first set wins
        )
        self.check = check  # further rule: why the value is refused, or None
        self.inert = inert  # Kafka knows it, here it does nothing
        self.internal = internal  # not listed by DescribeConfigs
        self.cure = cure  # why a start with a value for it ends, and what to do instead; "": it is taken
        self.doc = doc
        self.attribute = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.attribute = name

    @property
    def default_text(self) -> str | None:
        """The default as DescribeConfigs shows it."""
        return self.text(self.default)

    @property
    def sensitive(self) -> bool:
        """Its value is never shown."""
        return self.type in (ConfigType.PASSWORD, ConfigType.UNKNOWN)

    @property
    def allowed(self) -> str:
        """The values it takes, in words."""
        if self.choices is not None:
            return f"{'any of' if self.type is LIST else 'one of'} {', '.join(self.choices)}"
        if self.type is DOUBLE or self.type in _WIDTHS:
            words = ", ".join(filter(None, (self._unit, self._bounds, self._unlimited)))
            number = "a number" if self.type is DOUBLE else "a whole number"
            return f"{number} ({words})" if words else number
        return "true or false" if self.type is BOOLEAN else "a text"

    @property
    def _unit(self) -> str:
        return _UNITS.get(self.name.rpartition(".")[2], "")

    @property
    def _bounds(self) -> str:
        if self.at_least is None or self._unlimited:
            return ""
        low, high = self._shown(self.at_least), self._shown(self.at_most)
        bounds = f"{low} or more" if self.at_most is None else f"{low} to {high}"
        return bounds if self.also is None else f"{bounds}, or {self._shown(self.also)}"

    @property
    def _unlimited(self) -> str:
        keeps = self.name.removeprefix("log.") in _KEEP
        return "-1: no limit" if keeps else ""

    def parse(self, text: str) -> Any:
        """The value of `text`, within its bounds; else BadValue."""
        value = self._typed(text.strip())
        why = self._refusal(value)
        if why is None and self.check is not None:
            why = self.check(value)
        if why is not None:
            raise BadValue(why)
        return value

    def refusal(self, text: str) -> str | None:
        """Why `text` is not taken, in Kafka's words; None: it is."""
        try:
            self.parse(text)
        except BadValue as error:
            return f"Invalid value {'[hidden]' if self.sensitive else text} for configuration {self.name}: {error}"
        return None

    def text(self, value: Any) -> str | None:
        """The text of a typed value."""
        if value is None:
            return None
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (tuple, list)):
            return ",".join(value)
        if isinstance(value, float):
            return str(value).upper().replace("E+", "E")  # as Java writes them
        return str(value)

    def _typed(self, text: str) -> Any:
        kind = self.type
        if kind in _WIDTHS:
            return _integer(text, kind)
        if kind is BOOLEAN:
            lower = text.lower()
            if lower not in ("true", "false"):
                raise BadValue("Expected value to be either true or false")
            return lower == "true"
        if kind is DOUBLE:
            return _number(text)
        if kind is LIST:
            # a member given twice counts once
            return tuple(dict.fromkeys(part.strip() for part in text.split(","))) if text else ()
        return text

    def _refusal(self, value: Any) -> str | None:
        if self.type is LIST and "" in value:
            return "members of the list must not be empty"
        if self.choices is not None:
            return self._wrong_choice(value)
        if value == self.also:
            return None
        low, high = self.at_least, self.at_most
        if self.also is not None and low is not None and high is not None and not low <= value <= high:
            return f"Value must be between {self._shown(low)} and {self._shown(high)} or equal to {self._shown(self.also)}"
        if low is not None and value < low:
            return f"Value must be at least {self._shown(low)}"
        if high is not None and value > high:
            return f"Value must be no more than {self._shown(high)}"
        return None

    def _wrong_choice(self, value: Any) -> str | None:
        assert self.choices is not None
        given = value if self.type is LIST else [value.upper() if self.ignores_case else value]
        if set(given) <= set(self.choices):
            return None
        return f"String must be one of: {', '.join(self.choices)}"

    def _shown(self, number: float | None) -> str:
        return f"{number:g}" if self.type is DOUBLE else str(int(number or 0))


def option(name: str, type: ConfigType, default: Any, **words: Any) -> Any:
    """An Option, typed as Any so that a field can be declared with the type of its value."""
    return Option(name, type, default, **words)


def options_of(owner: type) -> dict[str, Option]:
    """The rows declared by a class, by option name, in order."""
    return {row.name: row for row in vars(owner).values() if isinstance(row, Option)}


def _integer(text: str, kind: ConfigType) -> int:
    digits = text[1:] if text[:1] in ("-", "+") else text
    # int() takes more than Java does: underscores, spaces, other scripts' digits, any length
    if digits and len(digits) <= 40 and _DIGITS.issuperset(digits):
        value = int(text)
        if -1 << _WIDTHS[kind] <= value < 1 << _WIDTHS[kind]:
            return value
    raise BadValue(f"Not a number of type {kind.name}")


def _number(text: str) -> float:
    # float() takes underscores, and infinity and nan, which no bound holds
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadValue("Not a number of type DOUBLE")
    return value
