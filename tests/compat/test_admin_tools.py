"""What an operator does with Kafka's own command-line tools, each tool's output checked; the same on Apache Kafka."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kbroker.protocol.messages.groups import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    LeaveGroupRequest,
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)
from tests.compat import registry
from tests.compat.driver import Client, Record
from tests.compat.tools import Done, Tools
from tests.support.peers import Endpoint
from tests.support.raw import RawClient

TOOLS = "org.apache.kafka.tools."
TOPICS, CONFIGS = f"{TOOLS}TopicCommand", "kafka.admin.ConfigCommand"
OFFSETS, DELETE_RECORDS = f"{TOOLS}GetOffsetShell", f"{TOOLS}DeleteRecordsCommand"
LOG_DIRS, API_VERSIONS = f"{TOOLS}LogDirsCommand", f"{TOOLS}BrokerApiVersionsCommand"
ELECTION, REASSIGN = f"{TOOLS}LeaderElectionCommand", f"{TOOLS}reassign.ReassignPartitionsCommand"
FEATURES, QUORUM, CLUSTER = f"{TOOLS}FeatureCommand", f"{TOOLS}MetadataQuorumCommand", f"{TOOLS}ClusterTool"
METRICS, GROUPS = f"{TOOLS}ClientMetricsCommand", f"{TOOLS}consumer.group.ConsumerGroupCommand"
ACLS = f"{TOOLS}AclCommand"

Run = Callable[..., str]
LONG_MS = 300_000  # a member of ours does not beat
UUID = r"[A-Za-z0-9_-]{22}"


class _Running:
    """The tools' process, started on first use and again after it died."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "tools.log"
        self._tools: Tools | None = None

    def get(self) -> Tools:
        if self._tools is None or not self._tools.alive:
            self.close()
            self._tools = Tools([*registry.CLIENTS["java"].argv()[:-1], "Tools"], self._log)
        return self._tools

    def close(self) -> None:
        if self._tools is not None:
            self._tools.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Running]:
    made = _Running(tmp_path_factory.mktemp("tools"))
    yield made
    made.close()


def _run(running: _Running, at: Endpoint, name: str, args: tuple[str, ...]) -> Done:
    server = ("--bootstrap-server", at.servers)
    words = (*args, *server) if name == CLUSTER else (*server, *args)  # the verb comes first there
    return running.get()(name, *words)


@pytest.fixture
def run(running: _Running, at: Endpoint) -> Run:
    """`run(TOPICS, "--list")`: what the tool printed; it must have succeeded."""

    def succeeds(name: str, *args: str) -> str:
        done = _run(running, at, name, args)
        assert 0 == done.code, f"{name} {args} failed:\n{done.out}{done.err}"
        return done.out

    return succeeds


@pytest.fixture
def fail(running: _Running, at: Endpoint) -> Run:
    """`fail(TOPICS, ...)`: what the tool complained of; it must not have succeeded."""

    def fails(name: str, *args: str) -> str:
        done = _run(running, at, name, args)
        assert done.code != 0, f"{name} {args} succeeded:\n{done.out}{done.err}"
        return done.out + done.err

    return fails


@pytest.fixture
def node(helper: Client, at: Endpoint) -> str:
    """The broker's id."""
    [[number, _, _]] = helper.call("metadata", at, topics=[])["brokers"]
    return str(number)


# kafka-topics --------------------------------------------------------------------------------------------------


def test_topics_are_created_listed_described_altered_and_deleted(
    run: Run, fail: Run, topic: str, node: str
) -> None:
    named = ("--topic", topic)
    run(TOPICS, "--create", *named, "--partitions", "2", "--config", "retention.ms=3600000")
    assert f"Topic '{topic}' already exists." in fail(TOPICS, "--create", *named)
    run(TOPICS, "--create", *named, "--if-not-exists")
    assert topic in run(TOPICS, "--list").split()

    first, *partitions = run(TOPICS, "--describe", *named).splitlines()
    assert re.match(
        rf"Topic: {topic}\tTopicId: {UUID}\tPartitionCount: 2\tReplicationFactor: 1\tConfigs: ", first
    )
    assert "retention.ms=3600000" in first
    assert [
        f"Topic: {topic}\tPartition: {index}\tLeader: {node}\tReplicas: {node}\tIsr: {node}\tElr: \tLastKnownElr:"
        for index in range(2)
    ] == [line.strip() for line in partitions]
    assert topic in run(TOPICS, "--describe", "--topics-with-overrides")

    run(TOPICS, "--alter", *named, "--partitions", "3")
    assert "PartitionCount: 3" in run(TOPICS, "--describe", *named)
    assert "InvalidPartitionsException" in fail(TOPICS, "--alter", *named, "--partitions", "1")

    run(TOPICS, "--delete", *named)
    assert topic not in run(TOPICS, "--list").split()
    assert f"Topic '{topic}' does not exist as expected" in fail(TOPICS, "--describe", *named)
    assert f"Topic '{topic}' does not exist as expected" in fail(TOPICS, "--delete", *named)
    run(TOPICS, "--delete", *named, "--if-exists")


def test_topics_in_trouble_are_none_of_a_healthy_broker(run: Run, topic: str) -> None:
    run(TOPICS, "--create", "--topic", topic)

    for trouble in ("under-replicated", "unavailable", "under-min-isr"):
        assert topic not in run(TOPICS, "--describe", f"--{trouble}-partitions")
    assert topic in run(TOPICS, "--describe", "--at-min-isr-partitions")  # one replica, and it takes one


def test_a_topic_that_cannot_be_is_refused(fail: Run, topic: str) -> None:
    named = ("--create", "--topic", topic)

    assert "InvalidReplicationFactorException" in fail(TOPICS, *named, "--replication-factor", "2")
    assert "Not a number of type LONG" in fail(TOPICS, *named, "--config", "retention.ms=x")
    assert "InvalidTopicException" in fail(TOPICS, "--create", "--topic", "a b")


# kafka-configs -------------------------------------------------------------------------------------------------


def test_configs_of_a_topic(run: Run, fail: Run, helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic)
    entity = ("--entity-type", "topics", "--entity-name", topic)

    assert [f"Dynamic configs for topic {topic} are:"] == run(CONFIGS, "--describe", *entity).splitlines()
    told = run(
        CONFIGS, "--alter", *entity, "--add-config", "cleanup.policy=[compact,delete],segment.ms=60000"
    )
    assert f"Completed updating config for topic {topic}." == told.strip()
    assert [
        "cleanup.policy=compact,delete sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:cleanup.policy=compact,delete, "
        "DEFAULT_CONFIG:log.cleanup.policy=delete}",
        "segment.ms=60000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:segment.ms=60000}",
    ] == [line.strip() for line in run(CONFIGS, "--describe", *entity).splitlines()[1:]]
    run(CONFIGS, "--alter", *entity, "--delete-config", "cleanup.policy")
    assert "cleanup.policy" not in run(CONFIGS, "--describe", *entity)
    everything = run(CONFIGS, "--describe", *entity, "--all")
    assert "  max.message.bytes=1048588 sensitive=false" in everything
    assert f"Dynamic configs for topic {topic} are:" in run(CONFIGS, "--describe", "--entity-type", "topics")
    assert "Unknown topic config name: nope" in fail(CONFIGS, "--alter", *entity, "--add-config", "nope=1")
    assert "Not a number of type LONG" in fail(CONFIGS, "--alter", *entity, "--add-config", "segment.ms=x")


def test_configs_of_a_broker_and_of_all_brokers(run: Run, fail: Run, node: str) -> None:
    one = ("--entity-type", "brokers", "--entity-name", node)
    every = ("--entity-type", "brokers", "--entity-default")
    option = "log.cleaner.delete.retention.ms"

    run(CONFIGS, "--alter", *one, "--add-config", f"{option}=7000000")
    run(CONFIGS, "--alter", *every, "--add-config", f"{option}=8000000")
    try:
        assert (
            f"  {option}=7000000 sensitive=false synonyms={{DYNAMIC_BROKER_CONFIG:{option}=7000000, "
            f"DYNAMIC_DEFAULT_BROKER_CONFIG:{option}=8000000, DEFAULT_CONFIG:{option}=86400000}}"
        ) in run(CONFIGS, "--describe", *one)
        assert f"  {option}=8000000 sensitive=false" in run(CONFIGS, "--describe", *every)
        told = run(CONFIGS, "--describe", "--entity-type", "brokers")
        assert f"Dynamic configs for broker {node} are:" in told
        assert "Default configs for brokers in the cluster are:" in told
    finally:
        run(CONFIGS, "--alter", *one, "--delete-config", option)
        run(CONFIGS, "--alter", *every, "--delete-config", option)
    assert option not in run(CONFIGS, "--describe", *one)
    assert f"  {option}=86400000 " in run(CONFIGS, "--describe", *one, "--all")
    refusal = "Cannot update these configs dynamically: [node.id]"
    assert refusal in fail(CONFIGS, "--alter", *every, "--add-config", "node.id=3")


def test_levels_of_a_brokers_loggers(run: Run, fail: Run, node: str) -> None:
    entity = ("--entity-type", "broker-loggers", "--entity-name", node)

    [level] = re.findall(
        r"^  root=(\w+) sensitive=false synonyms=\{\}$", run(CONFIGS, "--describe", *entity), re.M
    )
    run(CONFIGS, "--alter", *entity, "--add-config", "root=ERROR")
    try:
        assert "  root=ERROR sensitive=false" in run(CONFIGS, "--describe", *entity)
    finally:
        run(CONFIGS, "--alter", *entity, "--add-config", f"root={level}")
    assert "is not a supported log level" in fail(CONFIGS, "--alter", *entity, "--add-config", "root=LOUD")
    assert "Invalid broker logger(s): nope" in fail(CONFIGS, "--alter", *entity, "--add-config", "nope=INFO")


def test_configs_of_client_metrics(run: Run, fail: Run, topic: str) -> None:
    entity = ("--entity-type", "client-metrics", "--entity-name", topic)

    run(CONFIGS, "--alter", *entity, "--add-config", "interval.ms=1000,match=[client_id=a]")
    told = run(CONFIGS, "--describe", "--entity-type", "client-metrics")
    assert f"Dynamic configs for client-metric {topic} are:" in told
    assert (
        "  match=client_id=a sensitive=false synonyms={DYNAMIC_CLIENT_METRICS_CONFIG:match=client_id=a}"
        in told
    )
    assert topic in run(METRICS, "--list").split()
    run(METRICS, "--alter", "--name", topic, "--metrics", "a,b")
    shown = run(METRICS, "--describe", "--name", topic)
    assert ["interval.ms=1000", "match=client_id=a", "metrics=a,b"] == shown.split()[-3:]
    assert "between 100 and 3600000" in fail(METRICS, "--alter", "--name", topic, "--interval", "1")
    run(METRICS, "--delete", "--name", topic)
    assert topic not in run(METRICS, "--list").split()


# Offsets, records, log directories -----------------------------------------------------------------------------


def test_offsets_by_every_kind_of_time(run: Run, helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic, partitions=2)
    records = [Record(timestamp=1_700_000_000_000 + when) for when in (0, 1, 2, 9, 4)]
    helper.produce(at, topic, records)
    helper.call("delete_records", at, topic=topic, partition=0, offset=1)

    def offsets(time: str) -> list[str]:
        told = run(OFFSETS, "--topic", topic, "--time", time)
        return [line.removeprefix(topic) for line in told.split()]

    assert [":0:5", ":1:0"] == offsets("latest") == offsets("-1")
    assert [":0:1", ":1:0"] == offsets("earliest") == offsets("-2")
    assert [":0:3"] == offsets("max-timestamp") == offsets("-3")
    assert [":0:1", ":1:0"] == offsets("earliest-local") == offsets("-4")
    assert [] == offsets("latest-tiered") == offsets("-5")
    assert [] == offsets("earliest-pending-upload")
    assert [":0:3"] == offsets("1700000000003")
    assert [] == offsets("1700000000010")
    assert [f"{topic}:1:0"] == run(OFFSETS, "--topic-partitions", f"{topic}:1").split()
    assert f"{topic}:0:5" in run(OFFSETS).split()


def test_records_are_deleted(run: Run, helper: Client, at: Endpoint, topic: str, tmp_path: Path) -> None:
    helper.create(at, topic)
    helper.produce(at, topic, [Record()] * 9)
    wanted = tmp_path / "offsets.json"

    def delete(partition: int, offset: int) -> str:
        asked = {"topic": topic, "partition": partition, "offset": offset}
        wanted.write_text(json.dumps({"version": 1, "partitions": [asked]}))
        return run(DELETE_RECORDS, "--offset-json-file", str(wanted))

    assert f"partition: {topic}-0\tlow_watermark: 5" in delete(0, 5)
    assert f"partition: {topic}-0\tlow_watermark: 9" in delete(0, -1)
    assert "OffsetOutOfRangeException" in delete(0, 10)
    assert 9 == helper.offset(at, topic, "earliest")


def test_log_directories(run: Run, helper: Client, at: Endpoint, topic: str, node: str) -> None:
    helper.create(at, topic, partitions=2)
    helper.produce(at, topic, [Record(value=b"x" * 1000)] * 9)

    told = run(LOG_DIRS, "--describe", "--topic-list", topic, "--broker-list", node).splitlines()

    assert f"Received log directory information from brokers {node}" in told
    [broker] = json.loads(told[-1])["brokers"]
    [directory] = broker["logDirs"]
    assert (int(node), None) == (broker["broker"], directory["error"])
    sizes = {each["partition"]: each["size"] for each in directory["partitions"]}
    assert sizes[f"{topic}-0"] > 9_000
    assert 0 == sizes[f"{topic}-1"]
    assert all(0 == each["offsetLag"] and not each["isFuture"] for each in directory["partitions"])


# The cluster ---------------------------------------------------------------------------------------------------


def test_versions_of_apis(run: Run, node: str, at: Endpoint) -> None:
    told = run(API_VERSIONS)

    assert f"{at.servers} (id: {node} rack: null isFenced: false) -> (" in told
    for api in (
        *("Produce(0): 0 to 13 [usable: 13]", "Fetch(1): 4 to 18 [usable: 18]"),
        *("ElectLeaders(43): 0 to 2 [usable: 2]", "DescribeQuorum(55): 0 to 2 [usable: 2]"),
        *("ListConfigResources(74): 0 to 1 [usable: 1]", "DescribeTopicPartitions(75): 0 [usable: 0]"),
    ):
        assert f"\t{api}" in told


def test_elections_are_not_needed(
    run: Run, fail: Run, helper: Client, at: Endpoint, topic: str, tmp_path: Path
) -> None:
    helper.create(at, topic, partitions=2)
    wanted = tmp_path / "partitions.json"
    wanted.write_text(json.dumps({"partitions": [{"topic": topic, "partition": index} for index in (0, 1)]}))
    preferred, unclean = ("--election-type", "preferred"), ("--election-type", "unclean")

    assert "" == run(ELECTION, *preferred, "--all-topic-partitions")
    told = run(ELECTION, *preferred, "--path-to-json-file", str(wanted)).strip()
    elected = "Valid replica already elected for partitions "
    assert {f"{topic}-0", f"{topic}-1"} == set(told.removeprefix(elected).split(", "))
    assert elected + f"{topic}-1" == run(ELECTION, *unclean, "--topic", topic, "--partition", "1").strip()
    refusal = fail(ELECTION, *preferred, "--topic", f"{topic}-no", "--partition", "0")
    assert f"UnknownTopicOrPartitionException: No such topic as {topic}-no" in refusal


