"""What the embedded and the external broker share: values as Kafka writes them, refusals as exceptions. Knows no I/O."""

from __future__ import annotations

from typing import Any

from kbroker.errors import ErrorCode, KafkaError


def config_text(value: Any) -> str:
    """A config's value as Kafka writes it: true, 3, a,b."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else str(value)


def raise_if_refused(result: Any) -> None:
    """KafkaError for a result with an error code."""
    if result.error_code:
        try:
            code = ErrorCode(result.error_code)
        except ValueError:
            code = ErrorCode.UNKNOWN_SERVER_ERROR  # newer than we are
        raise KafkaError(code, getattr(result, "error_message", None))
