"""What the figures are called, which way is better, and what kbroker has to reach beside Kafka in the same run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the table. `ratio` bounds kbroker's figure by Kafka's, `limit` bounds it alone."""

    key: str
    title: str
    unit: str
    more_is_better: bool
    ratio: float | None = None
    limit: float | None = None
    digits: int = 0
    against: str | None = None  # another metric's key: its Kafka figure (else kbroker's) is compared with


def _more(key: str, title: str, unit: str, ratio: float | None = None, **more: object) -> Metric:
    return Metric(key, title, unit, True, ratio, **more)  # type: ignore[arg-type]


def _less(key: str, title: str, unit: str, ratio: float | None = None, **more: object) -> Metric:
    return Metric(key, title, unit, False, ratio, **more)  # type: ignore[arg-type]


METRICS = (
    _more("produce", "produce, 1 KiB records, 64 KiB requests, 6 connections x 5 in flight", "MB/s", 1.8),
    _less("produce_cpu", "the same: server CPU", "s/GB", 0.4, digits=2),
    _more("sync1", "sync round trips, 100 B, acks=all, 1 connection", "requests/s", 1.5),
    _less("sync1_cpu", "the same: server CPU", "us/request", 0.5, digits=1),
    _more("sync16", "sync round trips, 100 B, acks=all, 16 connections", "requests/s", 1.6),
    _less("sync16_cpu", "the same: server CPU", "us/request", 0.5, digits=1),
    _more("small", "produce, 100 B records, 100 in a request, 6 connections x 5 in flight", "records/s"),
    _less("small_cpu", "the same: server CPU", "s/million records", digits=2),
    _more("fetch", "fetch, 1 MiB answers, warm page cache, 6 connections", "MB/s", 0.9),
    _less("fetch_cpu", "the same: server CPU", "s/GB", 1.1, digits=3),
    _more("rd_produce", "produce by librdkafka, 1 KiB records, acks=all", "MB/s", 1.2),
    _less("rd_produce_cpu", "the same: server CPU", "s/GB", digits=2),
    _more("rd_consume", "consume by librdkafka, 1 KiB records", "MB/s", 1.0),
    _less("rd_consume_cpu", "the same: server CPU", "s/GB", digits=2),
    _less("e2e_p50", "end to end at 1,000 records/s, long poll, median", "ms", 0.6, digits=2),
    _less("e2e_p99", "the same: 99th percentile", "ms", 0.6, digits=2),
    _less("rd_e2e_p50", "end to end at 1,000 records/s by librdkafka, median", "ms", 0.6, digits=2),
    _less("rd_e2e_p99", "the same: 99th percentile", "ms", 0.6, digits=2),
    _less(
        "rebalance", "one member more in a group of 99: until all have their assignments", "ms", 0.7, digits=1
    ),
    _less("rebalance_cpu", "one member more, and one less again: server CPU", "ms", digits=1),
    _less(
        "commit_cpu",
        "1,000 groups that commit 10 partitions each second: server CPU",
        "us/commit",
        0.7,
        digits=1,
    ),
    _more("group_consume", "consume by librdkafka through a group, 1 KiB records", "MB/s", 1.0),
    _less("group_consume_cpu", "the same: server CPU", "s/GB", digits=2),
    _less("start", "start to first acknowledged produce", "s", 0.1, limit=0.4, digits=3),
    _less("idle", "memory after the start (proportional set size)", "MB", 0.12),
    _less("connections", "memory with 2,000 idle connections, nothing else done", "MB"),
    _less("connections_loaded", "memory after all the loads, with 2,000 connections", "MB", 0.05),
    _less("loaded", "memory after all the loads", "MB"),
    _less("topics", "1,000 topics in one request", "s", 1.0, digits=2),
    _more("tls_produce", "produce over TLS 1.3, as above", "MB/s", 1.0),
    _less("tls_produce_cpu", "the same: server CPU", "s/GB", digits=2),
    _more("tls_fetch", "fetch over TLS 1.3, as above", "MB/s", 1.0),
    _less("tls_fetch_cpu", "the same: server CPU", "s/GB", digits=2),
    _more(
        "fsync_produce",
        "produce with fsync before ack, against Kafka without",
        "MB/s",
        0.8,
        against="produce",
    ),
    _less("fsync_produce_cpu", "the same: server CPU", "s/GB", digits=2),
    _more(
        "fsync_sync16",
        "sync round trips with fsync before ack, 16 connections, 6 partitions, against the bare loop",
        "requests/s",
        0.75,
        against="bare_synced",
    ),
    _less("fsync_sync16_cpu", "the same: server CPU", "us/request", digits=1),
    _more(
        "bare_produce", "bare loop: 30 appends of 64 KiB, then four threads fdatasync the six files", "MB/s"
    ),
    _more("bare_synced", "bare loop: four threads append and fdatasync, six files", "appends/s"),
    _more("bare_grouped", "bare loop: 16 appends, then four threads fdatasync the six files", "appends/s"),
    _more("compaction_1k", "compaction of 1 KiB records, a tenth stays", "MB/s", 0.5),
    _less("compaction_1k_p99", "the same: 99th percentile of a produce beside it", "ms", digits=2),
    _less("compaction_1k_p99_without", "the same without compaction", "ms", digits=2),
    _more("compaction_100", "compaction of 100 B records, a tenth stays", "MB/s", 0.5),
    _less("compaction_100_p99", "the same: 99th percentile of a produce beside it", "ms", digits=2),
    _less("compaction_100_p99_without", "the same without compaction", "ms", digits=2),
    _less("request_at_1", "sync produce with 1 partition in the broker: server CPU", "us/request", digits=1),
    _less("request_at_100", "with 100 partitions", "us/request", digits=1),
    _less("request_at_10000", "with 10,000 partitions", "us/request", digits=1),
    _less("request_at_conns", "with 10,000 partitions and 2,000 idle connections", "us/request", digits=1),
    _less("fetch_at_1", "sync fetch with 1 partition in the broker: server CPU", "us/request", digits=1),
    _less("fetch_at_100", "with 100 partitions", "us/request", digits=1),
    _less("fetch_at_10000", "with 10,000 partitions", "us/request", digits=1),
    _less("fetch_at_conns", "with 10,000 partitions and 2,000 idle connections", "us/request", digits=1),
    _less("partition_kb", "memory per idle partition that was created", "KB", limit=4.0, digits=2),
    _less(
        "partition_asked_kb",
        "memory per idle partition that was asked for its end",
        "KB",
        limit=4.0,
        digits=2,
    ),
    _less("partition_used_kb", "memory per idle partition that holds a record", "KB", limit=4.0, digits=2),
    _less(
        "groups_partition_kb", "memory per idle partition of __consumer_offsets", "KB", limit=4.0, digits=2
    ),
    _less(
        "member_kb", "memory per member of a group of 100, its connection closed", "KB", limit=10.0, digits=2
    ),
    _less("connection_kb", "memory per idle connection", "KB", limit=3.0, digits=2),
)

BY_KEY = {metric.key: metric for metric in METRICS}
