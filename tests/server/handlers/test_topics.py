"""CreateTopics, DeleteTopics, CreatePartitions, against what Kafka 4.3 answers."""

import pytest

from kbroker.cluster.commands import CreatePartitions, CreateTopics
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreatePartitionsAssignment,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    DeleteTopicState,
)
from kbroker.protocol.wire import ZERO_UUID
from kbroker.server.handlers.topics import (
    handle_create_partitions,
    handle_create_topics,
    handle_delete_topics,
)
from tests.support.rooms import PLAIN, House

UNKNOWN_ID = bytes(range(16))


@pytest.fixture
def house(tmp_path):
    return House(tmp_path, {"num.partitions": "2"})


def topic(name="t", partitions=1, factor=1, *, assignments=(), configs=()):
    return CreatableTopic(
        name=name,
        num_partitions=partitions,
        replication_factor=factor,
        assignments=[
            CreatableReplicaAssignment(partition_index=index, broker_ids=list(brokers))
            for index, brokers in assignments
        ],
        configs=[CreatableTopicConfig(name=key, value=value) for key, value in configs],
    )


async def create(house, *topics, version=7, **fields):
    request = CreateTopicsRequest(topics=list(topics), **fields)
    return (await house.ask(handle_create_topics, request, version=version)).topics


async def refusal(house, wanted, version=7):
    """Code and message of the refusal of one topic; nothing is proposed."""
    [answer] = await create(house, wanted, version=version)
    assert [] == house.proposed
    assert (ZERO_UUID, -1, -1, []) == (
        answer.topic_id,
        answer.num_partitions,
        answer.replication_factor,
        answer.configs,
    )
    return answer.error_code, answer.error_message


# CreateTopics


@pytest.mark.parametrize("version", range(2, 8))
async def test_a_topic_is_created(house, version):
    [answer] = await create(house, topic("t", 3), version=version)

    created = house.state.topics["t"]
    assert (ErrorCode.NONE, None, created.id.bytes, 3, 1) == (
        answer.error_code,
        answer.error_message,
        answer.topic_id,
        answer.num_partitions,
        answer.replication_factor,
    )
    assert [(1, (1,))] * 3 == [(each.leader, each.replicas) for each in created.partitions]


async def test_minus_one_means_the_brokers_defaults(house):
    [answer] = await create(house, topic("t", -1, -1))

    assert (2, 1) == (answer.num_partitions, answer.replication_factor)


async def test_the_answer_shows_every_config_and_where_its_value_comes_from(house):
    [answer] = await create(house, topic("t", configs=[("retention.ms", "5000")]))

    shown = {each.name: (each.value, each.config_source) for each in answer.configs}
    assert ("5000", 1) == shown["retention.ms"]
    assert ("delete", 5) == shown["cleanup.policy"]
    assert len(shown) > 30
    assert {"retention.ms": "5000"} == house.state.topic_config("t")


async def test_many_topics_are_created_by_one_command(house):
    answers = await create(house, *(topic(f"t{number}") for number in range(100)))

    assert {ErrorCode.NONE} == {each.error_code for each in answers}
    [command] = house.proposed
    assert isinstance(command, CreateTopics)
    assert 100 == len({new.id for new in command.topics})


async def test_what_cannot_be_created_does_not_keep_the_others_back(house):
    house.create("old")

    answers = await create(house, topic("z"), topic("a b"), topic("old"), topic("a"), topic("n", 0))

    assert [
        ("z", ErrorCode.NONE),
        ("a b", ErrorCode.INVALID_TOPIC_EXCEPTION),
        ("old", ErrorCode.TOPIC_ALREADY_EXISTS),
        ("a", ErrorCode.NONE),
        ("n", ErrorCode.INVALID_PARTITIONS),
    ] == [(each.name, each.error_code) for each in answers]
    assert ["old", "z", "a"] == list(house.state.topics)


async def test_a_name_that_comes_twice_is_refused_once(house):
    answers = await create(house, topic("twice"), topic("once"), topic("twice", 5))

    assert [
        ("twice", ErrorCode.INVALID_REQUEST, "Duplicate topic name."),
        ("once", ErrorCode.NONE, None),
    ] == [(each.name, each.error_code, each.error_message) for each in answers]


async def test_validation_alone_creates_nothing(house):
    answers = await create(house, topic("t", 3), topic("a b"), validate_only=True)

    assert [ErrorCode.NONE, ErrorCode.INVALID_TOPIC_EXCEPTION] == [each.error_code for each in answers]
    assert (3, True) == (answers[0].num_partitions, bool(answers[0].configs))
    assert ([], {}) == (house.proposed, house.state.topics)


