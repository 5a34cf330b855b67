"""What handlers keep between requests: built pieces of Metadata answers, a block of producer ids.

All of it may be lost at any moment: it is built, or asked for, again from the cluster's state.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from kbroker.server.producer_ids import ProducerIds
from kbroker.server.rooms import Rooms
from kbroker.server.topic_answers import TopicAnswers


class Remembered:
    """One broker's. Holds nothing that holds the broker: it goes when the broker does."""

    __slots__ = ("producer_ids", "topic_answers")

    def __init__(self, rooms: Rooms) -> None:
        self.producer_ids = ProducerIds(rooms.node_id)
        self.topic_answers = TopicAnswers()


def remembered(rooms: Rooms) -> Remembered:
    """What the broker of `rooms` remembers; it is forgotten with the broker's log of the cluster."""
    kept = _of_log.get(rooms.cluster)
    if kept is None:
        kept = _of_log[rooms.cluster] = Remembered(rooms)
    return kept


# Several brokers may live in one process (tests): each has its own log.
_of_log: WeakKeyDictionary[object, Remembered] = WeakKeyDictionary()
