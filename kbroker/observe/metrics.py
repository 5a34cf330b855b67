"""All metrics, declared in one table. The request path adds to plain numbers; a scrape reads them.

prometheus_client is imported by the first scrape, not before: no broker needs it to start. Imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

API_KEYS_MAX = 128  # rows of the per-API lists; Kafka 4.3's highest key is 92


class Counts:
    """One broker's numbers. Whoever sees an event adds to them: an attribute or a list item, 0.1 us."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "connections",
        "connections_accepted",
        "connections_refused",
        "errors",
        "protocol_errors",
        "requests",
    )

    def __init__(self) -> None:
        self.connections = 0  # open now
        self.connections_accepted = 0
        self.connections_refused = 0  # beyond max.connections
        self.bytes_in = 0
        self.bytes_out = 0
        self.protocol_errors = 0  # connections closed for bytes that are not the protocol
        self.requests = [0] * API_KEYS_MAX  # by API key
        self.errors: dict[int, int] = {}  # by error code, as answered


Sample = tuple[tuple[str, ...], float]  # label values, value


class Metric(NamedTuple):
    """A row: what is shown, and where its value is read."""

    name: str
    kind: str  # gauge | counter
    doc: str
    labels: tuple[str, ...]
    read: Callable[[Counts, Names], Iterable[Sample]]


class Names(NamedTuple):
    """How keys and codes are called, for the labels."""

    apis: Mapping[int, str]
    errors: Mapping[int, str]


def _plain(attribute: str) -> Callable[[Counts, Names], Iterable[Sample]]:
    return lambda counts, names: [((), getattr(counts, attribute))]


def _requests(counts: Counts, names: Names) -> Iterator[Sample]:
    for key, count in enumerate(counts.requests):
        if count:
            yield (names.apis.get(key, str(key)),), count


def _errors(counts: Counts, names: Names) -> Iterator[Sample]:
    for code, count in sorted(counts.errors.items()):
        yield (names.errors.get(code, str(code)),), count


METRICS = (
    Metric("kbroker_connections", "gauge", "Open connections.", (), _plain("connections")),
    Metric(
        "kbroker_connections_accepted", "counter", "Connections accepted.", (), _plain("connections_accepted")
    ),
    Metric(
        "kbroker_connections_refused",
        "counter",
        "Connections closed at once because max.connections were open.",
        (),
        _plain("connections_refused"),
    ),
    Metric(
        "kbroker_protocol_errors",
        "counter",
        "Connections closed for bytes that are not the Kafka protocol.",
        (),
        _plain("protocol_errors"),
    ),
    Metric("kbroker_bytes_in", "counter", "Bytes received from clients.", (), _plain("bytes_in")),
    Metric("kbroker_bytes_out", "counter", "Bytes sent to clients.", (), _plain("bytes_out")),
    Metric("kbroker_requests", "counter", "Requests, by API.", ("api",), _requests),
    Metric("kbroker_errors", "counter", "Errors answered, by error code.", ("error",), _errors),
)


def registry_of(counts: Counts, names: Names) -> CollectorRegistry:
    """A registry, of this broker alone, that reads `counts` at every scrape."""
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(_Collector(counts, names))
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """The metrics as Prometheus' text format."""
    from prometheus_client import generate_latest

    return generate_latest(registry)


class _Collector:
    """What prometheus_client asks at a scrape."""

    def __init__(self, counts: Counts, names: Names) -> None:
        self._counts = counts
        self._names = names

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for metric in METRICS:
            family_of = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
            family = family_of(metric.name, metric.doc, labels=metric.labels)
            for labels, value in metric.read(self._counts, self._names):
                family.add_metric(labels, value)
            yield family
