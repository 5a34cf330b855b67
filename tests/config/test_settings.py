"""Settings: what a configuration means, and what is said about a wrong one."""

from __future__ import annotations

import socket

import pytest

from kbroker.config import Settings, known
from kbroker.errors import StartError
from kbroker.model import Endpoint

STOCK = """
# Apache Kafka's config/server.properties, its settings
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
"""


def load(*overrides, **keywords):
    return Settings.load(
        {}, overrides, environment={"HOME": "/home/me"}, host_name=lambda: "this.example", **keywords
    )


def refused(*overrides):
    with pytest.raises(StartError) as error:
        load(*overrides)
    return str(error.value)


def test_nothing_given_is_a_broker_on_loopback():
    settings = load()

    assert 0 == settings.node_id
    assert "/home/me/.local/share/kbroker" == settings.log_dir
    assert (
        (Endpoint("PLAINTEXT", "localhost", 9092, "PLAINTEXT"),)
        == settings.listeners
        == settings.advertised_listeners
    )
    assert "PLAINTEXT" == settings.inter_broker_listener
    assert [] == settings.ignored
    settings.check_exposure(False)


def test_the_data_goes_where_xdg_says():
    assert "/xdg/kbroker" == Settings.load(environment={"XDG_DATA_HOME": "/xdg", "HOME": "/home/me"}).log_dir


@pytest.mark.parametrize(
    ("option", "cure"),
    [
        ("authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer", "leave it out"),
        ("port=9094", "say it in listeners, as in listeners=PLAINTEXT://localhost:9092"),
        ("host.name=broker-1", "say it in listeners"),
        ("advertised.host.name=broker-1", "say it in advertised.listeners"),
        ("advertised.port=9094", "say it in advertised.listeners"),
    ],
)
def test_what_would_leave_the_broker_open_or_elsewhere_is_refused(option, cure):
    name = option.partition("=")[0]

    assert f"{option} cannot be had: {known.find(name).cure}" == refused(option)
    assert cure in refused(option)
    assert [name] == load(f"{name}=").ignored  # nothing is asked for


def test_what_is_passed_over_has_no_cure_to_name():
    assert "" == known.find("num.io.threads").cure == known.find("zookeeper.connect").cure


