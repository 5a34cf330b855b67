"""ClusterState: what each command does, what it answers, and that a snapshot is as good as the whole history."""

from __future__ import annotations

import sys
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.cluster import commands as c
from kbroker.cluster.state import Broker, ClusterState, Topic
from kbroker.config import ConfigOp
from kbroker.errors import ErrorCode, KafkaError
from kbroker.model import Endpoint

PLAIN = Endpoint("PLAINTEXT", "one.example", 9092, "PLAINTEXT")
TOPIC, BROKER = 2, 4


def topic_id(number):
    return UUID(int=number)


def new(name, *, number=None, partitions=1, replicas=(1,), **configs):
    return c.NewTopic(name, topic_id(number or sum(name.encode()) + 1000), [replicas] * partitions, configs)


def register(broker=1, *, directory=1, floors=()):
    return c.RegisterBroker(broker, UUID(int=directory), UUID(int=77), [PLAIN], None, floors)


def state_after(*commands):
    state = ClusterState()
    for command in commands:
        state.apply(command)
    return state


def change(type, name, *ops, replace=False):
    return c.AlterConfigs([c.ConfigChange(type, name, [ConfigOp(*op) for op in ops], replace)])


def test_the_first_forming_gives_the_cluster_its_id():
    assert "first" == state_after(c.FormCluster("first"), c.FormCluster("second")).cluster_id


def test_a_registered_broker_is_reached_by_listener():
    state = state_after(register())

    assert Broker(1, 1, UUID(int=1), UUID(int=77), [PLAIN]) == state.brokers[1]
    assert PLAIN == state.brokers[1].endpoint("PLAINTEXT")
    assert state.brokers[1].endpoint("SSL") is None


def test_each_registration_has_a_higher_broker_epoch():
    state = ClusterState()

    assert [1, 2, 3] == [state.apply(register(broker))[0] for broker in (1, 2, 1)]


def test_a_new_topic_is_led_by_its_first_replica_with_all_in_sync():
    state = state_after(c.CreateTopics([new("orders", partitions=2, replicas=(2, 1))]))

    topic = state.topics["orders"]
    assert topic is state.topics_by_id[topic.id]
    assert [(2, 0, (2, 1), (2, 1), 0)] * 2 == [
        (each.leader, each.leader_epoch, each.replicas, each.isr, each.version) for each in topic.partitions
    ]


def test_creating_topics_answers_each_in_order():
    state = state_after(c.CreateTopics([new("a.b")]))

    results, moved = state.apply(c.CreateTopics([new("a.b"), new("a_b"), new("ok"), new("ok")]))

    assert [
        ErrorCode.TOPIC_ALREADY_EXISTS,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        "ok",
        ErrorCode.TOPIC_ALREADY_EXISTS,
    ] == [each.name if isinstance(each, Topic) else each.code for each in results]
    assert "Topic 'a_b' collides with existing topic: a.b" == results[1].message
    assert ["ok"] == [topic.name for topic in moved.topics_created]


def test_names_of_one_request_collide_too():
    [_, refused], _ = ClusterState().apply(c.CreateTopics([new("c.d"), new("c_d")]))

    assert ErrorCode.INVALID_TOPIC_EXCEPTION == refused.code


def test_a_deleted_topic_frees_its_name_and_leaves_no_configs():
    state = state_after(c.CreateTopics([new("a.b", number=5, **{"retention.ms": "1"})]))

    [deleted], moved = state.apply(c.DeleteTopics([topic_id(5)]))

    assert "a.b" == deleted.name
    assert [deleted] == moved.topics_deleted
    assert {} == state.topics == state.topics_by_id == state.configs
    assert state.colliding("a_b") is None


def test_deleting_by_id_spares_the_topic_made_again_under_the_name():
    state = state_after(
        c.CreateTopics([new("t", number=5)]),
        c.DeleteTopics([topic_id(5)]),
        c.CreateTopics([new("t", number=6)]),
    )

    [refused], moved = state.apply(c.DeleteTopics([topic_id(5)]))

    assert ErrorCode.UNKNOWN_TOPIC_ID == refused.code
    assert moved.empty
    assert topic_id(6) == state.topics["t"].id


