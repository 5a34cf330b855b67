"""What the folders of a log directory that Apache Kafka wrote say of its topics, for a cluster that knows none. Pure.

Kafka's own metadata log, where their configs are, is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import UUID

from kbroker.cluster.commands import AdoptedTopic
from kbroker.errors import StartError
from kbroker.model import TopicPartition, uuid_text

# What internal topics have in every Kafka, so that nothing of them ages away after an adoption.
INTERNAL_CONFIGS = {
    "__consumer_offsets": {"cleanup.policy": "compact"},
    "__transaction_state": {"cleanup.policy": "compact"},
    "__share_group_state": {"retention.ms": "-1"},
}
# What every other topic gets: our default retention would delete what theirs kept for longer.
KEPT_FOR_EVER = {"retention.ms": "-1", "retention.bytes": "-1"}


def adopted_topics(
    stored: Mapping[TopicPartition, UUID], noted_epoch: Callable[[TopicPartition], int], *, path: str
) -> list[AdoptedTopic]:
    """The topics that these folders of the log directory `path`, with their topics' ids, are of.

    `noted_epoch`: the newest leader epoch that a partition's files name. StartError where names and ids do not go
    together: of what would not be adopted, the folders would count as a deleted topic's.
    """
    _check_pairs(stored, path)
    topics: dict[UUID, AdoptedTopic] = {}
    for tp, topic_id in sorted(stored.items()):
        configs = INTERNAL_CONFIGS.get(tp.topic, KEPT_FOR_EVER)
        epochs = topics.setdefault(topic_id, AdoptedTopic(tp.topic, topic_id, [], configs)).epochs
        epochs += [0] * (tp.partition - len(epochs))  # a partition whose folder is not here
        epochs.append(noted_epoch(tp))
    return list(topics.values())


def _check_pairs(stored: Mapping[TopicPartition, UUID], path: str) -> None:
    """One name, one id."""
    by_name: dict[str, tuple[TopicPartition, UUID]] = {}
    by_id: dict[UUID, TopicPartition] = {}
    for tp, topic_id in sorted(stored.items()):
        other, other_id = by_name.setdefault(tp.topic, (tp, topic_id))
        if other_id == topic_id:
            other = by_id.setdefault(topic_id, tp)
        if other_id != topic_id or other.topic != tp.topic:
            raise StartError(
                f"{path} holds the folders {other} and {tp}, whose topic names and ids "
                f"({uuid_text(topic_id)} in the latter) do not go together: move one of them elsewhere"
            )
