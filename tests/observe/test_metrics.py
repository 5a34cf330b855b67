"""What a scrape shows."""

from __future__ import annotations

import subprocess
import sys

from kbroker.observe.metrics import METRICS, Counts, Names, exposition, registry_of

NAMES = Names(apis={0: "Produce", 1: "Fetch"}, errors={6: "NOT_LEADER_OR_FOLLOWER"})


def lines_of(counts):
    return exposition(registry_of(counts, NAMES)).decode().splitlines()


def test_a_scrape_reads_the_numbers_as_they_are_then():
    counts = Counts()
    registry = registry_of(counts, NAMES)
    counts.connections = 3
    counts.bytes_in += 100

    lines = exposition(registry).decode().splitlines()

    assert "kbroker_connections 3.0" in lines
    assert "kbroker_bytes_in_total 100.0" in lines


def test_requests_and_errors_carry_names_and_only_what_happened():
    counts = Counts()
    counts.requests[1] += 2
    counts.errors[6] = 1
    counts.errors[999] = 4

    lines = lines_of(counts)

    assert 'kbroker_requests_total{api="Fetch"} 2.0' in lines
    assert 'kbroker_errors_total{error="NOT_LEADER_OR_FOLLOWER"} 1.0' in lines
    assert 'kbroker_errors_total{error="999"} 4.0' in lines
    assert not any("Produce" in line for line in lines)


def test_every_metric_says_what_it_is():
    assert all(metric.doc.endswith(".") for metric in METRICS)
    assert len(METRICS) == len({metric.name for metric in METRICS})


def test_declaring_metrics_does_not_import_prometheus_client():
    code = "import sys, kbroker.observe.metrics; assert 'prometheus_client' not in sys.modules"

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode
