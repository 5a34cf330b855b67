"""A client metrics subscription: the options of the resource CLIENT_METRICS. The field is the row.

Clients that push metrics (KIP-714) would be told of it; this broker takes none yet, so a subscription is kept, checked and
shown, and nobody is asked for anything.
"""

from __future__ import annotations

import re

from kbroker.config.options import INT, LIST, option, options_of
from kbroker.errors import ErrorCode, KafkaError

INTERVAL_MS_MIN, INTERVAL_MS_MAX = 100, 3_600_000
MATCH_NAMES = frozenset(
    {
        "client_instance_id",
        "client_id",
        "client_software_name",
        "client_software_version",
        "client_source_address",
        "client_source_port",
    }
)
# Length of one pattern: compiling takes time that grows with it, and no client calls itself by a longer name.
PATTERN_LENGTH_MAX = 1000


class ClientMetricsOptions:
    """The rows."""

    interval_ms: int = option(
        "interval.ms", INT, 300_000,
        doc="How often clients push their metrics. Has no effect yet: this broker asks for none.",
    )  # fmt: skip
    match: tuple[str, ...] = option(
        "match", LIST, (),
        doc="Which clients, each as name=pattern; none: all. Has no effect yet: this broker asks none for metrics.",
    )  # fmt: skip
    metrics: tuple[str, ...] = option(
        "metrics", LIST, (),
        doc="Beginnings of the metrics' names; *: all. Has no effect yet: this broker asks for none.",
    )  # fmt: skip


CLIENT_METRICS_OPTIONS = options_of(ClientMetricsOptions)


def check_subscription(values: dict[str, str]) -> None:
    """KafkaError for the first value that a subscription cannot have."""
    for name, text in values.items():
        row = CLIENT_METRICS_OPTIONS.get(name)
        if row is None:
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown client metrics configuration: {name}")
        if row.type is LIST and "" in (part.strip() for part in text.split(",")) and text.strip():
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"Configuration '{name}' values must not be empty.")
        why = row.refusal(text)
        if why is not None:
            raise KafkaError(ErrorCode.INVALID_CONFIG, why)
    if "interval.ms" in values:
        _check_interval(values["interval.ms"])
    for pattern in _members(values.get("match", "")):
        _check_pattern(pattern)


def _check_interval(text: str) -> None:
    if not INTERVAL_MS_MIN <= int(text) <= INTERVAL_MS_MAX:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"Invalid value {text} for interval.ms, interval must be between {INTERVAL_MS_MIN} and {INTERVAL_MS_MAX} "
            "(1 hour)",
        )


def _check_pattern(pattern: str) -> None:
    name, separator, wanted = pattern.partition("=")
    if separator and name.strip() in MATCH_NAMES and "=" not in wanted and len(wanted) <= PATTERN_LENGTH_MAX:
        try:
            re.compile(wanted)
            return
        except (re.error, RecursionError, OverflowError):
            pass  # refused below, like any other that cannot be
    raise KafkaError(ErrorCode.INVALID_CONFIG, f"Illegal client matching pattern: {pattern}")


def _members(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []
