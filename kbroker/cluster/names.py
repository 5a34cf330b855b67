"""Names of topics: what is allowed, what collides. Pure functions."""

from __future__ import annotations

import re

from kbroker.errors import ErrorCode, KafkaError

TOPIC_NAME_LENGTH_MAX = 249  # so that "name-partition.uuid-delete" still is a file name of 255 bytes
GROUPS_TOPIC = "__consumer_offsets"  # groups and the offsets they commit
INTERNAL_TOPICS = frozenset({GROUPS_TOPIC, "__transaction_state", "__share_group_state"})
_LEGAL = re.compile(r"[a-zA-Z0-9._-]+")


def check_topic_name(name: str) -> None:
    """Raise INVALID_TOPIC_EXCEPTION unless `name` may be a topic's."""
    why = None
    if not name:
        why = "the empty string is not allowed"
    elif name in (".", ".."):
        why = f"'{name}' is not allowed"
    elif len(name) > TOPIC_NAME_LENGTH_MAX:
        why = f"the length of '{name}' is longer than the max allowed length {TOPIC_NAME_LENGTH_MAX}"
    elif not _LEGAL.fullmatch(name):
        why = f"'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    if why is not None:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {why}")


def collision_key(name: str) -> str | None:
    """What two names share that collide where '.' becomes '_' (names of metrics); None: it collides with none."""
    return name.replace(".", "_") if "." in name or "_" in name else None
