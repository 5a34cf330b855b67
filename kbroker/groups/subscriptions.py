"""The topics that consumers subscribe to, read from what they tell each other: a ConsumerProtocol subscription.

The bytes are the clients' own; a broker needs only their beginning, which every version shares (version, topics).
They may be anything at all. Knows nothing of groups.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

# Topics that the subscriptions of one group may name together; those of a member that names the same as the one before
# it do not count. A generation reads them all at once, on the loop. Beyond it the group's topics are not known: none of
# its offsets expires while it has members.
TOPICS_MAX = 50_000

_HEAD = struct.Struct(">hi")  # version, number of topics
_LENGTH = struct.Struct(">h")


def topics_of(subscriptions: Iterable[bytes]) -> frozenset[str] | None:
    """All topics of these subscriptions; None where one of them is no subscription."""
    topics: set[str] = set()
    left = TOPICS_MAX
    known: bytes | None = None  # the last beginning that was read: mostly all members say the same
    try:
        for subscription in subscriptions:
            if known is None or not subscription.startswith(known):
                count, end = _read(subscription, topics, left)
                left, known = left - count, subscription[:end]
    except (struct.error, ValueError):
        return None
    return frozenset(topics)


def _read(data: bytes, topics: set[str], topics_max: int) -> tuple[int, int]:
    """Add the topics of one subscription; how many it names, and where they end."""
    version, count = _HEAD.unpack_from(data)
    if version < 0 or not 0 <= count <= topics_max:
        raise ValueError(f"version {version} with {count} topics")
    at = _HEAD.size
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(data, at)
        start = at + _LENGTH.size
        at = start + length
        if length < 0 or at > len(data):
            raise ValueError(f"a name of {length} bytes at {start} of {len(data)}")
        topics.add(data[start:at].decode())
    return count, at
