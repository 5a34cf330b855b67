"""The cluster behind an address, as a client goes through it: Metadata, every advertised address, a round trip."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import replace

from kbroker.cli.client import admin
from kbroker.cli.client.cluster import Cluster
from kbroker.cli.client.connection import Address
from kbroker.cli.client.consumer import Chunk, Consumer
from kbroker.cli.client.errors import ClientError, code_of, error_of, say
from kbroker.cli.client.properties import Reach
from kbroker.cli.diagnosis.findings import Finding, failed, ok, warning
from kbroker.cli.diagnosis.probe import Probe, Way, probe
from kbroker.cli.diagnosis.strict import look_strictly
from kbroker.errors import ErrorCode, KafkaError
from kbroker.protocol.messages.metadata import MetadataResponse
from kbroker.protocol.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    TopicProduceData,
)
from kbroker.protocol.records import Record, build_batch, decode_records
from kbroker.security.certificates import Validity

TOPIC_PREFIX = "kbroker-doctor-"
GROUP = "kbroker-doctor"
# Advertised addresses that are looked at, at the same time too; a cluster larger than that needs no doctor for all of them.
BROKERS_MAX = 50
READ_SECONDS_MAX = 10.0
TIMEOUT_MS = 10_000
# The broker's clock and ours: from here on times of records mislead, from there on retention does.
SKEW_SECONDS, SKEW_SECONDS_MAX = 2.0, 60.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")

REFUSED = frozenset(
    {
        ErrorCode.TOPIC_AUTHORIZATION_FAILED,
        ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
        ErrorCode.POLICY_VIOLATION,
    }
)


async def examine(reach: Reach, topic: str | None, token: str) -> AsyncIterator[Finding]:
    """All findings, as they come. `token` makes the temporary topic's name and record nobody else's."""
    tls = reach.context()
    any_tls = tls or replace(reach, tls=True, ssl_options={}).context()
    assert any_tls is not None
    own = reach.own_certificate() if reach.tls else None
    if own is not None:
        yield _own_certificate(own, time.time())
    usable: list[Address] = []
    for address in reach.bootstrap:
        failures = 0
        async for finding in _told(address, Way("bootstrap", False), tls, any_tls):
            failures += finding.status == "failed"
            yield finding
        if not failures:
            usable.append(address)
            strictly = await _strictly(address, reach)
            if strictly is not None:
                yield strictly
    if not usable:
        return
    cluster = Cluster(usable, tls, client_id=reach.client_id, retry_seconds=TIMEOUT_MS / 1000)
    try:
        async with cluster:
            async for finding in _walk(cluster, usable, tls, any_tls, topic, token):
                yield finding
    except (ClientError, KafkaError) as error:
        words = say(error) if isinstance(error, KafkaError) else str(error)
        yield failed("cluster", words, "see the broker's log at this moment")


async def _strictly(address: Address, reach: Reach) -> Finding | None:
    context = reach.context()
    return None if context is None else await asyncio.to_thread(look_strictly, address, context)


def _own_certificate(found: Validity, now: float) -> Finding:
    check, fault = "our certificate", found.fault(now)
    if fault is None:
        return ok(check, f"valid for {found.days(now)} days")
    if found.holds(now):
        return warning(check, f"it {fault}", "renew the certificate in --cert (ssl.keystore.*)")
    return failed(
        check,
        f"it {fault}",
        "renew the certificate in --cert (ssl.keystore.*), or set this machine's clock right",
    )


async def _walk(
    cluster: Cluster,
    known: list[Address],
    tls: ssl.SSLContext | None,
    any_tls: ssl.SSLContext,
    topic: str | None,
    token: str,
) -> AsyncIterator[Finding]:
    answer = await cluster.metadata(None)
    for finding in _judge(cluster, answer):
        yield finding
    new = [(node, at) for node, at in sorted(cluster.brokers.items()) if at not in known][:BROKERS_MAX]
    looked = await asyncio.gather(
        *(_probe(address, Way(f"broker {node}", True), tls, any_tls) for node, address in new)
    )
    for (node, address), found in zip(new, looked, strict=True):
        for finding in found.findings:
            yield finding
        if found.usable:
            yield await _same_cluster(cluster, node, address, tls)
    if not all(each.usable for each in looked):
        return  # a round trip would say it again, in other words
    for address in known:
        if address.host not in LOOPBACK and any(at.host in LOOPBACK for at in cluster.brokers.values()):
            yield warning(
                "advertised addresses",
                f"{address} advertises a loopback address, and works from here alone",
                "set advertised.listeners to a name that clients on other machines can use",
            )
    yield await _coordinator(cluster)
    async for finding in _round_trip(cluster, topic, token):
        yield finding


async def _probe(address: Address, way: Way, tls: ssl.SSLContext | None, any_tls: ssl.SSLContext) -> Probe:
    return await asyncio.to_thread(probe, address, way, tls, any_tls)


async def _told(
    address: Address, way: Way, tls: ssl.SSLContext | None, any_tls: ssl.SSLContext
) -> AsyncIterator[Finding]:
    """The findings of a probe while it goes on: a step that waits for a silent server takes seconds."""
    loop = asyncio.get_running_loop()
    found: asyncio.Queue[Finding | None] = asyncio.Queue()

    def tell(finding: Finding | None) -> None:
        loop.call_soon_threadsafe(found.put_nowait, finding)

    def look() -> None:
        try:
            probe(address, way, tls, any_tls, tell)
        finally:
            tell(None)

    looking = asyncio.create_task(asyncio.to_thread(look), name=f"probe of {address}")
    while (finding := await found.get()) is not None:
        yield finding
    await looking


def _judge(cluster: Cluster, answer: MetadataResponse) -> list[Finding]:
    if not answer.brokers:
        return [
            failed("metadata", "it names no broker", "wait until the broker has started, and see its log")
        ]
    brokers = ", ".join(f"{node} at {at}" for node, at in sorted(cluster.brokers.items()))
    found = [ok("metadata", f"cluster {answer.cluster_id}; brokers: {brokers}")]
    if answer.controller_id not in cluster.brokers:
        found.append(failed("controller", "there is none", "see the brokers' logs: they cannot agree on one"))
    parts = [(topic.name, part) for topic in answer.topics for part in topic.partitions]
    leaderless = [f"{name}-{part.partition_index}" for name, part in parts if part.leader_id < 0]
    behind = [
        f"{name}-{part.partition_index}"
        for name, part in parts
        if len(part.isr_nodes) < len(part.replica_nodes)
    ]
    if leaderless:
        shown = f"{len(leaderless)} of {len(parts)} partitions have no leader, {leaderless[0]} for one"
        found.append(failed("partitions", shown, "start the brokers that hold them"))
    elif behind:
        shown = f"{len(behind)} of {len(parts)} partitions lack replicas in sync, {behind[0]} for one"
        found.append(
            warning("partitions", shown, "start the brokers that are missing, or wait until they caught up")
        )
    else:
        found.append(
            ok("partitions", f"{len(parts)} in {len(answer.topics)} topics, all with leaders and in sync")
        )
    return found


async def _same_cluster(cluster: Cluster, node: int, address: Address, tls: ssl.SSLContext | None) -> Finding:
    check = f"broker {node}: cluster"
    async with Cluster([address], tls, retry_seconds=0) as there:
        answer = await there.metadata([])
    if answer.cluster_id == cluster.cluster_id:
        return ok(check, f"{address} is of the same cluster")
    return failed(
        check,
        f"{address} is of another cluster ({answer.cluster_id})",
        f"set advertised.listeners of broker {node} to its own address",
    )


async def _coordinator(cluster: Cluster) -> Finding:
    check = "coordinator"
    try:
        connection = await cluster.persist(lambda: cluster.coordinator(GROUP))
    except KafkaError as error:
        cure = "see that offsets.topic.replication.factor is not more than there are brokers"
        if error.code == ErrorCode.GROUP_AUTHORIZATION_FAILED:
            cure = f"let your user describe the group {GROUP}, or see to its own groups alone"
            return warning(check, say(error), cure)
        return failed(check, f"consumer groups have none: {say(error)}", cure)
    return ok(check, f"consumer groups have one at {connection.address}")


# -- the round trip


async def _round_trip(cluster: Cluster, topic: str | None, token: str) -> AsyncIterator[Finding]:
    name = topic or f"{TOPIC_PREFIX}{token}"
    if topic is None:
        made = await _create(cluster, name)
        yield made
        if made.status == "failed":
            return
    try:
        async for finding in _send_and_read(cluster, name, token):
            yield finding
    finally:
        if topic is None:
            error = error_of((await admin.delete_topics(cluster, [name]))[0])
    if topic is None:
        if error is None:
            yield ok("delete topic", name)
        else:
            yield failed("delete topic", f"{name}: {say(error)}", f"kbroker topic delete {name}")


async def _create(cluster: Cluster, name: str) -> Finding:
    configs = {"message.timestamp.type": "LogAppendTime"}  # the broker's clock, to look at
    try:
        await admin.create_topic(cluster, name, partitions=1, replicas=admin.DEFAULTS, configs=configs)
    except KafkaError as error:
        cure = "see the broker's log"
        if error.code in REFUSED:
            cure = "give a topic that you may use as --topic NAME"
        elif error.code == ErrorCode.INVALID_REPLICATION_FACTOR:
            cure = "set default.replication.factor to no more than there are brokers"
        return failed("create topic", f"{name}: {say(error)}", cure)
    return ok("create topic", name)


async def _send_and_read(cluster: Cluster, topic: str, token: str) -> AsyncIterator[Finding]:
    value = token.encode()
    began = time.time()
    try:
        sent = await cluster.persist(
            lambda: _send(cluster, topic, value), also=frozenset({ErrorCode.UNKNOWN_TOPIC_OR_PARTITION})
        )
    except KafkaError as error:
        yield failed("produce", f"{topic}: {say(error)}", _cure_of(error))
        return
    ended = time.time()
    yield ok(
        "produce", f"offset {sent.base_offset} of {topic}, acknowledged after {(ended - began) * 1000:.0f} ms"
    )
    if sent.log_append_time_ms >= 0:
        yield _clock(sent.log_append_time_ms / 1000, began, ended)
    again = time.monotonic()
    try:
        async with asyncio.timeout(READ_SECONDS_MAX):
            found = await _read(cluster, topic, sent.base_offset)
    except TimeoutError:
        waited = f"the record did not come within {READ_SECONDS_MAX:.0f} s"
        yield failed(
            "consume", waited, "see whether the partition's replicas are in sync, and the broker's log"
        )
        return
    except KafkaError as error:
        yield failed("consume", f"{topic}: {say(error)}", _cure_of(error))
        return
    if found.value != value:
        yield failed(
            "consume",
            "another record came back",
            "run kbroker dump-log --verify on the partition's files",
        )
        return
    yield ok("consume", f"the same record, after {(time.monotonic() - again) * 1000:.0f} ms")


async def _send(cluster: Cluster, topic: str, value: bytes) -> PartitionProduceResponse:
    batch = build_batch([Record(-1, time.time_ns() // 1_000_000, b"doctor", value)])
    data = TopicProduceData(name=topic, partition_data=[PartitionProduceData(index=0, records=batch)])
    leader = await cluster.leader(topic, 0)
    answer = await leader.ask(ProduceRequest(acks=-1, timeout_ms=TIMEOUT_MS, topic_data=[data]), newest=12)
    part = answer.responses[0].partition_responses[0]
    if part.error_code:
        raise KafkaError(code_of(part.error_code), part.error_message)
    assert isinstance(part, PartitionProduceResponse)
    return part


async def _read(cluster: Cluster, topic: str, offset: int) -> Record:
    reading = Consumer(cluster, {(topic, 0): offset}).read()
    try:
        async for chunk in reading:
            if isinstance(chunk, Chunk):
                for record in decode_records(chunk.batches[0]):
                    if record.offset == offset:
                        return record
    finally:
        await reading.aclose()
    raise AssertionError("reading ends by itself only with an error")


def _cure_of(error: KafkaError) -> str:
    if error.code in REFUSED:
        return "give a topic that you may use as --topic NAME"
    if error.code in (ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND):
        return "set min.insync.replicas to no more than there are replicas, or start the missing brokers"
    if error.code == ErrorCode.KAFKA_STORAGE_ERROR:
        return "see the broker's log: its disk is full or failing"
    return "see the broker's log at this moment"


def _clock(broker: float, began: float, ended: float) -> Finding:
    skew = broker - ended if broker > ended else min(broker - began, 0.0)
    if abs(skew) < SKEW_SECONDS:
        return ok("clock", "the broker's and this machine's agree")
    detail = f"the broker's is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    cure = "let NTP set both clocks: retention and look-ups by time go by them"
    return failed("clock", detail, cure) if abs(skew) > SKEW_SECONDS_MAX else warning("clock", detail, cure)