def test_partitions_are_added_behind_those_there_are():
    state = state_after(c.CreateTopics([new("t", number=5, partitions=2)]))

    [topic], moved = state.apply(c.CreatePartitions([c.MorePartitions(topic_id(5), 2, [(1,), (2,)])]))

    assert [1, 1, 1, 2] == [partition.leader for partition in topic.partitions]
    assert [(topic, 2), (topic, 3)] == moved.partitions_changed


def test_growing_what_has_grown_meanwhile_is_refused():
    state = state_after(c.CreateTopics([new("t", number=5, partitions=2)]))
    more = c.CreatePartitions([c.MorePartitions(topic_id(5), 2, [(1,)])])
    state.apply(more)

    [refused], moved = state.apply(more)

    assert ErrorCode.INVALID_PARTITIONS == refused.code
    assert moved.empty
    assert 3 == len(state.topics["t"].partitions)


def test_registration_raises_the_epoch_of_what_the_broker_led():
    state = state_after(register(1), register(2), c.CreateTopics([new("mine"), new("other", replicas=(2,))]))

    _, moved = state.apply(register(1))

    mine, other = state.topics["mine"].partitions[0], state.topics["other"].partitions[0]
    assert [(1, 1), (0, 0)] == [(each.leader_epoch, each.version) for each in (mine, other)]
    assert [(state.topics["mine"], 0)] == moved.partitions_changed
    assert [1] == moved.brokers_changed


def test_registration_lifts_epochs_above_those_found_in_logs():
    state = state_after(register(), c.CreateTopics([new("t", number=5, partitions=3)]))

    _, moved = state.apply(
        register(floors=[c.EpochFloor(topic_id(5), 0, 9), c.EpochFloor(topic_id(5), 1, 1)])
    )

    assert [9, 1, 1] == [partition.leader_epoch for partition in state.topics["t"].partitions]
    assert [0, 1, 2] == [index for _, index in moved.partitions_changed]


def test_floors_never_lower_an_epoch_and_skip_what_is_gone():
    state = state_after(c.CreateTopics([new("t", number=5)]))
    floors = [(5, 0, 7), (5, 0, 3), (5, 1, 9), (5, -1, 9), (6, 0, 9)]

    _, moved = state.apply(c.RaiseEpochs([c.EpochFloor(topic_id(t), p, e) for t, p, e in floors]))

    assert 7 == state.topics["t"].partitions[0].leader_epoch
    assert [(state.topics["t"], 0)] == moved.partitions_changed


def test_adopted_topics_go_on_with_their_epochs_and_may_collide():
    found = [
        c.AdoptedTopic("a.b", topic_id(1), [3, 0], {"retention.ms": "5"}),
        c.AdoptedTopic("a_b", topic_id(2), [1]),
    ]

    results, moved = (state := ClusterState()).apply(c.AdoptTopics(4, found))

    assert results == moved.topics_created
    assert [(4, 3, (4,)), (4, 0, (4,))] == [
        (each.leader, each.leader_epoch, each.isr) for each in state.topics["a.b"].partitions
    ]
    assert {"retention.ms": "5"} == state.topic_config("a.b")
    state.apply(c.DeleteTopics([topic_id(1)]))
    assert "a_b" == state.colliding("a.b")


def test_configs_are_set_and_unset_per_resource():
    state = state_after(c.CreateTopics([new("t", **{"retention.ms": "1"})]))

    [done], moved = state.apply(change(TOPIC, "t", ("segment.ms", 0, "9"), ("retention.ms", 1)))

    assert done is None
    assert {"segment.ms": "9"} == state.topic_config("t")
    assert [(TOPIC, "t")] == moved.configs_changed


def test_a_change_of_a_topic_that_changes_nothing_is_told_to_nobody():
    state = state_after(c.CreateTopics([new("t")]), change(TOPIC, "t", ("segment.ms", 0, "9")))

    _, moved = state.apply(change(TOPIC, "t", ("segment.ms", 0, "9"), ("retention.ms", 1)))

    assert moved.empty


def test_a_brokers_option_that_is_set_again_is_told():
    """The file that it names may be a new one: so certificates are renewed."""
    state = state_after(change(BROKER, "1", ("listener.name.ssl.ssl.keystore.location", 0, "/broker.pem")))

    _, moved = state.apply(change(BROKER, "1", ("listener.name.ssl.ssl.keystore.location", 0, "/broker.pem")))

    assert [(BROKER, "1")] == moved.configs_changed
    assert state.apply(change(BROKER, "2", ("x", 1)))[1].empty


