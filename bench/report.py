"""The figures as tables and JSON. Knows metrics, nothing of brokers or loads."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.metrics import BY_KEY, METRICS, Metric

Values = Mapping[str, Mapping[str, Sequence[float]]]

# A client as busy as this may have measured itself.
BUSY = 0.9


def medians(values: Values) -> dict[str, dict[str, float]]:
    return {key: {peer: statistics.median(v) for peer, v in of.items()} for key, of in values.items()}


def as_json(values: Values, client_busy: Mapping[str, Mapping[str, float]], facts: Mapping[str, Any]) -> str:
    """Everything, the single rounds too."""
    metrics = {
        key: {
            "title": BY_KEY[key].title if key in BY_KEY else key,
            "unit": BY_KEY[key].unit if key in BY_KEY else "",
            "median": {peer: statistics.median(v) for peer, v in of.items()},
            "rounds": {peer: list(v) for peer, v in of.items()},
            "client_busy": dict(client_busy.get(key, {})),
        }
        for key, of in values.items()
    }
    return json.dumps({"facts": dict(facts), "metrics": metrics}, indent=1) + "\n"


def rows(values: Values, client_busy: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, ...]]:
    """(what, unit, Kafka, kbroker, ratio, target, verdict) per metric that was measured."""
    found = medians(values)
    for metric in METRICS:
        if metric.key not in found:
            continue
        ours, theirs = found[metric.key].get("kbroker"), found[metric.key].get("kafka")
        reference = theirs
        if metric.against is not None:
            other = found.get(metric.against, {})
            reference = other.get("kafka", other.get("kbroker"))
        ratio = ours / reference if ours is not None and reference else None
        busy = max(client_busy.get(metric.key, {}).values(), default=0.0)
        yield (
            metric.title,
            metric.unit,
            _number(metric, theirs),
            _number(metric, ours),
            "" if ratio is None else f"{ratio:.2f}x",
            _target(metric),
            _verdict(metric, ratio, ours) + (" (client busy)" if busy > BUSY else ""),
        )


def markdown(
    values: Values,
    client_busy: Mapping[str, Mapping[str, float]],
    facts: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    """A page: where the figures come from, then the table."""
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    lines += [f"- {note}" for note in notes]
    lines += ["", "| | unit | Apache Kafka | kbroker | ratio | to reach | |", "|---|---|--:|--:|--:|--:|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows(values, client_busy)]
    return "\n".join(lines) + "\n"


def plain(values: Values, client_busy: Mapping[str, Mapping[str, float]]) -> str:
    """The same table for a terminal."""
    table = [("", "unit", "Kafka", "kbroker", "ratio", "to reach", ""), *rows(values, client_busy)]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    left = {0, 1, 6}
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def _number(metric: Metric, value: float | None) -> str:
    return "" if value is None else f"{value:,.{metric.digits}f}"


def _target(metric: Metric) -> str:
    parts = []
    sign = ">=" if metric.more_is_better else "<="
    if metric.ratio is not None:
        parts.append(f"{sign} {metric.ratio:g}x")
    if metric.limit is not None:
        parts.append(f"{sign} {metric.limit:g} {metric.unit}")
    return ", ".join(parts)


def _verdict(metric: Metric, ratio: float | None, ours: float | None) -> str:
    checks = []
    if metric.ratio is not None and ratio is not None:
        checks.append(ratio >= metric.ratio if metric.more_is_better else ratio <= metric.ratio)
    if metric.limit is not None and ours is not None:
        checks.append(ours >= metric.limit if metric.more_is_better else ours <= metric.limit)
    if not checks:
        return ""
    return "reached" if all(checks) else "missed"
