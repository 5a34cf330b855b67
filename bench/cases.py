"""What is measured: the table of cases. A case knows a running broker and where its figures go, nothing else.

LOADED cases run one after the other on one broker that has been warmed; FRESH ones start their own.
"""

from __future__ import annotations

from collections.abc import Callable

from bench import compaction, fresh, groups, loaded
from bench.brokers import Peer
from bench.common import Bench

# What Kafka has no counterpart to.
KBROKER_ONLY = frozenset({"scaling", "partitions", "fsync", "group-memory"})

# They do one round: on one broker, on the other, and so on. The others, which leave groups behind or need long to begin,
# do all of theirs at once.
BY_ROUNDS = frozenset({"produce", "sync", "small", "fetch", "rdkafka", "latency", "tls-produce", "tls-fetch"})

FRESH: dict[str, Callable[[Bench, str], None]] = {
    "start": fresh.start_up,
    "memory": fresh.memory,
    "scaling": fresh.scaling,
    "partitions": fresh.partitions,
    "fsync": fresh.fsync,
    "group-memory": groups.memory,
    "compaction": compaction.compaction,
}
LOADED: dict[str, Callable[[Bench, Peer], None]] = {
    "produce": loaded.produce,
    "sync": loaded.sync,
    "small": loaded.small,
    "fetch": loaded.fetch,
    "rdkafka": loaded.rdkafka,
    "latency": loaded.latency,
    "tls-produce": loaded.tls_produce,
    "tls-fetch": loaded.tls_fetch,
    "rebalance": groups.rebalance,
    "commits": groups.commits,
    "group-consume": groups.consume,
    "topics": loaded.topics,
    "loaded": loaded.loaded,
}