def test_a_resource_without_overrides_leaves_the_state():
    state = state_after(change(BROKER, "1", ("x", 0, "5")), change(BROKER, "1", ("x", 1)))

    assert {} == state.configs == state.config(BROKER, "1")


def test_replacing_forgets_what_was_set():
    state = state_after(
        change(BROKER, "1", ("x", 0, "5"), ("y", 0, "6")), change(BROKER, "1", ("z", 0, "7"), replace=True)
    )

    assert {"z": "7"} == state.config(BROKER, "1")


def test_configs_of_a_topic_that_is_gone_are_refused():
    [refused], moved = ClusterState().apply(change(TOPIC, "t", ("retention.ms", 0, "1")))

    assert ErrorCode.UNKNOWN_TOPIC_OR_PARTITION == refused.code
    assert moved.empty


ANNE = (("user", "anne"),)
EVERY_CLIENT = (("client-id", None),)


def quota(entity, **values):
    return c.AlterQuotas([c.QuotaChange(entity, values)])


def test_quotas_are_set_and_removed_per_entity():
    state = state_after(
        quota(ANNE, producer_byte_rate=1.0, consumer_byte_rate=2.0),
        quota(EVERY_CLIENT, producer_byte_rate=3.0),
    )

    state.apply(quota(ANNE, producer_byte_rate=4.0, consumer_byte_rate=None))

    assert {ANNE: {"producer_byte_rate": 4.0}, EVERY_CLIENT: {"producer_byte_rate": 3.0}} == state.quotas


def test_an_entity_without_quotas_leaves_the_state():
    state = state_after(quota(ANNE, producer_byte_rate=1.0), quota(ANNE, producer_byte_rate=None))

    assert {} == state.quotas


def test_quotas_that_stay_as_they_were_are_told_to_nobody():
    state = state_after(quota(ANNE, producer_byte_rate=1.0))

    told = [
        state.apply(command)[1].quotas_changed
        for command in (
            quota(ANNE, producer_byte_rate=1.0),
            quota(ANNE, request_percentage=None),
            quota(ANNE, producer_byte_rate=2.0),
        )
    ]

    assert [False, False, True] == told


def test_a_snapshot_from_before_there_were_quotas_has_none():
    fields = msgspec.msgpack.decode(state_after(quota(ANNE, producer_byte_rate=1.0)).snapshot())

    older = msgspec.msgpack.encode(fields[:7])

    assert {} == ClusterState.restore(older).quotas


def test_a_snapshot_from_before_deleted_topics_were_remembered_has_none():
    fields = msgspec.msgpack.decode(state_after(quota(ANNE, producer_byte_rate=1.0)).snapshot())

    older = msgspec.msgpack.encode(fields[:8])

    assert {} == ClusterState.restore(older).deleted


def test_the_newest_deleted_topics_are_remembered(monkeypatch):
    monkeypatch.setattr("kbroker.cluster.state.DELETED_MAX", 2)
    state = ClusterState()
    for number in range(4):
        state.apply(c.CreateTopics([new(f"t{number}", number=number + 1)]))
    for number in range(3):
        state.apply(c.DeleteTopics([topic_id(number + 1)]))

    assert [topic_id(2), topic_id(3)] == list(state.deleted)
    assert [topic_id(2), topic_id(3)] == list(ClusterState.restore(state.snapshot()).deleted)


def test_producer_id_blocks_never_overlap():
    state = ClusterState()

    assert [0, 1000, 1500] == [state.apply(c.AllocateProducerIds(1, count))[0] for count in (1000, 500, 1000)]


def test_a_partition_state_is_small():
    state = state_after(c.CreateTopics([new("t", partitions=1000, replicas=(1, 2, 3))]))
    first, second = state.topics["t"].partitions[:2]

    assert first.replicas is first.isr is second.replicas
    assert 300 > sys.getsizeof(first)
    assert not hasattr(first, "__dict__")


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x93\x01\xa0\x90", msgspec.msgpack.encode([99, "", [], [], [], 0, 1])]
)
def test_a_snapshot_of_other_bytes_is_refused(data):
    with pytest.raises(msgspec.MsgspecError):
        ClusterState.restore(data)


# A snapshot is as good as the whole history ------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "a.b", "a_b", "a.c", "long-name"])
IDS = st.integers(1, 6).map(topic_id)
REPLICAS = st.lists(st.sampled_from([(1,), (2, 1), (3, 1, 2)]), min_size=1, max_size=3)
VALUES = st.dictionaries(
    st.sampled_from(["retention.ms", "cleanup.policy"]), st.sampled_from(["1", "compact"])
)
OPS = st.lists(
    st.builds(
        ConfigOp,
        st.sampled_from(["retention.ms", "cleanup.policy"]),
        st.integers(0, 3),
        st.sampled_from(["1", "compact", "compact,delete"]),
        st.sampled_from(["", "delete"]),
    ),
    max_size=3,
)
FLOORS = st.lists(st.builds(c.EpochFloor, IDS, st.integers(0, 3), st.integers(0, 9)), max_size=3)
COMMANDS = st.one_of(
    st.builds(c.FormCluster, st.sampled_from(["x", "y"])),
    st.builds(
        c.RegisterBroker,
        st.integers(1, 3),
        IDS,
        IDS,
        st.just([PLAIN]),
        st.sampled_from([None, "rack"]),
        FLOORS,
    ),
    st.lists(st.builds(c.NewTopic, NAMES, IDS, REPLICAS, VALUES), max_size=3).map(c.CreateTopics),
    st.lists(IDS, max_size=2).map(c.DeleteTopics),
    st.lists(st.builds(c.MorePartitions, IDS, st.integers(1, 3), REPLICAS), max_size=2).map(
        c.CreatePartitions
    ),
    st.lists(
        st.builds(c.ConfigChange, st.sampled_from([TOPIC, BROKER]), NAMES, OPS, st.booleans()), max_size=2
    ).map(c.AlterConfigs),
    st.builds(
        quota,
        st.sampled_from([ANNE, EVERY_CLIENT]),
        producer_byte_rate=st.sampled_from([None, 1.0, 2.0]),
        request_percentage=st.sampled_from([None, 0.5]),
    ),
    st.builds(c.AllocateProducerIds, st.integers(1, 3), st.integers(1, 1000)),
    FLOORS.map(c.RaiseEpochs),
    st.builds(
        c.AdoptTopics,
        st.integers(1, 3),
        st.lists(
            st.builds(c.AdoptedTopic, NAMES, IDS, st.lists(st.integers(0, 5), min_size=1, max_size=3)),
            max_size=2,
        ),
    ),
)


def plain(result):
    """A result in a form that compares."""
    if isinstance(result, list):
        return [plain(each) for each in result]
    if isinstance(result, KafkaError):
        return result.code
    return result.name if isinstance(result, Topic) else result


def moved_by(change):
    return (
        [topic.id for topic in change.topics_created],
        [topic.id for topic in change.topics_deleted],
        [(topic.id, index) for topic, index in change.partitions_changed],
        change.brokers_changed,
        change.configs_changed,
        change.quotas_changed,
    )


@given(st.lists(COMMANDS, max_size=12), st.lists(COMMANDS, max_size=6))
def test_a_state_from_a_snapshot_is_the_state_from_the_beginning(before, after):
    whole = state_after(*before)
    restored = ClusterState.restore(whole.snapshot())
    assert whole.snapshot() == restored.snapshot()

    for command in after:
        result, change = whole.apply(command)
        again, change_again = restored.apply(c.decode(c.encode(command)))
        assert plain(result) == plain(again)
        assert moved_by(change) == moved_by(change_again)

    assert whole.snapshot() == restored.snapshot()


@given(st.lists(COMMANDS, max_size=12))
def test_epochs_and_versions_never_fall(commands):
    state = ClusterState()
    seen = {}
    for command in commands:
        state.apply(command)
        for topic in state.topics.values():
            for index, partition in enumerate(topic.partitions):
                # by object: a topic may be deleted and another adopt its id
                before = seen.get((topic, index), (0, 0))
                now = (partition.leader_epoch, partition.version)
                assert now[0] >= before[0]
                assert now[1] >= before[1]
                seen[topic, index] = now
        assert set(state.topics_by_id) == {topic.id for topic in state.topics.values()}