async def test_no_topics_need_no_command(house):
    assert [] == await create(house)
    assert [] == house.proposed


async def test_a_topic_that_is_there_says_so(house):
    house.create("t")

    assert (ErrorCode.TOPIC_ALREADY_EXISTS, "Topic 't' already exists.") == await refusal(house, topic("t"))


async def test_a_name_that_collides_in_metrics_is_refused(house):
    house.create("a.b")

    assert (
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        "Topic 'a_b' collides with existing topic: a.b",
    ) == await refusal(house, topic("a_b"))


async def test_names_that_collide_in_one_request_leave_the_first(house):
    answers = await create(house, topic("q.b"), topic("q_b"))

    assert [ErrorCode.NONE, ErrorCode.INVALID_TOPIC_EXCEPTION] == [each.error_code for each in answers]


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "x" * 250, "é"])
async def test_bad_names_are_refused(house, name):
    code, message = await refusal(house, topic(name))

    assert ErrorCode.INVALID_TOPIC_EXCEPTION == code
    assert message.startswith("Topic name is invalid: ")


async def test_the_name_of_kafkas_own_log_is_taken(house):
    assert ErrorCode.INVALID_REQUEST == (await refusal(house, topic("__cluster_metadata")))[0]


@pytest.mark.parametrize(
    "wanted, code",
    [
        (topic(partitions=0), ErrorCode.INVALID_PARTITIONS),
        (topic(partitions=-2), ErrorCode.INVALID_PARTITIONS),
        (topic(partitions=10_001), ErrorCode.POLICY_VIOLATION),
        (topic(partitions=2**31 - 1), ErrorCode.POLICY_VIOLATION),
        (topic(factor=0), ErrorCode.INVALID_REPLICATION_FACTOR),
        (topic(factor=-2), ErrorCode.INVALID_REPLICATION_FACTOR),
        (topic(factor=2), ErrorCode.INVALID_REPLICATION_FACTOR),
        (topic(factor=32_767), ErrorCode.INVALID_REPLICATION_FACTOR),
    ],
)
async def test_numbers_that_cannot_be_had_are_refused(house, wanted, code):
    answered, message = await refusal(house, wanted)

    assert code == answered
    assert message


async def test_too_many_partitions_refuse_the_whole_request(house):
    answers = await create(house, topic("a", 6000), topic("b", 4001), topic("a b"))

    assert [ErrorCode.POLICY_VIOLATION] * 3 == [each.error_code for each in answers]
    assert [] == house.proposed


@pytest.mark.parametrize(
    "assignments, why",
    [
        ([(0, [7])], "broker 7"),
        ([(0, [-1])], "broker -1"),
        ([(0, [1, 1])], "broker 1 more than once"),
        ([(0, [])], "empty replica list"),
        ([(0, [*range(100_000), 7])], "100001 replicas"),
        ([(0, [1]), (2, [1])], "numbered from 0"),
        ([(1, [1])], "numbered from 0"),
        ([(-1, [1])], "numbered from 0"),
        ([(0, [1]), (0, [1])], "Partition 0 is assigned more than once"),
        ([(0, [1]), (1, [1, 2])], "same number of replicas"),
    ],
)
async def test_assignments_that_cannot_be_had_are_refused(house, assignments, why):
    house.register(2, PLAIN)

    code, message = await refusal(house, topic("t", -1, -1, assignments=assignments))

    assert ErrorCode.INVALID_REPLICA_ASSIGNMENT == code
    assert why in message


async def test_a_clients_assignment_is_kept(house):
    house.register(2, PLAIN)

    [answer] = await create(house, topic("t", -1, -1, assignments=[(1, [1, 2]), (0, [2, 1])]))

    assert (ErrorCode.NONE, 2, 2) == (answer.error_code, answer.num_partitions, answer.replication_factor)
    assert [(2, 1), (1, 2)] == [each.replicas for each in house.state.topics["t"].partitions]


@pytest.mark.parametrize("partitions, factor", [(2, 1), (2, -1), (-1, 1)])
async def test_an_assignment_leaves_no_choice_of_numbers(house, partitions, factor):
    wanted = topic("t", partitions, factor, assignments=[(0, [1])])

    assert ErrorCode.INVALID_REQUEST == (await refusal(house, wanted))[0]


@pytest.mark.parametrize(
    "configs, message",
    [
        ([("nope", "1")], "Unknown topic config name: nope"),
        ([("", "1")], "Unknown topic config name: "),
        (
            [("retention.ms", "abc")],
            "Invalid value abc for configuration retention.ms: Not a number of type LONG",
        ),
        (
            [("segment.bytes", "10")],
            "Invalid value 10 for configuration segment.bytes: Value must be at least 1048576",
        ),
        ([("retention.ms", None)], "Null value not supported for topic configs: retention.ms"),
    ],
)
async def test_bad_configs_are_refused(house, configs, message):
    assert (ErrorCode.INVALID_CONFIG, message) == await refusal(house, topic("t", configs=configs))


