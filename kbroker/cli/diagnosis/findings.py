"""What was found: a check, how it went, and what to do. Knows nothing of how it is shown."""

from __future__ import annotations

from typing import Literal, NamedTuple

Status = Literal["ok", "warning", "failed"]


class Finding(NamedTuple):
    """One check. Whatever did not go well has a cure of one sentence."""

    check: str
    status: Status
    detail: str
    cure: str | None = None


def ok(check: str, detail: str) -> Finding:
    """It went well."""
    return Finding(check, "ok", detail)


def warning(check: str, detail: str, cure: str) -> Finding:
    """It works, and will not for ever."""
    return Finding(check, "warning", detail, cure)


def failed(check: str, detail: str, cure: str) -> Finding:
    """It does not work."""
    return Finding(check, "failed", detail, cure)
