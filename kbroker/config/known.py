"""What Kafka knows and kbroker has no use for: accepted in a configuration, listed by DescribeConfigs, without effect.

Read when somebody asks for it: a table as text costs nothing until then.
"""

from __future__ import annotations

import re

from kbroker.config.broker import BROKER_OPTIONS
from kbroker.config.listeners import PREFIX
from kbroker.config.options import CLUSTER_WIDE, LIST, PER_BROKER, READ_ONLY, STRING, ConfigType, Option
from kbroker.config.topics import TOPIC_OPTIONS

INERT_DOC = "Known to Kafka; has no effect here."

# Options of plug-ins: any name behind these is theirs to know.
PLUGIN_PREFIXES = (
    "config.providers.",
    "rsm.config.",
    "rlmm.config.",
    "metrics.jmx.",
    "client.quota.callback.",
)

# Options that older releases of Kafka had: a configuration that still carries them starts.
REMOVED_PREFIXES = ("zookeeper.", "log.message.format.", "group.coordinator.new.")
REMOVED = frozenset(
    {
        "broker.id.generation.enable",
        "control.plane.listener.name",
        "controlled.shutdown.max.retries",
        "controlled.shutdown.retry.backoff.ms",
        "delegation.token.master.key",
        "eligible.leader.replicas.enable",
        "inter.broker.protocol.version",
        "leader.imbalance.per.broker.percentage",
        "log.message.downconversion.enable",
        "log.message.timestamp.difference.max.ms",
        "offsets.commit.required.acks",
        "password.encoder.cipher.algorithm",
        "password.encoder.iterations",
        "password.encoder.key.length",
        "password.encoder.keyfactory.algorithm",
        "password.encoder.old.secret",
        "password.encoder.secret",
        "quota.consumer.default",
        "quota.producer.default",
        "reserved.broker.max.id",
        "super.users",
        "allow.everyone.if.no.acl.found",
    }
)

# The cures of options that are not passed over. What they ask for is not done here, and a broker that started without a
# word would be open to those whom it was meant to keep out, or listen where nobody looks for it. Without a value they ask
# for nothing. Those that are no row of the table are removed ones.
_CURES = {
    "authorizer.class.name": "there are no ACLs here yet, and whoever reaches a listener may do everything: leave it "
    "out if that is meant",
    "port": "it is no option since Kafka 3.0: say it in listeners, as in listeners=PLAINTEXT://localhost:9092",
    "host.name": "it is no option since Kafka 3.0: say it in listeners, as in listeners=PLAINTEXT://localhost:9092",
    "advertised.port": "it is no option since Kafka 3.0: say it in advertised.listeners",
    "advertised.host.name": "it is no option since Kafka 3.0: say it in advertised.listeners",
}

# Options of producers and consumers, often given to a broker by mistake.
_CLIENTS = """
acks allow.auto.create.topics auto.commit.interval.ms auto.offset.reset batch.size bootstrap.servers buffer.memory
check.crcs client.dns.lookup client.id client.rack default.api.timeout.ms delivery.timeout.ms enable.auto.commit
enable.idempotence exclude.internal.topics fetch.max.wait.ms fetch.min.bytes group.id group.instance.id
group.protocol heartbeat.interval.ms interceptor.classes isolation.level key.deserializer key.serializer linger.ms
max.block.ms max.in.flight.requests.per.connection max.partition.fetch.bytes max.poll.interval.ms max.poll.records
max.request.size metadata.broker.list metadata.max.age.ms partition.assignment.strategy partitioner.class
receive.buffer.bytes reconnect.backoff.max.ms reconnect.backoff.ms request.required.acks retries
retry.backoff.max.ms retry.backoff.ms send.buffer.bytes session.timeout.ms ssl.ca.location
ssl.certificate.location ssl.key.location transactional.id value.deserializer value.serializer
"""
CLIENT_OPTIONS = frozenset(_CLIENTS.split())