async def test_the_last_of_several_values_counts(house):
    await create(house, topic("t", configs=[("retention.ms", "1"), ("retention.ms", "2")]))

    assert {"retention.ms": "2"} == house.state.topic_config("t")


async def test_replicas_are_spread_over_the_brokers(house):
    for broker in (2, 3):
        house.register(broker, PLAIN)

    await create(house, topic("t", 6, 2))

    partitions = house.state.topics["t"].partitions
    assert [1, 1, 2, 2, 3, 3] == sorted(each.leader for each in partitions)
    assert {2} == {len(set(each.replicas)) for each in partitions}


async def test_a_topic_that_appears_meanwhile_is_refused_by_the_cluster(house):
    async def overtaken(command):
        house.create("t")
        return house.do(command)

    house.rooms = house.rooms_with(propose=overtaken)

    [answer] = await create(house, topic("t"))

    assert (ErrorCode.TOPIC_ALREADY_EXISTS, ZERO_UUID) == (answer.error_code, answer.topic_id)


async def test_a_command_that_is_not_decided_is_every_topics_error(house):
    async def late(command):
        raise KafkaError(ErrorCode.REQUEST_TIMED_OUT)

    house.rooms = house.rooms_with(propose=late)

    answers = await create(house, topic("a"), topic("a b"), topic("b"))

    assert [
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        ErrorCode.REQUEST_TIMED_OUT,
    ] == [each.error_code for each in answers]


# DeleteTopics


async def delete(house, *asked, version=6):
    if version >= 6:
        request = DeleteTopicsRequest(topics=list(asked))
    else:
        request = DeleteTopicsRequest(topic_names=list(asked))
    return (await house.ask(handle_delete_topics, request, version=version)).responses


def by_name(name):
    return DeleteTopicState(name=name)


def by_id(topic_id):
    return DeleteTopicState(name=None, topic_id=topic_id)


def deleted(answers):
    return [(each.name, each.topic_id, each.error_code) for each in answers]


