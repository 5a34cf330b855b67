"""Where to read from, as a person writes it: beginning, end, an offset, the last so many, a time. Decides, asks nobody.

beginning   end   42   -10 (the last ten)   15m (ago; s m h d)   2026-11-24T10:00:00Z   @1700000000000
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import click

from kbroker.cli.client.admin import EARLIEST, LATEST, Place, offsets_at
from kbroker.cli.client.cluster import Cluster

F = TypeVar("F", bound=Callable[..., Any])

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_AGO = re.compile(r"(\d+)([smhd])")
HELP = "beginning, end, an OFFSET, -N (the last N), a time (2026-11-24T10:00:00Z, @MILLISECONDS) or 15m (ago; s m h d)"


class Where(NamedTuple):
    """One of three: a time (or a special one) for ListOffsets, an offset, or so many before the end."""

    time_ms: int | None = None
    offset: int | None = None
    last: int | None = None


BEGINNING, END = Where(time_ms=EARLIEST), Where(time_ms=LATEST)


def parse(text: str, now_ms: int) -> Where:
    """What was meant. ValueError where it is nothing of the kind."""
    word = text.strip().lower()
    if word in ("beginning", "earliest", "start"):
        return BEGINNING
    if word in ("end", "latest"):
        return END
    if word.isdigit():
        return Where(offset=int(word))
    if word[:1] == "-" and word[1:].isdigit():
        return Where(last=int(word[1:]))
    if word[:1] == "@" and word[1:].isdigit():
        return Where(time_ms=int(word[1:]))
    ago = _AGO.fullmatch(word)
    if ago:
        return Where(time_ms=max(now_ms - int(ago[1]) * _UNITS_S[ago[2]] * 1000, 0))
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is none of {HELP}") from None
    if moment.tzinfo is None:
        moment = moment.astimezone()  # the clock on this machine's wall
    return Where(time_ms=max(int(moment.astimezone(UTC).timestamp() * 1000), 0))


def where_option(name: str, *, help: str) -> Callable[[F], F]:
    """An option that takes a place."""
    return click.option(name, "where", metavar="WHERE", callback=_parsed, help=help)


def _parsed(ctx: click.Context, param: click.Parameter, value: str | None) -> Where | None:
    import time

    if value is None:
        return None
    try:
        return parse(value, time.time_ns() // 1_000_000)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


async def offsets(cluster: Cluster, places: Iterable[Place], where: Where) -> dict[Place, int]:
    """The offset in each partition, inside of what there is. A time after the last record means the end."""
    places = list(places)
    if where.time_ms is not None:
        found = await offsets_at(cluster, dict.fromkeys(places, where.time_ms))
        missing = [place for place in places if found[place].offset < 0]
        ends = await offsets_at(cluster, dict.fromkeys(missing, LATEST)) if missing else {}
        return {place: (ends if place in ends else found)[place].offset for place in places}
    if where.last is None:
        return await within(cluster, dict.fromkeys(places, where.offset or 0))
    ends = await offsets_at(cluster, dict.fromkeys(places, LATEST))
    return await within(cluster, {place: ends[place].offset - where.last for place in places})


async def within(cluster: Cluster, wanted: Mapping[Place, int]) -> dict[Place, int]:
    """The offsets, none of them before or after what there is."""
    first = await offsets_at(cluster, dict.fromkeys(wanted, EARLIEST))
    last = await offsets_at(cluster, dict.fromkeys(wanted, LATEST))
    return {
        place: min(max(offset, first[place].offset), last[place].offset) for place, offset in wanted.items()
    }
