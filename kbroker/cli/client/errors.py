"""What goes wrong between a client and a cluster, as one sentence for a person. Knows nothing of how it is shown."""

from __future__ import annotations

from typing import Any

from kbroker.errors import ErrorCode, KafkaError


class ClientError(Exception):
    """One sentence that says what failed, with the cure where there is one."""


class Unreachable(ClientError):
    """Nobody answers there, or not in this protocol."""


class Disconnected(ClientError):
    """The connection ended before the answer came."""


class Silent(Disconnected):
    """The answer did not come in time; the connection was given up."""


class TooOld(ClientError):
    """The broker does not speak what is needed."""


# What a code means to the person who asked, where its name alone does not say it.
SENTENCES = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: "there is no such topic or partition",
    ErrorCode.TOPIC_ALREADY_EXISTS: "the topic exists already",
    ErrorCode.LEADER_NOT_AVAILABLE: "the partition has no leader now",
    ErrorCode.NON_EMPTY_GROUP: "the group has members; stop them first",
    ErrorCode.GROUP_ID_NOT_FOUND: "there is no such group",
    ErrorCode.MESSAGE_TOO_LARGE: "the broker takes no batch of this size",
    ErrorCode.OFFSET_OUT_OF_RANGE: "the partition has no record at this offset",
    ErrorCode.TOPIC_AUTHORIZATION_FAILED: "you may not do this with the topic",
    ErrorCode.GROUP_AUTHORIZATION_FAILED: "you may not do this with the group",
    ErrorCode.CLUSTER_AUTHORIZATION_FAILED: "you may not do this in this cluster",
    ErrorCode.NOT_ENOUGH_REPLICAS: "fewer replicas are in sync than min.insync.replicas",
    ErrorCode.COORDINATOR_NOT_AVAILABLE: "no broker coordinates groups now",
    ErrorCode.REQUEST_TIMED_OUT: "the broker was not done in time",
}

# What helps, behind whatever words.
CURES = {
    ErrorCode.MESSAGE_TOO_LARGE: "kbroker topic alter TOPIC --config max.message.bytes=N lets larger ones in",
}


def code_of(number: int) -> ErrorCode:
    """The code; UNKNOWN_SERVER_ERROR for one that is newer than we are."""
    try:
        return ErrorCode(number)
    except ValueError:
        return ErrorCode.UNKNOWN_SERVER_ERROR


def error_of(result: Any) -> KafkaError | None:
    """The error that a result of a response carries, if it does."""
    if not result.error_code:
        return None
    message = getattr(result, "error_message", None)
    if not message and code_of(result.error_code) != result.error_code:
        message = f"error {result.error_code}, which this kbroker does not know"
    return KafkaError(code_of(result.error_code), message)


def raise_error(result: Any) -> None:
    """KafkaError for a result that carries an error."""
    error = error_of(result)
    if error is not None:
        raise error


def say(error: KafkaError) -> str:
    """The error as a person reads it: the broker's own words, else ours, what helps, and the code's name."""
    words = error.message or SENTENCES.get(error.code)
    if not words:
        return error.code.name
    cure = f"; {CURES[error.code]}" if error.code in CURES else ""
    return f"{words.rstrip('.')}{cure} ({error.code.name})"