# name | type | default ("null": none) | bounds or choices ("~": whatever the case) | c: dynamic for all brokers,
# b: per broker, i: internal
_TABLE = """
remote.log.storage.system.enable|boolean|false
remote.log.storage.manager.impl.prefix|string|rsm.config.
remote.log.metadata.manager.impl.prefix|string|rlmm.config.
remote.log.storage.manager.class.name|string|null
remote.log.storage.manager.class.path|string|null
remote.log.metadata.manager.class.name|string|org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager
remote.log.metadata.manager.class.path|string|null
remote.log.metadata.manager.listener.name|string|null
remote.log.metadata.custom.metadata.max.bytes|int|128|0..
remote.log.index.file.cache.total.size.bytes|long|1073741824|1..|c
remote.log.index.file.cache.ttl.ms|long|900000|-1..|i
remote.log.manager.thread.pool.size|int|2|1..
remote.log.manager.copier.thread.pool.size|int|10|1..|c
remote.log.manager.expiration.thread.pool.size|int|10|1..|c
remote.log.manager.follower.thread.pool.size|int|2|1..|c
remote.log.manager.task.interval.ms|long|30000|1..
remote.log.manager.task.retry.backoff.ms|long|500|1..|i
remote.log.manager.task.retry.backoff.max.ms|long|30000|1..|i
remote.log.manager.task.retry.jitter|double|0.2|0..0.5|i
remote.log.reader.threads|int|10|1..|c
remote.log.reader.max.pending.tasks|int|100|1..
remote.log.manager.copy.max.bytes.per.second|long|9223372036854775807|1..|c
remote.log.manager.copy.quota.window.num|int|11|1..
remote.log.manager.copy.quota.window.size.seconds|int|1|1..
remote.log.manager.fetch.max.bytes.per.second|long|9223372036854775807|1..|c
remote.log.manager.fetch.quota.window.num|int|11|1..
remote.log.manager.fetch.quota.window.size.seconds|int|1|1..
remote.fetch.max.wait.ms|int|500|1..|c
remote.list.offsets.request.timeout.ms|long|30000|1..|c
num.io.threads|int|8|1..|c
num.replica.alter.log.dirs.threads|int|null
background.threads|int|10|1..|c
request.timeout.ms|int|30000
socket.connection.setup.timeout.ms|long|10000
socket.connection.setup.timeout.max.ms|long|30000
config.providers|list|||c
authorizer.class.name|string|||
early.start.listeners|list|null
controlled.shutdown.enable|boolean|true
max.request.partition.size.limit|int|2000|1..
unstable.api.versions.enable|boolean|false||i
unstable.feature.versions.enable|boolean|false||i
process.roles|list|null|broker,controller
initial.broker.registration.timeout.ms|int|60000
broker.heartbeat.interval.ms|int|2000
broker.session.timeout.ms|int|9000
sasl.mechanism.controller.protocol|string|GSSAPI
controller.performance.sample.period.ms|long|60000|100..|i
controller.performance.always.log.threshold.ms|long|2000|0..|i
server.max.startup.time.ms|long|9223372036854775807|0..|i
metadata.log.max.record.bytes.between.snapshots|long|20971520|1..
metadata.log.max.snapshot.interval.ms|long|3600000|0..
metadata.log.dir|string|null
metadata.log.segment.bytes|int|1073741824|8388608..
metadata.log.segment.ms|long|604800000
metadata.max.retention.bytes|long|104857600
metadata.max.retention.ms|long|604800000
metadata.max.idle.interval.ms|int|500|0..
internal.metadata.log.segment.bytes|int|null||i
internal.metadata.max.batch.size.in.bytes|int|8388608||i
internal.metadata.delete.delay.millis|long|60000||i
max.connection.creation.rate|int|2147483647|0..|c
connection.failed.authentication.delay.ms|int|100|0..
queued.max.requests|int|500|1..
num.network.threads|int|3|1..|c
controller.socket.timeout.ms|int|30000
replica.lag.time.max.ms|long|30000
replica.socket.timeout.ms|int|30000
replica.socket.receive.buffer.bytes|int|65536
replica.fetch.max.bytes|int|1048576|0..
replica.fetch.wait.max.ms|int|500
replica.fetch.backoff.ms|int|1000|0..
replica.fetch.min.bytes|int|1
replica.fetch.response.max.bytes|int|10485760|0..
num.replica.fetchers|int|1|1..|c
fetch.purgatory.purge.interval.requests|int|1000
producer.purgatory.purge.interval.requests|int|1000
delete.records.purgatory.purge.interval.requests|int|1
auto.leader.rebalance.enable|boolean|true
leader.imbalance.check.interval.seconds|long|300|1..
unclean.leader.election.interval.ms|long|300000|1..|i
replica.selector.class|string|null
follower.fetch.last.tiered.offset.enable|boolean|false||c
group.coordinator.rebalance.protocols|list|classic,consumer,streams|consumer,classic,share,streams
group.coordinator.threads|int|4|1..
group.coordinator.background.threads|int|2|1..
group.coordinator.append.linger.ms|int|-1|-1..
offsets.load.buffer.size|int|5242880|1..
group.coordinator.cached.buffer.max.bytes|int|1048588|524288..|c
group.consumer.session.timeout.ms|int|45000|1..
group.consumer.min.session.timeout.ms|int|45000|1..
group.consumer.max.session.timeout.ms|int|60000|1..
group.consumer.heartbeat.interval.ms|int|5000|1..
group.consumer.min.heartbeat.interval.ms|int|5000|1..
group.consumer.max.heartbeat.interval.ms|int|15000|1..
group.consumer.max.size|int|2147483647|1..
group.consumer.assignors|list|uniform,range
group.consumer.migration.policy|string|bidirectional|~DISABLED,DOWNGRADE,UPGRADE,BIDIRECTIONAL
group.consumer.assignment.interval.ms|int|1000|0..|c
group.consumer.min.assignment.interval.ms|int|0|0..
group.consumer.max.assignment.interval.ms|int|15000|0..
group.consumer.regex.refresh.interval.ms|int|600000|10000..|i
group.share.session.timeout.ms|int|45000|1..
group.share.min.session.timeout.ms|int|45000|1..
group.share.max.session.timeout.ms|int|60000|1..
group.share.heartbeat.interval.ms|int|5000|1..
group.share.min.heartbeat.interval.ms|int|5000|1..
group.share.max.heartbeat.interval.ms|int|15000|1..
group.share.max.size|int|200|1..1000
group.share.assignors|list|simple
group.share.assignment.interval.ms|int|1000|0..|c
group.share.min.assignment.interval.ms|int|0|0..
group.share.max.assignment.interval.ms|int|15000|0..
group.share.initialize.retry.interval.ms|int|30000|1..|i
group.streams.session.timeout.ms|int|45000|1..
group.streams.min.session.timeout.ms|int|45000|1..
group.streams.max.session.timeout.ms|int|60000|1..
group.streams.heartbeat.interval.ms|int|5000|1..
group.streams.min.heartbeat.interval.ms|int|5000|1..
group.streams.max.heartbeat.interval.ms|int|15000|1..
group.streams.max.size|int|2147483647|1..
group.streams.num.standby.replicas|int|0|0..
group.streams.max.standby.replicas|int|2|0..
group.streams.initial.rebalance.delay.ms|int|3000|0..
group.streams.assignment.interval.ms|int|1000|0..|c
group.streams.min.assignment.interval.ms|int|0|0..
group.streams.max.assignment.interval.ms|int|15000|0..
log.cleaner.io.buffer.size|int|524288|0..|c
log.cleaner.io.buffer.load.factor|double|0.9||c
cordoned.log.dirs|list|||b
create.topic.policy.class.name|class|null
alter.config.policy.class.name|class|null
log.dir.failure.timeout.ms|long|30000|1..
group.share.delivery.count.limit|int|5|2..10
group.share.max.delivery.count.limit|int|10|5..25
group.share.min.delivery.count.limit|int|2|2..5
group.share.record.lock.duration.ms|int|30000|1000..3600000
group.share.min.record.lock.duration.ms|int|15000|1000..30000
group.share.max.record.lock.duration.ms|int|60000|30000..3600000
group.share.partition.max.record.locks|int|2000|100..10000
group.share.max.partition.max.record.locks|int|4000|2000..10000
group.share.min.partition.max.record.locks|int|100|100..2000
share.fetch.purgatory.purge.interval.requests|int|1000
group.share.max.share.sessions|int|2000|1..
group.share.persister.class.name|string|org.apache.kafka.server.share.persister.DefaultStatePersister||i
share.coordinator.state.topic.num.partitions|int|50|1..
share.coordinator.state.topic.replication.factor|short|3|1..
share.coordinator.state.topic.min.isr|short|2|1..
share.coordinator.state.topic.segment.bytes|int|104857600|1..
share.coordinator.threads|int|1|1..
share.coordinator.snapshot.update.records.per.snapshot|int|500|0..500
share.coordinator.load.buffer.size|int|5242880|1..
share.coordinator.state.topic.compression.codec|int|0
share.coordinator.append.linger.ms|int|-1|-1..
share.coordinator.write.timeout.ms|int|5000|1..
share.coordinator.state.topic.prune.interval.ms|int|300000|1..|i
share.coordinator.cold.partition.snapshot.interval.ms|int|300000|1..|i
share.coordinator.cached.buffer.max.bytes|int|1048588|524288..|c
transaction.state.log.min.isr|int|2|1..
transaction.state.log.load.buffer.size|int|5242880|1..
transaction.state.log.replication.factor|short|3|1..
transaction.state.log.num.partitions|int|50|1..
transaction.state.log.segment.bytes|int|104857600|1..
transaction.partition.verification.enable|boolean|true||c
transactional.id.expiration.ms|int|604800000|1..
transaction.max.timeout.ms|int|900000|1..
transaction.abort.timed.out.transaction.cleanup.interval.ms|int|10000|1..
transaction.remove.expired.transaction.cleanup.interval.ms|int|3600000|1..
transaction.two.phase.commit.enable|boolean|false
controller.quorum.voters|list|||
controller.quorum.bootstrap.servers|list|||
controller.quorum.election.timeout.ms|int|1000|0..
controller.quorum.fetch.timeout.ms|int|2000|0..
controller.quorum.election.backoff.max.ms|int|1000|0..
controller.quorum.append.linger.ms|int|25|0..
controller.quorum.request.timeout.ms|int|2000|0..
controller.quorum.retry.backoff.ms|int|20|0..
controller.quorum.auto.join.enable|boolean|false
controller.quorum.fetch.snapshot.max.bytes|int|1048576|1..
controller.quorum.fetch.max.bytes|int|1048576|1..
metrics.num.samples|int|2|1..
metrics.sample.window.ms|long|30000|1..
metric.reporters|list|org.apache.kafka.common.metrics.JmxReporter||c
metrics.recording.level|string|INFO
kafka.metrics.reporters|list|||
kafka.metrics.polling.interval.secs|int|10|1..
telemetry.max.bytes|int|1048576|1..
replication.quota.window.num|int|11|1..
alter.log.dirs.replication.quota.window.num|int|11|1..
replication.quota.window.size.seconds|int|1|1..
alter.log.dirs.replication.quota.window.size.seconds|int|1|1..
client.quota.callback.class|class|null
connections.max.reauth.ms|long|0
sasl.server.max.receive.size|int|524288
security.providers|string|null
principal.builder.class|class|org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder||b
ssl.principal.mapping.rules|string|DEFAULT
ssl.allow.dn.changes|boolean|false
ssl.allow.san.changes|boolean|false
ssl.protocol|string|TLSv1.3||b
ssl.provider|string|null||b
ssl.keymanager.algorithm|string|SunX509||b
ssl.trustmanager.algorithm|string|PKIX||b
ssl.endpoint.identification.algorithm|string|https||b
ssl.secure.random.implementation|string|null||b
ssl.engine.factory.class|class|null||b
sasl.mechanism.inter.broker.protocol|string|GSSAPI||b
sasl.enabled.mechanisms|list|GSSAPI||b
sasl.server.callback.handler.class|class|null
sasl.kerberos.principal.to.local.rules|list|DEFAULT||b
sasl.jaas.config|password|null||b
sasl.client.callback.handler.class|class|null
sasl.login.class|class|null
sasl.login.callback.handler.class|class|null
sasl.kerberos.service.name|string|null||b
sasl.kerberos.kinit.cmd|string|/usr/bin/kinit||b
sasl.kerberos.ticket.renew.window.factor|double|0.8||b
sasl.kerberos.ticket.renew.jitter|double|0.05||b
sasl.kerberos.min.time.before.relogin|long|60000||b
sasl.login.refresh.window.factor|double|0.8||b
sasl.login.refresh.window.jitter|double|0.05||b
sasl.login.refresh.min.period.seconds|short|60||b
sasl.login.refresh.buffer.seconds|short|300||b
sasl.login.connect.timeout.ms|int|null
sasl.login.read.timeout.ms|int|null
sasl.login.retry.backoff.max.ms|long|10000
sasl.login.retry.backoff.ms|long|100
sasl.oauthbearer.jwt.retriever.class|class|org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever
sasl.oauthbearer.jwt.validator.class|class|org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator
sasl.oauthbearer.scope|string|null
sasl.oauthbearer.client.credentials.client.id|string|null
sasl.oauthbearer.client.credentials.client.secret|password|null
sasl.oauthbearer.assertion.algorithm|string|RS256|~ES256,RS256
sasl.oauthbearer.assertion.claim.aud|string|null
sasl.oauthbearer.assertion.claim.exp.seconds|int|300|0..86400
sasl.oauthbearer.assertion.claim.iss|string|null
sasl.oauthbearer.assertion.claim.jti.include|boolean|false
sasl.oauthbearer.assertion.claim.nbf.seconds|int|60|0..3600
sasl.oauthbearer.assertion.claim.sub|string|null
sasl.oauthbearer.assertion.file|string|null
sasl.oauthbearer.assertion.private.key.file|string|null
sasl.oauthbearer.assertion.private.key.passphrase|password|null
sasl.oauthbearer.assertion.template.file|string|null
sasl.oauthbearer.scope.claim.name|string|scope
sasl.oauthbearer.sub.claim.name|string|sub
sasl.oauthbearer.token.endpoint.url|string|null
sasl.oauthbearer.jwks.endpoint.url|string|null
sasl.oauthbearer.jwks.endpoint.refresh.ms|long|3600000
sasl.oauthbearer.jwks.endpoint.retry.backoff.ms|long|100
sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms|long|10000
sasl.oauthbearer.clock.skew.seconds|int|30
sasl.oauthbearer.expected.audience|list|||
sasl.oauthbearer.expected.issuer|string|null
delegation.token.secret.key|password|null
delegation.token.max.lifetime.ms|long|604800000|1..
delegation.token.expiry.time.ms|long|86400000|1..
delegation.token.expiry.check.interval.ms|long|3600000|1..
add.partitions.to.txn.retry.backoff.max.ms|int|100|0..
add.partitions.to.txn.retry.backoff.ms|int|20|1..
"""