def test_no_partition_is_being_reassigned(run: Run) -> None:
    assert "No partition reassignments found." == run(REASSIGN, "--list").strip()


def test_features(run: Run, fail: Run) -> None:
    told = run(FEATURES, "describe")
    [line] = [line.split() for line in told.splitlines() if "metadata.version" in line]
    assert ["3.3-IV3", "4.3-IV0", "4.3-IV0"] == line[3:8:2]
    assert "metadata.version was upgraded to 30." in run(
        FEATURES, "upgrade", "--feature", "metadata.version=30"
    )
    refusal = fail(FEATURES, "downgrade", "--feature", "metadata.version=15")
    assert "Unsupported metadata.version downgrade from 30 to 15" in refusal
    unknown = fail(FEATURES, "upgrade", "--feature", "nope=1", "--dry-run")
    assert "does not support this feature" in unknown
    assert "only supports versions 7-30" in fail(FEATURES, "upgrade", "--feature", "metadata.version=31")


def test_there_are_no_acls(fail: Run, topic: str) -> None:
    for verb in (
        ("--list",),
        ("--add", "--allow-principal", "User:somebody", "--operation", "Read", "--topic", topic),
    ):
        assert "No Authorizer is configured" in fail(ACLS, *verb)


def test_the_metadata_quorum(run: Run, node: str) -> None:
    told = dict(re.findall(r"^(\w+): +(.*)$", run(QUORUM, "describe", "--status"), re.M))
    assert (node, "0", "[]") == (told["LeaderId"], told["MaxFollowerLag"], told["CurrentObservers"])
    assert int(told["LeaderEpoch"]) > 0
    assert [int(node)] == [voter["id"] for voter in json.loads(told["CurrentVoters"])]
    head, row = run(QUORUM, "describe", "--replication").splitlines()
    assert ["NodeId", "DirectoryId", "LogEndOffset", "Lag"] == head.split()[:4]
    fields = row.split()
    assert (node, "0", "Leader") == (fields[0], fields[3], fields[-1])
    assert int(told["HighWatermark"]) <= int(fields[2])


def test_the_cluster_and_its_endpoints(run: Run, node: str, at: Endpoint) -> None:
    assert re.fullmatch(rf"Cluster ID: {UUID}", run(CLUSTER, "cluster-id").strip())
    host, port = at.servers.split(":")
    head, row = run(CLUSTER, "list-endpoints").splitlines()
    assert ["ID", "HOST", "PORT", "RACK", "STATE", "ENDPOINT_TYPE"] == head.split()
    assert [node, host, port, "null", "unfenced", "broker"] == row.split()


# Groups and quotas ---------------------------------------------------------------------------------------------


def test_configs_of_a_group(run: Run, fail: Run, topic: str) -> None:
    entity = ("--entity-type", "groups", "--entity-name", topic)
    option = "consumer.session.timeout.ms"

    assert f"The group '{topic}' doesn't exist" in run(CONFIGS, "--describe", *entity)
    run(CONFIGS, "--alter", *entity, "--add-config", f"{option}=50000")
    assert [
        f"Dynamic configs for group {topic} are:",
        f"  {option}=50000 sensitive=false synonyms={{DYNAMIC_GROUP_CONFIG:{option}=50000, "
        f"DEFAULT_CONFIG:group.{option}=45000}}",
    ] == run(CONFIGS, "--describe", *entity).splitlines()
    assert f"Dynamic configs for group {topic} are:" in run(CONFIGS, "--describe", "--entity-type", "groups")
    run(CONFIGS, "--alter", *entity, "--delete-config", option)
    refusal = fail(CONFIGS, "--alter", *entity, "--add-config", f"{option}=5")
    assert f"{option} must be greater than or equal to group.consumer.min.session.timeout.ms" in refusal


