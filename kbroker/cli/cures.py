"""What helps when a broker refuses a config: its own words tell what is wrong, not what to type. Decides, asks nobody.

The words are those of Apache Kafka, so the cures are named for its brokers too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kbroker.config.options import INT_MAX
from kbroker.errors import KafkaError

_MINUTE_MS, _HOUR_MS, _DAY_MS = 60_000, 3_600_000, 86_400_000
# What people write behind a number, and how much it is of the unit that an option's name ends with.
_TIMES_MS = {
    "ms": 1,
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1_000),
    **dict.fromkeys(("m", "min", "minute", "minutes"), _MINUTE_MS),
    **dict.fromkeys(("h", "hour", "hours"), _HOUR_MS),
    **dict.fromkeys(("d", "day", "days"), _DAY_MS),
    **dict.fromkeys(("w", "week", "weeks"), 7 * _DAY_MS),
}
_SIZES = {
    f"{letter}{rest}": 1 << 10 * power
    for power, letter in enumerate(("", "k", "m", "g", "t"))
    for rest in ("", "b", "ib")
}
# the end of a name -> its unit, what it is in the finer one of the table, the table
_UNITS: dict[str, tuple[str, int, Mapping[str, int]]] = {
    "ms": ("milliseconds", 1, _TIMES_MS),
    "seconds": ("seconds", 1_000, _TIMES_MS),
    "minutes": ("minutes", _MINUTE_MS, _TIMES_MS),
    "hours": ("hours", _HOUR_MS, _TIMES_MS),
    "bytes": ("bytes", 1, _SIZES),
}
_AMOUNT = re.compile(r"(\d+)\s*([a-z]+)")

AT_START_ALONE = (
    "a broker takes that at its start alone: from its server.properties, or as kbroker start --set NAME=VALUE"
)
OF_A_LISTENER = "put the listener's name before it, as in listener.name.ssl.ssl.keystore.location"
LISTED = "kbroker config get topic NAME --all has them all, NAME being any topic"


def with_cure(error: KafkaError, configs: Mapping[str, str], *, clearing: str) -> KafkaError:
    """The refusal of `configs` (name -> value as given) with what helps, where we know it.

    `clearing` says how a config gets its default in this verb, {} being its name.
    """
    words = error.message or ""
    if "Cannot update these configs dynamically" in words:
        cure = AT_START_ALONE
    elif "only per-listener" in words:
        cure = OF_A_LISTENER
    elif "Unknown topic config name" in words and "did you mean" not in words:
        cure = LISTED
    else:
        cures = (
            _cure_of_value(name, value, clearing, fits=INT_MAX if "type INT" in words else None)
            for name, value in configs.items()
            if f"for configuration {name}:" in words
        )
        cure = next(cures, "")
    return KafkaError(error.code, f"{words.rstrip('.')}; {cure}") if cure else error


def _cure_of_value(name: str, value: str, clearing: str, *, fits: int | None) -> str:
    text = value.strip().lower()
    if not text:
        return clearing.format(name)
    unit = _UNITS.get(name.rpartition(".")[2])
    if unit is None or text.removeprefix("-").isdigit():
        return ""
    words, factor, table = unit
    amount = _AMOUNT.fullmatch(text)
    size = int(amount[1]) * table.get(amount[2], 0) if amount else 0
    if not size or size % factor:
        return f"it is a number of {words}"
    if fits is not None and size // factor > fits:
        return f"it is a number of {words}, {fits} at most"
    return f"it is in {words}: write {value.strip()} as {size // factor}"
