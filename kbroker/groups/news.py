"""What the broker's log says of a group: one line when its members are gathered anew, one when they have their shares."""

from __future__ import annotations

from kbroker.groups.classic import ClassicGroup, State
from kbroker.groups.events import Event, Join, Leave, Sync, Tick, Written
from kbroker.observe import logs

log = logs.get_logger("groups")

# Clients say why they join or leave, in up to 32 KB.
REASON_LENGTH_MAX = 200


def tell(group: ClassicGroup, event: Event) -> None:
    """The group came into another state by `event`."""
    state = group.state
    if state == State.PREPARING:
        log.info("group rebalances", group=group.group_id, generation=group.generation, why=_why(event))
    elif state in (State.STABLE, State.EMPTY):
        log.info(
            f"group {state.lower()}",
            group=group.group_id,
            generation=group.generation,
            members=group.members,
        )


def _why(event: Event) -> str:
    match event:
        case Join():
            who = event.instance_id or event.member_id or event.client_id
            return _said(f"{who} joins", event.reason)
        case Leave() if event.members:
            first = event.members[0]
            others = len(event.members) - 1
            who = f"{first.instance_id or first.member_id}{f' and {others} more' if others else ''}"
            return _said(f"{who} leaves", first.reason)
        case Tick():
            return "a member was silent for too long"
        case Written():
            return "the generation could not be written down"
        case Sync():
            return f"{event.instance_id or event.member_id} has another assignment"
    return type(event).__name__


def _said(what: str, reason: str) -> str:
    text = f"{what}: {reason}" if reason else what
    return text if len(text) <= REASON_LENGTH_MAX else text[: REASON_LENGTH_MAX - 1] + "…"