def rows(told: str) -> list[list[str]]:
    """The table that a tool printed, without its head."""
    lines = [line.split() for line in told.splitlines() if line]
    return lines[1:]


def test_offsets_of_a_group_are_reset_described_and_deleted(
    run: Run, helper: Client, at: Endpoint, topic: str
) -> None:
    helper.create(at, topic, partitions=2)
    helper.produce(at, topic, [Record(timestamp=1_700_000_000_000 + number * 1000) for number in range(9)])
    group = ("--group", topic)

    def reset(*how: str, which: str = topic, act: str = "--execute") -> dict[str, int]:
        told = run(GROUPS, "--reset-offsets", *group, "--topic", which, *how, act)
        return {index: int(offset) for _, _, index, offset in rows(told)}

    assert {"0": 9, "1": 0} == reset("--to-latest", act="--dry-run")
    assert [topic] != run(GROUPS, "--list").split()
    assert {"0": 0, "1": 0} == reset("--to-earliest")
    assert {"0": 4} == reset("--to-datetime", "2023-11-14T22:13:24.000", which=f"{topic}:0")
    assert {"0": 6} == reset("--shift-by", "2", which=f"{topic}:0")
    assert {"0": 6} == reset("--to-current", which=f"{topic}:0")

    described = rows(run(GROUPS, "--describe", *group, "--offsets"))
    assert [
        [topic, topic, "0", "6", "9", "3", "-", "-", "-"],
        [topic, topic, "1", "0", "0", "0", "-", "-", "-"],
    ] == sorted(described, key=lambda row: row[2])
    [state] = rows(run(GROUPS, "--describe", *group, "--state"))
    assert [topic, at.servers, "-", "Empty", "0"] == [state[0], state[1], *state[3:]]
    assert [] == rows(run(GROUPS, "--describe", *group, "--members"))
    assert [topic, "Empty"] in rows(run(GROUPS, "--list", "--state"))
    assert [topic, "Classic"] in rows(run(GROUPS, "--list", "--type"))
    assert topic in run(GROUPS, "--list", "--state", "Empty")
    assert topic not in run(GROUPS, "--list", "--state", "Stable")

    told = run(GROUPS, "--delete-offsets", *group, "--topic", f"{topic}:1")
    assert [topic, "1", "Successful"] in rows(told)
    assert ["0"] == [row[2] for row in rows(run(GROUPS, "--describe", *group))]
    assert f"Deletion of requested consumer groups ('{topic}') was successful." in run(
        GROUPS, "--delete", *group
    )
    assert topic not in run(GROUPS, "--list").split()
    assert f"Group {topic} not found." in run(GROUPS, "--describe", *group)
    assert "GroupIdNotFoundException" in run(GROUPS, "--delete", *group)


def test_a_group_with_a_member(run: Run, helper: Client, at: Endpoint, topic: str) -> None:
    helper.create(at, topic, partitions=2)
    helper.produce(at, topic, [Record()] * 3)
    group = ("--group", topic)
    run(GROUPS, "--reset-offsets", *group, "--topic", topic, "--to-earliest", "--execute")

    with member(at, topic) as member_id:
        described = rows(run(GROUPS, "--describe", *group))
        assert [
            [topic, topic, "0", "0", "3", "3", member_id, "/127.0.0.1", "raw"],
            [topic, topic, "1", "0", "0", "0", member_id, "/127.0.0.1", "raw"],
        ] == sorted(described, key=lambda row: row[2])
        [row] = rows(run(GROUPS, "--describe", *group, "--members"))
        assert [topic, member_id, "/127.0.0.1", "raw", "2"] == row
        [row] = rows(run(GROUPS, "--describe", *group, "--members", "--verbose"))
        assert f"{topic}:0,1" in row
        [state] = rows(run(GROUPS, "--describe", *group, "--state"))
        assert ["range", "Stable", "1"] == state[-3:]
        assert "GroupNotEmptyException" in run(GROUPS, "--delete", *group)
        refusal = run(GROUPS, "--delete-offsets", *group, "--topic", topic)
        assert "GroupSubscribedToTopicException" in refusal
        refused = run(GROUPS, "--reset-offsets", *group, "--topic", topic, "--to-latest", "--execute")
        assert "can only be reset if the group" in refused


@contextmanager
def member(at: Endpoint, topic: str) -> Iterator[str]:
    """A member of the group named as the topic, with all of its two partitions; its id."""
    host, port = at.servers.split(":")
    name = len(topic).to_bytes(2, "big") + topic.encode()
    none, one, two = (number.to_bytes(4, "big", signed=True) for number in (-1, 1, 2))
    subscription = b"\0\0" + one + name + none
    assignment = b"\0\0" + one + name + two + bytes(4) + one + none
    with RawClient(host, int(port)) as ask:
        joining = JoinGroupRequest(
            group_id=topic,
            session_timeout_ms=LONG_MS,
            rebalance_timeout_ms=LONG_MS,
            protocol_type="consumer",
            protocols=[JoinGroupRequestProtocol(name="range", metadata=subscription)],
        )
        joined = ask(joining, 3)
        assert 0 == joined.error_code
        mine = SyncGroupRequestAssignment(member_id=joined.member_id, assignment=assignment)
        synced = ask(
            SyncGroupRequest(
                group_id=topic,
                generation_id=joined.generation_id,
                member_id=joined.member_id,
                assignments=[mine],
            ),
            2,
        )
        assert 0 == synced.error_code
        yield joined.member_id
        ask(LeaveGroupRequest(group_id=topic, member_id=joined.member_id), 2)


def test_quotas(run: Run, fail: Run, topic: str) -> None:
    user, every_user = (
        ("--entity-type", "users", "--entity-name", topic),
        ("--entity-type", "users", "--entity-default"),
    )
    client = ("--entity-type", "clients", "--entity-name", topic)
    address = ("--entity-type", "ips", "--entity-name", "127.0.0.9")
    both = (*user, *client)
    wanted = {
        user: "consumer_byte_rate=2000000.0, producer_byte_rate=1000000.0, request_percentage=500.0",
        every_user: "controller_mutation_rate=1000.0",
        client: "consumer_byte_rate=2000001.0",
        both: "consumer_byte_rate=2000002.0",
        address: "connection_creation_rate=1000.0",
    }
    who = {
        user: f"user-principal '{topic}'",
        every_user: "the default user-principal",
        client: f"client-id '{topic}'",
        both: f"user-principal '{topic}', client-id '{topic}'",
        address: "ip '127.0.0.9'",
    }
    try:
        for entity, quotas in wanted.items():
            run(CONFIGS, "--alter", *entity, "--add-config", quotas.replace(" ", "").replace(".0", ""))
        for entity, quotas in wanted.items():
            told = run(CONFIGS, "--describe", *entity).splitlines()
            [shown] = [line for line in told if line.startswith(f"Quota configs for {who[entity]} are ")]
            assert set(quotas.split(", ")) == set(shown.partition(" are ")[2].split(", "))
    finally:
        for entity, quotas in wanted.items():
            names = ",".join(quota.partition("=")[0] for quota in quotas.split(", "))
            run(CONFIGS, "--alter", *entity, "--delete-config", names)
    assert topic not in run(CONFIGS, "--describe", "--entity-type", "users")
    assert "Unexpected config names" in fail(CONFIGS, "--alter", *user, "--add-config", "nope=1")
