"""Answers that say no before any group was asked, and how an answer is given. Knows no group."""

from __future__ import annotations

from collections.abc import Callable

from kbroker.errors import ErrorCode
from kbroker.groups.events import Answer, Beat, Beaten, Join, Joined, Leave, Left, Sync, Synced
from kbroker.observe import logs

log = logs.get_logger("groups")


def reply(to: Callable[[Answer], None], answer: Answer) -> None:
    """Tell whoever asked."""
    try:
        to(answer)
    except Exception as error:  # a door: one who cannot hear must not keep the others from being told
        log.exception("whoever asked failed to hear the answer", error, answer=type(answer).__name__)


def refusal(event: Join | Sync | Beat | Leave, error: ErrorCode) -> Answer:
    """The answer that says `error`."""
    match event:
        case Join():
            return Joined(error, event.member_id)
        case Sync():
            return Synced(error)
        case Beat():
            return Beaten(error)
        case Leave():
            return Left(error)


def unknown_group(event: Join | Sync | Beat | Leave) -> Answer:
    """The answer where there is no such group: none of these members is known."""
    unknown = ErrorCode.UNKNOWN_MEMBER_ID
    if isinstance(event, Leave):
        members = tuple((each.member_id, each.instance_id, unknown) for each in event.members)
        return Left(ErrorCode.NONE, members)
    return refusal(event, unknown)
