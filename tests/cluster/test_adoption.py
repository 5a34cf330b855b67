"""Topics that are known by their folders only."""

from __future__ import annotations

from uuid import UUID

import pytest

from kbroker.cluster.adoption import KEPT_FOR_EVER, adopted_topics
from kbroker.cluster.commands import AdoptedTopic
from kbroker.errors import StartError
from kbroker.model import TopicPartition

A, B = UUID(int=0xA), UUID(int=0xB)


def test_folders_of_one_id_are_a_topic_with_the_epochs_that_they_note():
    stored = {TopicPartition("orders", 2): A, TopicPartition("other", 0): B, TopicPartition("orders", 0): A}

    topics = adopted_topics(stored, lambda tp: 10 + tp.partition, path="/data")

    assert [
        AdoptedTopic("orders", A, [10, 0, 12], KEPT_FOR_EVER),  # the second one's folder is not here
        AdoptedTopic("other", B, [10], KEPT_FOR_EVER),
    ] == topics


@pytest.mark.parametrize(
    "name, configs",
    [
        ("__consumer_offsets", {"cleanup.policy": "compact"}),
        ("__transaction_state", {"cleanup.policy": "compact"}),
        ("__share_group_state", {"retention.ms": "-1"}),
        ("orders", {"retention.ms": "-1", "retention.bytes": "-1"}),
    ],
)
def test_nothing_of_an_adopted_topic_ages_away(name, configs):
    [topic] = adopted_topics({TopicPartition(name, 0): A}, lambda tp: 0, path="/data")

    assert configs == topic.configs


@pytest.mark.parametrize(
    "stored",
    [
        {TopicPartition("orders", 0): A, TopicPartition("orders", 1): B},
        {TopicPartition("orders", 0): A, TopicPartition("orders-copy", 0): A},
    ],
)
def test_a_name_with_two_ids_or_an_id_with_two_names_is_refused(stored):
    first, second = stored

    with pytest.raises(StartError, match=f"/data holds the folders {first} and {second}"):
        adopted_topics(stored, lambda tp: 0, path="/data")