@pytest.mark.parametrize("version", range(1, 6))
async def test_topics_are_deleted_by_name(house, version):
    topic_id = house.create("t").id.bytes

    answers = await delete(house, "t", "no", "a b", version=version)

    assert [
        ("t", topic_id, ErrorCode.NONE),
        ("no", ZERO_UUID, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ("a b", ZERO_UUID, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ] == deleted(answers)
    assert {} == house.state.topics


async def test_topics_are_deleted_by_name_and_id(house):
    one, two = house.create("one").id.bytes, house.create("two").id.bytes

    answers = await delete(house, by_id(one), by_id(UNKNOWN_ID), by_name("two"), by_name("no"))

    assert [
        ("one", one, ErrorCode.NONE),
        (None, UNKNOWN_ID, ErrorCode.UNKNOWN_TOPIC_ID),
        ("two", two, ErrorCode.NONE),
        ("no", ZERO_UUID, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ] == deleted(answers)
    assert 1 == len(house.proposed)


async def test_neither_or_both_of_name_and_id_are_refused(house):
    topic_id = house.create("t").id.bytes

    answers = await delete(house, DeleteTopicState(), DeleteTopicState(name="t", topic_id=topic_id))

    assert [
        (None, ZERO_UUID, ErrorCode.INVALID_REQUEST),
        ("t", topic_id, ErrorCode.INVALID_REQUEST),
    ] == deleted(answers)
    assert [] == house.proposed


async def test_what_is_named_twice_is_refused_once(house):
    topic_id = house.create("t").id.bytes

    names = await delete(house, "t", "t", version=5)
    ids = await delete(house, by_id(topic_id), by_id(topic_id))
    both = await delete(house, by_id(topic_id), by_name("t"))

    assert [("t", ZERO_UUID, ErrorCode.INVALID_REQUEST)] == deleted(names)
    assert [(None, topic_id, ErrorCode.INVALID_REQUEST)] == deleted(ids)
    assert [("t", topic_id, ErrorCode.INVALID_REQUEST)] == deleted(both)
    assert ["Duplicate topic name.", "Duplicate topic id."] == [each.error_message for each in (*names, *ids)]
    assert [] == house.proposed


@pytest.mark.parametrize(
    "version, code",
    [
        (1, ErrorCode.INVALID_REQUEST),
        (2, ErrorCode.INVALID_REQUEST),
        (3, ErrorCode.TOPIC_DELETION_DISABLED),
    ],
)
async def test_deletion_can_be_disabled(tmp_path, version, code):
    house = House(tmp_path, {"delete.topic.enable": "false"})
    house.create("t")

    answers = await delete(house, "t", "no", version=version)

    assert [("t", ZERO_UUID, code), ("no", ZERO_UUID, code)] == deleted(answers)
    assert ["t"] == list(house.state.topics)


async def test_a_topic_that_goes_meanwhile_is_unknown(house):
    house.create("t")

    async def overtaken(command):
        house.delete("t")
        house.create("t")
        return house.do(command)

    house.rooms = house.rooms_with(propose=overtaken)

    assert [ErrorCode.UNKNOWN_TOPIC_ID] == [each.error_code for each in await delete(house, by_name("t"))]
    assert ["t"] == list(house.state.topics)


# CreatePartitions


async def grow(house, *wanted, version=3, **fields):
    request = CreatePartitionsRequest(
        topics=[
            CreatePartitionsTopic(
                name=name,
                count=count,
                assignments=(
                    None
                    if assignments is None
                    else [CreatePartitionsAssignment(broker_ids=list(brokers)) for brokers in assignments]
                ),
            )
            for name, count, assignments in wanted
        ],
        **fields,
    )
    results = (await house.ask(handle_create_partitions, request, version=version)).results
    return [(each.name, each.error_code, each.error_message) for each in results]


@pytest.mark.parametrize("version", range(4))
async def test_a_topic_grows(house, version):
    house.create("t", 2)

    assert [("t", ErrorCode.NONE, None)] == await grow(house, ("t", 5, None), version=version)
    assert 5 == len(house.state.topics["t"].partitions)


@pytest.mark.parametrize(
    "count, message",
    [
        (2, "Topic already has 2 partition(s)."),
        (1, "Topic t has 2 partition(s): 1 would not be an increase."),
        (0, "Topic t has 2 partition(s): 0 would not be an increase."),
        (-1, "Topic t has 2 partition(s): -1 would not be an increase."),
    ],
)
async def test_a_topic_never_shrinks(house, count, message):
    house.create("t", 2)

    assert [("t", ErrorCode.INVALID_PARTITIONS, message)] == await grow(house, ("t", count, None))
    assert [] == house.proposed


async def test_new_partitions_can_be_assigned(house):
    house.register(2, PLAIN)
    house.create("t")

    await grow(house, ("t", 3, [[2], [1]]))

    assert [(1,), (2,), (1,)] == [each.replicas for each in house.state.topics["t"].partitions]


@pytest.mark.parametrize(
    "assignments",
    [[], [[1]], [[1], [1], [1]], [[1], [9]], [[1], [1, 1]], [[1], []], [[1], [1, 2]], [[1, 2], [1, 2]]],
)
async def test_assignments_of_new_partitions_are_checked(house, assignments):
    house.register(2, PLAIN)
    house.create("t")

    [(_, code, message)] = await grow(house, ("t", 3, assignments))

    assert ErrorCode.INVALID_REPLICA_ASSIGNMENT == code
    assert message
    assert [] == house.proposed


async def test_topics_grow_for_themselves(house):
    house.create("a")
    house.create("b")

    answers = await grow(
        house, ("a", 2, None), ("no", 2, None), ("b", 3, None), ("c", 2, None), ("c", 3, None)
    )

    assert [
        ("a", ErrorCode.NONE),
        ("no", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ("b", ErrorCode.NONE),
        ("c", ErrorCode.INVALID_REQUEST),
    ] == [(name, code) for name, code, _ in answers]
    [command] = house.proposed
    assert isinstance(command, CreatePartitions)


async def test_growth_can_be_validated_alone(house):
    house.create("t")

    assert [("t", ErrorCode.NONE, None)] == await grow(house, ("t", 2, None), validate_only=True)
    assert [] == house.proposed


@pytest.mark.parametrize("count", [10_002, 2**31 - 1])
async def test_a_request_adds_a_bounded_number_of_partitions(house, count):
    house.create("t")

    assert [ErrorCode.POLICY_VIOLATION] == [code for _, code, _ in await grow(house, ("t", count, None))]


async def test_a_topic_that_grew_meanwhile_is_not_grown_twice(house):
    house.create("t")

    async def overtaken(command):
        house.do(command)
        return house.do(command)

    house.rooms = house.rooms_with(propose=overtaken)

    assert [ErrorCode.INVALID_PARTITIONS] == [code for _, code, _ in await grow(house, ("t", 2, None))]
    assert 2 == len(house.state.topics["t"].partitions)
