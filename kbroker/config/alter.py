"""Changes to a set of configuration texts: set, delete, append to and subtract from a list. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

SET, DELETE, APPEND, SUBTRACT = range(4)  # codes of IncrementalAlterConfigs


class ConfigOp(NamedTuple):
    """One change. `base` is the list that APPEND and SUBTRACT start from where nothing is set: the default's text."""

    name: str
    op: int
    value: str | None = None
    base: str = ""


def altered(values: Mapping[str, str], ops: Iterable[ConfigOp]) -> dict[str, str]:
    """`values` after `ops`."""
    after = dict(values)
    for op in ops:
        if op.op == DELETE:
            after.pop(op.name, None)
        elif op.op == SET:
            after[op.name] = op.value or ""
        else:
            members = members_of(after.get(op.name, op.base))
            wanted = members_of(op.value or "")
            if op.op == APPEND:
                members += [member for member in wanted if member not in members]
            else:
                members = [member for member in members if member not in wanted]
            after[op.name] = ",".join(members)
    return after


def members_of(text: str) -> list[str]:
    """The members of a list's text."""
    return [member.strip() for member in text.split(",")] if text.strip() else []