def _table() -> dict[str, Option]:
    rows = {}
    for line in _TABLE.split():
        name, kind, default, bounds, dynamic = [*line.split("|"), "", "", ""][:5]
        rows[name] = _row(name, ConfigType[kind.upper()], default, bounds, dynamic)
    return rows


def _row(name: str, kind: ConfigType, default: str, bounds: str, dynamic: str) -> Option:
    low, range_, high = bounds.partition("..")
    choices = None if range_ or not bounds else bounds.removeprefix("~").split(",")
    row = Option(
        name,
        kind,
        None,
        at_least=float(low) if range_ else None,
        at_most=float(high) if high else None,
        choices=choices,
        ignores_case=bounds.startswith("~"),
        dynamic=_DYNAMIC[dynamic[-1:]],
        inert=True,
        internal=dynamic.startswith("i"),
        cure=_CURES.get(name, ""),
        doc=INERT_DOC,
    )
    if default != "null":
        row.default = default if kind is ConfigType.DOUBLE else row.parse(default)
    return row


_DYNAMIC = {"": READ_ONLY, "i": READ_ONLY, "c": CLUSTER_WIDE, "b": PER_BROKER}
KNOWN = _table()
_MECHANISM = re.compile(r"(plain|gssapi|oauthbearer|scram-sha-256|scram-sha-512)\.")


