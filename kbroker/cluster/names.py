"""Names and ids of topics: what is allowed, what collides, how new ids are made. Pure functions."""

from __future__ import annotations

import base64
import re
from uuid import UUID

from kbroker.errors import ErrorCode, KafkaError
from kbroker.seams import Random

TOPIC_NAME_LENGTH_MAX = 249  # so that "name-partition.uuid-delete" still is a file name of 255 bytes
INTERNAL_TOPICS = frozenset({"__consumer_offsets", "__transaction_state", "__share_group_state"})
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


def new_topic_id(random: Random) -> UUID:
    """A random id. Those that Kafka reserves (0 and 1), and texts that look like an option, are left out."""
    while True:
        topic_id = UUID(int=random.getrandbits(128), version=4)
        if not uuid_text(topic_id).startswith("-"):
            return topic_id


def new_cluster_id(random: Random) -> str:
    """A random id in the form of Kafka's."""
    return uuid_text(new_topic_id(random))


def uuid_text(value: UUID) -> str:
    """Kafka's way to write an id: 22 characters of base64url."""
    return base64.urlsafe_b64encode(value.bytes)[:22].decode()


def uuid_of(text: str) -> UUID:
    """The id written by `uuid_text`; ValueError on anything else."""
    if len(text) != 22:
        raise ValueError(f"not an id: {text!r}")
    return UUID(bytes=base64.urlsafe_b64decode(text + "=="))
