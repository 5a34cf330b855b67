"""The table says what was reached and what was missed."""

from __future__ import annotations

import json

import pytest

from bench import report
from bench.cases import FRESH, KBROKER_ONLY, LOADED
from bench.metrics import BY_KEY, METRICS


def row(key: str, values: dict[str, dict[str, list[float]]], busy: dict[str, dict[str, float]] | None = None):
    return next(r for r in report.rows(values, busy or {}) if r[0] == BY_KEY[key].title)


@pytest.mark.parametrize(("ours", "verdict"), [(180.0, "reached"), (179.0, "missed")])
def test_a_rate_is_reached_from_its_ratio_on(ours, verdict):
    assert verdict == row("produce", {"produce": {"kafka": [100.0], "kbroker": [ours]}})[-1]


@pytest.mark.parametrize(("ours", "verdict"), [(0.3, "reached"), (0.41, "missed")])
def test_a_limit_counts_beside_the_ratio(ours, verdict):
    assert verdict == row("start", {"start": {"kafka": [9.0], "kbroker": [ours]}})[-1]


def test_the_median_of_the_rounds_counts():
    found = row("produce", {"produce": {"kafka": [1.0, 100.0, 110.0], "kbroker": [150.0]}})

    assert ("100", "150", "1.50x") == found[2:5]


def test_fsync_is_compared_with_kafka_without_it():
    values = {"produce": {"kafka": [100.0], "kbroker": [200.0]}, "fsync_produce": {"kbroker": [80.0]}}

    assert ("0.80x", "reached") == (row("fsync_produce", values)[4], row("fsync_produce", values)[-1])


def test_fsync_round_trips_are_compared_with_the_bare_loop():
    values = {"fsync_sync16": {"kbroker": [70.0]}, "bare_synced": {"kbroker": [100.0]}}

    assert ("0.70x", "missed") == (row("fsync_sync16", values)[4], row("fsync_sync16", values)[-1])


def test_one_broker_alone_gives_figures_without_a_ratio():
    assert ("", "200", "") == row("produce", {"produce": {"kbroker": [200.0]}})[2:5]


def test_a_client_without_a_breath_to_spare_is_named():
    values = {"fetch": {"kafka": [100.0], "kbroker": [100.0]}}

    assert "reached (client busy)" == row("fetch", values, {"fetch": {"kafka": 0.97, "kbroker": 0.5}})[-1]


def test_every_page_holds_every_metric_that_was_measured():
    values = {metric.key: {"kafka": [1.0], "kbroker": [1.0]} for metric in METRICS}

    page = report.markdown(values, {}, {"date": "today"}, ["a note"])

    assert all(metric.title in page for metric in METRICS)
    assert set(BY_KEY) == set(json.loads(report.as_json(values, {}, {}))["metrics"])
    assert all(metric.title in report.plain(values, {}) for metric in METRICS)


def test_case_names_are_unique():
    assert not FRESH.keys() & LOADED.keys()
    assert KBROKER_ONLY <= FRESH.keys()