def test_a_stock_file_is_taken(tmp_path):
    path = tmp_path / "server.properties"
    path.write_text(STOCK)

    settings = Settings.load(path, ["num.partitions=3"], host_name=lambda: "this.example")

    assert (1, 3, "/tmp/kraft-combined-logs") == (settings.node_id, settings.num_partitions, settings.log_dir)
    assert (Endpoint("PLAINTEXT", "", 9092, "PLAINTEXT"),) == settings.listeners
    assert (Endpoint("PLAINTEXT", "localhost", 9092, "PLAINTEXT"),) == settings.advertised_listeners
    assert [
        "controller.quorum.bootstrap.servers",
        "num.io.threads",
        "num.network.threads",
        "num.recovery.threads.per.data.dir",
        "process.roles",
        "share.coordinator.state.topic.min.isr",
        "share.coordinator.state.topic.replication.factor",
        "transaction.state.log.min.isr",
        "transaction.state.log.replication.factor",
    ] == settings.ignored


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("node.id=1\n\nport=9094\n", " line 3: port=9094 cannot be had: "),
        ("num.partitions=1\nnum.partitionz=3\n", " line 2: num.partitionz is no option"),
        ("num.partitions=\\\n many\nnode.id=1", " line 1: num.partitions=many cannot be used"),
        ("#\nlisteners=PLAINTEXT:9092", " line 2: listeners: 'PLAINTEXT:9092' is not"),
        ("#\nlisteners=FOO://a:1", " line 2: listener FOO has no security protocol"),
        ("#\nprocess.roles=controller", " line 2: process.roles=controller has no broker"),
        ("log.dirs=/a,/b", " line 1: log.dirs names 2 folders"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(tmp_path, text, said):
    path = tmp_path / "server.properties"
    path.write_text(text)

    with pytest.raises(StartError) as error:
        Settings.load(path)

    assert str(error.value).startswith(f"{path}{said}")


def test_what_is_wrong_above_a_file_is_not_blamed_on_it(tmp_path):
    path = tmp_path / "server.properties"
    path.write_text("num.partitions=3\n")

    with pytest.raises(StartError, match=r"^num\.partitions=0 cannot be used"):
        Settings.load(path, ["num.partitions=0"])


def test_a_file_that_is_not_there_is_said():
    with pytest.raises(StartError, match=r"/nowhere cannot be read \(No such file"):
        Settings.load("/nowhere")


@pytest.mark.parametrize(
    "name",
    [
        "retention.ms",
        "zookeeper.connect",
        "inter.broker.protocol.version",
        "config.providers.file.class",
        "listener.name.internal.ssl.client.auth",
        "listener.name.internal.plain.sasl.jaas.config",
        "listener.name.internal.scram-sha-256.sasl.jaas.config",
        "sasl.enabled.mechanisms",
        "super.users",
        "group.share.max.size",
    ],
)
def test_what_kafka_knows_is_accepted(name):
    value = {"listener.name.internal.ssl.client.auth": "none", "group.share.max.size": "5"}.get(name, "x")
    settings = load(f"{name}={value}")

    assert ([] if "ssl." in name else [name]) == [words.split()[0] for words in settings.ignored]


def test_all_that_has_no_effect_is_named():
    flushing = {
        "log.flush.interval.messages": "1",
        "log.flush.interval.ms": "1000",
        "log.flush.scheduler.interval.ms": "1000",
        "log.preallocate": "true",
        "log.local.retention.ms": "1",
        "log.local.retention.bytes": "1",
        "unclean.leader.election.enable": "true",
        "flush.ms": "1",
    }
    assert sorted(flushing) == load(*(f"{name}={value}" for name, value in flushing.items())).ignored


def test_a_topics_option_given_to_the_broker_is_named_with_the_brokers():
    assert ["retention.ms (a topic's; the broker's is log.retention.ms)"] == load("retention.ms=1").ignored
    assert ["leader.replication.throttled.replicas"] == load(
        "leader.replication.throttled.replicas=*"
    ).ignored


@pytest.mark.parametrize("name", ["auto.offset.reset", "acks", "group.id", "bootstrap.servers", "linger.ms"])
def test_a_clients_option_is_called_one(name):
    with pytest.raises(
        StartError, match=f"{name} is no option of .*: it is an option of producers or consumers"
    ):
        load(f"{name}=1")


def test_a_name_that_is_like_no_other_is_told_where_the_names_are():
    with pytest.raises(
        StartError, match=r"server\.properties \(its broker configs\).*kbroker\.fsync\.before\.ack, "
    ):
        load("xyzzy=1")


@pytest.mark.parametrize(
    ("assignment", "allowed"),
    [
        ("log.retention.ms=abc", "give it a whole number (milliseconds, -1: no limit)"),
        ("log.retention.hours=abc", "give it a whole number (hours, -1: no limit)"),
        ("log.segment.bytes=1", "give it a whole number (bytes, 1048576 or more)"),
        ("num.partitions=many", "give it a whole number (1 or more)"),
        ("num.partitions=", "give it a whole number (1 or more), or leave it out"),
    ],
)
def test_a_wrong_number_is_told_what_it_may_be(assignment, allowed):
    with pytest.raises(StartError) as refused:
        load(assignment)

    assert str(refused.value).endswith(allowed)


@pytest.mark.parametrize(
    "override, words",
    [
        ("log.retention.mss=1", ["log.retention.mss", "did you mean log.retention.ms?"]),
        ("listener.name.x.nonsense=1", ["listener.name.x.nonsense is no option"]),
        ("num.partitions=0", ["num.partitions=0", "Value must be at least 1", "1 or more"]),
        ("num.partitions=many", ["num.partitions=many", "Not a number of type INT"]),
        ("group.share.max.size=5000", ["group.share.max.size=5000", "1 to 1000"]),
        ("compression.gzip.level=0", ["1 to 9, or -1"]),
        ("kbroker.produce.validation=none", ["one of records, batch"]),
        ("auto.create.topics.enable=1", ["true or false"]),
        ("fetch.max.bytes=5", ["fetch.max.bytes=5", "1024"]),
        ("log.retention.ms=0", ["must be unlimited (-1)"]),
        ("max.connections.per.ip=0", ["lets nobody in", "max.connections.per.ip.overrides"]),
        ("max.connections.per.ip.overrides=here:1", ["here is not an address"]),
        ("node.id=-1", ["0 or more"]),
        ("log.dirs=", ["log.dirs= cannot be used (it names no folder)", "or leave it out"]),
        ("log.dir=", ["log.dir= cannot be used (it names no folder)", "or leave it out"]),
        ("log.dirs=/a,/b", ["2 folders", "one log directory"]),
        ("num.partitions", ["is not name=value"]),
        ("process.roles=controller", ["process.roles=controller", "process.roles=broker"]),
        ("listeners=PLAINTEXT:9092", ["PLAINTEXT:9092", "NAME://host:port"]),
        ("listeners=PLAINTEXT://a:99999", ["0 to 65535"]),
        ("listeners=FOO://a:1", ["FOO", "listener.security.protocol.map"]),
        ("listeners=PLAINTEXT://a:1,PLAINTEXT://b:2", ["PLAINTEXT twice"]),
        ("listeners=PLAINTEXT://a:1,SSL://a:1", ["both have port 1"]),
        ("listeners=", ["no listener for clients"]),
        ("listeners=SASL_SSL://localhost:1", ["SASL_SSL"]),
        ("advertised.listeners=SSL://a:1", ["SSL", "listeners does not"]),
        ("advertised.listeners=PLAINTEXT://0.0.0.0:1", ["not one to connect to"]),
        ("advertised.listeners=PLAINTEXT://a:1,PLAINTEXT://b:1", ["twice"]),
        ("listener.security.protocol.map=A:B", ["'A:B' is not NAME:PROTOCOL"]),
        ("inter.broker.listener.name=X", ["none of the listeners", "PLAINTEXT"]),
    ],
)
def test_a_wrong_configuration_names_the_cure(override, words):
    said = refused(override)

    assert [] == [word for word in words if word not in said], said
    assert "\n" not in said


def test_a_secret_is_not_repeated_when_another_value_is_wrong():
    assert "hunter2" not in refused("ssl.key.password=hunter2", "num.partitions=0")


def test_listeners_are_told_to_clients_where_they_listen():
    settings = load("listeners=PLAINTEXT://:9092,SSL://[::1]:9093,INNER://0.0.0.0:9094",
                    "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,inner:plaintext")  # fmt: skip

    assert (
        Endpoint("PLAINTEXT", "", 9092, "PLAINTEXT"),
        Endpoint("SSL", "::1", 9093, "SSL"),
        Endpoint("INNER", "0.0.0.0", 9094, "PLAINTEXT"),
    ) == settings.listeners
    assert ["this.example", "::1", "this.example"] == [
        endpoint.host for endpoint in settings.advertised_listeners
    ]


def test_one_listener_may_stand_on_both_families():
    settings = load("listeners=PLAINTEXT://127.0.0.1:9092,PLAINTEXT://[::1]:9092")

    assert ["127.0.0.1", "::1"] == [endpoint.host for endpoint in settings.listeners]
    assert ["127.0.0.1"] == [endpoint.host for endpoint in settings.advertised_listeners]


def test_the_listener_between_brokers_follows_its_protocol():
    listeners = "listeners=PLAINTEXT://localhost:1,SSL://localhost:2"

    assert "SSL" == load(listeners, "security.inter.broker.protocol=SSL").inter_broker_listener
    assert "SSL" == load(listeners, "inter.broker.listener.name=ssl").inter_broker_listener


@pytest.mark.parametrize("host", ["", "0.0.0.0", "[::]", "10.0.0.1", "127.evil.example", "this.example"])
def test_other_machines_are_let_in_only_when_asked_for(host, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    settings = load(f"listeners=PLAINTEXT://{host}:9092", "advertised.listeners=PLAINTEXT://a:9092")

    with pytest.raises(StartError, match="--insecure"):
        settings.check_exposure(False)
    settings.check_exposure(True)


def test_a_host_without_an_address_is_said_first(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    with pytest.raises(StartError, match=r"the host this\.example has no address here"):
        load("listeners=PLAINTEXT://this.example:9092").check_exposure(False)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_loopback_is_open_without_more(host):
    load(f"listeners=PLAINTEXT://{host}:9092").check_exposure(False)


def test_tls_without_client_certificates_is_no_authentication():
    listener = "listeners=SSL://:9093"

    with pytest.raises(
        StartError, match=r"without a certificate of theirs: set ssl\.client\.auth=required, "
    ):
        load(listener).check_exposure(False)
    load(listener, "ssl.client.auth=required").check_exposure(False)
    load(listener, "listener.name.ssl.ssl.client.auth=required").check_exposure(False)


def test_a_listeners_tls_options_win_over_the_brokers():
    settings = load(
        "ssl.keystore.location=/all.pem",
        "ssl.key.password=hunter2",
        "listener.name.inner.ssl.keystore.location=/inner.pem",
        "listener.name.inner.ssl.enabled.protocols=TLSv1.3",
    )

    assert ("/inner.pem", ("TLSv1.3",)) == (
        settings.tls("INNER").keystore_location,
        settings.tls("INNER").enabled_protocols,
    )
    assert ("/all.pem", ("TLSv1.2", "TLSv1.3"), "hunter2") == (
        settings.tls("SSL").keystore_location,
        settings.tls("SSL").enabled_protocols,
        settings.tls("SSL").key_password,
    )
    assert "hunter2" not in repr(settings.tls("SSL"))


def test_broker_id_stands_in_for_node_id():
    settings = load("broker.id=7")
    settings.apply_dynamic("7", {"log.segment.bytes": "2000000"})

    assert (7, 2000000) == (settings.node_id, settings.log_segment_bytes)
    with pytest.raises(StartError, match=r"broker\.id=7 and node\.id=3"):
        load("broker.id=7", "node.id=3")


def test_any_option_has_a_value_by_name():
    settings = load("num.io.threads=4")

    assert (4, 3, 1) == tuple(
        settings.value(name) for name in ("num.io.threads", "num.network.threads", "num.partitions")
    )
    with pytest.raises(KeyError):
        settings.value("nonsense")


# Topics -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, field, expected",
    [
        ([], "retention_ms", 7 * 24 * 3600_000),
        (["log.retention.hours=1"], "retention_ms", 3600_000),
        (["log.retention.hours=1", "log.retention.minutes=2"], "retention_ms", 120_000),
        (["log.retention.hours=1", "log.retention.minutes=2", "log.retention.ms=3"], "retention_ms", 3),
        (["log.retention.hours=-1"], "retention_ms", -1),
        (["log.roll.hours=2"], "segment_ms", 7200_000),
        (["log.roll.hours=2", "log.roll.ms=5"], "segment_ms", 5),
        (["log.roll.jitter.hours=1"], "segment_jitter_ms", 3600_000),
        (["log.flush.scheduler.interval.ms=9"], "flush_ms", 9),
        (["message.max.bytes=5"], "max_message_bytes", 5),
        (["log.cleanup.policy=compact"], "cleanup_policy", frozenset({"compact"})),
        (["min.insync.replicas=2"], "min_insync_replicas", 2),
    ],
)
def test_a_topic_falls_back_to_the_brokers_options(given, field, expected):
    assert expected == getattr(load(*given).topic_config({}), field)


def test_the_topics_own_value_wins_then_the_brokers_then_that_of_all_then_the_static():
    settings = load("node.id=1", "log.segment.bytes=2000000")
    chain = [settings.topic_config({}).segment_bytes]
    settings.apply_dynamic("", {"log.segment.bytes": "3000000"})
    chain.append(settings.topic_config({}).segment_bytes)
    settings.apply_dynamic("1", {"log.segment.bytes": "4000000"})
    settings.apply_dynamic("2", {"log.segment.bytes": "9000000"})
    chain.append(settings.topic_config({}).segment_bytes)
    chain.append(settings.topic_config({"segment.bytes": "5000000"}).segment_bytes)
    settings.apply_dynamic("1", {})
    chain.append(settings.topic_config({}).segment_bytes)

    assert [2000000, 3000000, 4000000, 5000000, 3000000] == chain


def test_equal_overrides_share_one_config():
    settings = load()

    assert settings.topic_config({}) is settings.topic_config({})
    kept = settings.topic_config({"retention.ms": "5", "segment.ms": "6"})
    assert kept is settings.topic_config({"segment.ms": "6", "retention.ms": "5"})
    assert kept is not settings.topic_config({"retention.ms": "5"})


def test_a_config_nobody_has_is_forgotten():
    settings = load()
    for number in range(100):
        settings.topic_config({"retention.ms": str(number)})

    assert 1 >= len(settings._topics)


def test_a_dynamic_value_that_cannot_be_counts_as_not_set():
    settings = load("max.connections=7")
    settings.apply_dynamic("", {"max.connections": "many"})

    assert 7 == settings.max_connections
    assert {"max.connections": "many: Not a number of type INT"} == settings.unfit