def find(name: str) -> Option | None:
    """The row of a name that is accepted without having an effect; None: nobody knows it.

    Behind "listener.name.<listener>." (and there behind a SASL mechanism) stand broker options; those of TLS act.
    """
    row = KNOWN.get(name)
    if row is not None:
        return row
    if name.startswith(PREFIX):
        return _of_listener(name)
    if name in _CURES:
        return Option(name, ConfigType.UNKNOWN, None, inert=True, cure=_CURES[name], doc=INERT_DOC)
    if name in TOPIC_OPTIONS or name in REMOVED or name.startswith(PLUGIN_PREFIXES + REMOVED_PREFIXES):
        return Option(name, ConfigType.UNKNOWN, None, inert=True, doc=INERT_DOC)
    return None


def _of_listener(name: str) -> Option | None:
    _, _, rest = name.removeprefix(PREFIX).partition(".")
    if rest in BROKER_OPTIONS and rest.startswith("ssl."):
        return BROKER_OPTIONS[rest]
    bare = _MECHANISM.sub("", rest, count=1)
    base = KNOWN.get(bare) or BROKER_OPTIONS.get(bare)
    if base is None:
        return None
    kind = base.type if base.type is not LIST else STRING
    return Option(name, kind, None, dynamic=base.dynamic, inert=True, doc=INERT_DOC)
